"""The public API as type checkers see it. Nothing here is run: `test_typing.py` has it checked.

A line with an `ignore` is a mistake that a checker must find; both report an ignore without one.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple, assert_type

import headway
from headway import (
    Backoff,
    Checkpoint,
    CheckpointError,
    CheckpointFenced,
    Directory,
    File,
    HeadwayError,
    InputError,
    NonRecoverableError,
    Preempted,
    RecoverableError,
    Steps,
    StorageError,
    StorageFull,
    TaskFailed,
    current_context,
    task,
    track,
    workflow,
)


class Fit(NamedTuple):
    """Two named outputs."""

    weights: list[float]
    loss: float


@task
def bare(a: int, b: str = "x") -> float:
    """A task without options."""
    return a + len(b)


@task(
    retries=3,
    interruptible=True,
    max_interruptions=20,
    timeout=60.0,
    backoff=Backoff(initial=1, factor=2, maximum=60, jitter=0.1),
    keep="all",
    keep_best=("loss", "min"),
)
def fit(data: File, rounds: int) -> Fit:
    """A task with every option there is."""
    return Fit([0.0] * rounds, float(data.path.stat().st_size))


@task()
def folder() -> Directory:
    """A task with empty options, whose result is a directory."""
    return Directory("out")


@workflow
def flow(a: int = 1) -> float:
    """A workflow that calls tasks as if they were functions."""
    fitted = fit(data=File("data"), rounds=a)
    assert_type(fitted, Fit)
    assert_type(fitted.loss, float)
    return bare(a=a)


def tasks_keep_their_signatures() -> None:
    """Calls are checked as those of the function would be."""
    assert_type(bare(1), float)
    assert_type(bare(a=1, b="y"), float)
    assert_type(folder(), Directory)
    assert_type(flow(), float)
    bare(a="1")  # type: ignore[arg-type]
    bare()  # type: ignore[call-arg]
    bare(a=1, c=2)  # type: ignore[call-arg]
    flow(a=None)  # type: ignore[arg-type]
    task(retries="3")  # type: ignore[call-overload]
    task(retrys=3)  # type: ignore[call-overload]


def checkpoints() -> None:
    """Flyte's low-level API, with types."""
    cp = current_context().checkpoint
    assert_type(cp, Checkpoint)
    assert_type(cp.prev_exists(), bool)
    assert_type(cp.read(), bytes | None)
    assert_type(cp.restore(), Path | None)
    assert_type(cp.restore("here"), Path | None)
    assert_type(cp.directory("crawl"), Path)
    cp.write(b"state")
    cp.write(bytearray(b"state"))
    cp.save("file")
    cp.save(Path("directory"))
    cp.save(io.BytesIO(b"state"))
    with open("file", "rb") as stream:
        cp.save(stream)
    cp.flush()
    assert_type(cp.step("length", len, "abc"), int)
    assert_type([each.number for each in cp.history()], list[int])
    cp.write("text")  # type: ignore[arg-type]
    cp.save(io.StringIO("text"))  # type: ignore[arg-type]
    cp.save(3)  # type: ignore[arg-type]
    len(cp.read())  # type: ignore[arg-type]


def loops() -> None:
    """A tracked loop keeps the types of its items."""
    state = track(every=Steps(10), rng=False, weights=[0.0], best=0.0)
    for epoch in state.range(1, 10, 2):
        assert_type(epoch, int)
        for name in state.iterate(["a", "b"]):
            assert_type(name, str)
    state.best = max(state.best, 1.0)
    track(every="often", x=1)  # type: ignore[arg-type]
    track(every=None, x=1)  # type: ignore[arg-type]


def contexts() -> None:
    """What a body can ask about itself."""
    context = current_context()
    assert_type(context.run, str)
    assert_type(context.node, str)
    assert_type(context.attempt, int)
    assert_type(context.retries_left, int)


def errors() -> None:
    """Errors can be caught by what a handler would do about them."""
    try:
        flow()
    except TaskFailed as failed:
        assert_type(failed.run, str)
        assert_type(failed.node, str)
        assert_type(failed.outcome, str)
    except (CheckpointFenced, CheckpointError, InputError, StorageFull):
        raise RecoverableError("again") from None
    except (OSError, ValueError):  # StorageError and InputError are also these
        raise NonRecoverableError("never") from None
    everything: list[type[BaseException]] = [HeadwayError, StorageError, Preempted]
    assert_type(everything, list[type[BaseException]])
    headway.tsk  # type: ignore[attr-defined]  # noqa: B018

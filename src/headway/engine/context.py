"""Which attempt this process is running: what `current_context()` gives a task body."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headway.checkpoint.cadence import Every, Record
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.track import Observe
from headway.model.errors import HeadwayError
from headway.model.program import Saved, Warned
from headway.ports import Leave


@dataclass(frozen=True, slots=True)
class Context:
    """The attempt that a task body belongs to.

    Attributes:
        run: id of the run.
        node: name of the node within the run (`train`, `train-2`).
        attempt: number of this attempt, from 0.
        retries_left: failures that may still be retried after this attempt.
        checkpoint: the node's saved state, over all its attempts.
        inputs: digest of the node's inputs.
        scratch: directory for what may go with the process; None is the system's place for such.
        beside: a checkpoint of the node's in a ledger of its own, under a name.
        leave: what is known about being told to go; None where nobody can say.
        warn: takes what a person should know.
        observe: for `headway verify`: is shown the state of a tracked loop at each boundary.
        every: for the same: how often `track` saves, whatever it was told.
        record: how attempts fared in this home lately, for `track(every="auto")`.
        tracked: not empty once `track` was called.
    """

    run: str
    node: str
    attempt: int
    retries_left: int
    checkpoint: Checkpoint
    leave: Leave | None = None
    warn: Callable[[Saved | Warned], None] = lambda _: None
    observe: Observe | None = None
    every: Every | None = None
    record: Callable[[], Record] = Record
    tracked: list[bool] = field(default_factory=list)
    inputs: str = ""
    scratch: Path | None = None
    beside: Callable[[str], Checkpoint] | None = None


# A process runs one attempt at a time, and threads that the body starts belong to it too: so this is
# a global, and not a context variable, which new threads would not see.
_current: Context | None = None


def current_context() -> Context:
    """The attempt that this process is running.

    Raises:
        HeadwayError: no task body is running here.
    """
    if _current is None:
        raise HeadwayError(
            "current_context() works inside the body of a task that headway runs, and none is "
            "running in this process. Call it in a function decorated with @task, and start that "
            "with `headway run FILE TASK`, or by calling the task."
        )
    return _current


def current() -> Context | None:
    """The attempt that this process is running, if it is."""
    return _current


def in_body() -> bool:
    """Whether this process is running a task body."""
    return _current is not None


@contextlib.contextmanager
def entered(context: Context) -> Iterator[None]:
    """Make `context` the current one; afterwards the one before is current again."""
    global _current  # noqa: PLW0603  # see above: one per process, by design
    before, _current = _current, context
    try:
        yield
    finally:
        _current = before

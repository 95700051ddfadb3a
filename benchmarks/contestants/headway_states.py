"""headway and large states: what a save and a restore take, in time, in processor, in memory, on the disk.

All of it on the public `open_checkpoint`. A figure whose part of headway is not there yet fails, and says
which part.
"""

from __future__ import annotations

import contextlib
import inspect
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import big
from benchmarks.contestants.protocol import Measured, Round, serve
from headway import open_checkpoint

STEP = 1.0  # seconds that the first step of a training takes, in which memory is prepared
KEEP = 2


@contextlib.contextmanager
def background(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Saves in the background, one after the other, everything changed in between, space recycled.

    A turn is the median of `times` saves: seconds that the caller is blocked, seconds until it is
    durable, processor seconds between these two.
    """
    weights = big.state(options["layers"])
    with opened(place / "home" / "train", keep=KEEP) as cp:
        begin = beginner(cp)

        def round_() -> Measured:
            return medians([_one(begin, weights) for _ in range(options["times"])])

        yield round_


@contextlib.contextmanager
def first(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """The first save of a process: seconds blocked by it, and by a later one. One turn only.

    With `prepare`, memory is made ready during a first step of a second.
    """
    weights = big.state(options["layers"])
    with opened(place / "home" / "train", keep=KEEP) as cp:
        begin = beginner(cp)

        def round_() -> Measured:
            if options["prepare"]:
                part(cp, "prepare")(weights)
            _step(weights)
            blocked = [_one(begin, weights)[0] for _ in range(6)]
            return [blocked[0], statistics.median(blocked[3:])]

        yield round_


@contextlib.contextmanager
def fresh(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """A blocking save into a new lineage: all of it is new space. Seconds."""
    number = 0

    def round_() -> Measured:
        nonlocal number
        number += 1
        weights = big.state(options["layers"], version=number)
        with opened(place / f"home-{number}" / "train") as cp:
            taken = big.seconds(lambda: cp.save(weights))
        weights.clear()
        big.release()
        big.remove(place / f"home-{number}")
        return [taken]

    yield round_


@contextlib.contextmanager
def recycled(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """A blocking save of which everything is new, in a lineage that keeps the last two. Seconds."""
    with opened(place / "home" / "train", keep=KEEP) as cp:
        number = 0

        def once() -> float:
            nonlocal number
            number += 1
            weights = big.state(options["layers"], version=number)
            taken = big.seconds(lambda: cp.save(weights))
            weights.clear()
            big.release()
            return taken

        for _ in range(KEEP + 2):
            once()
        yield lambda: [once()]


@contextlib.contextmanager
def restore(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Restore in place, from the disk and then from the system's memory: seconds of both. The lineage
    is opened anew for each, and that counts."""
    layers, home = options["layers"], place / "home"
    with opened(home / "train") as cp:
        cp.save(big.state(layers))

    def once(version: str) -> float:
        live = big.blank(layers)

        def load() -> None:
            with opened(home / "train") as cp:
                if cp.load(into=live) is None:
                    raise AssertionError(f"there is no checkpoint ({version})")

        taken = big.seconds(load)
        big.prove_equal(live, layers)
        return taken

    def round_() -> Measured:
        big.release()
        big.forget(home)
        cold = once("cold")
        big.warm(home)
        return [cold, once("warm")]

    yield round_


@contextlib.contextmanager
def changes(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Background saves after a hundredth of the state changed in one place, after as much in rows of
    2 KiB all over it, and after nothing changed: for each, seconds blocked and bytes written."""
    weights = big.state(options["layers"])
    total = big.size_of(weights)
    flat = [each.reshape(-1, 512) for each in weights.values()]  # rows of 2 KiB
    rng = np.random.default_rng(1)

    def in_one_place() -> None:
        left = total // 100 // 2048
        for rows in flat:
            taken = min(left, len(rows))
            rows[:taken] += 1
            left -= taken

    def in_rows() -> None:
        for rows in flat:
            chosen = rng.choice(len(rows), len(rows) // 100, replace=False)
            rows[chosen] += 1

    with opened(place / "home" / "train", keep=KEEP) as cp:
        begin = beginner(cp)
        for _ in range(2):
            begin(weights).wait()

        def round_() -> Measured:
            measured = []
            for alter in (in_one_place, in_rows, lambda: None):
                big.change(weights.values())  # a whole save first: each begins with the same
                begin(weights).wait()
                alter()
                before = big.bytes_written()
                began = time.perf_counter()
                handle = begin(weights)
                measured.append(time.perf_counter() - began)
                handle.wait()
                measured.append(float(big.bytes_written() - before))
            return measured

        yield round_


@contextlib.contextmanager
def memory(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Bytes of memory at most beside the state, in two saves that block or do not. One turn only."""
    layers = options["layers"]
    with opened(place / "home" / "train", keep=KEEP) as cp:
        cp.save({"small": np.zeros(4)})  # imports what a save imports
        weights = big.state(layers)

        def round_() -> Measured:
            begin = beginner(cp) if options["background"] else None
            peak = big.Peak()
            for _ in range(2):
                big.change(weights.values())
                if begin:
                    begin(weights).wait()
                else:
                    cp.save(weights)
            return [float(peak.more())]

        yield round_


def opened(place: str | Path, **options: Any) -> contextlib.AbstractContextManager[Any]:
    """`open_checkpoint`, or an error that says what it does not take yet."""
    lacking = options.keys() - inspect.signature(open_checkpoint).parameters.keys()
    if lacking:
        raise NotImplementedError(f"open_checkpoint({', '.join(lacking)}=…) is not there yet")
    return open_checkpoint(str(place), **options)


def beginner(cp: Any) -> Callable[[Any], Any]:
    """What begins a save in the background."""
    if "wait" not in inspect.signature(cp.save).parameters:
        raise NotImplementedError("save(…, wait=False) is not there yet")
    return lambda weights: cp.save(weights, wait=False)


def part(cp: Any, name: str) -> Any:
    """A method of it."""
    if not hasattr(cp, name):
        raise NotImplementedError(f"{name}() is not there yet")
    return getattr(cp, name)


def medians(turns: list[list[float]]) -> list[float]:
    """Of each column."""
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def _one(begin: Callable[[Any], Any], weights: big.State) -> list[float]:
    big.change(weights.values())
    began = time.perf_counter()
    handle = begin(weights)
    blocked = time.perf_counter() - began
    used = big.processor_seconds()
    handle.wait()
    durable = time.perf_counter() - began
    return [blocked, durable, big.processor_seconds() - used]


def _step(weights: big.State) -> None:
    until = time.perf_counter() + STEP
    while time.perf_counter() < until:
        big.change(weights.values())


if __name__ == "__main__":
    serve(
        {
            "background": background,
            "first": first,
            "fresh": fresh,
            "recycled": recycled,
            "restore": restore,
            "changes": changes,
            "memory": memory,
        }
    )

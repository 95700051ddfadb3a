"""A training on all cores that saves once a second: how much slower it gets.

Runs in the environment of PyTorch; headway too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.contestants import torch_peer
from benchmarks.contestants.headway_states import KEEP, beginner, opened
from benchmarks.contestants.protocol import Measured, Round, serve
from headway.checkpoint.track import Tracked
from headway.tracking import tracker

THREADS = 2
WIDTH = 1024
PRODUCTS = 8  # of matrices a step
EVERY = 1.0  # seconds from the beginning of a save to that of the next

Begin = Callable[[torch_peer.Tensors], Callable[[], object]]


class Saver:
    """Saves a state once a second.

    Args:
        state: what is saved.
        begin: begins a save, and returns what waits for its end.
    """

    def __init__(self, state: torch_peer.Tensors, begin: Begin) -> None:
        self._state, self._begin = state, begin
        self._wait: Callable[[], object] = lambda: None
        self._due = 0.0

    def start(self) -> None:
        """The training begins: a save is due."""
        self._due = time.perf_counter()

    def between(self) -> None:
        """Between two steps."""
        if time.perf_counter() >= self._due:
            self._wait()  # one at a time
            self._wait = self._begin(self._state)
            self._due += EVERY

    def end(self) -> None:
        """What was begun ends."""
        self._wait()
        self._wait = lambda: None


class _Tracked(Saver):
    """`track(every=1)` does it."""

    def __init__(self, state: torch_peer.Tensors, cp: Any) -> None:
        tracked = Tracked(tracker("track()", {"state": state}, every=EVERY, checkpoint=cp))
        self._turns = tracked.range(1 << 40)
        self._flush = cp.flush

    def start(self) -> None:
        pass

    def between(self) -> None:
        next(self._turns)

    def end(self) -> None:
        self._flush()


@contextlib.contextmanager
def slowed(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Train for `seconds` without saving and then for as long with a save a second; in parts of one by
    how much each step took longer."""
    torch.set_num_threads(THREADS)
    count = options["mib"] // 4  # each of 4 MiB
    state = {str(number): torch.rand(WIDTH, WIDTH) for number in range(count)}
    with SAVERS[options["tool"]](place, state) as saver:
        _train(state, options["seconds"], None)
        saver.start()
        saver.between()
        saver.end()

        def round_() -> Measured:
            alone = _train(state, options["seconds"], None)
            beside = _train(state, options["seconds"], saver)
            return [beside / alone - 1, alone]

        yield round_


def _train(state: torch_peer.Tensors, seconds: float, saver: Saver | None) -> float:
    """Seconds that a step takes, with what the saves cost in it."""
    steps = 0
    began = time.perf_counter()
    if saver:
        saver.start()
    while time.perf_counter() < began + seconds:
        if saver:
            saver.between()
        _step(state, steps)
        steps += 1
    if saver:
        saver.end()
    return (time.perf_counter() - began) / steps


def _step(state: torch_peer.Tensors, number: int) -> None:
    """Forward and backward on both cores, and then every weight changes."""
    weights = list(state.values())
    for product in range(PRODUCTS):
        torch.mm(weights[product % len(weights)], weights[(number + product) % len(weights)])
    for each in weights:
        each.mul_(1 - 2**-12)


@contextlib.contextmanager
def _headway(place: Path, state: torch_peer.Tensors) -> Iterator[Saver]:
    with opened(place / "home" / "train", keep=KEEP) as cp:
        begin = beginner(cp)
        yield Saver(state, lambda state: begin(state).wait)


@contextlib.contextmanager
def _track(place: Path, state: torch_peer.Tensors) -> Iterator[Saver]:
    with opened(place / "home" / "train", keep=KEEP) as cp:
        yield _Tracked(state, cp)


@contextlib.contextmanager
def _torch(place: Path, state: torch_peer.Tensors) -> Iterator[Saver]:
    way = torch_peer.WAYS["torch.save"]
    yield Saver(state, lambda state: way.begin(state, place / "checkpoint"))


@contextlib.contextmanager
def _distributed(place: Path, state: torch_peer.Tensors) -> Iterator[Saver]:
    with torch_peer.group(place):
        way = torch_peer.WAYS["DCP"]
        yield Saver(state, lambda state: way.begin(state, place / "checkpoint"))


SAVERS = {"headway": _headway, "track": _track, "torch.save": _torch, "DCP": _distributed}

if __name__ == "__main__":
    serve({"slowed": slowed})

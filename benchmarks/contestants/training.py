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

THREADS = 2
WIDTH = 1024
PRODUCTS = 8  # of matrices a step
EVERY = 1.0  # seconds from the beginning of a save to that of the next

Begin = Callable[[torch_peer.Tensors], Callable[[], object]]


@contextlib.contextmanager
def slowed(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Train for `seconds` without saving and then for as long with a save a second; in parts of one by
    how much each step took longer."""
    torch.set_num_threads(THREADS)
    count = options["mib"] // 4  # each of 4 MiB
    state = {str(number): torch.rand(WIDTH, WIDTH) for number in range(count)}
    with SAVERS[options["tool"]](place) as begin:
        _train(state, options["seconds"], None)
        begin(state)()

        def round_() -> Measured:
            alone = _train(state, options["seconds"], None)
            beside = _train(state, options["seconds"], begin)
            return [beside / alone - 1, alone]

        yield round_


def _train(state: torch_peer.Tensors, seconds: float, begin: Begin | None) -> float:
    """Seconds that a step takes, with what the saves cost in it."""
    steps, wait = 0, None
    began = time.perf_counter()
    save_at = began
    while (now := time.perf_counter()) < began + seconds:
        if begin and now >= save_at:
            if wait:
                wait()  # one at a time
            wait = begin(state)
            save_at += EVERY
        _step(state, steps)
        steps += 1
    if wait:
        wait()
    return (time.perf_counter() - began) / steps


def _step(state: torch_peer.Tensors, number: int) -> None:
    """Forward and backward on both cores, and then every weight changes."""
    weights = list(state.values())
    for product in range(PRODUCTS):
        torch.mm(weights[product % len(weights)], weights[(number + product) % len(weights)])
    for each in weights:
        each.mul_(1 - 2**-12)


@contextlib.contextmanager
def _headway(place: Path) -> Iterator[Begin]:
    with opened(place / "home" / "train", keep=KEEP) as cp:
        begin = beginner(cp)
        yield lambda state: begin(state).wait


@contextlib.contextmanager
def _torch(place: Path) -> Iterator[Begin]:
    yield lambda state: torch_peer.WAYS["torch.save"].begin(state, place / "checkpoint")


@contextlib.contextmanager
def _distributed(place: Path) -> Iterator[Begin]:
    with torch_peer.group(place):
        yield lambda state: torch_peer.WAYS["DCP"].begin(state, place / "checkpoint")


SAVERS = {"headway": _headway, "torch.save": _torch, "DCP": _distributed}

if __name__ == "__main__":
    serve({"slowed": slowed})

"""A PyTorch training whose state `track` saves: what its saves cost the loop.

Runs in the environment of PyTorch; headway too.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.contestants import big
from benchmarks.contestants.headway_states import KEEP, opened
from benchmarks.contestants.protocol import Measured, Round, serve
from headway import Steps
from headway.checkpoint.track import Tracked
from headway.tracking import tracker

THREADS = 2
ROWS = 64
"""Examples in a batch."""
EVERY = 4
"""Steps from one save to the next."""


@contextlib.contextmanager
def blocked(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Parameters and an optimizer's momentum, `layers` in all; in each step forward, backward, and a change
    of every number. A turn is the median of `times` saves: seconds between two steps of the loop that a
    save begins in, and that the next step of the optimizer waits for it.
    """
    torch.set_num_threads(THREADS)
    weights = [
        torch.nn.Parameter(torch.from_numpy(each))
        for each in big.state(options["layers"] // 2).values()
    ]
    inputs = {size: torch.rand(ROWS, size) for size in {len(each) for each in weights}}
    optimizer = torch.optim.SGD(weights, lr=1e-6, momentum=0.9)
    clock = _Clock(optimizer)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack([(inputs[len(each)] @ each).mean() for each in weights]).sum().backward()
        optimizer.step()

    step()  # the optimizer has its momentum from here on
    with opened(place / "home" / "train", keep=KEEP) as cp:
        state = Tracked(
            tracker(
                "track()",
                {"weights": weights, "optimizer": optimizer},
                every=Steps(EVERY),
                overlap=options["overlap"],
                checkpoint=cp,
            )
        )
        clock.end_here()
        turns = state.range(1 << 40)
        next(turns)

        def newest() -> int:
            past = cp.history()
            return past[-1].number if past else 0

        saved = [newest()]

        def once() -> float:
            for _ in range(EVERY):  # the last of them is followed by a save
                step()
                began = time.perf_counter()
                next(turns)
                between = time.perf_counter() - began
            step()
            cp.flush()
            made = newest()
            if made == saved[0]:
                raise AssertionError("no save began where one was due")
            saved[0] = made
            return between + clock.waited

        def round_() -> Measured:
            return [statistics.median(once() for _ in range(options["times"]))]

        yield round_
        turns.close()  # type: ignore[attr-defined]


class _Clock:
    """How long the newest step waited in the hooks that were registered between this and `end_here`."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._began = 0.0
        self.waited = 0.0
        optimizer.register_step_pre_hook(self._begin)

    def end_here(self) -> None:
        self._optimizer.register_step_pre_hook(self._end)

    def _begin(self, *_: object) -> None:
        self._began = time.perf_counter()

    def _end(self, *_: object) -> None:
        self.waited = time.perf_counter() - self._began


if __name__ == "__main__":
    serve({"blocked": blocked})

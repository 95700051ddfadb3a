"""Prefect: a flow of tasks in sequence, on the temporary server that it starts for itself."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prefect

from benchmarks.contestants.protocol import Measured, Round, serve


@contextlib.contextmanager
def chain(_: Path, options: dict[str, Any]) -> Iterator[Round]:
    """A flow of `tasks` tasks in sequence; seconds per task."""
    tasks = options["tasks"]

    def _increment(x: int) -> int:
        return x + 1

    increment = prefect.task(_increment)

    def _chain() -> int:
        x = 0
        for _ in range(tasks):
            x = increment(x)
        return x

    flow = prefect.flow(_chain)

    def round_() -> Measured:
        began = time.perf_counter()
        result = flow()
        seconds = time.perf_counter() - began
        if result != tasks:
            raise AssertionError(f"the chain's result is {result}")
        return [seconds / tasks]

    yield round_


if __name__ == "__main__":
    serve({"chain": chain})

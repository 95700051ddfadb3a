"""flytekit: its checkpoint's `write`, and a chain of tasks run locally."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flytekit
from flytekit.core.checkpointer import SyncCheckpoint

from benchmarks.contestants.files import each
from benchmarks.contestants.protocol import Measured, Round, serve


def _increment(x: int) -> int:
    return x + 1


increment = flytekit.task(_increment)


@contextlib.contextmanager
def write(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """One `write` a sample; nothing is fsynced."""
    checkpoint = SyncCheckpoint(checkpoint_dest=str(place / "checkpoint"))
    yield lambda: each(checkpoint.write, options)


@contextlib.contextmanager
def tree(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """`save` of a directory, and `sync`, as flytekit fsyncs nothing; seconds."""

    def save() -> None:
        SyncCheckpoint(checkpoint_dest=str(place / "checkpoint")).save(Path(options["source"]))
        os.sync()

    def round_() -> Measured:
        os.sync()
        began = time.perf_counter()
        save()
        seconds = time.perf_counter() - began
        shutil.rmtree(place / "checkpoint")
        return [seconds]

    yield round_


@contextlib.contextmanager
def chain(_: Path, options: dict[str, Any]) -> Iterator[Round]:
    """A workflow of `tasks` tasks in sequence, run in this process; seconds per task."""
    tasks = options["tasks"]

    def body(x: int) -> int:
        for _ in range(tasks):
            x = increment(x=x)
        return x

    workflow = flytekit.workflow(body)

    def round_() -> Measured:
        began = time.perf_counter()
        result = workflow(x=0)
        seconds = time.perf_counter() - began
        if result != tasks:
            raise AssertionError(f"the chain's result is {result}")
        return [seconds / tasks]

    yield round_


if __name__ == "__main__":
    serve({"write": write, "tree": tree, "chain": chain})

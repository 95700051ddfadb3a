"""headway's `checkpoint.write`, on the parts that a task's own checkpoint is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contestants.files import each
from benchmarks.contestants.protocol import Round, serve
from headway.checkpoint.handle import Checkpoint
from headway.storage.local import LocalStorage


@contextlib.contextmanager
def write(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """One `write` a sample, all into the ledger of one node."""
    checkpoint = Checkpoint(LocalStorage(place), "runs/bench/nodes/train")
    yield lambda: each(checkpoint.write, options)
    checkpoint.close()


if __name__ == "__main__":
    serve({"write": write})

"""Files, many small ones and a large one: saved by headway, or copied by `cp` and `sync`."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import big
from benchmarks.contestants.protocol import Measured, Round, serve

PER_DIRECTORY = 1000


@contextlib.contextmanager
def headway(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Save it into a new lineage: seconds, and the most memory that this took."""
    from headway import open_checkpoint

    number, source = 0, Path(options["source"])
    with open_checkpoint(str(place / "first" / "files")) as cp:
        cp.write(b"something")  # imports what a save imports

    def round_() -> Measured:
        nonlocal number
        number += 1
        home = place / f"home-{number}"
        if options["cold"]:
            big.forget(source)
        with open_checkpoint(str(home / "files")) as cp:
            peak = big.Peak()
            taken = big.seconds(lambda: cp.save(source))
            most = peak.more()
        big.remove(home)
        return [taken, float(most)]

    yield round_


@contextlib.contextmanager
def cp(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """`cp -r` and `sync`; seconds."""

    source = Path(options["source"])

    def copy() -> None:
        subprocess.run(["cp", "-r", str(source), str(place / "copy")], check=True)
        subprocess.run(["sync"], check=True)

    def round_() -> Measured:
        if options["cold"]:
            big.forget(source)
        os.sync()  # what others left to write is not for `sync` to wait for
        taken = big.seconds(copy)
        big.remove(place / "copy")
        return [taken]

    yield round_


def many(place: Path, count: int, size: int) -> None:
    """`count` files of `size` bytes that do not compress, a thousand in a directory."""
    content = random.Random(1).randbytes(size + count)
    for number in range(count):  # each begins one byte further on
        below = place / f"{number // PER_DIRECTORY:03}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{number:06}.bin").write_bytes(content[number : number + size])
    os.sync()


def one(path: Path, size: int) -> None:
    """A file of `size` bytes that do not compress, no part of it like another."""
    rng, step = np.random.default_rng(2), 8 << 20
    content = rng.integers(0, 2**64, step // 8, np.uint64)
    with path.open("wb") as file:
        for start in range(0, size, step):
            (content + np.uint64(start)).view(np.uint8)[: size - start].tofile(file)
    big.sync(path)


if __name__ == "__main__":
    serve({"headway": headway, "cp": cp})

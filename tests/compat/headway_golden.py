"""The program whose runs are in the golden homes. What it saves and returns must never change: homes that
older releases wrote are compared with it. Something new gets a new task, and a new home.

It is imported by this name, from a directory on Python's path, so that no home holds a path.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

from headway import Directory, File, current_context, task, workflow


def pattern(name: str, size: int) -> bytes:
    """Bytes that compress well, and say what they are."""
    return (f"{name}." * size).encode()[:size]


def plain() -> dict[str, Any]:
    """A value of every plain kind."""
    return {
        "none": None,
        "yes": True,
        "numbers": [0, -1, 2**63, -(2**90), 1.5, -0.0, math.inf, 1e-320],
        "text": "ünïcödé 日本語 🦆",
        "bytes": [b"", b"few", pattern("more", 200)],
        "nested": {
            "tuple": (1, ("two", [3.0])),
            "dollar": {"$": "not a tag"},
            "empty": [{}, [], ()],
        },
        "keys": {1: "one", None: "none", (1, 2): "pair", b"k": "bytes"},
    }


def state(step: int, *, large: bool) -> dict[str, Any]:
    """Typed state; of large ones a part stays as it is."""
    import numpy as np

    size = 10_000 if large else 12
    return {
        **plain(),
        "step": step,
        "frozen": np.arange(size, dtype="<i4"),
        "weights": np.full((size // 3, 3), step, np.float16),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "words": np.array(["a", "bcd"]),
        "record": np.array([(1, 2.0)], dtype=[("a", ">i4"), ("b", "<f8")]),
        "empty": np.zeros((0, 4), np.int8),
        "scalar": np.float32(1.25),
        "buffer": bytearray(pattern("buffer", 100)),
    }


def tensors(step: int) -> dict[str, Any]:
    """State with PyTorch tensors, some of which share memory."""
    import torch

    base = torch.arange(40, dtype=torch.float32).reshape(8, 5) + step
    return {
        "base": base,
        "row": base[2],
        "T": base.T,
        "bf16": torch.full((3,), step, dtype=torch.bfloat16),
        "f8": torch.tensor([1.0, -2.0]).to(torch.float8_e4m3fn),
        "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2, 2), requires_grad=True),
        "none": torch.zeros(0, 3),
        "large": torch.full((20_000,), step, dtype=torch.int32),
    }


TREE: dict[str, tuple[int, bytes]] = {
    "a.txt": (0o644, b"a"),
    "bin/large": (0o600, pattern("large", 70_000)),
    "bin/run.sh": (0o750, b"#!/bin/sh\n"),
    "ünï": (0o644, b""),
}
"""What a saved directory holds: path -> (mode, content). There is an empty directory `void` too."""


def lay_out(place: Path) -> Path:
    """Make the directory that is saved."""
    (place / "void").mkdir(parents=True)
    for name, (mode, data) in TREE.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
        (place / name).chmod(mode)
    return place


def crawled(step: int) -> dict[str, bytes]:
    """What is in the working directory `crawl` after so many steps: path -> content."""
    files = {f"pages/{page}": pattern(f"page {page}", 3_000) for page in range(step)}
    return {**files, "log": b"line\n" * step, "same": pattern("same", 50_000)}


def crawl(place: Path, step: int) -> None:
    """Make that of what is there after one step less."""
    (place / "pages").mkdir(exist_ok=True)
    for name, data in crawled(step).items():
        (place / name).write_bytes(data)


@task
def produce(n: int) -> dict[str, list[int]]:
    """A value that is too large for the journal."""
    return {f"key {number}": [number, n] for number in range(3000)}


@task
def files(n: int) -> tuple[File, Directory]:
    """Files as values."""
    place = (
        lay_out(Path("made").absolute()) if not Path("made").exists() else Path("made").absolute()
    )
    return File(place / "bin" / "large"), Directory(place)


@task(keep="all", retries=1)
def every(n: int, value: dict[str, list[int]]) -> str:
    """Checkpoints of every kind, by two attempts; the first one is killed."""
    checkpoint = current_context().checkpoint
    if current_context().attempt == 0:
        checkpoint.write(b"small")
        checkpoint.write(pattern("bytes", 40_000))
        source = lay_out(Path("every").absolute())
        checkpoint.save(source / "bin" / "run.sh")
        os.kill(os.getpid(), signal.SIGKILL)
    source = Path("every").absolute()
    checkpoint.save(source)
    checkpoint.save(state(5, large=False))
    checkpoint.save(state(6, large=True))
    checkpoint.save(state(7, large=True), wait=False)
    checkpoint.flush()
    return hashlib.sha256(repr(sorted(value.items())).encode()).hexdigest()


@task(keep=2)
def dropping(n: int) -> int:
    """Five checkpoints, of which two are kept."""
    checkpoint = current_context().checkpoint
    for step in range(5):
        checkpoint.save(state(step, large=True))
    return n


@task
def last(digest: str, dropped: int, file: File, directory: Directory) -> str:
    """Saves once, and in the golden home's making it never gets further."""
    checkpoint = current_context().checkpoint
    if not checkpoint.prev_exists():
        checkpoint.save({"digest": digest, "dropped": dropped})
    if os.environ.get("GOLDEN_STOPS_HERE"):
        Path("stands").touch()
        while True:
            time.sleep(1)
    saved = checkpoint.load()
    size = len(Path(file).read_bytes())
    names = sorted(path.name for path in Path(directory).rglob("*"))
    return f"{saved['digest']} {saved['dropped']} {size} {names}"


@workflow
def golden(n: int) -> str:
    """The run."""
    file, directory = files(n=n)
    return last(
        digest=every(n=n, value=produce(n=n)),
        dropped=dropping(n=n),
        file=file,
        directory=directory,
    )

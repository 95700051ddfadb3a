"""A large state, such as a model in training has, and how to measure what is done with it.

All contestants make the same state: layers of three weights as in a transformer, 56 of them for a
gibibyte. They make it at the beginning of a turn and let it go at the end, so that it is in memory once
whoever else takes part; only what is measured in a steady state keeps it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SHAPES = {"in": (1024, 3072), "hidden": (1024, 1024), "out": (584, 1024)}
LAYERS = 56
"""Layers of the gibibyte that the targets speak of: 168 arrays of float32, 1,023.75 MiB."""

State = dict[str, npt.NDArray[np.float32]]

_SEEDS = {name: number for number, name in enumerate(SHAPES, start=1)}


def state(layers: int, *, version: int = 0) -> State:
    """Weights that do not compress and are all different; those of another `version` are, too."""
    kinds = {
        name: np.random.default_rng(seed).random(SHAPES[name], np.float32)
        for name, seed in _SEEDS.items()
    }
    made = {}
    for layer in range(layers):
        for name, weights in kinds.items():
            factor = np.float32(1 + layer / 128 + version / 8192)
            made[f"{layer}.{name}"] = np.multiply(weights, factor)
    return made


def blank(layers: int) -> State:
    """Live arrays of the same form, their memory there, with nothing of worth in them."""
    return {
        f"{layer}.{name}": np.full(shape, -1, np.float32)
        for layer in range(layers)
        for name, shape in SHAPES.items()
    }


def change(weights: Iterable[npt.NDArray[np.float32]]) -> None:
    """Change every number in place, as an optimizer does."""
    for each in weights:
        np.multiply(each, np.float32(1 - 2**-12), out=each)


def size_of(weights: Mapping[str, Any]) -> int:
    """Bytes of NumPy arrays or of tensors."""
    return sum(each.nbytes for each in weights.values())


def prove_equal(found: Mapping[str, Any], layers: int, *, version: int = 0) -> None:
    """Raise unless `found` is `state(layers, version=version)`: a few rows of each, one whole."""
    wanted = state(layers, version=version)
    for name, weights in wanted.items():
        part = slice(None) if name == "0.in" else slice(None, None, 97)
        if not np.array_equal(np.asarray(found[name])[part], weights[part]):
            raise AssertionError(f"{name} was not restored")


def seconds(do: Callable[[], object]) -> float:
    """How long it took."""
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def release() -> None:
    """Give memory that is no longer used back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def remove(path: Path) -> None:
    """Remove a file or a directory, and have the disk told now: not while somebody is measured."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """fsync a file or a directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def files(place: Path) -> list[Path]:
    """All files below a directory; or the file itself."""
    return [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]


def forget(place: Path) -> None:
    """Make the system forget what it has in memory of these files, so that they are read from disk."""
    for path in files(place):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def warm(place: Path) -> None:
    """Read these files once, so that the system has them in memory."""
    buffer = bytearray(8 << 20)
    for path in files(place):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def processor_seconds() -> float:
    """What all threads of this process have used so far, in the kernel too."""
    return time.process_time()


def bytes_written() -> int:
    """What this process has written so far, to files and past the page cache alike.

    `write_bytes` would be nearer to the disk, and counts whole folios of the page cache: 512 KiB for a
    record of 50 KB, of which the filesystem writes the blocks that changed.
    """
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        name, _, number = line.partition(":")
        if name == "wchar":
            return int(number)
    raise AssertionError("/proc/self/io says nothing of wchar")


class Peak:
    """The most memory that this process has, beyond what it has when this is made."""

    def __init__(self) -> None:
        release()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # begin VmHWM anew
        self._before = _memory("VmRSS")

    def more(self) -> int:
        """Bytes."""
        return max(0, _memory("VmHWM") - self._before)


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status says nothing of {name}")

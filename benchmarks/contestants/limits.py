"""What the machine can do at best with a gibibyte: the limits that large saves are held to.

Pieces of 8 MiB, four threads for the disk and two for memory, huge pages that were all touched before.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.contestants import big
from benchmarks.contestants.protocol import Measured, Round, serve

PIECE = 8 << 20
DISK_THREADS, MEMORY_THREADS = 4, 2
ROW = os.urandom(1 << 20)

_move = ctypes.CDLL(None).memmove  # lets other threads run meanwhile
_move.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


@contextlib.contextmanager
def fresh(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Write a new file with O_DIRECT and fsync it; seconds. `fallocate` counts."""
    path = place / "file"

    def round_() -> Measured:
        with memory(options["size"]) as view, _threads(DISK_THREADS) as each:
            taken = big.seconds(lambda: _write(path, view, each))
        big.remove(path)
        return [taken]

    yield round_


@contextlib.contextmanager
def over(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """The same over a file whose blocks are there and were written before."""
    path = place / "file"
    with memory(options["size"]) as view, _threads(DISK_THREADS) as each:
        _write(path, view, each)

    def round_() -> Measured:
        with memory(options["size"]) as view, _threads(DISK_THREADS) as each:
            return [big.seconds(lambda: _write(path, view, each))]

    yield round_


@contextlib.contextmanager
def read(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Read a file with O_DIRECT; seconds."""
    path, size = place / "file", options["size"]
    with memory(size) as view, _threads(DISK_THREADS) as each:
        _write(path, view, each)

    def round_() -> Measured:
        with memory(size) as view, _threads(DISK_THREADS) as each:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)

            def piece(start: int) -> None:
                os.preadv(fd, [view[start : start + PIECE]], start)

            taken = big.seconds(lambda: each(piece, range(0, size, PIECE)))
            os.close(fd)
        return [taken]

    yield round_


@contextlib.contextmanager
def copy(_: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Copy the state into memory that is there; seconds, the median of `times` copies.

    `keep` says whether the state and the memory stay between turns, as they do in a training.
    """
    layers, keep, times = options["layers"], options.get("keep", False), options.get("times", 1)
    with contextlib.ExitStack() as for_good:
        kept = for_good.enter_context(_copying(layers)) if keep else None

        def round_() -> Measured:
            with contextlib.ExitStack() as for_now:
                measure = kept or for_now.enter_context(_copying(layers))
                return [statistics.median(measure() for _ in range(times))]

        yield round_


@contextlib.contextmanager
def memory(size: int) -> Iterator[memoryview]:
    """Anonymous memory in huge pages, with something in all of it."""
    with contextlib.closing(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)) as made:
        made.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, size, len(ROW)):
            made[start : start + len(ROW)] = ROW[: size - start]
        with memoryview(made) as view:
            yield view


@contextlib.contextmanager
def _copying(layers: int) -> Iterator[Callable[[], float]]:
    weights = big.state(layers)
    total = big.size_of(weights)
    with memory(total) as view, _threads(MEMORY_THREADS) as each:
        anchor = ctypes.c_char.from_buffer(view)
        moves, at = [], ctypes.addressof(anchor)
        for array in weights.values():
            for start in range(0, array.nbytes, PIECE):
                length = min(PIECE, array.nbytes - start)
                moves.append((at, array.ctypes.data + start, length))
                at += length

        def once() -> float:
            big.change(weights.values())
            return big.seconds(lambda: each(lambda move: _move(*moves[move]), range(len(moves))))

        once()  # its threads start, its pages are there
        yield once
        del anchor
    weights.clear()
    big.release()


Each = Callable[[Callable[[int], object], range], None]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[Each]:
    """Something that calls a function for all of a range, on so many threads."""
    with ThreadPoolExecutor(count) as pool:

        def each(do: Callable[[int], object], of: range) -> None:
            left = iter(of)

            def work(_: int) -> None:
                for item in left:  # a step of a range iterator is atomic
                    do(item)

            list(pool.map(work, range(count)))

        yield each


def _write(path: Path, view: memoryview, each: Each) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o644)
    try:
        if os.fstat(fd).st_size != len(view):
            os.posix_fallocate(fd, 0, len(view))
        each(
            lambda start: os.pwrite(fd, view[start : start + PIECE], start),
            range(0, len(view), PIECE),
        )
        os.fsync(fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    serve({"fresh": fresh, "over": over, "read": read, "copy": copy})

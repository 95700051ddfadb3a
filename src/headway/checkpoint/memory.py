"""Memory as addresses: large blocks that are ready for use, copied and compared without Python's lock.

`ctypes` lets go of the interpreter's lock around a foreign call, so several threads copy at once. The
callers keep the objects alive whose memory they name.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from headway.storage.posix import address, copy

__all__ = ["HUGE", "Block", "address", "copy", "equal", "huge"]

HUGE = 2 << 20
"""Bytes of a huge page."""

_libc = ctypes.CDLL(None, use_errno=True)
_memcmp = _libc.memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int
_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_madvise.restype = ctypes.c_int

_DONTFORK = 10  # linux/mman.h
_HUGEPAGE = 14
_POPULATE_WRITE = 23  # Linux 5.14


def equal(one: int, other: int, length: int) -> bool:
    """Whether `length` bytes at two addresses are the same."""
    return bool(_memcmp(one, other, length) == 0)


def huge(view: memoryview) -> memoryview:
    """Have fresh memory put behind a large view in huge pages, where the system has them: each of its
    pages costs as much as copying a few of them."""
    start = -(-address(view) // HUGE) * HUGE
    end = (address(view) + view.nbytes) // HUGE * HUGE
    if end > start:
        _madvise(start, end - start, _HUGEPAGE)
    return view


class Block:
    """Zeroed memory of its own, in huge pages where the system has them, not seen by forked children.

    Attributes:
        view: the memory.
        address: where it begins, a multiple of a page.
        size: bytes, a multiple of `HUGE`.
    """

    def __init__(self, size: int) -> None:
        self.size = -(-max(size, 1) // HUGE) * HUGE
        try:
            self._map: Any = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(
                f"there are no {self.size} bytes of memory for a copy of the state. A save that waits, "
                "save(state), needs no copy."
            ) from error
        self.view = memoryview(self._map)
        self.address = address(self.view)
        # Advice that the kernel may not know, or not take: nothing depends on it.
        _madvise(self.address, self.size, _HUGEPAGE)
        _madvise(self.address, self.size, _DONTFORK)

    def make_ready(self, offset: int, length: int) -> None:
        """Have the kernel put memory behind a part of the block now, not at its first use."""
        _madvise(self.address + offset, min(length, self.size - offset), _POPULATE_WRITE)

    def close(self) -> None:
        """Give the memory back."""
        self.view.release()
        self._map.close()

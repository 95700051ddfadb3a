"""Reading a range of a file into memory at the speed of the disk, or of the page cache.

What the page cache has is copied from there. What it has not bypasses it (O_DIRECT): straight into the
destination where that is aligned, else by way of a small aligned buffer that stays in the processor's
cache: one huge page, because a request to a disk has a limited number of pieces (often 254), and from
small pages that is a megabyte a request. `cachestat` tells what the cache has, or `mincore`, without
reading anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import mmap
import os
import threading
from collections.abc import Callable
from typing import Any

from headway.ports import ALIGN, unseen
from headway.storage.posix import address, copy

_WORTH_IT = 1 << 20  # bytes from which on a range may bypass the page cache
_BUFFER = 2 << 20  # a huge page
_STEP = 1 << 20  # bytes that are shown at once, and are still in the processor's cache then
_AT_ONCE = 1 << 30  # the kernel takes no more than 2 GiB in one call

_CACHESTAT = 451  # the same number on all architectures

_refusing: set[int] = set()
"""Filesystems (by device number) that do not take O_DIRECT."""
_local = threading.local()


def read_into(fd: int, offset: int, into: memoryview, seen: Callable[[int], None] = unseen) -> int:
    """Fill `into` from a file; how many bytes there were, fewer only at its end.

    Args:
        fd: the file, open for reading, and used by nobody else.
        seen: is told, as they arrive, how many bytes are there.
    """
    done = 0
    if len(into) >= _WORTH_IT and not cached(fd, offset, len(into)):
        done = _past_the_cache(fd, offset, into, seen)
    while done < len(into) and (got := os.preadv(fd, [into[done : done + _STEP]], offset + done)):
        done += got
        seen(done)
    return done


def _past_the_cache(fd: int, offset: int, into: memoryview, seen: Callable[[int], None]) -> int:
    """As many bytes as could be read that way; the rest is left to others."""
    device = os.fstat(fd).st_dev
    if device in _refusing:
        return 0
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    arrived = 0

    def note(count: int) -> None:
        nonlocal arrived
        arrived = count
        seen(count)

    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        straight = offset % ALIGN == 0 and address(into) % ALIGN == 0
        return (_straight if straight else _bounced)(fd, offset, into, note)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _refusing.add(device)
        return arrived
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def _straight(fd: int, offset: int, into: memoryview, seen: Callable[[int], None]) -> int:
    """Whole pages go to where they belong, the last part page by way of the buffer."""
    done, size = 0, len(into)
    while done < size:
        body = min((size - done) // ALIGN * ALIGN, _AT_ONCE)
        pieces = [into[done : done + body]]
        last = done + body + ALIGN > size > done + body
        if last:
            buffer, _ = _buffer()
            pieces.append(buffer[:ALIGN])
        got = os.preadv(fd, pieces, offset + done)
        if last and got > body:
            tail = min(got - body, size - done - body)
            into[done + body : done + body + tail] = buffer[:tail]
            got = body + tail
        done += got
        seen(done)
        if got == 0 or got % ALIGN:  # the end of the file, or of the range
            break
    return done


def _bounced(fd: int, offset: int, into: memoryview, seen: Callable[[int], None]) -> int:
    done, size, target = 0, len(into), address(into)
    buffer, start = _buffer()
    while done < size:
        skip = (offset + done) % ALIGN
        want = min(_BUFFER, -(-(skip + size - done) // ALIGN) * ALIGN)
        got = os.preadv(fd, [buffer[:want]], offset + done - skip)
        useful = min(got - skip, size - done)
        if useful <= 0:
            break
        copy(target + done, start + skip, useful)
        done += useful
        seen(done)
        if got % ALIGN:  # the end of the file
            break
    return done


def _buffer() -> tuple[memoryview, int]:
    """Aligned memory of this thread's, and its address."""
    found: tuple[memoryview, int] | None = getattr(_local, "buffer", None)
    if found is None:
        made = mmap.mmap(-1, _BUFFER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without them: slower, that is all
            made.madvise(mmap.MADV_HUGEPAGE)
        view = memoryview(made)
        found = _local.buffer = view, address(view)
    return found


def cached(fd: int, offset: int, length: int) -> bool:
    """Whether the page cache has most of a range. Of a file that we may not write to the kernel always
    says yes."""
    start = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    end = min(offset + length, os.fstat(fd).st_size)
    if end <= start:
        return True
    told = _pages_cached(fd, start, end - start)
    if told is not None:
        return told * mmap.PAGESIZE * 2 >= end - start
    with mmap.mmap(fd, end - start, mmap.MAP_SHARED, mmap.PROT_READ, offset=start) as mapped:
        count = -(-(end - start) // mmap.PAGESIZE)
        resident = (ctypes.c_ubyte * count)()
        with memoryview(mapped) as view:
            if _mincore()(address(view), end - start, resident) != 0:
                return True
        return bytes(resident).count(0) * 2 < count


def _pages_cached(fd: int, offset: int, length: int) -> int | None:
    """How many pages of a range the page cache has; None where the kernel does not tell (before Linux 6.5,
    or of a file that we may not write to). Nothing is mapped for it: that would have to wait for the
    threads that read past the cache, and they for it."""
    wanted, found = (ctypes.c_uint64 * 2)(offset, length), (ctypes.c_uint64 * 5)()
    call = _system_call()
    failed = call(_CACHESTAT, fd, ctypes.addressof(wanted), ctypes.addressof(found), 0) != 0
    return None if failed else int(found[0])


@functools.cache
def _system_call() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.argtypes = (ctypes.c_long, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
    call.restype = ctypes.c_long
    found: Callable[..., int] = call
    return found


@functools.cache
def _mincore() -> Callable[[int, int, Any], int]:
    call = ctypes.CDLL(None, use_errno=True).mincore
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    found: Callable[[int, int, Any], int] = call
    return found

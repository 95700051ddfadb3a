"""What writing files durably takes, beside `os`: whole writes, flushed directories, space, alignment."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headway.model.errors import StorageError
from headway.storage.faults import storage_error

_NO_ALLOCATION = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextlib.contextmanager
def faults(doing: str) -> Iterator[None]:
    """Turn the system's errors in the block into `StorageError`s that say what was tried."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, doing) from error


@contextlib.contextmanager
def final(close: Callable[[], None]) -> Iterator[None]:
    """After a failure in the block nobody knows what is on the disk, and a second flush would report
    success without writing: close the file, so that no second try is possible."""
    try:
        yield
    except BaseException:
        close()
        raise


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, in as many calls as it takes."""
    view = memoryview(data).cast("B")
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def allocate(fd: int, offset: int, length: int) -> bool:
    """Take space for a file, which grows by it; False where the filesystem cannot do that.

    `os.posix_fallocate` would write zeros there instead, at the cost of writing everything twice.

    Raises:
        OSError: there is no such space.
    """
    call = _libc().fallocate
    while call(fd, 0, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        if number in _NO_ALLOCATION:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


class _Buffer(ctypes.Structure):
    """`Py_buffer` of Python's C API, of which the first field is looked at."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("rest", ctypes.c_ubyte * 128),
    )


def address(view: memoryview) -> int:
    """Where the bytes of a contiguous view begin, read-only ones too; 0 for an empty view."""
    if not view.nbytes:
        return 0
    found = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(found), 0)
    try:
        return int(found.buf)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(found))


copy = ctypes.memmove
"""copy(to, from, length): addresses, and bytes. Other threads go on meanwhile, which they do not while a
slice is assigned."""


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)

"""Packs on a filesystem, written at the disk's own speed.

WRITE ORDER, L4 of docs/design/ordering.md. Pieces first, in any order and from any thread; then the end
of the file is cut to its true size; then one flush of the file, which covers all three; then one of
the directory, which covers its name. `commit` returns after that. A write or a flush that fails ends the
pack: nothing more is written, and no flush is tried again.

RECYCLED PACKS. R1: nobody names the old pack any more, durably (the caller's part). R2: the file gets its
new name, which fails when that exists, and R3 loses the old one; R4 only then is the first byte written
over. Both names are made durable by the flush of the directory in `commit`. A power cut before that leaves
a file that no record names, under either name or both, with any mixture of bytes.

THE PATH OF A BYTE. A piece of `_STRAIGHT` bytes or more gets a place of its own, and the thread that
brought it writes it: straight from its memory where that is aligned, else through an aligned buffer.
Smaller ones are gathered, one behind the other, and go down when a buffer is full. Where the filesystem
takes it, everything bypasses the page cache (O_DIRECT): half the time, and a tenth of the CPU. Space is
taken ahead of the writes, or else they would wait for each other's growth of the file.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import threading
from pathlib import Path

from headway.model.errors import StorageError, StorageUnavailable
from headway.ports import ALIGN, LARGE, KeyExists
from headway.storage.faults import storage_error
from headway.storage.posix import address, allocate, copy, faults, final, sync_directory, write_all

_GATHER = 4 << 20  # bytes of a buffer
_BUFFERS = 8  # of a pack, at most
_STRAIGHT = 1 << 20  # a piece of so many bytes is worth a write of its own
_AHEAD = 256 << 20  # space taken at once, at most, when nobody says how much it will be

_PAST_THE_CACHE = os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC

_refusing: set[int] = set()
"""Filesystems (by device number) that do not take O_DIRECT."""


class LocalPack:
    """See `headway.ports.PackWriter`.

    Args:
        fd: the new file, open for writing; it belongs to the pack from now on.
        path, key: where it is.
        size: bytes that will be written, as far as is known.
        recycled: bytes that the file has already, of a pack that nobody needs.
    """

    def __init__(self, fd: int, path: Path, key: str, size: int = 0, recycled: int = 0) -> None:
        self._fd = fd
        self._direct = -1  # the same file, past the page cache; opened when that is worth it
        self._refused = False  # the filesystem does not take that
        self._path = path
        self._key = key
        self._file_size = recycled
        self._ahead = True
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._writers = 0
        self._ended = False
        self._spare: list[mmap.mmap] = []
        self._made = 0
        self._gather: mmap.mmap | None = None
        self._base = 0  # where the gathered bytes belong in the file: a multiple of ALIGN
        self._filled = 0
        if size >= _STRAIGHT:
            with faults(f"take {size} bytes for {key}"), final(self.abort):
                self._take(size)

    def write(self, data: bytes | memoryview) -> int:
        """See `PackWriter.write`."""
        view = memoryview(data).cast("B")
        try:  # thousands of small pieces: no context managers
            with self._lock:
                self._prove_open()
                self._writers += 1
            try:
                return self._large(view) if len(view) >= _STRAIGHT else self._small(view)
            finally:
                self._leave()
        except BaseException as error:
            self._end()  # final, as in `posix.final`
            if isinstance(error, OSError) and not isinstance(error, StorageError):
                raise storage_error(error, f"write {self._key}") from error
            raise

    def commit(self) -> None:
        """See `PackWriter.commit`."""
        with faults(f"make {self._key} durable"), final(self._end):
            with self._lock:
                self._prove_open()
            size = self._base + self._filled
            if self._gather is None or self._direct < 0 or self._refused:
                write_all(self._fd, memoryview(self._gather or b"")[: self._filled], self._base)
            else:
                whole = self._filled + -self._filled % ALIGN
                _clear(self._gather, self._filled, whole)
                self._put(memoryview(self._gather)[:whole], self._base)
                self._file_size = max(self._file_size, self._base + whole)
            if self._file_size > size:
                os.ftruncate(self._fd, size)
            os.fsync(self._fd)
            sync_directory(self._path.parent)
        self._end()

    def abort(self) -> None:
        """See `PackWriter.abort`."""
        self._end()
        with contextlib.suppress(OSError):  # no record names the space: it is only lost, not wrong
            self._path.unlink()

    def _small(self, view: memoryview) -> int:
        """Gather a piece; write what became full."""
        full: tuple[mmap.mmap, int] | None = None
        with self._lock:
            self._wait_for_a_buffer()
            if len(view) >= LARGE:
                full = self._gather_more(memoryview(bytes(-self._filled % ALIGN)))
            offset = self._base + self._filled
            full = self._gather_more(view) or full
        if full is not None:
            buffer, base = full
            self._put(memoryview(buffer), base)
            self._give_back(buffer)
        return offset

    def _gather_more(self, view: memoryview) -> tuple[mmap.mmap, int] | None:
        """Append to the gathered bytes. Returns a buffer that is full now, and where it belongs. There
        is at most one: a small piece is smaller than a buffer, and padding is not beyond its end."""
        full = None
        while view:
            if self._gather is None:
                self._gather = self._buffer()
            part = min(len(view), _GATHER - self._filled)
            self._gather[self._filled : self._filled + part] = view[:part]
            self._filled += part
            view = view[part:]
            if self._filled == _GATHER:
                full = self._gather, self._base
                self._base += _GATHER
                self._filled = 0
                self._gather = None
                self._grow(self._base)
        return full

    def _large(self, view: memoryview) -> int:
        """Take a place for a large piece, and write it there; its last part page is gathered."""
        body = len(view) - len(view) % ALIGN
        before: tuple[mmap.mmap, int, int] | None = None
        with self._lock:
            self._wait_for_a_buffer()
            if self._gather is not None:
                whole = self._filled + -self._filled % ALIGN
                _clear(self._gather, self._filled, whole)
                before = self._gather, whole, self._base
                self._base += whole
                self._gather, self._filled = None, 0
            offset = self._base
            self._base += body
            self._grow(self._base)
            self._gather_more(view[body:])
        if before is not None:
            buffer, whole, base = before
            self._put(memoryview(buffer)[:whole], base)
            self._give_back(buffer)
        if not self._past_the_cache() or address(view) % ALIGN == 0:
            self._put(view[:body], offset)
        else:
            self._put_copied(view[:body], offset)
        return offset

    def _put_copied(self, view: memoryview, offset: int) -> None:
        """Write memory that is not aligned by way of some that is."""
        with self._lock:
            self._wait_for_a_buffer()
            buffer = self._buffer()
        start, aligned = address(view), address(memoryview(buffer))
        for at in range(0, len(view), _GATHER):
            size = min(_GATHER, len(view) - at)
            copy(aligned, start + at, size)
            self._put(memoryview(buffer)[:size], offset + at)
        self._give_back(buffer)

    def _put(self, view: memoryview, offset: int) -> None:
        """Write whole pages, past the page cache if the filesystem lets us."""
        while view and len(view) % ALIGN == 0 and self._past_the_cache():
            try:
                done = os.pwrite(self._direct, view, offset)
            except OSError as error:
                self._refuse(error)  # some filesystems only say so here
                break
            view, offset = view[done:], offset + done
        write_all(self._fd, view, offset)

    def _past_the_cache(self) -> bool:
        """Whether whole pages can be written to `_direct`."""
        with self._lock:
            if self._direct < 0 and not self._refused:
                self._prove_open()
                if os.fstat(self._fd).st_dev in _refusing:
                    self._refused = True
                    return False
                try:
                    self._direct = os.open(self._path, _PAST_THE_CACHE)
                except OSError as error:
                    self._refuse(error)
            return not self._refused

    def _refuse(self, error: OSError) -> None:
        """Do without O_DIRECT, if that is what the error says: then nothing was tried, and nothing
        failed. The descriptor stays, for another thread may be using it."""
        if error.errno != errno.EINVAL:
            raise error
        self._refused = True
        _refusing.add(os.fstat(self._fd).st_dev)

    def _grow(self, end: int) -> None:
        """See to it that the file has space up to `end`, and some more."""
        if end > self._file_size:
            more = min(max(end, _GATHER), _AHEAD)
            try:
                self._take(end + more)
            except OSError:  # not so much, then; what is really needed may still fit
                self._ahead = False
            self._file_size = max(self._file_size, end)

    def _take(self, size: int) -> None:
        if self._ahead and size > self._file_size:
            self._ahead = allocate(self._fd, self._file_size, size - self._file_size)
            if self._ahead:
                self._file_size = size

    def _wait_for_a_buffer(self) -> None:
        """So that appending needs no waiting: nobody else may get in between."""
        while not self._spare and self._made >= _BUFFERS:
            self._prove_open()
            self._freed.wait()

    def _buffer(self) -> mmap.mmap:
        if self._spare:
            return self._spare.pop()
        made = mmap.mmap(-1, _GATHER)
        self._made += 1
        return made

    def _give_back(self, buffer: mmap.mmap) -> None:
        with self._lock:
            self._spare.append(buffer)
            self._freed.notify()

    def _leave(self) -> None:
        with self._lock:
            self._writers -= 1
            if self._ended:
                self._close()

    def _end(self) -> None:
        """No more calls; the file is closed as soon as nobody is writing to it."""
        with self._lock:
            self._ended = True
            self._freed.notify_all()
            self._close()

    def _close(self) -> None:
        if self._writers:
            return
        self._gather, self._spare = None, []
        for fd in (self._fd, self._direct):
            if fd >= 0:
                with contextlib.suppress(OSError):  # all is flushed, or has failed already
                    os.close(fd)
        self._fd = self._direct = -1

    def _prove_open(self) -> None:
        if self._ended:
            raise StorageUnavailable(f"{self._key} failed before, or is finished: make a new one")


def _clear(buffer: mmap.mmap, start: int, stop: int) -> None:
    """Zero what is left of a page: a buffer is used again, and has older bytes in it."""
    buffer[start:stop] = bytes(stop - start)


def recycle(old: Path, new: Path) -> int | None:
    """Give a pack that nobody needs another name (R2, R3), so that its space is written over.

    Returns:
        Bytes that it has; None when it is gone, and there is nothing to write over.

    Raises:
        KeyExists: there is something under the new name.
    """
    try:
        found = os.lstat(old)
        if found.st_nlink > 1 or not stat.S_ISREG(found.st_mode):
            # A backup made of links, or not what we made: its bytes are not ours to change.
            os.unlink(old)
            return None
        os.link(old, new)
    except FileNotFoundError:
        return None
    except FileExistsError:
        raise KeyExists(f"{new} exists already") from None
    os.unlink(old)
    return found.st_size

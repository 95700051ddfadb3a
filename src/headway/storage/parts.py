"""What grows on an object store: a log, whose appends are objects of their own, and a pack, which is cut
into parts of one size.

O4  A log's first object holds its head and its room, and is never written again. An append is one object,
    named by its offset; the next one begins only after it is known to be there. So what was appended
    stands side by side from the front, and a gap is never closed up: it reads as zeros, which are damage
    when something stands behind them.
O5  After an append without a verdict nothing is appended to that log: its request may still arrive, and
    must find its place free or its own bytes there.
O6  The first part of a pack, the one with its name, is created last, when all others are there: a pack
    that has its name is whole.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

from xxhash import xxh3_64_digest

from headway.model.errors import StorageError, StorageUnavailable
from headway.ports import ALIGN, LARGE, KeyExists

PARTS = ".parts"
PART = 8 << 20
"""Bytes of a pack's part, except for its last one. Part of the format."""
IN_FLIGHT = 6
"""Parts of one pack that may be on their way at once: what bounds its memory."""
MOST_ROOM = 1 << 30
"""Bytes; a log that says more is not ours."""
_ROOM = struct.Struct("<8sQ8s")
_MAGIC = b"HWroom\n\0"


class Creator(Protocol):
    """The part of `ObjectStorage` that this needs."""

    def put_new(self, path: str, data: bytes | bytearray | memoryview, doing: str) -> None:
        """See `ObjectStorage.put_new`."""
        ...

    def delete(self, prefix: str) -> None:
        """See `Storage.delete`."""
        ...


def sealed_head(head: bytes, room: int) -> bytes:
    """What a log's first object holds: its head, then its room."""
    body = head + _ROOM.pack(_MAGIC, room, b"")[:-8]
    return body + xxh3_64_digest(body)


def log_of(stored: bytes, pieces: Iterable[tuple[int, memoryview]]) -> bytes:
    """A log as its reader sees it: head, appended bytes at their offsets, zeros.

    Args:
        stored: what its first object holds. If that is damaged, it is given back as it is, for the
            reader to find out.
        pieces: (offset, bytes) of what was appended.
    """
    head = stored[: -_ROOM.size] if len(stored) >= _ROOM.size else stored
    magic, room, check = _ROOM.unpack(stored[len(head) :].ljust(_ROOM.size, b"\0"))
    if magic != _MAGIC or room > MOST_ROOM or check != xxh3_64_digest(stored[:-8]):
        return stored
    log = bytearray(len(head) + room)
    log[: len(head)] = head
    for offset, data in pieces:
        end = offset + len(data)
        if end > len(log) and end <= MOST_ROOM:  # longer than it was made: its reader will say so
            log.extend(bytes(end - len(log)))
        log[offset:end] = data[: max(0, len(log) - offset)]
    return bytes(log)


class ObjectLog:
    """`LogWriter` with an object for each append."""

    def __init__(self, store: Creator, key: str, position: int, room: int) -> None:
        self._store = store
        self._key = key
        self._position = position
        self._room = room
        self._usable = True

    @property
    def room(self) -> int:
        """See `LogWriter.room`."""
        return self._room

    def append(self, data: bytes) -> None:
        """See `LogWriter.append`."""
        if len(data) > self._room:
            raise ValueError(f"{len(data)} bytes do not fit into the {self._room} left in a log")
        if not self._usable:
            raise StorageUnavailable(f"{self._key} failed before, or is closed: begin a new one")
        if not data:
            return
        self._usable = False  # until we know how it ended, nothing follows (O5)
        path = f"{self._key}{PARTS}/{self._position:012d}"
        try:
            self._store.put_new(path, data, f"write {self._key}")
        except KeyExists as error:
            raise StorageError(
                f"somebody else wrote {path}, into a log that this process made. Is the home one that "
                "was copied while it was in use?"
            ) from error
        self._position += len(data)
        self._room -= len(data)
        self._usable = True

    def close(self) -> None:
        """See `LogWriter.close`."""
        self._usable = False


class ObjectPack:
    """`PackWriter` that cuts what it is given into parts and creates them in the background.

    Memory: `IN_FLIGHT` parts, the first one, and the one that is being filled.
    """

    def __init__(self, store: Creator, key: str, pool: ThreadPoolExecutor) -> None:
        self._store = store
        self._key = key
        self._pool = pool
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(IN_FLIGHT)
        self._first: bytearray | None = None
        self._filling = bytearray()
        self._base = 0  # offset of the part that is being filled
        self._sent: list[Future[None]] = []
        self._failure: BaseException | None = None
        self._open = True

    def write(self, data: bytes | memoryview) -> int:
        """See `PackWriter.write`."""
        view = memoryview(data).cast("B")
        with self._lock:
            self._prove_open()
            at = self._base + len(self._filling)
            try:
                if len(view) >= LARGE:
                    self._take(memoryview(bytes(-at % ALIGN)))
                    at += -at % ALIGN
                self._take(view)
            except BaseException:
                self._open = False
                raise
        return at

    def commit(self) -> None:
        """See `PackWriter.commit`."""
        with self._lock:
            self._prove_open()
            self._open = False
            if self._first is None:
                self._first = self._filling
            elif self._filling:
                self._send()
            wait(self._sent)
            self._raise_failure()
            self._store.put_new(self._key, self._first, f"write {self._key}")  # O6

    def abort(self) -> None:
        """See `PackWriter.abort`."""
        with self._lock:
            self._open = False
            self._first, self._filling = None, bytearray()
            for future in self._sent:
                future.cancel()
            wait(self._sent)
        try:
            self._store.delete(self._key)
        except StorageError:
            pass  # no record names the space: it is only lost, not wrong

    def _take(self, view: memoryview) -> None:
        while view:
            some = view[: PART - len(self._filling)]
            self._filling += some
            view = view[len(some) :]
            if len(self._filling) == PART:
                self._send()

    def _send(self) -> None:
        part, base = self._filling, self._base
        self._filling, self._base = bytearray(), base + len(part)
        if self._first is None:
            self._first = part
            return
        self._free.acquire()
        self._raise_failure()
        path = f"{self._key}{PARTS}/{base:012d}"
        future = self._pool.submit(self._store.put_new, path, part, f"write {self._key}")
        self._sent.append(future)
        future.add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._failure = self._failure or error
        self._free.release()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._open = False
            raise self._failure

    def _prove_open(self) -> None:
        if not self._open:
            raise StorageUnavailable(f"{self._key} failed before, or is finished: make a new one")

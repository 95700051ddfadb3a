"""A home in memory, faithful to `headway.ports.Storage`: for tests that do not need a disk."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from headway.model.errors import InputError, StorageError, StorageUnavailable
from headway.ports import (
    ALIGN,
    LARGE,
    READERS,
    KeyExists,
    KeyMissing,
    LogWriter,
    PackWriter,
    unseen,
)

_NOT_A_NAME = {"", ".", ".."}


class MemoryStorage:
    """Bytes under keys, safe to use from several threads.

    Creation is exclusive, a log has its head from the first instant and a fixed room that reads as
    zeros, and a pack can be seen half-written, as on a disk. Each call happens at once: no other thread
    sees half of it.

    Args:
        url: what `Storage.url` says.
        trusted: what `Storage.trusted` says.
        remote: what `Storage.remote` says.

    Attributes:
        objects: what is stored; tests may look at it and damage it.
        calls: (method, key) of every call so far.
        lock: is held during each call.
    """

    def __init__(
        self, url: str = "memory:test", *, trusted: bool = True, remote: bool = False
    ) -> None:
        self.url = url
        self.trusted = trusted
        self.remote = remote
        self.objects: dict[str, bytearray] = {}
        self.calls: list[tuple[str, str]] = []
        self.lock = threading.RLock()

    def create(self, key: str, data: bytes) -> None:
        """See `Storage.create`."""
        with self.at("create", key):
            self._new(key, bytes(data))

    def read(self, key: str) -> bytes:
        """See `Storage.read`."""
        with self.at("read", key):
            return bytes(self._there(key))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """See `Storage.read_range`."""
        with self.at("read_range", key):
            return bytes(self._there(key)[offset : offset + length])

    def read_into(
        self, key: str, offset: int, into: memoryview, _: Callable[[int], None] = unseen
    ) -> int:
        """See `Storage.read_into`."""
        with self.at("read_into", key), memoryview(self._there(key)) as there:
            found = there[offset : offset + into.nbytes]
            into.cast("B")[: len(found)] = found
            size = len(found)
            found.release()  # while somebody looks at a bytearray, it cannot grow
            return size

    def readers(self, _: str) -> int:
        """See `Storage.readers`."""
        return READERS

    def read_log(self, key: str) -> bytes:
        """See `Storage.read_log`."""
        return self.read(key)

    def room(self) -> int | None:
        """See `Storage.room`: nobody knows."""
        return None

    def list(self, prefix: str) -> list[str]:
        """See `Storage.list`."""
        with self.at("list", prefix or "root"):
            start = f"{prefix}/" if prefix else ""
            below = (key[len(start) :] for key in self.objects if key.startswith(start))
            return sorted({name.partition("/")[0] for name in below})

    def delete(self, prefix: str) -> None:
        """See `Storage.delete`."""
        with self.at("delete", prefix):
            for key in [*self.objects]:
                if key == prefix or key.startswith(f"{prefix}/"):
                    del self.objects[key]

    def has(self, key: str) -> bool:
        """See `Storage.has`."""
        with self.at("has", key):
            return key in self.objects

    def create_log(self, key: str, head: bytes, room: int) -> LogWriter:
        """See `Storage.create_log`."""
        with self.at("create_log", key):
            self._new(key, head + bytes(room))
            return _Log(self, key, len(head), room)

    def create_pack(
        self,
        key: str,
        *,
        size: int = 0,  # noqa: ARG002  # nothing is prepared
        reuse: str | None = None,
    ) -> PackWriter:
        """See `Storage.create_pack`."""
        if reuse is not None:
            self.delete(reuse)
        with self.at("create_pack", key):
            self._new(key, b"")
            return _Pack(self, key)

    def settle(self, key: str, offset: int, data: bytes) -> None:
        """See `Storage.settle`: what can be read from memory is there; other bytes are a mistake."""
        with self.at("settle", key):
            assert self._there(key)[offset : offset + len(data)] == data

    def at(self, method: str, key: str) -> threading.RLock:
        """Note a call; what it does, it does with the lock that this returns."""
        if not _NOT_A_NAME.isdisjoint(key.split("/")) or "\0" in key:
            raise InputError(f"{key!r} is not a key: it needs names separated by single slashes")
        with self.lock:
            self.calls.append((method, key))
        return self.lock

    def _there(self, key: str) -> bytearray:
        try:
            return self.objects[key]
        except KeyError:
            raise KeyMissing(f"there is no {key} in {self.url}") from None

    def _new(self, key: str, data: bytes) -> None:
        parts = key.split("/")
        for above in itertools.accumulate(parts[:-1], lambda a, b: f"{a}/{b}"):
            if above in self.objects:  # on a disk a file cannot have anything below it
                raise StorageError(f"{above} is no directory")
        if key in self.objects or any(other.startswith(f"{key}/") for other in self.objects):
            raise KeyExists(f"{key} exists already in {self.url}")
        self.objects[key] = bytearray(data)


class _Log:
    """A log that was deleted is still open here, as on a disk: then bytes go nowhere."""

    def __init__(self, storage: MemoryStorage, key: str, position: int, room: int) -> None:
        self._storage = storage
        self._key = key
        self._position = position
        self.room = room

    def append(self, data: bytes) -> None:
        if len(data) > self.room:
            raise ValueError(f"{len(data)} bytes do not fit into the {self.room} left in a log")
        with self._storage.at("append", self._key):
            kept = self._storage.objects.get(self._key, bytearray(self._position + self.room))
            kept[self._position : self._position + len(data)] = data
        self._position += len(data)
        self.room -= len(data)

    def close(self) -> None:
        pass


class _Pack:
    def __init__(self, storage: MemoryStorage, key: str) -> None:
        self._storage = storage
        self._key = key
        self._kept = storage.objects[key]
        self._open = True

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        with self._storage.at("write", self._key):
            self._prove_open()
            if len(view) >= LARGE:
                self._kept.extend(bytes(-len(self._kept) % ALIGN))
            at = len(self._kept)
            self._kept.extend(view)
            return at

    def commit(self) -> None:
        with self._storage.at("commit", self._key):
            self._prove_open()
            self._open = False

    def abort(self) -> None:
        with self._storage.at("abort", self._key):
            self._open = False
            if self._storage.objects.get(self._key) is self._kept:
                del self._storage.objects[self._key]

    def _prove_open(self) -> None:
        if not self._open:
            raise StorageUnavailable(f"{self._key} failed before, or is finished: make a new one")

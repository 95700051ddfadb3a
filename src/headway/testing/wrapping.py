"""A storage round another one: every call passes through one method that can do with it what it likes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from headway.ports import LogWriter, PackWriter, Storage, unseen

T = TypeVar("T")

READS = frozenset({"read", "read_range", "read_into", "read_log", "list", "has", "room"})
"""Calls that change nothing."""
WRITES = frozenset(
    {"create", "create_log", "create_pack", "append", "write", "commit", "settle", "delete"}
)
"""Calls that change what is stored; `append` is a log's, `write` and `commit` are a pack's."""
CALLS = READS | WRITES
"""All calls that can fail."""
SECTOR = 512


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a storage, or of a log or pack that it gave out.

    Attributes:
        name: of the method, one of `CALLS`.
        key: what it is about; "" where a call has none.
        size: bytes that it was given to write, or memory to fill.
        partly: writes only so many of the bytes of an append or a pack's write, and says how many it
            were; None for other calls. Of an append it writes whole sectors: a disk has each sector
            of 512 bytes as it was or as it is to be, and logs rest on that (`docs/design/format.md`).
    """

    name: str
    key: str
    size: int = 0
    partly: Callable[[int], int] | None = field(default=None, compare=False, repr=False)


class Wrapper:
    """A storage that passes every call on to another one. Override `around`.

    Args:
        inner: the other one.

    Attributes:
        inner: the other one.
        struck: how often the wrapper did what it is for.
        lock: for what a subclass counts.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.struck = 0
        self.lock = threading.Lock()

    def around(self, call: Call, act: Callable[[], T]) -> T:  # noqa: ARG002  # for subclasses
        """Do `act`, which is the call itself, or not, or something else."""
        return act()

    def let_go(self, call: Call, act: Callable[[], None]) -> None:  # noqa: ARG002  # for subclasses
        """Close a log (`call.name` is "close") or abort a pack ("abort"): what never fails."""
        act()

    @property
    def url(self) -> str:
        """See `Storage.url`."""
        return self.inner.url

    @property
    def trusted(self) -> bool:
        """See `Storage.trusted`."""
        return self.inner.trusted

    @property
    def remote(self) -> bool:
        """See `Storage.remote`."""
        return self.inner.remote

    def create(self, key: str, data: bytes) -> None:
        """See `Storage.create`."""
        self.around(Call("create", key, len(data)), lambda: self.inner.create(key, data))

    def read(self, key: str) -> bytes:
        """See `Storage.read`."""
        return self.around(Call("read", key), lambda: self.inner.read(key))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """See `Storage.read_range`."""
        return self.around(
            Call("read_range", key, length), lambda: self.inner.read_range(key, offset, length)
        )

    def read_into(
        self, key: str, offset: int, into: memoryview, seen: Callable[[int], None] = unseen
    ) -> int:
        """See `Storage.read_into`."""
        return self.around(
            Call("read_into", key, into.nbytes),
            lambda: self.inner.read_into(key, offset, into, seen),
        )

    def readers(self, key: str) -> int:
        """See `Storage.readers`: no call that could fail."""
        return self.inner.readers(key)

    def read_log(self, key: str) -> bytes:
        """See `Storage.read_log`."""
        return self.around(Call("read_log", key), lambda: self.inner.read_log(key))

    def list(self, prefix: str) -> list[str]:
        """See `Storage.list`."""
        return self.around(Call("list", prefix), lambda: self.inner.list(prefix))

    def delete(self, prefix: str) -> None:
        """See `Storage.delete`."""
        self.around(Call("delete", prefix), lambda: self.inner.delete(prefix))

    def has(self, key: str) -> bool:
        """See `Storage.has`."""
        return self.around(Call("has", key), lambda: self.inner.has(key))

    def create_log(self, key: str, head: bytes, room: int) -> LogWriter:
        """See `Storage.create_log`."""
        made: list[LogWriter] = []

        def act() -> LogWriter:
            made.append(self.inner.create_log(key, head, room))
            return made[0]

        try:
            log = self.around(Call("create_log", key, len(head)), act)
            return _Log(self, key, log, len(head))
        except BaseException:
            for log in made:  # it stands, and nobody was given it
                log.close()
            raise

    def create_pack(self, key: str, *, size: int = 0, reuse: str | None = None) -> PackWriter:
        """See `Storage.create_pack`."""
        pack = self.around(
            Call("create_pack", key, size),
            lambda: self.inner.create_pack(key, size=size, reuse=reuse),
        )
        return _Pack(self, key, pack)

    def settle(self, key: str, offset: int, data: bytes) -> None:
        """See `Storage.settle`."""
        self.around(Call("settle", key, len(data)), lambda: self.inner.settle(key, offset, data))

    def room(self) -> int | None:
        """See `Storage.room`."""
        return self.around(Call("room", ""), self.inner.room)


class _Log:
    def __init__(self, wrapper: Wrapper, key: str, inner: LogWriter, position: int) -> None:
        self._wrapper = wrapper
        self._key = key
        self._inner = inner
        self._position = position

    @property
    def room(self) -> int:
        return self._inner.room

    def append(self, data: bytes) -> None:
        def partly(size: int) -> int:
            end = (self._position + size) // SECTOR * SECTOR
            whole = max(0, end - self._position)
            self._inner.append(data[:whole])
            return whole

        call = Call("append", self._key, len(data), partly)
        self._wrapper.around(call, lambda: self._inner.append(data))
        self._position += len(data)

    def close(self) -> None:
        self._wrapper.let_go(Call("close", self._key), self._inner.close)


class _Pack:
    def __init__(self, wrapper: Wrapper, key: str, inner: PackWriter) -> None:
        self._wrapper = wrapper
        self._key = key
        self._inner = inner

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")

        def partly(size: int) -> int:
            self._inner.write(view[:size])
            return size

        call = Call("write", self._key, len(view), partly)
        return self._wrapper.around(call, lambda: self._inner.write(data))

    def commit(self) -> None:
        self._wrapper.around(Call("commit", self._key), self._inner.commit)

    def abort(self) -> None:
        self._wrapper.let_go(Call("abort", self._key), self._inner.abort)

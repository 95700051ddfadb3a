"""A home on an object store.

An object is created whole by one conditional request (`If-None-Match: *`), so "visible" is "durable".
What grows, a log or a pack, is one object of its own name and more below `<key>.parts/`:

    <key>                        head of a log and its room; the first part of a pack
    <key>.parts/<offset>         one append of a log; a further part of a pack

`docs/design/ordering.md`, "On an object store", has the order (O1 to O7) and the argument.

O1  Every object is created under a condition, and none is written over. So a request that is repeated,
    or that arrives late, finds its own bytes there, or changes nothing.
O2  A creation without a verdict is sent again. If something is there by then, it is read back: equal
    bytes are ours (claims and frames carry their writer's random id), others are a rival's. What cannot
    be read settles nothing: neither a success nor a conflict.
O3  Absence is believed only when the store says so about the key, and the home's marker is there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from headway.model.errors import InputError, StorageUnavailable
from headway.ports import READERS, KeyExists, KeyMissing, LogWriter, PackWriter, unseen
from headway.storage.bucket import Bucket, Kind, Refusal, error_of
from headway.storage.parts import PART, PARTS, ObjectLog, ObjectPack, log_of, sealed_head

_NOT_A_NAME = {"", ".", ".."}
MOST_DELETED = 1000  # paths in one request
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_WORKERS = 8  # each may hold a part in memory
_READERS = 32  # of small objects: what counts is how many are on their way
T = TypeVar("T")


class Limits(NamedTuple):
    """How long a store is waited for.

    Attributes:
        patience: seconds after which a request without a verdict is not sent again.
    """

    patience: float = 60.0


class ObjectStorage:
    """`headway.ports.Storage` on a bucket. Safe to use from several threads; not from forked children:
    the client's own threads do not live on there.

    Args:
        bucket: a `headway.storage.bucket.Bucket`.
        url: of the home, for messages.
        marker: name of an object that a home has. When given, an empty listing and a missing object
            count as such only while it is there.
        limits: how long the store is waited for.
        pool: what sends several requests at once; None makes one.
    """

    def __init__(
        self,
        bucket: Bucket,
        url: str,
        *,
        marker: str | None = None,
        limits: Limits | None = None,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._bucket = bucket
        self._url = url
        self._marker = marker
        self._limits = limits or Limits()
        self._pool = pool or ThreadPoolExecutor(_WORKERS, thread_name_prefix="headway-store")
        self._readers = pool or ThreadPoolExecutor(_READERS, thread_name_prefix="headway-read")

    @property
    def url(self) -> str:
        """The home's URL."""
        return self._url

    @property
    def trusted(self) -> bool:
        """Never: who may write into a bucket cannot be seen from here."""
        return False

    @property
    def remote(self) -> bool:
        """See `Storage.remote`."""
        return True

    def create(self, key: str, data: bytes) -> None:
        """See `Storage.create`."""
        self.put_new(_checked(key), data, f"create {key}")

    def create_log(self, key: str, head: bytes, room: int) -> LogWriter:
        """See `Storage.create_log`. The room stands behind the head."""
        self.put_new(_checked(key), sealed_head(head, room), f"create {key}")
        return ObjectLog(self, key, len(head), room)

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
        if self.has(key):
            raise KeyExists(f"{key} exists already in {self._url}")
        return ObjectPack(self, key, self._pool)

    def settle(self, key: str, offset: int, data: bytes) -> None:  # noqa: ARG002
        """Nothing is left to do: a store shows an object only once it is durable and whole, so what
        could be read cannot be lost any more. There are no pages in between that a flush could miss."""
        _checked(key)

    def read(self, key: str) -> bytes:
        """See `Storage.read`."""
        first = self._get(_checked(key), 0, PART, key)
        if first is None:
            raise self._missing(key)
        data, size = first
        if size < PART:
            return bytes(data)
        rest = bytearray(max(size, *(end for _, end in self._parts_of(key)), PART))
        rest[: len(data)] = data
        done = len(data) + self.read_into(key, len(data), memoryview(rest)[len(data) :])
        return bytes(memoryview(rest)[:done])

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """See `Storage.read_range`."""
        if length <= 0:
            if not self.has(key):
                raise self._missing(key)
            return b""
        if offset + length <= PART:
            found = self._get(_checked(key), offset, offset + length, key)
            if found is None:
                raise self._missing(key)
            return bytes(found[0])
        into = memoryview(bytearray(length))
        return bytes(into[: self.read_into(key, offset, into)])

    def read_into(
        self, key: str, offset: int, into: memoryview, _: Callable[[int], None] = unseen
    ) -> int:
        """See `Storage.read_into`. Pieces of different parts are asked for at once."""
        _checked(key)
        view = into.cast("B")
        spans = [*_spans(offset, len(view))]
        pieces = [view[at - offset : at - offset + length] for at, length in spans]
        if len(spans) <= 1:
            counts = [self._fill(key, offset, view)]
        else:
            counts = [*self._pool.map(lambda s, p: self._fill(key, s[0], p), spans, pieces)]
        done = 0
        for count, piece in zip(counts, pieces, strict=False):
            done += count
            if count < len(piece):
                break
        return done

    def readers(self, _: str) -> int:
        """See `Storage.readers`."""
        return READERS

    def read_log(self, key: str) -> bytes:
        """See `Storage.read_log`: one request for the head, one to see what was appended (for every
        thousand of them), one for each of them."""
        head = self.read(key)
        parts = [(at, f"{key}{PARTS}/{at:012d}") for at, _ in self._parts_of(key)]
        found = self._readers.map(lambda part: self._get(part[1], 0, PART * 64, key), parts)
        pieces = [
            (at, data[0]) for (at, _), data in zip(parts, found, strict=True) if data is not None
        ]
        return log_of(head, pieces)

    def list(self, prefix: str) -> list[str]:
        """See `Storage.list`."""
        if prefix:
            _checked(prefix)
        found = self._insist(f"list {prefix or 'it'}", lambda: self._bucket.below(prefix))
        names = {path.rstrip("/").rpartition("/")[2] for path in found.directories}
        names = {name.removesuffix(PARTS) for name in names}
        names |= {path.rpartition("/")[2] for path in found.objects}
        if not names:
            self._prove_home()
        return sorted(names)

    def has(self, key: str) -> bool:
        """See `Storage.has`. It reads a byte: the answer to a HEAD request does not say whether the key
        is missing or the bucket."""
        return self._get(_checked(key), 0, 1, key) is not None

    def delete(self, prefix: str) -> None:
        """Remove what has this name, then what is below it, in the order of the keys (O7): of a run, its
        journal first, and of a log, its oldest part, so that half a deletion is never taken for an
        older state."""
        doing = f"delete {_checked(prefix)}"
        paths = [path for path, _ in self._all_below(prefix, doing)]
        paths += [path for path, _ in self._all_below(f"{prefix}{PARTS}", doing)]
        # Some stores (SeaweedFS, Azure with a hierarchical namespace) do have directories, and list them
        # when they are empty: their names go last, the deepest first. Elsewhere that removes nothing.
        above = {parent for path in paths for parent in _between(path, prefix)}
        if paths:
            above.add(prefix)
        paths = [prefix, *sorted(paths), *sorted(above, reverse=True)]
        for start in range(0, len(paths), MOST_DELETED):
            self._insist(doing, partial(self._bucket.delete, paths[start : start + MOST_DELETED]))

    def usage(self, prefix: str) -> int:
        """Bytes of what has this name, and of everything below it."""
        doing = f"look at {prefix}"
        whole = self._get(_checked(prefix), 0, 1, prefix)
        below = [*self._all_below(prefix, doing), *self._all_below(f"{prefix}{PARTS}", doing)]
        return (0 if whole is None else whole[1]) + sum(size for _, size in below)

    def room(self) -> int | None:
        """See `Storage.room`: no store says."""
        return None

    # For logs and packs.

    def put_new(self, path: str, data: bytes | bytearray | memoryview, doing: str) -> None:
        """Create an object (O1), and settle what became of it (O2).

        Raises:
            KeyExists: there is something else under `path`.
            StorageError: it is not known to be there; it may arrive later.
        """
        unsure = False
        for last in self._tries():
            try:
                self._bucket.put(path, data)
                return
            except Refusal as refusal:
                if refusal.kind is Kind.TAKEN and not unsure:
                    raise self._exists(path) from None
                if refusal.kind not in {Kind.TAKEN, Kind.CONTENDED, Kind.UNKNOWN}:
                    raise error_of(refusal, doing, self._url) from None
                if refusal.kind is Kind.UNKNOWN:
                    unsure = True
                if refusal.kind is not Kind.UNKNOWN or last:
                    verdict = self._settled(path, data, doing, last)
                    if verdict is True and unsure:
                        return
                    if verdict is not None:
                        raise self._exists(path) from None
                if last:
                    raise error_of(refusal, doing, self._url) from None

    def _settled(self, path: str, data: Any, doing: str, last: bool) -> bool | None:
        """Whether what is there equals `data`; None when there is nothing, or no answer yet."""
        try:
            found = self._bucket.get(path, 0, len(data) + 1)
        except Refusal as other:
            if other.kind is Kind.MISSING:
                return None
            if other.kind is Kind.BEYOND:
                return len(data) == 0
            if other.kind is Kind.UNKNOWN and not last:
                return None
            raise error_of(other, doing, self._url) from None
        return bool(found.data == memoryview(data).cast("B"))

    def _exists(self, path: str) -> KeyExists:
        return KeyExists(f"{path} exists already in {self._url}")

    # Reading

    def _get(self, path: str, start: int, end: int, key: str) -> tuple[memoryview, int] | None:
        """(bytes, size of the object), or None when it is not there."""
        try:
            found = self._insist(
                f"read {key}", lambda: self._bucket.get(path, start, end), raw=True
            )
        except Refusal as refusal:
            if refusal.kind is Kind.MISSING:
                return None
            if refusal.kind is Kind.BEYOND:
                return memoryview(b""), 0
            raise error_of(refusal, f"read {key}", self._url) from None
        return found.data, found.size

    def _fill(self, key: str, offset: int, into: memoryview) -> int:
        """Fill memory from the one part that has `offset`; all of it is in that part."""
        found = None
        if offset >= PART:
            start = offset % PART
            path = f"{key}{PARTS}/{offset - start:012d}"
            found = self._get(path, start, start + len(into), key)
        if found is None:  # the first part, or an object that was created whole
            found = self._get(key, offset, offset + max(1, len(into)), key)
        if found is None:
            raise self._missing(key)
        data = found[0][: len(into)]
        into[: len(data)] = data
        return len(data)

    def _parts_of(self, key: str) -> Sequence[tuple[int, int]]:
        """(offset, offset of the end) of the parts below a key."""
        parts = []
        for path, size in self._all_below(f"{key}{PARTS}", f"read {key}"):
            name = path.rpartition("/")[2]
            if name.isascii() and name.isdecimal():
                parts.append((int(name), int(name) + size))
        return sorted(parts)

    def _all_below(self, prefix: str, doing: str) -> Sequence[tuple[str, int]]:
        return self._insist(doing, lambda: self._bucket.all_below(prefix))

    def _missing(self, key: str) -> KeyMissing:
        self._prove_home()
        return KeyMissing(f"there is no {key} in {self._url}")

    def _prove_home(self) -> None:
        if self._marker is not None and self._get(self._marker, 0, 1, self._marker) is None:
            raise StorageUnavailable(
                f"the home {self._url} is not there: {self._marker} is missing from it. Are the "
                "bucket and the endpoint the right ones? Name another home with --home or HEADWAY_HOME."
            )

    # Trying again

    def _insist(self, doing: str, call: Callable[[], T], *, raw: bool = False) -> T:
        """The answer of a request that may be repeated."""
        for last in self._tries():
            try:
                return call()
            except Refusal as refusal:
                if last or refusal.kind is not Kind.UNKNOWN:
                    if raw:
                        raise
                    raise error_of(refusal, doing, self._url) from None
        raise AssertionError("the last try returns or raises")

    def _tries(self) -> Iterator[bool]:
        """Whether this try is the last one, with pauses in between that grow."""
        end = time.monotonic() + self._limits.patience
        pause = _FIRST_PAUSE
        while True:
            wait = pause * random.uniform(0.5, 1.0)
            last = time.monotonic() + wait >= end
            yield last
            if last:
                return
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _checked(key: str) -> str:
    names = key.split("/")
    if not _NOT_A_NAME.isdisjoint(names) or "\0" in key or any(n.endswith(PARTS) for n in names):
        raise InputError(
            f"{key!r} is not a key: it needs names separated by single slashes, and none may end "
            f"in {PARTS}"
        )
    return key


def _spans(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what a range has in each part."""
    end = offset + length
    while offset < end:
        stop = min(end, (offset // PART + 1) * PART)
        yield offset, stop - offset
        offset = stop


def _between(path: str, prefix: str) -> Iterator[str]:
    """The directories of `path` that are `prefix` or below it, or below its parts."""
    while (path := path.rpartition("/")[0]) and path.startswith(prefix):
        if path != prefix:
            yield path

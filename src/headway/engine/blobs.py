"""Content-addressed bytes of a run: the large parts of its values.

A blob's key is the SHA-256 of its bytes, so that equal content is kept once, equal values have equal
references, and every read can be checked. Up to `PIECE` bytes it is one object. More goes to a pack
(a file written from front to back, under a random name, since packs may be left half-written), and
the object under the digest holds the pack's name. It is created after the pack is durable: a
reference that can be found is whole. A pack whose writer died first is dead weight until its run is
deleted.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from headway.model.errors import CheckpointCorrupt, InputError
from headway.ports import KeyExists, KeyMissing, Storage

PIECE = 8 << 20
"""Bytes in memory at once when a blob streams, and the size of the largest blob in one object."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PACK = re.compile(rb"packs/[0-9a-f]{16}")


class Blob(NamedTuple):
    """A reference: SHA-256 in hex, and size in bytes."""

    digest: str
    size: int


class Blobs:
    """The blobs below `prefix`. Safe to use from several threads, and by several processes.

    Raises (all methods):
        StorageError: the home could not be read or written.
        CheckpointCorrupt: a blob is missing, or its bytes are not what its digest says.
    """

    def __init__(self, storage: Storage, prefix: str) -> None:
        self.storage = storage
        self.prefix = prefix
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def put(self, data: bytes | memoryview) -> Blob:
        """Keep `data`; it is durable on return."""
        view = memoryview(data).cast("B")
        blob = Blob(hashlib.sha256(view).hexdigest(), len(view))
        if self._has(blob):
            return blob
        if blob.size <= PIECE:
            self._create(blob, bytes(view))
        else:
            self._pack(blob, (view[at : at + PIECE] for at in range(0, blob.size, PIECE)))
        return blob

    def put_stream(self, pieces: Callable[[], Iterable[bytes]], what: str) -> Blob:
        """Keep content that may be larger than memory; it is durable on return.

        Args:
            pieces: reads the content from its beginning; called twice, since the digest comes first.
            what: the content's name in messages.

        Raises:
            InputError: the second reading differed from the first.
        """
        hashed, size = hashlib.sha256(), 0
        for piece in pieces():
            hashed.update(piece)
            size += len(piece)
        blob = Blob(hashed.hexdigest(), size)
        if self._has(blob):
            return blob
        if size <= PIECE:
            data = b"".join(_measured(pieces(), blob, what))
            self._create(blob, data)
        else:
            self._pack(blob, _measured(pieces(), blob, what))
        return blob

    def get(self, blob: Blob) -> bytes:
        """The bytes of `blob`."""
        return b"".join(self.pieces(blob))

    def fill(self, blob: Blob, target: memoryview) -> None:
        """Read `blob` into `target`, which has its size; on an error `target` holds anything."""
        at = 0
        for piece in self.pieces(blob):
            target[at : at + len(piece)] = piece
            at += len(piece)

    def pieces(self, blob: Blob) -> Iterator[bytes]:
        """The bytes of `blob` in order; a difference raises at the latest after the last piece."""
        key = self._key(blob)
        hashed, size = hashlib.sha256(), 0
        for piece in self._read(key, blob):
            hashed.update(piece)
            size += len(piece)
            if size > blob.size:
                break
            yield piece
        if size != blob.size or hashed.hexdigest() != blob.digest:
            raise CheckpointCorrupt(
                f"{key} in {self.storage.url} is damaged: its bytes are not the ones that were "
                "stored. The value is lost; run the task that made it again in a new run."
            )

    def _key(self, blob: Blob) -> str:
        if _DIGEST.fullmatch(blob.digest) is None:  # never let data name a path
            raise CheckpointCorrupt(f"{blob.digest!r} is not the digest of a stored value")
        return f"{self.prefix}/{blob.digest}"

    def _read(self, key: str, blob: Blob) -> Iterator[bytes]:
        try:
            first = self.storage.read_range(key, 0, PIECE + 1)
            if blob.size <= PIECE:
                yield first
                return
            if _PACK.fullmatch(first) is None:
                raise CheckpointCorrupt(f"{key} in {self.storage.url} is damaged: no pack's name")
            pack = f"{self.prefix}/{first.decode()}"
            for at in range(0, blob.size, PIECE):
                yield self.storage.read_range(pack, at, min(PIECE, blob.size - at))
        except KeyMissing as error:
            raise CheckpointCorrupt(
                f"{key} in {self.storage.url} is missing: a value of this run is lost. Run the task "
                "that made it again in a new run."
            ) from error

    def _has(self, blob: Blob) -> bool:
        with self._lock:
            if blob.digest in self._known:
                return True
        if not self.storage.has(self._key(blob)):
            return False
        self._remember(blob)
        return True

    def _remember(self, blob: Blob) -> None:
        with self._lock:
            self._known.add(blob.digest)

    def _create(self, blob: Blob, data: bytes) -> None:
        try:
            self.storage.create(self._key(blob), data)
        except KeyExists:
            pass  # the same content, stored by somebody else just now; readers verify it
        self._remember(blob)

    def _pack(self, blob: Blob, pieces: Iterable[bytes | memoryview]) -> None:
        name = f"packs/{secrets.token_hex(8)}"
        pack = self.storage.create_pack(f"{self.prefix}/{name}")
        try:
            for piece in pieces:
                pack.write(piece)
            pack.commit()
        except BaseException:
            pack.abort()
            raise
        self._create(blob, name.encode())


def _measured(pieces: Iterable[bytes], blob: Blob, what: str) -> Iterator[bytes]:
    hashed, size = hashlib.sha256(), 0
    for piece in pieces:
        hashed.update(piece)
        size += len(piece)
        yield piece
    if Blob(hashed.hexdigest(), size) != blob:
        raise InputError(
            f"{what} changed while it was being stored. Pass it on when nobody writes to it any more."
        )

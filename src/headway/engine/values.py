"""Values that cross a task boundary: checked, encoded as plain trees, their large parts in the home.

The plain tree of a value goes into the run's journal. What would make the journal heavy does not:
leaves over 32 KiB, files, directories, and whole trees over 64 KiB are blobs beside it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from headway.engine.blobs import Blobs
from headway.engine.contents import Scratch
from headway.engine.decode import Decoder
from headway.engine.encode import TAG, Encoder, pack
from headway.engine.types import check
from headway.model.errors import CheckpointCorrupt, HeadwayError, InputError
from headway.ports import Storage

# What a tree that no encoder made comes to: absent keys, other types.
_UNREADABLE = (
    msgspec.DecodeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
)
_TREE = 64 << 10  # bytes of a packed tree beyond which it is kept as a blob


class Values:
    """The values of one run. Safe to use from several threads and processes.

    Args:
        storage: the home.
        prefix: where blobs are kept: `runs/<run>/values`.
        scratch: directory below which copies of files are made; None makes a temporary one, which
            lives as long as the process. `close` removes the copies in either case.
    """

    def __init__(self, storage: Storage, prefix: str, scratch: Path | None = None) -> None:
        self._blobs = Blobs(storage, prefix)
        self._scratch = Scratch(scratch)
        self._encoder = Encoder(self._blobs)
        self._decoder = Decoder(self._blobs, self._scratch)

    def encode(self, value: Any, type_: Any = Any, where: str = "value") -> Any:
        """The plain tree of `value`, durable with everything that it refers to.

        Args:
            value: anything that fits `type_`.
            type_: an annotation; `Any` keeps plain data, dates, paths and arrays as they are and
                pickles the rest.
            where: what the value is for, in messages.

        Raises:
            InputError: it does not fit `type_`, cannot be pickled, or is a file that cannot be read.
            UntrustedState: it needs pickle, and others can write to the home.
            StorageError: the home could not be written.
        """
        try:
            check(value, type_, where)
            plain = self._encoder.encode(value, type_, where)
            packed = pack(plain)
        except RecursionError:
            raise InputError(f"{where}: nested too deeply, or it contains itself") from None
        if len(packed) <= _TREE:
            return plain
        blob = self._blobs.put(packed)
        return {TAG: "tree", "blob": blob.digest, "size": blob.size}

    def decode(self, plain: Any, type_: Any = Any, where: str = "value") -> Any:
        """The value that `plain` stands for. Files and directories are fetched when looked at, paths
        at once.

        Raises:
            InputError: it is not of `type_` (the code has changed since it was encoded).
            UntrustedState: it is a pickle, and others can write to the home.
            CheckpointCorrupt: something it refers to is missing or damaged.
            StorageError: the home could not be read.
        """
        try:
            return self._decoder.decode(plain, type_, where)
        except RecursionError:
            raise InputError(f"{where}: the stored value is nested too deeply") from None
        except HeadwayError:
            raise
        except _UNREADABLE as error:
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise CheckpointCorrupt(f"{where}: the stored value cannot be read: {why}") from error

    def close(self) -> None:
        """Remove the copies of files that were made. Never raises."""
        self._scratch.close()


def digest(plain: Any) -> str:
    """SHA-256 (hex) of a plain tree: equal for equal values, in every process and release.

    The order of the outermost keys does not count: they are parameter names, and a signature may be
    written in another order. Inside a value a dict's order does count, since a body can see it.
    """
    if isinstance(plain, dict):
        plain = dict(sorted(plain.items()))
    return hashlib.sha256(pack(plain)).hexdigest()

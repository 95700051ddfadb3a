"""A bucket, one request at a time: what it can be asked, and what its answers say.

The difference that everything rests on: a *verdict* is the store's own word about the key that was asked
for, and ends the matter. Anything else (a timeout, a reset, a 5xx, a page from a proxy) says nothing: the
request may have had its effect, may have none, or may still have it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from headway.model.errors import StorageDenied, StorageError, StorageFull, StorageUnavailable


class Kind(enum.Enum):
    """What is known after a request that did not succeed."""

    MISSING = enum.auto()
    """The store says: there is nothing under this key."""
    TAKEN = enum.auto()
    """The store says: there is something under this key already, so this request changed nothing."""
    BEYOND = enum.auto()
    """The store says: the object is there, and ends before the range that was asked for."""
    CONTENDED = enum.auto()
    """The store says: another request for the same key was in the way; this one changed nothing."""
    DENIED = enum.auto()
    """The store says: these credentials may not do that."""
    FULL = enum.auto()
    """The store says: no space, or no quota."""
    WRONG = enum.auto()
    """The store says that the request makes no sense to it; another try will not either."""
    UNKNOWN = enum.auto()
    """No verdict. A write may have happened, or may happen yet."""


class Refusal(Exception):
    """A request that did not succeed. Often that is no error: absence is an answer.

    Attributes:
        kind: what is known.
        reason: for people.
    """

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Found(NamedTuple):
    """What a read found: the bytes asked for, and how many the object has in all."""

    data: memoryview
    size: int


class Listed(NamedTuple):
    """What is directly below a prefix, as whole paths."""

    directories: list[str]
    objects: list[str]


class Bucket(Protocol):
    """A flat store of objects under paths. Every method is one request (a listing: one per page), safe
    from several threads, and raises `Refusal` alone."""

    def put(self, path: str, data: bytes | bytearray | memoryview) -> None:
        """Create an object if there is none: whole or not at all."""
        ...

    def get(self, path: str, start: int, end: int) -> Found:
        """Bytes [start, end) of an object, fewer only at its end; `start` < `end`."""
        ...

    def below(self, prefix: str) -> Listed:
        """What is directly below `prefix` ("" for all)."""
        ...

    def all_below(self, prefix: str) -> list[tuple[str, int]]:
        """(path, size) of every object below `prefix`, at any depth, sorted."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects, up to a thousand; one that is not there is no error."""
        ...


_CLASSES = {
    Kind.DENIED: (StorageDenied, "check the credentials, and what they may do in {place}"),
    Kind.FULL: (StorageFull, "make room (or raise the quota), then `headway resume`"),
    Kind.WRONG: (StorageUnavailable, "check the name, the region and the endpoint of {place}"),
}
_PASSING = (StorageUnavailable, "check that {place} can be reached, then `headway resume`")


def error_of(refusal: Refusal, doing: str, place: str) -> StorageError:
    """The `StorageError` for a refusal.

    Args:
        refusal: what the store answered.
        doing: what was tried, to follow "could not": "write runs/x".
        place: the home's URL.
    """
    kind, advice = _CLASSES.get(refusal.kind, _PASSING)
    return kind(
        f"could not {doing}: {refusal.reason}. Earlier checkpoints are safe; "
        f"{advice.format(place=place)}."
    )

"""What a copy must not make trustworthy: pickles from a home that others can write to.

In a home of this user's own, pickles are loaded. So a run that is copied there from a home that anybody
may have written to is looked through, before it is a run. Everything is compared as it would be
decoded: the same tree can be spelt in several ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from headway.checkpoint.lineage import read_lineage
from headway.engine.keys import nodes_prefix, values_prefix
from headway.ledger import available
from headway.ledger.record import UNREADABLE
from headway.ledger.signing import VARIABLE, trusts
from headway.model.errors import UntrustedState
from headway.model.events import Event
from headway.ports import KeyMissing, Storage

_MARK = msgspec.msgpack.encode("$") + msgspec.msgpack.encode("pickle")
_BLOB = re.compile(r"[0-9a-f]{64}")
_POINTER = re.compile(rb"packs/[0-9a-f]{16}")
_PIECE = 8 << 20


def refuse_pickles(source: Storage, target: Storage, run: str, events: Iterable[Event]) -> None:
    """Refuse a copy whose pickles are not loaded where they come from, and would be where they are now.

    Args:
        source: the home that they come from.
        target, run: the copy, all but its journal.
        events: what is to be its journal.

    Raises:
        UntrustedState: it has some.
        CheckpointError, StorageError: it cannot be read.
    """
    if trusts(source) or not trusts(target):
        return
    if any(_has_pickles(tree) for tree in _trees(target, run, events)):
        raise UntrustedState(
            f"run {run} holds pickles, and others can write to {source.url}: they are not loaded there, "
            f"and would be in {target.url}. Copy from a home that was signed from its beginning on "
            f"({VARIABLE}), or resume the run where it was begun."
        )


def _trees(home: Storage, run: str, events: Iterable[Event]) -> Iterator[Any]:
    """All plain trees of a run."""
    yield from events
    for node in home.list(nodes_prefix(run)):
        for manifest in read_lineage(home, f"{nodes_prefix(run)}/{node}").manifests:
            if manifest.skeleton is not None:
                yield from _decoded(manifest.skeleton)
    prefix = values_prefix(run)
    for name in filter(_BLOB.fullmatch, home.list(prefix)):
        try:
            data = home.read_range(f"{prefix}/{name}", 0, _PIECE + 1)
            if _POINTER.fullmatch(data) is not None:
                yield from _decoded(_all(home, f"{prefix}/{data.decode()}"))
        except KeyMissing:  # it points to nothing: whoever decodes it will be told
            continue
        yield from _decoded(data)


def _decoded(data: bytes) -> Iterator[Any]:
    """The tree that `data` is, if it is one: a file's bytes are seldom any."""
    try:
        yield msgspec.msgpack.decode(data)
    except UNREADABLE:
        return


def _has_pickles(tree: Any) -> bool:
    return _MARK in msgspec.msgpack.encode(tree)


def _all(storage: Storage, key: str) -> bytes:
    data = bytearray()
    while piece := storage.read_range(key, len(data), _PIECE):
        data += piece
        available.require(3 * len(data), f"{key} of {storage.url}")
    return bytes(data)

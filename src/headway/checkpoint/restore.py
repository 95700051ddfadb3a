"""Reading a checkpoint back: every byte is verified before anybody sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from headway.checkpoint.identity import verify
from headway.checkpoint.state import rebuild
from headway.model.errors import CheckpointCorrupt, CheckpointError
from headway.model.manifest import Entry, Manifest
from headway.ports import KeyMissing, Storage

_PACK = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_LARGEST_OFFSET = 2**62
LARGEST_CHUNK = 64 << 20  # bytes; a record that asks for more is not ours


def content(storage: Storage, packs: str, manifest: Manifest, entry: Entry) -> Iterator[bytes]:
    """The verified pieces of a file.

    Args:
        packs: key below which the packs are.

    Raises:
        CheckpointCorrupt: a chunk is missing, too short, or not what was saved.
        StorageError: the store could not be read: says nothing about the checkpoint.
    """
    if entry.data is not None:
        if len(entry.data) != entry.size:
            raise corrupt(manifest, entry, "its size is not what its record says")
        if entry.data:
            yield entry.data
        return
    if sum(chunk.length for chunk in entry.chunks) != entry.size:
        raise corrupt(manifest, entry, "its size is not what its record says")
    for chunk in entry.chunks:
        if (
            not 0 < chunk.length <= LARGEST_CHUNK
            or not 0 <= chunk.pack < len(manifest.packs)
            or not 0 <= chunk.offset <= _LARGEST_OFFSET
        ):
            raise corrupt(manifest, entry, "its record names impossible chunks")
        name = manifest.packs[chunk.pack]
        if _PACK.fullmatch(name) is None:
            raise corrupt(manifest, entry, f"its record names a pack elsewhere: {name!r}")
        try:
            data = storage.read_range(f"{packs}/{name}", chunk.offset, chunk.length)
        except KeyMissing:
            raise corrupt(manifest, entry, f"pack {name} is missing") from None
        if len(data) != chunk.length or not verify(data, chunk.hash):
            raise corrupt(manifest, entry, f"bytes of pack {name} fail their checksum")
        yield data


def state_of(storage: Storage, packs: str, manifest: Manifest) -> Any:
    """The typed state of a checkpoint.

    Raises:
        CheckpointError: it holds none.
        CheckpointCorrupt, StorageError: as for `content`.
    """
    if manifest.skeleton is None:
        use = "restore" if manifest.kind == "directory" else "read"
        raise CheckpointError(
            f"checkpoint {manifest.number} holds {manifest.kind}, and load() gives typed state that "
            f"save(mapping) stored. Use {use}()."
        )

    def fill(part: int, view: memoryview) -> None:
        for piece in content(storage, packs, manifest, manifest.entries[part]):
            view[: len(piece)] = piece
            view = view[len(piece) :]

    for entry in manifest.entries:  # before memory is made for it, or used: it is only what is said
        held = len(entry.data) if entry.data is not None else sum(c.length for c in entry.chunks)
        if entry.size != held:
            raise corrupt(manifest, entry, "its size is not what its record says")
    return rebuild(manifest.skeleton, [entry.size for entry in manifest.entries], fill)


def corrupt(manifest: Manifest, entry: Entry, why: str) -> CheckpointCorrupt:
    """The error for an entry that is not what its record says, or cannot be."""
    return CheckpointCorrupt(f"checkpoint {manifest.number}: {entry.name!r} is damaged: {why}")

"""Reading a checkpoint back: every byte is verified before anybody sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from headway.checkpoint.codec import Damaged, expand
from headway.checkpoint.identity import verify
from headway.model.errors import CheckpointCorrupt
from headway.model.manifest import Chunk, Entry, Manifest
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
        name = placed(manifest, entry, chunk)
        try:
            data = storage.read_range(f"{packs}/{name}", chunk.offset, chunk.held)
        except KeyMissing:
            raise corrupt(manifest, entry, f"pack {name} is missing") from None
        yield bytes(checked(manifest, entry, chunk, data))


def checked(
    manifest: Manifest, entry: Entry, chunk: Chunk, data: bytes | memoryview
) -> bytes | memoryview:
    """The plain bytes of a chunk, of what its pack holds.

    Raises:
        CheckpointCorrupt: they are not what was saved.
        InputError: they are compressed, and zstandard is not installed.
    """
    if chunk.codec:
        try:
            data = expand(bytes(data), chunk.codec, chunk.length)
        except Damaged as error:
            raise corrupt(manifest, entry, str(error)) from error
    if len(data) != chunk.length or not verify(data, chunk.hash):
        name = manifest.packs[chunk.pack]
        raise corrupt(manifest, entry, f"bytes of pack {name} fail their checksum")
    return data


def placed(manifest: Manifest, entry: Entry, chunk: Chunk) -> str:
    """Name of the pack that a chunk is in.

    Raises:
        CheckpointCorrupt: no save can have made such a chunk.
    """
    if (
        not 0 < chunk.length <= LARGEST_CHUNK
        or not 0 < chunk.held <= LARGEST_CHUNK
        or not 0 <= chunk.pack < len(manifest.packs)
        or not 0 <= chunk.offset <= _LARGEST_OFFSET
    ):
        raise corrupt(manifest, entry, "its record names impossible chunks")
    name = manifest.packs[chunk.pack]
    if _PACK.fullmatch(name) is None:
        raise corrupt(manifest, entry, f"its record names a pack elsewhere: {name!r}")
    return name


def corrupt(manifest: Manifest, entry: Entry, why: str) -> CheckpointCorrupt:
    """The error for an entry that is not what its record says, or cannot be."""
    return CheckpointCorrupt(f"checkpoint {manifest.number}: {entry.name!r} is damaged: {why}")

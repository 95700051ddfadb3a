"""Copying a node's checkpoints into another home, or under another run's id.

The copy is a ledger of its own: packs first, then one record for each checkpoint that is there, all in
one append, so that a reader finds all of them or none. A pack keeps its layout, and its name says where it
comes from; so a copy that was interrupted finds what it has copied already. It reads that again before it
relies on it: a name proves nothing.

WRITE ORDER. T1: packs are durable, as for a save. T2: then the records. The caller makes the journal last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from headway.checkpoint.codec import Damaged, expand
from headway.checkpoint.identity import digest, fits, verify
from headway.checkpoint.lineage import lineage_of
from headway.checkpoint.restore import LARGEST_CHUNK, corrupt
from headway.checkpoint.space import pack_name, pack_place
from headway.ledger.read import read_ledger
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt, StorageError
from headway.model.manifest import Chunk, Manifest
from headway.ports import KeyMissing, PackWriter, Storage

PIECE = 8 << 20
"""Bytes that are written at once: a multiple of `ALIGN`, so pieces follow each other without a gap."""
_TERM = 1  # of the copy's own ledger
_ENCODER = msgspec.msgpack.Encoder()
_Place = tuple[
    int, int, bytes, int, int
]  # of a chunk: offset, bytes in its pack, hash, length, codec


@dataclass(frozen=True, slots=True)
class NodePlace:
    """A node in a home."""

    storage: Storage
    prefix: str


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied.

    Attributes:
        checkpoints: how many.
        size: bytes of packs.
        notes: what a person should know.
    """

    checkpoints: int
    size: int
    notes: tuple[str, ...]


def copy_node(
    source: NodePlace, target: NodePlace, progress: Callable[[int], None] = lambda _: None
) -> Copied:
    """Copy all checkpoints that are there. Every chunk is verified on the way.

    A checkpoint that fails its checks is left out, with a note; an older one stands in for it, as when
    loading.

    Args:
        source: nobody writes there.
        target: nobody else writes there, and nobody reads there yet.
        progress: told how many bytes were read since the last time.

    Raises:
        CheckpointCorrupt: there are checkpoints, and none is whole; or the ledger lost all of them.
        StorageError: a home could not be read or written. Copy again, and it goes on.
        UntrustedState: the source is signed with a key that is not configured here.
    """
    key = f"{source.prefix}/ledger"
    chain = read_ledger(source.storage, key)
    lineage = lineage_of(chain, key)
    notes = [f"record {d.term}.{d.seq}: {d.reason}" for d in chain.damage if not d.tail]
    wanted: dict[str, set[_Place]] = {}
    for manifest in lineage.manifests:
        for pack, place in _chunks(manifest):
            wanted.setdefault(pack, set()).add(place)
    known: dict[tuple[str, _Place], bytes] = {}
    size = 0
    for pack, places in sorted(wanted.items()):
        found, length = _Pack(source, target, pack, sorted(places), progress).copy()
        known.update(((pack, place), known_by) for place, known_by in found.items())
        size += length
    whole = []
    for manifest in lineage.manifests:
        try:
            whole.append(_copy_of(manifest, known))
        except CheckpointCorrupt:
            notes.append(f"checkpoint {manifest.number} is damaged, and was left out")
    if not whole and (lineage.manifests or notes):
        raise CheckpointCorrupt(f"no checkpoint of {source.prefix} is whole: {'; '.join(notes)}")
    _record(target, whole)
    return Copied(len(whole), size, tuple(notes))


def copied_name(name: str) -> str:
    """The name of a pack's copy: of the copy's own term, so that no later turn ever uses it."""
    place = pack_place(name)
    if place is None:
        raise CheckpointCorrupt(f"{name!r} is not the name of a pack")
    return pack_name(_TERM, place[0] * 1_000_000 + place[1])


def pack_bytes(storage: Storage, prefix: str) -> int:
    """Bytes of the packs that checkpoints name, at most as many as `copy_node` reads."""
    ends: dict[str, int] = {}
    for manifest in lineage_of(read_ledger(storage, f"{prefix}/ledger"), prefix).manifests:
        for pack, (offset, length, *_) in _chunks(manifest):
            ends[pack] = max(ends.get(pack, 0), offset + length)
    return sum(ends.values())


def _record(target: NodePlace, manifests: list[Manifest]) -> None:
    """Make the ledger (T2). One that an interrupted copy left is not gone on with: nobody relies on it."""
    key = f"{target.prefix}/ledger"
    target.storage.delete(key)
    ledger = Ledger.open(target.storage, key, new=True)
    try:
        if manifests:
            ledger.append(*map(_ENCODER.encode, manifests))
    finally:
        ledger.close()


def _chunks(manifest: Manifest) -> Iterator[tuple[str, _Place]]:
    for entry in manifest.entries:
        for chunk in entry.chunks:
            if _sound(manifest, chunk):
                yield manifest.packs[chunk.pack], _place(chunk)


def _place(chunk: Chunk) -> _Place:
    return chunk.offset, chunk.held, chunk.hash, chunk.length, chunk.codec


def _sound(manifest: Manifest, chunk: Chunk) -> bool:
    return (
        0 <= chunk.pack < len(manifest.packs)
        and chunk.offset >= 0
        and 0 < chunk.length <= LARGEST_CHUNK
        and 0 < chunk.held <= LARGEST_CHUNK
        and pack_place(manifest.packs[chunk.pack]) is not None
    )


def _copy_of(manifest: Manifest, known: dict[tuple[str, _Place], bytes]) -> Manifest:
    """The record of the copy, its chunks known by what they are known by here."""
    entries = []
    for entry in manifest.entries:
        held = len(entry.data) if entry.data is not None else sum(c.length for c in entry.chunks)
        if held != entry.size:
            raise corrupt(manifest, entry, "its size is not what its record says")
        chunks = []
        for chunk in entry.chunks:
            place = _place(chunk)
            name = manifest.packs[chunk.pack] if _sound(manifest, chunk) else ""
            known_by = known.get((name, place))
            if known_by is None:
                raise corrupt(manifest, entry, f"bytes of pack {name} fail their checksum")
            chunks.append(msgspec.structs.replace(chunk, hash=known_by))
        entries.append(msgspec.structs.replace(entry, chunks=tuple(chunks)))
    packs = tuple(map(copied_name, manifest.packs))
    return msgspec.structs.replace(manifest, entries=tuple(entries), packs=packs, dropped=())


class _Pack:
    """One pack on its way.

    Args:
        source, target: where from and to.
        name: in the source.
        places: the chunks that checkpoints name, sorted.
        progress: see `copy_node`.
    """

    def __init__(
        self,
        source: NodePlace,
        target: NodePlace,
        name: str,
        places: list[_Place],
        progress: Callable[[int], None],
    ) -> None:
        self._source = source.storage
        self._from = f"{source.prefix}/packs/{name}"
        self._target = target.storage
        self._to = f"{target.prefix}/packs/{copied_name(name)}"
        self._places = places
        self._progress = progress

    def copy(self) -> tuple[dict[_Place, bytes], int]:
        """(what each good chunk is known by in the copy, bytes of the copy)."""
        end = max(offset + length for offset, length, *_ in self._places)
        if self._target.has(self._to):
            found = {place: self._copied(place) for place in self._places}
            if all(found.values()):
                self._progress(end)
                return found, end
            self._target.delete(self._to)
        pack = self._target.create_pack(self._to)
        try:
            found = self._stream(pack)
            pack.commit()
        except BaseException:
            pack.abort()
            raise
        return found, end

    def _copied(self, place: _Place) -> bytes:
        """What a chunk that the copy has already is known by; b"" when it has not."""
        offset, length, *_ = place
        return _known_by(self._target.read_range(self._to, offset, length), place)

    def _stream(self, pack: PackWriter) -> dict[_Place, bytes]:
        """Write the bytes in order, and verify the chunks among them."""
        found: dict[_Place, bytes] = {}
        out = _Pieces(pack)
        for place in self._places:
            offset, length, *_ = place
            while out.end < offset:  # what no checkpoint names any more, or never did
                gap = self._read(out.end, min(PIECE, offset - out.end))
                if not gap:
                    break  # the pack ends here, whatever its records say
                out.add(gap)
            if out.end < offset:
                break
            data = self._read(offset, length)
            if known_by := _known_by(data, place):
                found[place] = known_by
            out.add(data[out.end - offset :])  # chunks may overlap
        out.flush()
        return found

    def _read(self, offset: int, length: int) -> bytes:
        """Bytes of the source, fewer where it has no more."""
        try:
            data = self._source.read_range(self._from, offset, length)
        except KeyMissing:
            data = b""
        self._progress(length)
        return data


def _known_by(data: bytes, place: _Place) -> bytes:
    """What a chunk is known by from now on, b"" when it is not what it should be. Where there is a key that
    is its identity, whatever it was known by before."""
    _, held, expected, length, codec = place
    plain: bytes | memoryview = data
    if codec and len(data) == held:
        try:
            plain = expand(data, codec, length)
        except Damaged:
            return b""
    if len(data) != held or len(plain) != length or not verify(plain, expected):
        return b""
    return expected if fits(expected) else digest(plain)


class _Pieces:
    """Writes a pack from front to back.

    Attributes:
        end: bytes that were added.
    """

    def __init__(self, pack: PackWriter) -> None:
        self._pack = pack
        self._held = bytearray()
        self._written = 0
        self.end = 0

    def add(self, data: bytes) -> None:
        self._held += data
        self.end += len(data)
        while len(self._held) >= PIECE:
            self._put(PIECE)

    def flush(self) -> None:
        self._put(len(self._held))

    def _put(self, length: int) -> None:
        with memoryview(self._held) as view:
            at = self._pack.write(view[:length])
        if at != self._written:
            raise StorageError(f"a piece of a pack was put at {at}, and not at {self._written}")
        del self._held[:length]
        self._written += length

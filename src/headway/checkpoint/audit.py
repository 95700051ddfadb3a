"""All checkpoints of a node or a lineage, as its ledger has them: what there is, what it takes, whether it
is whole. Reads, and claims nothing.

While it reads, a save may give a checkpoint up, and delete its packs or write over them. So before one is
called bad the ledger is read again: if the checkpoint is not there any more, it was given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from headway.checkpoint.lineage import read_lineage, records_of
from headway.checkpoint.restore import content
from headway.checkpoint.space import pack_sizes
from headway.ledger.read import read_ledger
from headway.model.errors import CheckpointCorrupt
from headway.model.manifest import Chunk, Dropped, Entry, Manifest
from headway.model.report import CheckpointRow
from headway.ports import Storage

LIVE, DROPPED, BAD = "live", "dropped", "bad"
_Placed = tuple[str, bytes, int, int]
_Seen = set[_Placed]


class Audit:
    """The checkpoints under one prefix, at one moment.

    Args:
        storage: the home.
        prefix: of the node or the lineage.
        name: what people call it.

    Attributes:
        damage: what the ledger could not give, in words.

    Raises:
        CheckpointCorrupt: a record is not one of a checkpoint.
        StorageError: the home could not be read.
        UntrustedState: the ledger is not signed as it must be.
    """

    def __init__(self, storage: Storage, prefix: str, name: str) -> None:
        self._storage = storage
        self._prefix = prefix
        self._packs = f"{prefix}/packs"
        self._name = name
        key = f"{prefix}/ledger"
        chain = read_ledger(storage, key)
        self._all: dict[int, Manifest] = {}
        self._live: set[int] = set()
        self._written: dict[int, int] = {}
        seen: set[str] = set()
        for found in records_of(chain, key):
            gone = found.numbers if isinstance(found, Dropped) else found.dropped
            self._live.difference_update(gone)
            if isinstance(found, Manifest):
                self._all[found.number] = found
                self._live.add(found.number)
                self._written[found.number] = _new_bytes(found, seen)
        self.damage = [
            f"{name}: record {d.term}.{d.seq}: {d.reason}" for d in chain.damage if not d.tail
        ]

    @property
    def size(self) -> int:
        """Bytes that `verify` reads: each chunk once."""
        chunks = {
            _placed(live, chunk)
            for live in self._manifests()
            for entry in live.entries
            for chunk in entry.chunks
        }
        return sum(length for _, _, _, length in chunks)

    def rows(self) -> list[CheckpointRow]:
        """Every checkpoint, oldest first; one whose packs are not all there is bad."""
        there = set(self._storage.list(self._packs)) if self._live else set()
        rows = []
        for manifest in self._all.values():
            gone = manifest.number not in self._live
            missing = () if gone else sorted(set(manifest.packs) - there)
            error = f"pack {missing[0]} is missing" if missing else ""
            rows.append(self._row(manifest, DROPPED if gone else BAD if error else LIVE, error))
        return [self._again(row) for row in rows]

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> Iterator[CheckpointRow]:
        """Read every byte of the checkpoints that are there.

        Args:
            progress: told how many bytes were read since the last time.
        """
        seen: _Seen = set()
        for manifest in self._manifests():
            error = ""
            try:
                for entry in manifest.entries:
                    self._read(manifest, entry, seen, progress)
            except CheckpointCorrupt as corrupt:
                error = str(corrupt)
            yield self._again(self._row(manifest, BAD if error else LIVE, error))

    def _manifests(self) -> list[Manifest]:
        return [self._all[number] for number in sorted(self._live)]

    def _read(
        self, manifest: Manifest, entry: Entry, seen: _Seen, progress: Callable[[int], None]
    ) -> None:
        """Verify an entry, but for chunks that were read as part of another checkpoint."""
        if entry.data is None and sum(chunk.length for chunk in entry.chunks) == entry.size:
            chunks = tuple(c for c in entry.chunks if _placed(manifest, c) not in seen)
            size = sum(chunk.length for chunk in chunks)
            entry = msgspec.structs.replace(entry, chunks=chunks, size=size)
        for piece in content(self._storage, self._packs, manifest, entry):
            progress(len(piece))
        seen.update(_placed(manifest, chunk) for chunk in entry.chunks)

    def _again(self, row: CheckpointRow) -> CheckpointRow:
        """The row, unless its checkpoint has been given up since the ledger was read."""
        if row.state != BAD:
            return row
        now = read_lineage(self._storage, self._prefix).manifests
        if any(manifest.number == row.number for manifest in now):
            return row
        return msgspec.structs.replace(row, state=DROPPED, error="")

    def _row(self, manifest: Manifest, state: str, error: str) -> CheckpointRow:
        return CheckpointRow(
            node=self._name,
            number=manifest.number,
            attempt=manifest.attempt,
            kind=manifest.kind,
            size=manifest.size,
            written=self._written[manifest.number],
            time=manifest.time,
            state=state,
            error=error,
            metric=manifest.metric,
            directories=manifest.directories,
        )


def _placed(manifest: Manifest, chunk: Chunk) -> _Placed:
    """What is read, and from where: the same for all checkpoints that share it."""
    pack = manifest.packs[chunk.pack] if 0 <= chunk.pack < len(manifest.packs) else ""
    return pack, chunk.hash, chunk.offset, chunk.length


def _new_bytes(manifest: Manifest, seen: set[str]) -> int:
    """Bytes that a save had to write: of packs that no checkpoint before it names, or in its record."""
    inline = sum(len(entry.data) for entry in manifest.entries if entry.data is not None)
    sizes = pack_sizes(manifest)
    fresh = sum(size for name, size in sizes.items() if name not in seen)
    seen.update(sizes)
    return inline + fresh

"""Turning a stream of files into entries: inline when small, else chunks in a pack.

WRITE ORDER. S1: new chunks go to one new pack, which is made durable, name included. S2: only then is
the record that names it appended (by the handle). So a record never names bytes that a power cut can
take away; a pack without a record is only lost space.

A chunk is referenced instead of written again only when this process wrote or verified the one that it
equals: damage that nobody has noticed yet never spreads into a new checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from headway.checkpoint.hands import THREADS, spread
from headway.checkpoint.identity import hasher
from headway.checkpoint.memory import Block
from headway.checkpoint.source import PIECE, Item, Whole
from headway.model.manifest import Chunk, Entry, Manifest
from headway.ports import PackWriter, Storage

INLINE = 32 * 1024
"""Content of up to this many bytes in all goes into the record itself."""

_AT_ONCE = 8 << 20  # bytes of a large file that one thread has in hand

KnownChunks = dict[tuple[bytes, int], tuple[str, int]]
"""(hash, length) -> (pack, offset) of chunks that are known to be good."""


def known_chunks(manifest: Manifest) -> KnownChunks:
    """The chunks of a checkpoint that was written or verified by this process."""
    return {
        (chunk.hash, chunk.length): (manifest.packs[chunk.pack], chunk.offset)
        for entry in manifest.entries
        for chunk in entry.chunks
        if not chunk.codec  # files are read as they lie in their packs
    }


class Content:
    """The content of one checkpoint while it is being written.

    Args:
        storage: where packs go.
        pack_key: makes the key of the pack, when one is needed.
        known: chunks that need not be written again.
        spare: a pack whose space may be written over, when there is one.
        inline: bytes of content, up to which all that is new goes into the record itself.

    Attributes:
        size: bytes of content in all.
    """

    def __init__(
        self,
        storage: Storage,
        pack_key: Callable[[], str],
        known: KnownChunks,
        spare: Callable[[], str | None] = lambda: None,
        *,
        inline: int = INLINE,
    ) -> None:
        self._storage = storage
        self._spare = spare
        self._digest = hasher()
        self._lock = threading.Lock()
        self._pack_key = pack_key
        self._known = dict(known)
        self._entries: list[Entry] = []
        self._held: list[tuple[int, bytes]] = []  # (entry, content) that may still go inline
        self._held_size = 0
        self._inline = True
        self._limit = inline
        self._packs: dict[str, int] = {}
        self._pack: PackWriter | None = None
        self._pack_name = ""
        self.size = 0

    def add(self, items: Iterable[Item]) -> None:
        """Take everything in. What is small is held back, until it is clear that all of it is."""
        for item in items:
            index = len(self._entries)
            self._entries.append(Entry(item.name, item.kind, item.mode))
            chunks: list[Chunk] = []
            size = 0
            held = b""
            for piece in item.pieces:
                size += len(piece)
                if self._inline and self._held_size + size <= self._limit:
                    held += piece
                    continue
                self._spill()
                if held:
                    chunks.append(self._put(held))
                    held = b""
                chunks.append(self._put(piece))
            if item.whole is not None:
                size = item.whole.size
                chunks += self._put_whole(item.whole)
            self.size += size
            if item.kind != "directory" and self._inline:
                self._held.append((index, held))
                self._held_size += len(held)
            self._entries[index] = Entry(item.name, item.kind, item.mode, size, None, tuple(chunks))

    def refer(self, entry: Entry) -> bool:
        """Take in a file of an older checkpoint by its chunks, if all of them are known; whether they
        are."""
        found = [(c, self._known.get((c.hash, c.length))) for c in entry.chunks]
        if any(place is None for _, place in found):
            return False
        chunks = tuple(self._chunk(c.hash, place, c.length) for c, place in found if place)
        self._entries.append(Entry(entry.name, entry.kind, entry.mode, entry.size, None, chunks))
        self.size += entry.size
        return True

    def finish(self) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
        """(entries, packs), with all new chunks durable (S1)."""
        if self._inline:
            for index, data in self._held:
                entry = self._entries[index]
                self._entries[index] = Entry(entry.name, entry.kind, entry.mode, entry.size, data)
        if self._pack is not None:
            self._pack.commit()
            self._pack = None
        return tuple(self._entries), tuple(self._packs)

    def abort(self) -> None:
        """Give back what was written. Never raises."""
        pack, self._pack = self._pack, None
        if pack is not None:
            pack.abort()

    def _spill(self) -> None:
        """It is too much for a record: what was held back goes to the pack after all."""
        if not self._inline:
            return
        self._inline = False
        for index, data in self._held:
            if data:
                entry = self._entries[index]
                chunks = (self._put(data),)
                self._entries[index] = Entry(
                    entry.name, entry.kind, entry.mode, entry.size, None, chunks
                )
        self._held.clear()

    def _put_whole(self, whole: Whole) -> list[Chunk]:
        """A large file: its pieces are read, hashed and written on several threads, each by way of
        aligned memory of its own."""
        blocks: list[Block] = []  # safe to pop from and append to in threads

        def put(start: int) -> list[Chunk]:
            block = blocks.pop()
            data = block.view[: min(_AT_ONCE, whole.size - start)]
            whole.read_into(start, data)
            chunks = self._put_run(data)
            blocks.append(block)
            return chunks

        try:
            self._spill()
            starts = range(0, whole.size, _AT_ONCE)
            blocks += [Block(_AT_ONCE) for _ in range(min(THREADS, len(starts)))]
            made = spread(put, starts)
        finally:
            for block in blocks:
                block.close()
            whole.close()
        return [chunk for chunks in made for chunk in chunks]

    def _put_run(self, data: memoryview) -> list[Chunk]:
        """Bytes that lie together: what is new of them is written in as few pieces as can be."""
        pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        digests = [self._digest(piece) for piece in pieces]
        places = [
            self._known.get((known_by, len(piece)))
            for known_by, piece in zip(digests, pieces, strict=True)
        ]
        first = 0
        while first < len(pieces):
            last = first
            while last < len(pieces) and places[last] is None:
                last += 1
            if last > first:
                pack, offset = self._write(data[first * PIECE : last * PIECE])
                for index in range(first, last):
                    place = pack, offset + (index - first) * PIECE
                    places[index] = self._known[digests[index], len(pieces[index])] = place
            first = last + 1
        return [
            self._chunk(known_by, place, len(piece))
            for known_by, place, piece in zip(digests, places, pieces, strict=True)
            if place is not None
        ]

    def _put(self, data: bytes | memoryview) -> Chunk:
        known_by = self._digest(data)
        place = self._known.get((known_by, len(data)))
        if place is None:
            place = self._known[known_by, len(data)] = self._write(data)
        return self._chunk(known_by, place, len(data))

    def _write(self, data: bytes | memoryview) -> tuple[str, int]:
        """(pack, offset) of new bytes. From any thread."""
        pack = self._pack
        if pack is None:
            with self._lock:
                if self._pack is None:
                    key = self._pack_key()
                    self._pack_name = key.rpartition("/")[2]
                    self._pack = self._storage.create_pack(key, reuse=self._spare())
                pack = self._pack
        return self._pack_name, pack.write(data)

    def _chunk(self, known_by: bytes, place: tuple[str, int], length: int) -> Chunk:
        pack, offset = place
        number = self._packs.get(pack)
        if number is None:
            with self._lock:
                number = self._packs.setdefault(pack, len(self._packs))
        return Chunk(known_by, number, offset, length)

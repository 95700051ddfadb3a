"""The new pack of one save, and the pieces of a state that lie in it or in older ones."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from headway.checkpoint.codec import PLAIN
from headway.checkpoint.staging import Layout
from headway.checkpoint.turn import Turn
from headway.model.manifest import Chunk, Entry
from headway.ports import PackWriter


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a part and where they are stored."""

    digest: bytes
    pack: str
    offset: int
    length: int
    stored: int = 0
    codec: int = PLAIN


Pieces = list[list[Piece]]
"""Of each part, in order."""


class Packs:
    """The packs of one save: one new one, begun when it is first written to.

    Args:
        turn: whose it is.
        size: bytes that will have to be written, if that is known.

    Attributes:
        name: of the new pack, "" when there is none.
        written: bytes that went into it.
    """

    def __init__(self, turn: Turn, size: int) -> None:
        self._turn = turn
        self._size = size
        self._lock = threading.Lock()
        self._pack: PackWriter | None = None
        self._began = 0.0
        self.name = ""
        self.written = 0

    def write(self, data: memoryview) -> tuple[str, int]:
        """(pack, offset) of the data. From any thread."""
        with self._lock:
            if self._pack is None:
                self._began = time.perf_counter()
                key = self._turn.new_pack()
                spare = self._turn.spare_pack()
                self._pack = self._turn.storage.create_pack(key, size=self._size, reuse=spare)
                self.name = key.rpartition("/")[2]
            self.written += len(data)
        return self.name, self._pack.write(data)

    def finish(self) -> float:
        """Make it durable (S1). Returns the seconds that its writing took."""
        pack, self._pack = self._pack, None
        if pack is None:
            return 0.0
        pack.commit()
        return time.perf_counter() - self._began

    def abort(self) -> None:
        """Give back what was written. Never raises."""
        pack, self._pack = self._pack, None
        if pack is not None:
            pack.abort()


def entries_of(layout: Layout, pieces: Pieces) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """(entries, packs) for a record."""
    packs: dict[str, int] = {}
    entries = []
    for name, size, found in zip(layout.names, layout.sizes, pieces, strict=True):
        chunks = tuple(
            Chunk(
                p.digest,
                packs.setdefault(p.pack, len(packs)),
                p.offset,
                p.length,
                p.stored,
                p.codec,
            )
            for p in found
        )
        entries.append(Entry(name, "part", 0, size, None, chunks))
    return tuple(entries), tuple(packs)

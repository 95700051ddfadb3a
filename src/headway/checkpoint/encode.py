"""From the memory of a state to the entries of a record: what is written, and what is only named.

Each part is cut at multiples of `SLOT`. Of a slot that the checkpoint before has too, only what differs
is written; the rest is named where it lies. What is the same is known from the comparison with the last
copy, or found by its hash. A slot that would fall into too many fragments is written whole.

Only a checkpoint that this process wrote or verified is referred to, so damage that nobody has noticed
yet never spreads into a new one. The hash of a fragment is taken from memory that is known to hold the
same bytes, and never from the pack.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from headway.checkpoint.codec import WIDTHS, Thrift, shrink
from headway.checkpoint.hands import spread
from headway.checkpoint.identity import digest, fits, verify
from headway.checkpoint.memory import Block, address, copy
from headway.checkpoint.packing import Packs, Piece, Pieces
from headway.checkpoint.renew import Run
from headway.checkpoint.staging import Captured, Layout
from headway.checkpoint.state import Part
from headway.model.manifest import Manifest
from headway.ports import ALIGN, LARGE

SLOT = 1 << 20
"""Bytes of a part that have a chunk of their own, or fragments."""
MOST_FRAGMENTS = 64
"""Fragments of a slot, beyond which it is written whole."""
_WRITERS = 8  # they copy and hash as well as write, and a disk wants four writes in flight
_LOAD = 2 << 20  # bytes of one write: all of the buffers stay in the cache of the processor


@dataclass(slots=True)
class _Slot:
    """A stretch of a part on its way: [start, start + length), in memory at `at`; `width` as of `Part`.
    `digest` is of all of it, once that is known, so that nothing is hashed twice."""

    part: int
    start: int
    length: int
    at: int
    width: int
    old: tuple[Piece, ...]  # what the checkpoint before has there; () for nothing
    changed: list[Run] | None  # within the slot; None when only hashes can tell
    digest: bytes = b""


class Encoder:
    """Writes one state.

    Args:
        packs: where new bytes go.
        layout: of the state.
        base: a checkpoint that may be referred to, or None.
        thrift: whether what is written is worth compressing.
        thin: packs to refer to no more.
    """

    def __init__(
        self,
        packs: Packs,
        layout: Layout,
        base: Manifest | None,
        thrift: Thrift,
        thin: Container[str] = (),
    ) -> None:
        self._packs = packs
        self._layout = layout
        self._thrift = thrift
        self._old = _slots_of(base, layout, thin) if base is not None else {}

    def captured(self, captured: Captured, *, since_base: bool) -> Pieces:
        """The pieces of each part of a copy.

        Args:
            captured: the copy.
            since_base: its `changed` is what changed since the base.
        """
        changed = captured.changed if since_base else None
        loads = []
        for load in _loads(self._layout):
            slots = [self._slot(part, start, length, at) for part, start, length, at in load]
            if changed is not None:
                for slot in slots:
                    slot.changed = _within(changed[slot.part], slot.start, slot.length)
            loads.append(slots)
        return self._all(loads, lambda slots: self._settle(captured.memory, slots))

    def direct(self, parts: Sequence[Part]) -> Pieces:
        """The pieces of each part of live memory, through a few small buffers: the state is not copied
        as a whole."""
        buffers = [Block(_LOAD) for _ in range(_WRITERS)]
        sources = [address(part.data) for part in parts]

        def settle(slots: list[_Slot]) -> list[list[Piece]]:
            buffer = buffers.pop()  # lists are safe to pop from and append to in threads
            first = slots[0].at // ALIGN * ALIGN
            for slot in slots:
                slot.at -= first
                copy(buffer.address + slot.at, sources[slot.part] + slot.start, slot.length)
                if len(slot.old) <= 1:  # now, while it is in the processor's cache
                    slot.digest = digest(buffer.view[slot.at : slot.at + slot.length])
            pieces = self._settle(buffer.view, slots)
            buffers.append(buffer)
            return pieces

        loads = [
            [self._slot(part, start, length, at) for part, start, length, at in load]
            for load in _loads(self._layout)
        ]
        return self._all(loads, settle)

    def _slot(self, part: int, start: int, length: int, at: int) -> _Slot:
        width = self._layout.widths[part]
        return _Slot(part, start, length, at, width, self._old.get((part, start), ()), None)

    def _all(
        self, loads: list[list[_Slot]], settle: Callable[[list[_Slot]], list[list[Piece]]]
    ) -> list[list[Piece]]:
        pieces: Pieces = [[] for _ in self._layout.sizes]
        for load, settled in zip(loads, spread(settle, loads, _WRITERS), strict=True):
            for slot, found in zip(load, settled, strict=True):
                pieces[slot.part] += found
        return pieces

    def _settle(self, memory: memoryview, slots: list[_Slot]) -> list[list[Piece]]:
        """Write what has to be written of slots that lie one behind the other in memory."""
        settled: list[list[Piece | Run]] = []
        for slot in slots:
            view = memory[slot.at : slot.at + slot.length]
            if not slot.old:
                settled.append([(0, slot.length)])
            elif slot.changed is None:
                settled.append(self._by_hash(view, slot))
            else:
                settled.append(self._by_change(view, slot.old, slot.changed))
        for slot, pieces in zip(slots, settled, strict=True):
            pieces[:] = [self._shrunk(memory, slot, piece) or piece for piece in pieces]
        fresh = [
            (slot.at + found[0], slot.at + found[1])
            for slot, pieces in zip(slots, settled, strict=True)
            for found in pieces
            if isinstance(found, tuple)
        ]
        places = self._write(memory, fresh)
        return [
            [self._placed(memory, slot, piece, places) for piece in pieces]
            for slot, pieces in zip(slots, settled, strict=True)
        ]

    def _placed(
        self,
        memory: memoryview,
        slot: _Slot,
        piece: Piece | Run,
        places: dict[int, tuple[str, int]],
    ) -> Piece:
        if isinstance(piece, Piece):
            return piece
        start, end = slot.at + piece[0], slot.at + piece[1]
        known = slot.digest if end - start == slot.length else b""
        return Piece(known or digest(memory[start:end]), *places[start], end - start)

    def _shrunk(self, memory: memoryview, slot: _Slot, piece: Piece | Run) -> Piece | None:
        """A run that has been written compressed; None when that does not pay."""
        if isinstance(piece, Piece) or piece[1] - piece[0] < LARGE or slot.width not in WIDTHS:
            return None
        plain = memory[slot.at + piece[0] : slot.at + piece[1]]
        if not self._thrift.pays(plain, slot.width):
            return None
        stored = shrink(plain, slot.width)
        place = self._packs.write(memoryview(stored))
        return Piece(digest(plain), *place, len(plain), len(stored), slot.width)

    def _by_hash(self, view: memoryview, slot: _Slot) -> list[Piece | Run]:
        found: list[Piece | Run] = []
        at = 0
        for piece in slot.old:
            end = at + piece.length
            if len(piece.digest) == len(slot.digest):  # of the same kind, and of all of it
                same = piece.digest == slot.digest
            else:
                same = verify(view[at:end], piece.digest)
            if same:
                found.append(piece)
            else:
                _fresh(found, at, end)
            at = end
        return found

    def _by_change(
        self, view: memoryview, old: tuple[Piece, ...], changed: list[Run]
    ) -> list[Piece | Run]:
        if not changed:
            return list(old)
        found: list[Piece | Run] = []
        rest = iter(changed)
        run = next(rest, None)
        at = 0
        for piece in old:
            begin, end = at, at + piece.length
            if piece.codec and run is not None and run[0] < end:  # of it all, or nothing
                _fresh(found, begin, end)
                at = end
                while run is not None and run[1] <= end:
                    run = next(rest, None)
                continue
            while run is not None and run[0] < end:
                if at < run[0]:
                    found.append(self._fragment(view, piece, begin, at, run[0]))
                at = min(run[1], end)
                _fresh(found, max(run[0], begin), at)
                if run[1] > end:
                    break
                run = next(rest, None)
            if at < end:
                found.append(self._fragment(view, piece, begin, at, end))
                at = end
        many = len(found) > MOST_FRAGMENTS
        if many or 2 * sum(end - start for start, end in changed) > len(view):
            return [(0, len(view))]
        return found

    def _fragment(self, view: memoryview, piece: Piece, begin: int, start: int, end: int) -> Piece:
        """The part [start, end) of an older piece that begins at `begin`."""
        if end - start == piece.length:
            return piece
        return Piece(digest(view[start:end]), piece.pack, piece.offset + start - begin, end - start)

    def _write(self, memory: memoryview, runs: Iterable[Run]) -> dict[int, tuple[str, int]]:
        """Write runs of memory, those that are neighbours in one go; (pack, offset) of each start."""
        places: dict[int, tuple[str, int]] = {}
        group: list[Run] = []

        def put() -> None:
            if group:
                start = (
                    group[0][0] // ALIGN * ALIGN
                )  # whole pages: they can go straight to the disk
                end = -(-group[-1][1] // ALIGN) * ALIGN
                pack, offset = self._packs.write(memory[start:end])
                places.update({run[0]: (pack, offset + run[0] - start) for run in group})
                group.clear()

        for run in runs:
            if group and run[0] - group[-1][1] >= ALIGN:
                put()
            group.append(run)
        put()
        return places


def _fresh(found: list[Piece | Run], start: int, end: int) -> None:
    """Note that [start, end) has to be written."""
    last = found[-1] if found else None
    if isinstance(last, tuple) and last[1] == start:
        found[-1] = last[0], end
    else:
        found.append((start, end))


def _within(runs: list[Run], start: int, length: int) -> list[Run]:
    """The part of sorted runs that is in [start, start + length), from `start` on."""
    end = start + length
    first = bisect_right(runs, start, key=lambda run: run[1])
    found = []
    for begin, stop in itertools.islice(runs, first, None):
        if begin >= end:
            break
        found.append((max(begin, start) - start, min(stop, end) - start))
    return found


def _loads(layout: Layout) -> list[list[tuple[int, int, int, int]]]:
    """Slots as (part, start, length, place in memory), as many together as one thread takes."""
    loads: list[list[tuple[int, int, int, int]]] = [[]]
    first = 0
    for part, (size, place) in enumerate(zip(layout.sizes, layout.starts, strict=True)):
        for start in range(0, size, SLOT):
            length, at = min(SLOT, size - start), place + start
            load = loads[-1]
            if load and -(-(at + length) // ALIGN) * ALIGN - first > _LOAD:
                loads.append(load := [])
            if not load:
                first = at // ALIGN * ALIGN
            load.append((part, start, length, at))
    return [load for load in loads if load]


def _slots_of(
    base: Manifest, layout: Layout, thin: Container[str]
) -> dict[tuple[int, int], tuple[Piece, ...]]:
    """The pieces of a checkpoint by (part, start of the slot), of parts that this layout has too, but for
    those in thin packs."""
    slots: dict[tuple[int, int], tuple[Piece, ...]] = {}
    parts = base.given
    for part, (name, size) in enumerate(zip(layout.names, layout.sizes, strict=True)):
        entry = parts[part] if part < len(parts) else None
        if entry is None or (entry.name, entry.size) != (name, size):
            continue
        at, start = 0, 0
        pieces: list[Piece] = []
        for chunk in entry.chunks:
            pack = base.packs[chunk.pack]
            pieces.append(
                Piece(chunk.hash, pack, chunk.offset, chunk.length, chunk.stored, chunk.codec)
            )
            at += chunk.length
            if at - start >= min(SLOT, size - start):
                whole = at - start == min(SLOT, size - start)
                if whole and all(piece.pack not in thin and fits(piece.digest) for piece in pieces):
                    slots[part, start] = tuple(pieces)
                start, pieces = at, []
    return slots

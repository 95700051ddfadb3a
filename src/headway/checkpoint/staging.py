"""The copy of a state that is saved in the background, and what changed in it since the copy before.

The memory is reused from save to save: fresh memory would cost the kernel more than the copy does. While
a part is copied it is compared with what the copy held, so that what did not change is known without
reading it again. A piece whose bytes have all changed is recognised by a few samples and copied blindly:
comparing costs nothing where nothing can be won.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from headway.checkpoint.hands import spread
from headway.checkpoint.memory import Block, address, copy, equal
from headway.checkpoint.state import Part
from headway.ports import ALIGN

PIECE = 8 << 20
"""Bytes that one thread copies, or writes, at a time."""
GRAIN = 256 << 10
"""Bytes that are compared at once; inside one that changed, pages of `ALIGN` bytes."""
_COPIERS = 2
_LINE = 64  # bytes: where a small part begins

Run = tuple[int, int]
"""[start, end) within a part."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each part lies in the copy.

    Attributes:
        names, sizes, widths: of the parts.
        starts: offset of each; a multiple of `ALIGN` for parts of at least that size.
        total: bytes in all.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    widths: tuple[int, ...]
    starts: tuple[int, ...]
    total: int

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Layout:
        """The layout of a state's parts."""
        starts, end = [], 0
        for part in parts:
            step = ALIGN if len(part.data) >= ALIGN else _LINE
            start = -(-end // step) * step
            starts.append(start)
            end = start + len(part.data)
        total = -(-end // ALIGN) * ALIGN
        return cls(
            tuple(part.name for part in parts),
            tuple(len(part.data) for part in parts),
            tuple(part.width for part in parts),
            tuple(starts),
            total,
        )


@dataclass(frozen=True, slots=True)
class Captured:
    """A copy of a state.

    Attributes:
        layout: where the parts are.
        memory: the copy; it stays as it is until the next capture.
        changed: for each part, what is not as it was at the capture before; None when there is no
            such capture, or not of the same parts.
    """

    layout: Layout
    memory: memoryview
    changed: list[list[Run]] | None


@dataclass(slots=True)
class _Piece:
    part: int
    offset: int
    length: int
    dense: bool = True  # all of it changed last time


class Staging:
    """Memory for one state's copy. Used by one thread at a time."""

    def __init__(self) -> None:
        self._block: Block | None = None
        self._layout: Layout | None = None
        self._loads: list[list[_Piece]] = []
        self._whole = False  # the copy holds one whole state
        self._getting_ready: threading.Thread | None = None

    def prepare(self, layout: Layout) -> None:
        """Have memory for states of this layout made ready, in a thread of its own."""
        self._fit(layout)
        block = self._block
        assert block is not None
        total, step = layout.total, 16 * PIECE

        def make_ready() -> None:
            spread(lambda at: block.make_ready(at, step), range(0, total, step), _COPIERS)

        self._getting_ready = threading.Thread(target=make_ready, name="headway-ready", daemon=True)
        self._getting_ready.start()

    def capture(self, parts: Sequence[Part]) -> Captured:
        """Copy a state."""
        layout = Layout.of(parts)
        self._fit(layout)
        if self._getting_ready is not None:
            self._getting_ready.join()
            self._getting_ready = None
        block = self._block
        assert block is not None
        compare, self._whole = self._whole, False  # an interrupted copy is a mixture
        sources = [address(part.data) for part in parts]

        def take(load: list[_Piece]) -> list[tuple[int, list[Run]]]:
            found = []
            for piece in load:
                source = sources[piece.part] + piece.offset
                target = block.address + layout.starts[piece.part] + piece.offset
                if not compare:
                    copy(target, source, piece.length)
                    continue
                runs = _renew(piece, target, source)
                if runs:
                    found.append((piece.part, runs))
            return found

        renewed = spread(take, self._loads, _COPIERS)
        self._whole = True
        changed: list[list[Run]] | None = None
        if compare:
            changed = [[] for _ in parts]
            for found in renewed:  # in the order of the parts, and within them of the offsets
                for part, runs in found:
                    for start, end in runs:
                        _extend(changed[part], start, end)
        return Captured(layout, block.view[: layout.total], changed)

    def close(self) -> None:
        """Give the memory back."""
        if self._getting_ready is not None:
            self._getting_ready.join()
        self._block, self._layout, self._whole = None, None, False

    def _fit(self, layout: Layout) -> None:
        if layout == self._layout:
            return
        if self._getting_ready is not None:
            self._getting_ready.join()
        self._layout, self._whole = layout, False
        if self._block is None or not layout.total <= self._block.size <= 2 * layout.total + PIECE:
            self._block = None  # the old memory goes before the new one comes
            self._block = Block(layout.total)
        self._loads = _loads(layout)


def _loads(layout: Layout) -> list[list[_Piece]]:
    """Pieces for one thread at a time: of large parts one each, of small ones many."""
    loads: list[list[_Piece]] = []
    current: list[_Piece] = []
    room = PIECE
    for part, size in enumerate(layout.sizes):
        for offset in range(0, size, PIECE):
            length = min(PIECE, size - offset)
            if length > room:
                loads.append(current)
                current, room = [], PIECE
            current.append(_Piece(part, offset, length))
            room -= length
    if current:
        loads.append(current)
    return [load for load in loads if load]


def _renew(piece: _Piece, target: int, source: int) -> list[Run]:
    """Make the copy of a piece equal to its source; the runs that were not."""
    base, length = piece.offset, piece.length
    if piece.dense and _all_differ(target, source, length):
        copy(target, source, length)
        return [(base, base + length)]
    runs: list[Run] = []
    changed = 0
    for at in range(0, length, GRAIN):
        size = min(GRAIN, length - at)
        if equal(target + at, source + at, size):
            continue
        if _all_differ(target + at, source + at, size):
            _extend(runs, base + at, base + at + size)
            changed += size
        else:
            for page in range(at, at + size, ALIGN):
                step = min(ALIGN, at + size - page)
                if not equal(target + page, source + page, step):
                    _extend(runs, base + page, base + page + step)
                    changed += step
        copy(target + at, source + at, size)
    piece.dense = changed == length
    return runs


def _all_differ(target: int, source: int, length: int) -> bool:
    """Whether a few pages spread over the bytes have all changed: then most likely all have."""
    if length <= ALIGN:
        return not equal(target, source, length)
    last = (length - 1) // ALIGN * ALIGN
    places = (0, last // 3 // ALIGN * ALIGN, 2 * last // 3 // ALIGN * ALIGN, last)
    return not any(equal(target + at, source + at, min(ALIGN, length - at)) for at in places)


def _extend(runs: list[Run], start: int, end: int) -> None:
    if runs and runs[-1][1] == start:
        runs[-1] = runs[-1][0], end
    else:
        runs.append((start, end))

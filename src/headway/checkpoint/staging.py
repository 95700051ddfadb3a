"""The copy of a state that is saved in the background, and what changed in it since the copy before.

The memory is reused from save to save: fresh memory would cost the kernel more than the copy does. While
a part is copied it is compared with what the copy held (`checkpoint.renew`), so that what did not change is
known without reading it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from headway.checkpoint.background import Background
from headway.checkpoint.hands import spread
from headway.checkpoint.memory import Block, address
from headway.checkpoint.renew import Run, Share, duplicate, extend, renew
from headway.checkpoint.state import Part
from headway.ports import ALIGN

PIECE = 8 << 20
"""Bytes that one thread copies, or writes, at a time."""
_COPIERS = 2
NOTHING: frozenset[int] = frozenset()
_LINE = 64  # bytes: where a small part begins


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


class Staging:
    """Memory for one state's copy. Used by one thread at a time."""

    def __init__(self) -> None:
        self._block: Block | None = None
        self._layout: Layout | None = None
        self._shares: list[list[Share]] = []  # of each part
        self._loads: tuple[list[list[Share]], list[list[Share]]] = [], []  # at once, and late
        self._late: frozenset[int] | None = None  # what these are made for
        self._whole = False  # the copy holds one whole state
        self._getting_ready = Background()

    def prepare(self, layout: Layout) -> None:
        """Have memory for states of this layout made ready, in a thread of its own."""
        self._getting_ready.drain()
        self._fit(layout)
        block = self._block
        assert block is not None
        total, step = layout.total, 16 * PIECE

        def make_ready() -> int:
            spread(lambda at: block.make_ready(at, step), range(0, total, step), _COPIERS)
            return 0

        self._getting_ready.begin(make_ready)

    def capture(self, parts: Sequence[Part]) -> Captured:
        """Copy a state."""
        return self.begin(parts)()

    def begin(
        self, parts: Sequence[Part], late: frozenset[int] = NOTHING
    ) -> Callable[[], Captured]:
        """Copy the parts of a state, except for some of them.

        Args:
            parts: of the state.
            late: numbers of those that are not copied yet.

        Returns:
            Copies these too; to be called once, on any thread, before anything else here.
        """
        layout = Layout.of(parts)
        self._fit(layout)
        at_once, later = self._split(late)
        self._getting_ready.drain()
        block = self._block
        assert block is not None
        compare, self._whole = self._whole, False  # an interrupted copy is a mixture
        sources = [address(part.data) for part in parts]

        def take(load: list[Share]) -> list[tuple[int, list[Run]]]:
            found = []
            for piece in load:
                source = sources[piece.part] + piece.offset
                target = block.address + layout.starts[piece.part] + piece.offset
                if not compare:
                    duplicate(target, source, piece.length)
                    continue
                runs = renew(piece, target, source)
                if runs:
                    found.append((piece.part, runs))
            return found

        renewed = spread(take, at_once, _COPIERS)

        def rest() -> Captured:
            renewed.extend(spread(take, later, _COPIERS))
            self._whole = True
            changed: list[list[Run]] | None = None
            if compare:
                changed = [[] for _ in parts]
                for found in renewed:  # within each part in the order of the offsets
                    for part, runs in found:
                        for start, end in runs:
                            extend(changed[part], start, end)
            return Captured(layout, block.view[: layout.total], changed)

        return rest

    def checked(self, rest: Callable[[], Captured], check: Callable[[Captured], None]) -> Captured:
        """What `begin` returned, called; if `check` raises, no later copy is compared with this one."""
        captured = rest()
        self._whole = False
        check(captured)
        self._whole = True
        return captured

    def close(self) -> None:
        """Give the memory back."""
        self._getting_ready.drain()
        self._block, self._layout, self._whole = None, None, False

    def _split(self, late: frozenset[int]) -> tuple[list[list[Share]], list[list[Share]]]:
        """What threads copy at once, and what they copy late."""
        if late != self._late:
            numbered = list(enumerate(self._shares))
            self._loads = (
                _loads(shares for number, shares in numbered if number not in late),
                _loads(shares for number, shares in numbered if number in late),
            )
            self._late = late
        return self._loads

    def _fit(self, layout: Layout) -> None:
        if layout == self._layout:
            return
        self._getting_ready.drain()
        self._layout, self._whole = None, False  # set last: a signal handler may raise anywhere
        if self._block is None or not layout.total <= self._block.size <= 2 * layout.total + PIECE:
            self._block = None  # the old memory goes before the new one comes
            self._block = Block(layout.total)
        self._shares = [
            [Share(part, at, min(PIECE, size - at)) for at in range(0, size, PIECE)]
            for part, size in enumerate(layout.sizes)
        ]
        self._late = None
        self._layout = layout


def _loads(parts: Iterable[list[Share]]) -> list[list[Share]]:
    """Pieces for one thread at a time: of large parts one each, of small ones many."""
    loads: list[list[Share]] = []
    current: list[Share] = []
    room = PIECE
    for shares in parts:
        for share in shares:
            if share.length > room:
                loads.append(current)
                current, room = [], PIECE
            current.append(share)
            room -= share.length
    if current:
        loads.append(current)
    return [load for load in loads if load]

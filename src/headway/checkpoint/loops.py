"""Where a body is in its loops, and how it gets there again.

A *place* is a list of frames, one for each open loop, outermost first: which loop of its level it is
(`ordinal`: how many on that level ended before, in this turn of the loop around), and how many of its
items are done (`at`; of an outer loop, the item `at` is the one in progress). On the way back to a place,
loops that had ended give no items, outer ones begin with the item that was in progress, and the innermost
one goes on.

Random generators decide what code outside of the innermost loop does: the order that a loader draws, say.
So a frame has the states that were there when the last loops before it ended (`ends`), before its
iterator was made (`begun`), and before the item in progress was taken (`turn`), and they are set there
again on the way. What they and everything else were when the checkpoint was taken is set last, when the
innermost loop is reached.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from headway.checkpoint.randomness import Snapshot
from headway.model.errors import CheckpointError
from headway.ports import Leave

_ENDS = 4  # loops of a level whose ends are known
_RARELY = 0.005  # seconds; taking the random states costs some 25 microseconds


@dataclass(slots=True)
class Frame:
    """One loop of a place; see the module."""

    ordinal: int
    at: int = 0
    begun: Snapshot | None = None
    turn: Snapshot | None = None
    items: Any = None  # what `Items.position` said, of those that know their own
    ends: list[Snapshot | None] = field(default_factory=list)


class Items:
    """What a loop goes over. Subclasses know how to begin in the middle without going through the rest."""

    random = True
    """Whether making the iterator, or skipping, may draw random numbers."""
    generators: Sequence[Any] = ()
    """Generators of its own that it draws from. Between two loops over it they are nobody's, so they should
    be tracked too."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable

    def start(self, at: int, _: Any) -> Iterator[Any]:
        """The items from number `at` on. The second argument is what `position` said there; None if it
        knows none."""
        items = iter(self._iterable)
        if at:
            next(itertools.islice(items, at - 1, at), None)
        return items

    def position(self, *, done: bool) -> Any:  # noqa: ARG002  # subclasses use it
        """Where the iterator is, as data; None when the number of items says all.

        Args:
            done: the item that was taken last is done; if not, it is to be taken again.
        """
        return None


class Listed(Items):
    """Items that can be taken by number."""

    random = False

    def __init__(self, items: Sequence[Any]) -> None:
        super().__init__(items)
        self._items = items

    def start(self, at: int, _: Any) -> Iterator[Any]:
        """See `Items`."""
        return map(self._items.__getitem__, range(at, len(self._items)))


class Loops:
    """The loops of one body.

    Args:
        tick: is called between two items of any loop, before the next one is taken, and when the outermost
            loop is through (`end`). `leaf`: the item had no loops in it.
        arrived: is called when the place that was to be found again is reached.
        hold: entered while the outermost loop is open.
        take, put: take, and set, the states of the random generators; None to leave them alone.
    """

    def __init__(
        self,
        tick: Callable[[bool, bool], None],
        arrived: Callable[[], None],
        take: Callable[[], Snapshot] | None,
        put: Callable[[Snapshot], None],
        hold: AbstractContextManager[Any],
    ) -> None:
        self._hold = hold
        self._tick = tick
        self._arrived = arrived
        self._take = take
        self._put = put
        self._open: list[tuple[Frame, Items]] = []
        self._ended = [0]  # of each level, how many loops have ended in this turn of the one around
        self._ends: list[list[Snapshot | None]] = [
            []
        ]  # and the random states then, of the last few
        self._target: list[Frame] = []
        self._nests: dict[tuple[int, ...], bool] = {}  # by the ordinals on the way
        self._taken = -_RARELY

    @property
    def returning(self) -> bool:
        """Whether the body is on its way to where the checkpoint was taken."""
        return bool(self._target)

    def find(self, place: list[Frame]) -> None:
        """Go to this place; before any loop."""
        self._target = place

    def place(self) -> list[Frame]:
        """Where the body is now."""
        frames = []
        for depth, (frame, items) in enumerate(self._open, start=1):
            frame.items = items.position(done=depth == len(self._open))
            frames.append(frame)
        if frames:
            frames[-1].turn = None
        return frames

    def over(self, items: Items) -> Iterator[Any]:
        """The items that are left of a loop, which begins here."""
        depth, target = len(self._open), self._target
        frame = Frame(self._ended[depth], ends=self._ends[depth])
        goal = target[depth] if depth < len(target) else None
        if goal is not None and frame.ordinal < goal.ordinal:
            back = goal.ordinal - frame.ordinal
            end = goal.ends[-back] if back <= len(goal.ends) else None
            self._set(end)
            self._end(depth, end)
            return
        if goal is not None and frame.ordinal > goal.ordinal:
            raise self._lost(goal)
        self._open.append((frame, items))
        self._ended.append(0)
        self._ends.append([])
        try:
            with self._hold if depth == 0 else nullcontext():
                yield from self._items(frame, items, goal)
        finally:  # the end of it, `break`, or an exception: those within it are gone too
            del self._open[depth:]
            self._end(depth, None if self._take is None else self._take())

    def _end(self, depth: int, states: Snapshot | None) -> None:
        """A loop of this level has ended, and all that were in it."""
        del self._ended[depth + 1 :], self._ends[depth + 1 :]
        self._ended[depth] += 1
        self._ends[depth] = [*self._ends[depth], states][-_ENDS:]

    def _items(self, frame: Frame, items: Items, goal: Frame | None) -> Iterator[Any]:
        depth = len(self._open)
        path = tuple(f.ordinal for f, _ in self._open)
        begun = self._take() if self._take is not None and items.random else None
        if goal is not None:
            frame.at, begun = goal.at, goal.begun
            self._set(begun)
        iterator = items.start(frame.at, None if goal is None else goal.items)
        frame.begun = begun
        if goal is not None and depth < len(self._target):
            frame.turn = goal.turn
            self._set(goal.turn)
        elif goal is not None:
            self._target = []
            self._arrived()
        while True:
            if not self.returning:
                frame.turn = self._turn(path)
            try:
                item = next(iterator)
            except StopIteration:
                break
            self._ended[depth], self._ends[depth] = 0, []
            yield item
            if self.returning:
                raise self._lost(self._target[depth])
            leaf = self._ended[depth] == 0
            self._nests[path] = self._nests.get(path, False) or not leaf
            frame.at += 1
            self._tick(leaf, False)
        if depth == 1:
            self._tick(False, True)

    def _turn(self, path: tuple[int, ...]) -> Snapshot | None:
        """The random states before an item is taken: needed if a loop begins in its turn, which some turns
        may not have had so far, and not worth a hundredth of a fast loop's time."""
        now = time.monotonic()
        if self._take is None or (not self._nests.get(path, True) and now - self._taken < _RARELY):
            return None
        self._taken = now
        return self._take()

    def _set(self, saved: Snapshot | None) -> None:
        if saved is not None and self._take is not None:
            self._put(saved)

    def _lost(self, goal: Frame) -> CheckpointError:
        depth = len(self._open) + 1
        return CheckpointError(
            f"the newest checkpoint was taken in loop {goal.ordinal + 1} of level {depth}, item {goal.at}, "
            "and the body did not begin that loop this time. Have its loops changed? Start over with a new "
            "`headway run`, or put the loops back as they were."
        )


class Hold:
    """Entered while the outermost loop is open: then `Preempted` comes between two items."""

    def __init__(self, leave: Leave | None) -> None:
        self._leave = leave

    def __enter__(self) -> None:
        if self._leave is not None:
            self._leave.hold()

    def __exit__(self, *_: object) -> None:
        if self._leave is not None:
            self._leave.release()

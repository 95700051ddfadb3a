"""The turns of a loop that a framework runs (epochs, rounds), as a loop of `track`'s.

A callback is called where the body of a loop would be. So the loop is turned inside out: its iterator is
asked for the next item whenever a turn is done. What `track` does between two items happens then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headway.checkpoint.cadence import Every
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.loops import Items
from headway.tracking import tracker


class Turns:
    """Restores what is given, and saves it between turns.

    Args:
        name, every, checkpoint: as for `tracking.tracker`.
        named: what is tracked. After the call it has the values of the newest checkpoint.

    Attributes:
        values: what is tracked, as it is now.

    Raises:
        as for `track`.
    """

    def __init__(
        self, name: str, checkpoint: Checkpoint | None, every: Every, **named: Any
    ) -> None:
        made = tracker(name, named, every=every, checkpoint=checkpoint)
        self.values = made.values
        self._items = _Endless()
        self._loop: Any = made.loops.over(self._items)
        next(self._loop)

    def done(self) -> None:
        """A turn is done. If the process was told to go, it is saved, and leaves."""
        next(self._loop)

    def end(self, *, turn: bool) -> None:
        """The loop is through: its end is saved.

        Args:
            turn: a turn is done, which `done` was not told of.
        """
        if turn:
            self._items.over = True
            next(self._loop, None)
        self._loop.close()


class _Endless(Items):
    """Items until somebody says that it is over."""

    random = False

    def __init__(self) -> None:
        super().__init__(())
        self.over = False

    def start(self, at: int, _: Any) -> Iterator[None]:
        """See `Items`."""
        while not self.over:
            yield None

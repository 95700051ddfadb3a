"""A loader that says when an item is about to be taken from it, and that can begin in its middle, with the
random numbers that it had there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from headway import adapters
from headway.checkpoint import randomness
from headway.checkpoint.loops import Items


class Watched:
    """Stands for a loader; what it does not have itself, it asks that one for.

    Args:
        loader: which.
        before: is called before an item is taken.
        arrived: is called instead, once, when it had been told where to begin; with the states that the
            random generators had when that was done.

    Attributes:
        loader: the loader itself.
        at: items that were taken in this turn.
    """

    def __init__(
        self,
        loader: Any,
        before: Callable[[], None],
        arrived: Callable[[randomness.Snapshot], None],
    ) -> None:
        self.loader = loader
        self.at = 0
        self._items = adapters.find_items(loader) or Items(loader)
        self._before = before
        self._arrived = arrived
        self._begun = randomness.snapshot()
        self._goal: dict[str, Any] | None = None
        # Lightning saves what has these two, and loads it again, maybe where nothing is watched.
        self._stateful = {
            name: getattr(loader, name)
            for name in ("state_dict", "load_state_dict")
            if hasattr(loader, name)
        }
        vars(self).update(self._stateful)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # it is being copied, and has nothing yet
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        goal, self._goal = self._goal, None
        if goal is None:
            self.at = 0
            self._begun = randomness.snapshot()
            return self._going(self._items.start(0, None), None)
        begun = randomness.taken_from(goal["states"], goal["begun"])
        assert begun is not None
        randomness.restore(begun)
        self.at, self._begun = goal["at"], begun
        items = self._items.start(self.at, goal["position"])
        return self._going(items, randomness.snapshot())

    def _going(self, items: Iterator[Any], resumed: randomness.Snapshot | None) -> Iterator[Any]:
        while True:
            if resumed is None:
                self._before()
            else:
                for name in ("state_dict", "load_state_dict"):
                    vars(self).pop(name, None)
                vars(self).update(self._stateful)
                self._arrived(resumed)
                resumed = None
            try:
                item = next(items)
            except StopIteration:
                return
            self.at += 1
            yield item

    def begin_with(self, states: randomness.Snapshot) -> None:
        """Begin at the first item, with these random states, when it is gone over next."""
        table = randomness.Table()
        row = table.put(states)
        self.begin_at({"at": 0, "begun": row, "states": table.states, "position": None})

    def begin_at(self, place: dict[str, Any]) -> None:
        """Begin where `place` was asked for, when it is gone over next. Till then it has what Lightning
        looks for in a loader before it warns that one cannot do this."""
        self._goal = place
        vars(self).update(state_dict=dict, load_state_dict=_nothing)

    def place(self) -> dict[str, Any]:
        """Where it is, between two items."""
        table = randomness.Table()
        return {
            "at": self.at,
            "begun": table.put(self._begun),
            "states": table.states,
            "position": self._items.position(done=True),
        }


def _nothing(_: Any) -> None:
    pass

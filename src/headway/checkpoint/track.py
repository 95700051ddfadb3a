"""`track`: a loop's state, restored when there is a checkpoint and saved as the loop goes on.

What is tracked stands at the top of the saved mapping, under its own name; what belongs to the loops
themselves under `_track`. A checkpoint is taken between two items of a loop, so that it always says: these
items are done, and this is what they made of the state.

On the way back (`loops`), code between the loops runs again, and with it what it did to the state before
the checkpoint was taken. So everything is put in place once more when the body is where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from headway.checkpoint import randomness
from headway.checkpoint.background import SaveHandle
from headway.checkpoint.cadence import Cadence, Record
from headway.checkpoint.capture import Find, capture, is_data, restore
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.late import StateMoved
from headway.checkpoint.loops import Frame, Hold, Items, Listed, Loops
from headway.model.errors import (
    CheckpointError,
    CheckpointFenced,
    InputError,
    StorageError,
)
from headway.model.program import Warned
from headway.ports import Leave, Steady

T = TypeVar("T")

TRACK = "_track"
"""Where in the saved mapping the loops are."""
FAILURES = 3
"""Saves in a row that may fail before the body does."""
_FORMAT = 1

Observe = Callable[[list[Frame], bool, Mapping[str, Any]], None]
"""Is shown each boundary, for `headway verify`: the place, whether it is the end of the outermost loop,
and the state."""
FindItems = Callable[[Any], Items | None]
FindOwner = Callable[[Any], Steady | None]


class Tracked:
    """The state of a loop: what `track` returns. What is tracked are its attributes."""

    __slots__ = ("_tracker",)
    _tracker: Tracker

    def __init__(self, tracker: Tracker) -> None:
        object.__setattr__(self, "_tracker", tracker)

    def range(self, *bounds: int) -> Iterator[int]:
        """As the built-in `range`: the numbers that are left. The loop's position is part of the state."""
        return self._tracker.loops.over(Listed(range(*bounds)))

    def iterate(self, iterable: Iterable[T]) -> Iterator[T]:
        """The items that are left of an iterable. The loop's position is part of the state.

        What has `state_dict()` and `load_state_dict()` (a stateful data loader) is restored by them; of a
        list, a range or a PyTorch `DataLoader` the items that are done are not made again; of anything
        else they are taken once more and passed over.
        """
        return self._tracker.loops.over(self._tracker.items_of(iterable))

    def __getattr__(self, name: str) -> Any:
        return self._tracker.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._tracker.set(name, value)

    def __dir__(self) -> list[str]:
        return sorted({"range", "iterate", *self._tracker.values})

    def __repr__(self) -> str:
        return f"<tracked: {', '.join(self._tracker.values)}>"


class Tracker:
    """Restores and saves what is tracked.

    Args:
        named: what is tracked.
        checkpoint: where it is saved; None to save nothing.
        find, find_items: adapters for values, and for what is iterated over.
        every, rng: as for `track`.
        record: how attempts fared lately, for `every="auto"`.
        leave: says when the process is told to go.
        warn: takes what a person should know.
        observe: see `Observe`.
        find_owner: finds who announces changes; what belongs to them is copied while the loop goes on.

    Attributes:
        values: what is tracked, as it is now.
        loops: where the body is.
    """

    def __init__(
        self,
        named: dict[str, Any],
        *,
        checkpoint: Checkpoint | None,
        find: Find,
        find_items: FindItems,
        every: Any,
        rng: bool,
        record: Callable[[], Record] = Record,
        leave: Leave | None = None,
        warn: Callable[[Warned], None] = lambda _: None,
        observe: Observe | None = None,
        find_owner: FindOwner | None = None,
    ) -> None:
        for name in named:
            if name.startswith("_") or hasattr(Tracked, name):
                raise InputError(
                    f"track() cannot have {name!r} as the name of a value; choose another"
                )
        self.values = dict(named)
        self._checkpoint = checkpoint
        self._find = find
        self._find_items = find_items
        self._rng = rng
        self._leave = leave
        self._warn = warn
        self._observe = observe
        self._owners = [] if find_owner is None else self._found(find_owner)
        self._handle: SaveHandle | None = None
        self._failures = 0
        self._pickles = False
        self._told = False  # of a generator that is not tracked
        self._dirty = False  # something happened since the last save began
        self.loops = Loops(
            self._boundary,
            self._arrive,
            randomness.snapshot if rng else None,
            randomness.restore,
            Hold(leave),
        )
        if checkpoint is not None:
            checkpoint.expect_many()
        auto = isinstance(every, str)
        self._cadence = Cadence(every, record() if auto else Record(), time.monotonic())
        self._start = randomness.snapshot() if rng else None
        self._captured()  # what cannot be saved is refused before anything is changed
        self.loops.find(self._restore(arrived=False))
        if checkpoint is not None:
            checkpoint.prepare(self._state(), pickle=self._pickles)

    def _found(self, find_owner: FindOwner) -> list[Steady]:
        """Those that announce changes; from here on each waits for what is being copied."""
        owners = [owner for owner in map(find_owner, self.values.values()) if owner is not None]
        if not owners:
            raise InputError(
                "track(overlap=True) copies what an optimizer owns while the loop goes on, and no PyTorch "
                "optimizer is tracked: track(optimizer=optimizer, …), or leave overlap out"
            )
        for owner in owners:
            owner.before_change(self._wait_copied)
        return owners

    def items_of(self, iterable: Iterable[Any]) -> Items:
        """How to go over something, and to begin in the middle of it."""
        items = self._find_items(iterable)
        if items is not None:
            self._look_at(items.generators)
            return items
        return Listed(iterable) if isinstance(iterable, Sequence) else Items(iterable)

    def _look_at(self, generators: Sequence[Any]) -> None:
        """Say once that a loader's own generator is not tracked."""
        tracked = {id(value) for value in self.values.values()}
        if self._told or all(id(generator) in tracked for generator in generators):
            return
        self._told = True
        self._warn(
            Warned(
                "generator",
                "state.iterate() goes over a loader that has a random generator of its own, and that is "
                "not tracked: an attempt that goes on between two loops would begin it anew. Track it "
                "too: track(generator=generator, …).",
            )
        )

    def get(self, name: str) -> Any:
        """The tracked value of this name."""
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(self._unknown(name)) from None

    def set(self, name: str, value: Any) -> None:
        """Exchange a tracked value."""
        if name not in self.values:
            raise AttributeError(self._unknown(name))
        old = self.values[name]
        if value is not old and not self._may_go(old):
            raise AttributeError(
                f"state.{name} is a {type(old).__name__}, which is restored in place: change it, and do "
                "not exchange it"
            )
        self.values[name] = value

    def _may_go(self, value: Any) -> bool:
        """Whether another value may take this one's place."""
        return is_data(value) or getattr(self._find(value), "exchanged", False)

    def _unknown(self, name: str) -> str:
        there = ", ".join(self.values) or "nothing"
        return f"track() was not given {name!r}: write track({name}=…). It has {there}"

    # Restoring

    def _restore(self, *, arrived: bool) -> list[Frame]:
        """Put the newest checkpoint in place.

        Args:
            arrived: the body is where it was. Before, it is at its beginning, and the random generators
                are set to what they were there.

        Returns:
            Where the body was; [] when there is no checkpoint.
        """
        if self._checkpoint is None:
            return []
        data = self._checkpoint.load_entries(self._captured(), again=arrived)
        if data is None:
            return []
        track = data.pop(TRACK, None)
        if not isinstance(track, dict) or track.get("format") != _FORMAT:
            raise CheckpointError(
                "the newest checkpoint of this task was not saved by track(). Use load() or read() for "
                "what save() and write() stored, or start over with a new `headway run`."
            )
        values = self.values
        if data.keys() != values.keys():
            raise InputError(
                f"track() was given {', '.join(sorted(values)) or 'nothing'}, and the checkpoint has "
                f"{', '.join(sorted(data)) or 'nothing'}. Track the same names, or start over with a new "
                "`headway run`."
            )
        for name, saved in data.items():
            values[name] = restore(values[name], saved, name, self._find)
        states = track["states"]

        def taken(row: dict[str, int] | None) -> randomness.Snapshot | None:
            return randomness.taken_from(states, row)

        self._start = taken(track["start"])
        now = taken(track["rng"]) if arrived else self._start
        if now is not None and self._rng:
            randomness.restore(now)
        return [
            Frame(ordinal, at, taken(begun), taken(turn), items, [taken(row) for row in ends])
            for ordinal, at, begun, turn, items, ends in track["loops"]
        ]

    def _arrive(self) -> None:
        """The body is where it was: whatever it did on the way is undone."""
        if self._leave is not None and self._leave.told:
            self._leave.go()
        self._restore(arrived=True)

    # Saving

    def _captured(self) -> dict[str, Any]:
        """The tracked values as data."""
        found = {}
        for name, value in self.values.items():
            try:
                found[name] = capture(value, name, self._find, pickles=self._pickles)
            except RecursionError:
                raise InputError(f"{name} is nested too deep, or holds itself") from None
            except InputError:
                if self._pickles or not self._trusted():
                    raise
                found[name] = capture(value, name, self._find, pickles=True)
                self._pickles = True
        return found

    def _trusted(self) -> bool:
        return self._checkpoint is not None and self._checkpoint.trusts_pickles

    def _state(self) -> dict[str, Any]:
        """All of a checkpoint."""
        table = randomness.Table()
        now = table.put(randomness.snapshot()) if self._rng else None
        loops = [
            [
                f.ordinal,
                f.at,
                table.put(f.begun),
                table.put(f.turn),
                f.items,
                [table.put(end) for end in f.ends],
            ]
            for f in self.loops.place()
        ]
        track = {
            "format": _FORMAT,
            "start": table.put(self._start),
            "rng": now,
            "loops": loops,
            "states": table.states,
        }
        return {**self._captured(), TRACK: track}

    def _boundary(self, leaf: bool, end: bool) -> None:
        """Between two items of a loop, or after the last one of the outermost."""
        if self._observe is not None:
            self._observe(self.loops.place(), end, self._state())
        if self._checkpoint is None:
            return
        if leaf:
            self._cadence.step()
        self._dirty = self._dirty or not end
        if self._leave is not None and self._leave.told:
            self._last_save()
        self._look()
        now = time.monotonic()
        if not self._dirty or not (end or self._cadence.due(now)):
            return
        if self._handle is not None and not end:
            return  # one in flight: the newest state is saved once that is durable
        self._look(wait=True)
        self._save(wait=False, began=now, owners=() if end else self._owners)

    def _save(self, *, wait: bool, began: float, owners: Sequence[Steady] = ()) -> None:
        checkpoint = self._checkpoint
        assert checkpoint is not None
        try:
            state = self._state()
            handle = checkpoint.begin(state, wait=wait, pickle=self._pickles, owners=owners)
        except CheckpointFenced:
            raise
        except (StorageError, MemoryError) as error:
            self._failed(error)
            return
        self._handle, self._dirty = handle, False
        self._cadence.saved(began, time.monotonic() - began)

    def _wait_copied(self) -> None:
        """What an optimizer owns is about to change."""
        if self._handle is not None:
            began = time.monotonic()
            self._handle.wait_copied()
            self._cadence.stalled(time.monotonic() - began)

    def _look(self, *, wait: bool = False) -> None:
        """What became of the save in flight; it goes on, if there is no need to wait."""
        handle: SaveHandle | None = self._handle
        if handle is None or not (wait or handle.done):
            return
        self._handle = None
        try:
            handle.wait()
        except CheckpointFenced:
            raise
        except (CheckpointError, StorageError, MemoryError) as error:
            if isinstance(error, StateMoved):
                self._owners = []
            self._failed(error)
            return
        self._failures = 0

    def _failed(self, error: BaseException) -> None:
        """A save failed: the loop goes on, unless they all do."""
        self._failures, self._dirty = self._failures + 1, True
        if self._failures >= FAILURES:
            raise error
        self._warn(
            Warned(
                "unsaved", f"a save failed, and the loop goes on: {type(error).__name__}: {error}"
            )
        )

    def _last_save(self) -> None:
        """The process was told to go: save once more, and leave."""
        self._look(wait=True)
        if self._dirty:
            self._save(wait=True, began=time.monotonic())
        assert self._leave is not None
        self._leave.go()

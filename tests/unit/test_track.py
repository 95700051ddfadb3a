"""`track`: whatever instant a body ends at, what the next attempt makes is what it would have made."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from headway import adapters
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.track import Tracked, Tracker
from headway.model.program import Warned
from headway.model.settings import Steps
from headway.ports import Storage
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/nodes/train"


class Killed(BaseException):
    """The attempt ends here."""


class Trial:
    """Attempts of one body, one after the other."""

    def __init__(self, storage: Storage | None = None, *, every: Any = 0, rng: bool = True) -> None:
        self.storage = MemoryStorage() if storage is None else storage
        self.every = every
        self.rng = rng
        self.attempts = 0
        self.warnings: list[Warned] = []
        self.leave: Any = None

    def attempt(self, body: Callable[[Callable[..., Tracked]], Any]) -> Any:
        """One attempt: the body gets `track`."""
        checkpoint = Checkpoint(
            self.storage, PREFIX, attempt=self.attempts, on_warning=self.warnings.append
        )
        self.attempts += 1

        def track(**named: Any) -> Tracked:
            return Tracked(
                Tracker(
                    named,
                    checkpoint=checkpoint,
                    find=adapters.find,
                    find_items=adapters.find_items,
                    every=self.every,
                    rng=self.rng,
                    leave=self.leave,
                    warn=self.warnings.append,
                )
            )

        try:
            return body(track)
        finally:
            checkpoint.close()


@pytest.fixture(autouse=True)
def _same_numbers() -> Iterator[None]:
    before, numpys = random.getstate(), np.random.get_state()
    yield
    random.setstate(before)
    np.random.set_state(numpys)


class Program:
    """A body of loops in loops, made at random, that draws numbers in all places.

    Args:
        source: what it is made of.
        strike: is called at each statement; raises `Killed` to end the attempt.
    """

    def __init__(self, source: random.Random, strike: Callable[[], None]) -> None:
        self.plan = self._block(source, 0)
        self.strike = strike

    def _block(self, source: random.Random, depth: int) -> list[tuple[Any, ...]]:
        made: list[tuple[Any, ...]] = []
        for _ in range(source.randint(1, 3)):
            if depth < 3 and source.random() < 0.55 + 0.4 * (depth == 0):
                kind = source.choice(["range", "list", "generator", "shuffled"])
                count = source.randint(0, 4)
                stop = source.choice([None, None, None, source.randint(0, 3)])
                rare = source.choice([1, 1, 2]) if depth else 1
                made.append(("loop", kind, count, stop, rare, self._block(source, depth + 1)))
            else:
                made.append(("draw", source.randint(0, 99)))
        return made

    def __call__(self, track: Callable[..., Tracked]) -> Any:
        random.seed(1)
        np.random.seed(2)
        log: list[Any] = []
        array = np.zeros(8)
        own = np.random.default_rng(3)
        state = track(log=log, total=0.0, array=array, own=own, pair=(0, "a"), nested={"n": 0})
        assert state.log is log
        assert state.array is array
        self._run(state, self.plan, random.random())
        return log, state.total, array.tolist(), state.pair, state.nested, random.random()

    def _run(self, state: Tracked, block: list[tuple[Any, ...]], local: float) -> None:
        for number, step in enumerate(block):
            self.strike()
            if step[0] == "draw":
                state.log.append((step[1], local, random.random()))
                state.total += float(np.random.random())
                state.array[step[1] % 8] += state.own.random()
                state.pair = (state.pair[0] + 1, "b")
                state.nested["n"] += 1
                continue
            _, kind, count, stop, rare, inner = step
            local = random.random()  # what the loops below go by
            for turn, item in enumerate(self._items(state, kind, count)):
                self.strike()
                if rare == 1 or int(item) % rare:
                    self._run(state, inner, local + item + number)
                if stop is not None and item == stop:
                    break
                del turn

    def _items(self, state: Tracked, kind: str, count: int) -> Iterator[int]:
        if kind == "range":
            return state.range(count)
        if kind == "list":
            return state.iterate(list(range(count)))
        if kind == "generator":
            return state.iterate(number for number in range(count) if random.random() < 2)
        return state.iterate(Shuffled(count))


class Shuffled:
    """Draws its order when it is begun, as samplers do."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.count))
        random.shuffle(order)
        return iter(order)


class Striker:
    """Ends an attempt after so many statements."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.steps = 0

    def __call__(self) -> None:
        if self.steps == self.after:
            raise Killed
        self.steps += 1


@pytest.mark.reliability("R9")
@pytest.mark.parametrize(
    "every", [0, Steps(1), Steps(2)], ids=["always", "each step", "each other"]
)
def test_wherever_a_body_ends_the_next_attempt_goes_on_from_there(every: Any) -> None:
    from tests.counting import count

    interrupted = resumed = 0
    for seed in range(60):
        source = random.Random(seed)
        plan = source.random()
        striker = Striker()
        expected = Trial(every=every).attempt(Program(random.Random(plan), striker))
        length = striker.steps
        trial = Trial(every=every)
        while True:
            after = source.randint(1, 2 + length // 3) if trial.attempts < 12 else None
            try:
                found = trial.attempt(Program(random.Random(plan), Striker(after)))
                break
            except Killed:
                interrupted += 1
        assert found == expected, f"seed {seed}"
        resumed += trial.attempts > 1
    assert interrupted > 100
    assert resumed > 40
    count("R9", "interrupted attempts of random loops", interrupted)

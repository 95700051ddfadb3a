"""`track`: whatever instant a body ends at, what the next attempt makes is what it would have made."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.counting import count

from headway import adapters
from headway.checkpoint import randomness
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.loops import Items, Loops
from headway.checkpoint.track import FAILURES, Tracked, Tracker
from headway.model.errors import CheckpointError, InputError, Preempted, StorageUnavailable
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


def interrupted(seed: int, every: Any) -> tuple[Any, Any, int]:
    """A random body undisturbed, and ended again and again: (what it makes, what it makes then, how often
    it was ended)."""
    source = random.Random(seed)
    plan = source.random()
    striker = Striker()
    expected = Trial(every=every).attempt(Program(random.Random(plan), striker))
    trial = Trial(every=every)
    while True:
        after = source.randint(1, 2 + striker.steps // 3) if trial.attempts < 12 else None
        try:
            found = trial.attempt(Program(random.Random(plan), Striker(after)))
        except Killed:
            continue
        return expected, found, trial.attempts - 1


@pytest.mark.reliability("R9")
@pytest.mark.parametrize(
    "every", [0, Steps(1), Steps(2)], ids=["always", "each step", "each other"]
)
def test_wherever_a_body_ends_the_next_attempt_goes_on_from_there(every: Any) -> None:
    total = 0
    for seed in range(60):
        expected, found, ended = interrupted(seed, every)
        assert found == expected, f"seed {seed}"
        total += ended
    assert total > 300
    count("R9", "interrupted attempts of random loops", total)


def _forget(self: Loops, depth: int, _: Any) -> None:
    END(self, depth, None)


END = Loops._end
MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "random states are not set on the way": (Loops, "_set", lambda *_: None),
    "the state is not put back on arrival": (Tracker, "_arrive", lambda _: None),
    "a generator is begun anew": (Items, "start", lambda self, at, _: iter(self._iterable)),
    "random states are not restored": (randomness, "restore", lambda _: None),
    "loops that ended leave no states": (Loops, "_end", _forget),
    "the turn of a loop around is forgotten": (Loops, "_turn", lambda *_: None),
}


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_way_back_is_found_out(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    for seed in range(60):
        try:
            expected, found, _ = interrupted(seed, Steps(1))
        except CheckpointError:  # the loops are not where they were
            break
        if found != expected:
            break
    else:
        pytest.fail("nobody noticed")
    count("R9", "planted bugs caught")


# What a reader of the code expects


class Told:
    """A process that is told to go when `told` is set."""

    def __init__(self) -> None:
        self.told = False
        self.held = 0

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1

    def go(self) -> Any:
        raise Preempted("told")


def count_to(trial: Trial, n: int, stop: int | None = None, **more: Any) -> tuple[list[int], Any]:
    """Add up numbers, and die before the one at `stop`; (those that this attempt saw, the sum)."""
    seen: list[int] = []

    def body(track: Callable[..., Tracked]) -> Any:
        state = track(total=0, **more)
        for number in state.range(n):
            if number == stop:
                raise Killed
            seen.append(number)
            state.total += number
        return state.total

    try:
        return seen, trial.attempt(body)
    except Killed:
        return seen, None


def test_a_loop_goes_on_where_it_was() -> None:
    trial = Trial(every=Steps(1))
    assert count_to(trial, 10, stop=4) == ([0, 1, 2, 3], None)
    assert count_to(trial, 10) == ([4, 5, 6, 7, 8, 9], 45)


def test_a_loop_that_is_through_gives_nothing() -> None:
    trial = Trial(every=1e6)
    assert count_to(trial, 3)[1] == 3
    assert count_to(trial, 3) == ([], 3), (
        "the end of the outermost loop is saved whatever the cadence"
    )


def test_range_is_the_built_in_one() -> None:
    def body(track: Callable[..., Tracked]) -> Any:
        state = track(x=0)
        return [*state.range(2, 9, 3)], [*state.range(3, 0, -1)], [*state.range(0)]

    assert Trial().attempt(body) == ([2, 5, 8], [3, 2, 1], [])


def test_steps_count_innermost_items() -> None:
    trial = Trial(every=Steps(4))

    def body(track: Callable[..., Tracked]) -> None:
        state = track(x=0)
        for _ in state.range(2):
            for _ in state.range(6):
                state.x += 1

    trial.attempt(body)
    checkpoint = Checkpoint(trial.storage, PREFIX, attempt=9)
    numbers = [report.number for report in checkpoint.history()]
    assert numbers[-1] in {3, 4}, (
        "after 4, 8 and 12 steps, and at the end unless that is the last of them"
    )


def test_what_is_tracked_in_place_stays_the_same_object() -> None:
    trial = Trial(every=Steps(1))
    arrays: list[Any] = []

    def body(track: Callable[..., Tracked]) -> Any:
        array, inner = np.zeros(3), np.zeros(2)
        log: list[Any] = ["x"]
        table: dict[str, Any] = {"a": inner, "b": 1}
        state = track(array=array, log=log, table=table)
        for number in state.range(4):
            if number == 2 and trial.attempts == 1:
                raise Killed
            array += 1
            log.append(number)
            table["b"] = number
            inner -= 1
        assert state.array is array
        assert state.log is log
        assert table["a"] is inner
        arrays.append(array)
        return array.tolist(), log, table["b"], inner.tolist()

    with pytest.raises(Killed):
        trial.attempt(body)
    assert trial.attempt(body) == ([4.0, 4.0, 4.0], ["x", 0, 1, 2, 3], 3, [-4.0, -4.0])


def test_code_around_the_loops_runs_again_and_changes_nothing() -> None:
    trial = Trial(every=Steps(1))
    total: list[int] = []

    def body(track: Callable[..., Tracked]) -> Any:
        seen: list[Any] = []
        state = track(seen=seen, count=0, total=0)
        seen.append("begin")
        for epoch in state.range(3):
            state.count = 0  # would lose what was counted in this epoch
            seen.append(("epoch", epoch))
            for batch in state.range(4):
                if (epoch, batch) == (1, 2) and trial.attempts == 1:
                    raise Killed
                state.count += 1
            state.total += state.count
        total.append(state.total)
        return seen, state.total

    with pytest.raises(Killed):
        trial.attempt(body)
    assert trial.attempt(body) == (["begin", *(("epoch", e) for e in range(3))], 12)


def test_break_and_exceptions_end_a_loop() -> None:
    trial = Trial(every=Steps(1))

    def body(track: Callable[..., Tracked]) -> Any:
        state = track(seen=[])
        for number in state.range(10):
            if number == 3:
                break
            state.seen.append(number)
        try:
            for number in state.range(10):
                state.seen.append(("caught", number))
                raise ValueError
        except ValueError:
            pass
        for number in state.range(3):
            if number == 1 and trial.attempts == 1:
                raise Killed
            state.seen.append(("last", number))
        return state.seen

    with pytest.raises(Killed):
        trial.attempt(body)
    expected = [0, 1, 2, ("caught", 0), ("last", 0), ("last", 1), ("last", 2)]
    assert trial.attempt(body) == expected


def test_told_to_go_it_saves_between_two_items_and_leaves() -> None:
    trial = Trial(every=1e6)
    trial.leave = told = Told()
    seen: list[int] = []

    def body(track: Callable[..., Tracked]) -> Any:
        state = track(total=0)
        for number in state.range(5):
            assert told.held == 1
            told.told = number == 2 and trial.attempts == 1
            seen.append(number)
            state.total += number
        return state.total

    with pytest.raises(Preempted):
        trial.attempt(body)
    assert seen == [0, 1, 2]
    assert told.held == 0
    told.told = False
    assert trial.attempt(body) == 10
    assert seen == [0, 1, 2, 3, 4]


class Failing(MemoryStorage):
    """Fails appends while told to."""

    broken = False

    def create_pack(self, key: str, *, size: int = 0, reuse: str | None = None) -> Any:
        if self.broken:
            raise StorageUnavailable("a planted fault")
        return super().create_pack(key, size=size, reuse=reuse)


def failing_body(trial: Patient, storage: Failing, broken: range) -> Callable[..., Any]:
    def body(track: Callable[..., Tracked]) -> Any:
        state = track(array=np.zeros(5000), total=0)
        for number in state.range(30):
            storage.broken = number in broken
            state.total += number
            state.array += 1
            trial.pause()
        return state.total

    return body


class Patient(Trial):
    """Gives the save in flight the time it takes."""

    def attempt(self, body: Callable[[Callable[..., Tracked]], Any]) -> Any:
        def patient(track: Callable[..., Tracked]) -> Any:
            def kept(**named: Any) -> Tracked:
                self.state = track(**named)
                return self.state

            return body(kept)

        return super().attempt(patient)

    def pause(self) -> None:
        handle = self.state._tracker._handle
        if handle is not None:
            handle._save.ended.wait(10)


def test_a_save_that_fails_is_told_and_the_loop_goes_on() -> None:
    storage = Failing()
    trial = Patient(storage, every=0)
    body = failing_body(trial, storage, range(5, 5 + FAILURES - 1))
    assert trial.attempt(body) == sum(range(30))
    kinds = [warned.kind for warned in trial.warnings]
    assert kinds == ["unsaved"] * (FAILURES - 1)
    assert "planted" in trial.warnings[0].message


def test_saves_that_keep_failing_end_the_body() -> None:
    storage = Failing()
    trial = Patient(storage, every=0)
    with pytest.raises(StorageUnavailable):
        trial.attempt(failing_body(trial, storage, range(5, 30)))
    storage.broken = False
    assert trial.attempt(failing_body(trial, storage, range(0))) == sum(range(30))


class FailingOnce(MemoryStorage):
    """Fails to make a pack once, some time after it was told to."""

    broken = False

    def create_pack(self, key: str, *, size: int = 0, reuse: str | None = None) -> Any:
        if self.broken:
            time.sleep(0.2)
            self.broken = False
            raise StorageUnavailable("a planted fault")
        return super().create_pack(key, size=size, reuse=reuse)


@pytest.mark.parametrize("leaves", [False, True])
def test_the_last_state_is_saved_when_the_save_in_flight_fails(leaves: bool) -> None:
    storage = FailingOnce()
    trial = Patient(storage, every=0)
    trial.leave = told = Told()

    def body(track: Callable[..., Tracked]) -> Any:
        state = track(array=np.zeros(5000), total=0)
        trial.pause()
        for number in state.range(30):
            state.total += number
            state.array += 1
            if number == 28:
                trial.pause()
                storage.broken = trial.attempts == 1
            told.told = leaves and number == 29
        if trial.attempts == 1:
            raise Killed
        return state.total, state.array[0]

    with pytest.raises(Preempted if leaves else Killed):
        trial.attempt(body)
    assert [warned.kind for warned in trial.warnings] == ["unsaved"]
    assert not storage.broken
    assert Checkpoint(storage, PREFIX, attempt=1).load()["total"] == 435
    told.told = False
    trial.attempts = 2
    assert trial.attempt(body) == (435, 30.0)


# What is refused


def test_names_must_be_those_of_the_checkpoint() -> None:
    trial = Trial(every=Steps(1))
    count_to(trial, 5, stop=3)
    with pytest.raises(InputError, match="was given more, total, and the checkpoint has total"):
        count_to(trial, 5, more=1)


def test_a_checkpoint_of_somebody_else_is_not_taken() -> None:
    trial = Trial()
    Checkpoint(trial.storage, PREFIX).save({"total": 1})
    with pytest.raises(CheckpointError, match="not saved by track"):
        count_to(trial, 5)


def test_loops_that_changed_are_noticed() -> None:
    trial = Trial(every=Steps(1))

    def old(track: Callable[..., Tracked]) -> None:
        state = track(x=0)
        for _ in state.range(2):
            for number in state.range(3):
                if number == 2:
                    raise Killed

    def new(track: Callable[..., Tracked]) -> None:
        state = track(x=0)
        for _ in state.range(2):
            pass

    with pytest.raises(Killed):
        trial.attempt(old)
    with pytest.raises(CheckpointError, match="Have its loops changed"):
        trial.attempt(new)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": [0, __import__("sys")]}, r"x\.a\[1\] is a module"),
        ((n for n in [1]), r"x is a generator"),
        ({"f": lambda: 0}, r"x\.f is a function"),
        ([__import__("threading").Lock()], r"x\[0\] is a lock"),
    ],
    ids=["module", "generator", "function", "lock"],
)
def test_what_cannot_be_taken_apart_is_named(value: Any, why: str, tmp_path: Any) -> None:
    with pytest.raises(InputError, match=why):
        Trial().attempt(lambda track: track(x=value))


def test_an_open_file_is_named(tmp_path: Any) -> None:
    with (
        open(tmp_path / "f", "w") as file,
        pytest.raises(InputError, match=r"x\[0\] is an open fi"),
    ):
        Trial().attempt(lambda track: track(x=[file]))


@pytest.mark.parametrize("name", ["range", "iterate", "_x"])
def test_names_that_are_taken(name: str) -> None:
    with pytest.raises(InputError, match="choose another"):
        Trial().attempt(lambda track: track(**{name: 1}))


@pytest.mark.parametrize("every", ["often", -1, True, None, float("nan")])
def test_cadences_that_are_none(every: Any) -> None:
    with pytest.raises(InputError, match="every"):
        Trial(every=every).attempt(lambda track: track(x=1))


def test_only_what_is_tracked_can_be_set() -> None:
    def body(track: Callable[..., Tracked]) -> None:
        state = track(x=1, own=random.Random(1))
        with pytest.raises(AttributeError, match=r"track\(y=…\). It has x, own"):
            state.y = 2
        with pytest.raises(AttributeError, match="It has x, own"):
            _ = state.y
        with pytest.raises(AttributeError, match="restored in place"):
            state.own = random.Random(2)
        state.x = "text"
        assert dir(state) == ["iterate", "own", "range", "x"]
        assert repr(state) == "<tracked: x, own>"

    Trial().attempt(body)


def test_track_imports_no_framework() -> None:
    code = (
        "import sys; from headway import track; track;"
        "heavy = {'torch', 'numpy', 'jax', 'keras', 'sklearn', 'xgboost', 'lightgbm', 'pandas', 'polars'};"
        "sys.exit(', '.join(heavy & {*sys.modules}) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

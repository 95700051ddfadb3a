"""What an attempt writes down for `headway verify`, and how it dies."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.loops import Frame
from headway.engine.context import Context
from headway.engine.parting import Parting, Trail, drawn, numbers, parting, words
from headway.engine.watching import Line, Watcher, entries_of, lines_of, name_of
from headway.model.program import Watch
from headway.testing.memory import MemoryStorage

PLACE = [Frame(0, 1), Frame(2, 3)]


def state(loops: Any = (), *, rng: Any = None, **named: Any) -> dict[str, Any]:
    """What `Tracker` shows."""
    return {**named, "_track": {"rng": rng, "loops": list(loops)}}


@pytest.fixture
def context() -> Context:
    return Context("r", "n", 0, 0, Checkpoint(MemoryStorage(), "runs/r/nodes/n"))


@pytest.fixture(autouse=True)
def _same_numbers() -> Iterator[None]:
    before, numpys = random.getstate(), np.random.get_state()
    yield
    random.setstate(before)
    np.random.set_state(numpys)


# Entries


def test_every_part_of_the_state_has_an_entry() -> None:
    found = entries_of(
        state(
            model=OrderedDict(w=np.zeros(2), b=[1.5, np.ones(1)]),
            best=0.5,
            pair=(1, "a"),
            log=list(range(1000)),
            empty={},
            loops=[[0, 1, None, None, {"at": 7}, []], [0, 2, None, None, None, []]],
            rng={"python": 0},
        )
    )
    assert {"model.w", "model.b[0]", "model.b[1]", "best", "pair[0]", "pair[1]"} < found.keys()
    assert {"log", "empty", "loop position[0].at", "rng.python", "rng.numpy"} < found.keys()
    assert "log[0]" not in found, "a long list is one entry"


def test_a_generator_that_the_state_leaves_out_is_called_that() -> None:
    names = entries_of(state()).keys()
    assert {"rng.python (not tracked)", "rng.numpy (not tracked)"} <= names


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (0.0, -0.0, False),
        (float("nan"), float("nan"), True),
        (np.arange(3), np.arange(3), True),
        (np.arange(3), np.arange(3.0), False),
        (np.zeros((2, 3)), np.zeros((3, 2)), False),
        ({"ada", "grace"}, {"grace", "ada"}, True),
        ({"ada"}, {"grace"}, False),
        (complex(1, 2), complex(1, 2), True),
        (complex(1, 2), complex(1, 3), False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    ],
)
def test_equal_content_has_equal_entries(one: Any, other: Any, same: bool) -> None:
    assert (entries_of(state(x=one)) == entries_of(state(x=other))) is same


def test_a_draw_is_an_entry_that_changes() -> None:
    steps = {}
    for number in range(3):
        steps[str(number)] = Line.of("", entries_of(state(rng={"python": 0})))
        np.random.random()
    assert drawn(steps) == {"rng.numpy"}


# The file


def test_a_line_that_was_torn_is_not_read(tmp_path: Path, context: Context) -> None:
    file = tmp_path / "seen"
    assert lines_of(file) == []
    with Watcher(Watch(str(file)), context) as watcher:
        watcher.see(PLACE, False, state(x=1))
        watcher.see(PLACE, True, state(x=2))
        watcher.see(PLACE, False, state(y=2))
    first, second, third, last = lines_of(file)
    assert (first.step, second.step, last.step) == ("0:1/2:3", "0:1/2:3.", "")
    assert first.entries["x"] != second.entries["x"]
    assert "x" not in third.entries
    assert first.entries["rng.python (not tracked)"] == third.entries["rng.python (not tracked)"]
    assert not last.tracked
    with file.open("ab") as stream:
        stream.write(b'{"step":"0:2","entr')
    assert lines_of(file) == [first, second, third, last]


def test_the_generators_begin_with_the_seed(tmp_path: Path, context: Context) -> None:
    found = []
    for seed in (1, 1, 2):
        with Watcher(Watch(str(tmp_path / "seen"), seed), context):
            found.append((random.random(), np.random.random()))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] != found[2][1]


# Dying


class Deaths(list[tuple[int, int]]):
    """Takes the place of `os.kill`."""

    def __call__(self, pid: int, number: int) -> None:
        self.append((pid, number))


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Deaths:
    found = Deaths()
    monkeypatch.setattr(os, "kill", found)
    return found


def test_it_dies_at_its_step_and_says_so_first(
    tmp_path: Path, context: Context, deaths: Deaths
) -> None:
    file = tmp_path / "seen"
    with Watcher(Watch(str(file), kill="0:2"), context) as watcher:
        watcher.see([Frame(0, 1)], False, state())
        assert deaths == []
        watcher.see([Frame(0, 2)], False, state())
        assert deaths == [(os.getpid(), signal.SIGKILL)]
        assert lines_of(file)[-1].killed


def test_a_late_death_comes_between_two_steps(
    tmp_path: Path, context: Context, deaths: Deaths
) -> None:
    watch = Watch(str(tmp_path / "seen"), kill="0:2", late=0.5)
    with Watcher(watch, context) as watcher:
        watcher.see([Frame(0, 1)], False, state())
        time.sleep(0.2)
        watcher.see([Frame(0, 2)], False, state())
        assert deaths == []
        end = time.monotonic() + 30
        while not deaths and time.monotonic() < end:
            time.sleep(0.01)
    assert deaths == [(os.getpid(), signal.SIGKILL)]


def test_who_is_done_before_a_late_death_lives(
    tmp_path: Path, context: Context, deaths: Deaths
) -> None:
    watch = Watch(str(tmp_path / "seen"), kill="0:2", late=1000.0)
    with Watcher(watch, context) as watcher:
        watcher.see([Frame(0, 1)], False, state())
        time.sleep(0.01)
        watcher.see([Frame(0, 2)], False, state())
    assert deaths == []
    assert not any(line.killed for line in lines_of(Path(watch.file)))


# Comparing


def trail(*attempts: list[tuple[str, str]], **outputs: Any) -> Trail:
    """Attempts of (boundary, what `x` was there)."""
    return Trail([[Line.of(s, {"x": x}) for s, x in lines] for lines in attempts], outputs)


ONE = trail([("0:1", "a"), ("0:2", "b"), ("0:3", "c"), ("0:3.", "c")], o0=1)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (ONE, None),
        (
            trail([("0:1", "a"), ("0:2", "b")], [("0:2", "b"), ("0:3", "c"), ("0:3.", "c")], o0=1),
            None,
        ),
        # the second time is not the same
        (
            trail([("0:1", "a"), ("0:2", "b")], [("0:2", "B"), ("0:3", "c"), ("0:3.", "c")], o0=1),
            Parting("0:2", ["x"], 1, "0:1"),
        ),
        # the first in the order of the steps, and not the one that is seen first
        (
            trail([("0:1", "a"), ("0:2", "b"), ("0:3", "C")], [("0:2", "B"), ("0:3.", "c")], o0=1),
            Parting("0:2", ["x"], 1, "0:1"),
        ),
        (
            trail([("0:1", "a"), ("0:2", "b"), ("0:3.", "c")], o0=1),
            Parting("0:3", [], missing=True),
        ),
        (
            trail(
                [*((line.step, line.entries["x"]) for line in ONE.attempts[0]), ("0:4", "d")], o0=1
            ),
            Parting("0:4", [], 0, "", extra=True),
        ),
        (Trail(ONE.attempts, {"o0": 2}), Parting("", ["o0"], 0)),
        (Trail(ONE.attempts, {}), Parting("", ["o0"], 0)),
    ],
)
def test_where_two_runs_part(other: Trail, found: Parting | None) -> None:
    assert parting(ONE, other) == found


@pytest.mark.parametrize(
    ("name", "was", "then", "differs"),
    [
        ("rng.numpy", ["a", "b"], ["a", "c"], True),
        ("rng.numpy", ["a", "b"], ["A", "B"], False),  # nobody set it
        ("rng.numpy (not tracked)", ["a", "b"], ["a", "c"], False),
        ("x", ["a", "b"], ["A", "B"], True),
    ],
)
def test_generators_that_nobody_set_or_tracks_are_no_difference_by_themselves(
    name: str, was: list[str], then: list[str], differs: bool
) -> None:
    one, other = (
        Trail([[Line.of(f"0:{n}", {name: value}) for n, value in enumerate(values)]], {})
        for values in (was, then)
    )
    assert (parting(one, other) is not None) is differs


def test_steps_have_numbers_and_words() -> None:
    steps = [name_of([Frame(0, n)], end=False) for n in (1, 2)] + [name_of(PLACE, end=True)]
    assert list(numbers(dict.fromkeys(steps)).values()) == [1, 2, 2]
    assert words(steps[1]) == "after item 2"
    assert words("0:1/2:3") == "after item 3 of loop 3 within item 2"
    assert words("0:1/0:3") == "after item 3 within item 2"
    assert words(steps[2]) == "at the end of the loop"

"""What people and scripts are shown: reports, results as JSON, the words about a failure."""

from __future__ import annotations

import datetime as dt
import enum
import io
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.checkpoint.handle import Checkpoint
from headway.engine.console import Console
from headway.engine.core import RunState, fold
from headway.engine.files import File
from headway.engine.keys import ledger_prefix, node_prefix, values_prefix
from headway.engine.report import report_of, summary_of
from headway.engine.showable import MOST_BYTES, MOST_FETCHED, showable, showable_outputs
from headway.engine.values import Values
from headway.engine.verdict import failure
from headway.model.errors import TaskFailed
from headway.model.events import (
    AttemptEnded,
    AttemptStarted,
    AttemptWarned,
    CancelRequested,
    CheckpointSaved,
    DriverStarted,
    Event,
    NodePlan,
    RunCreated,
    RunEnded,
    RunNoted,
)
from headway.model.program import Program
from headway.model.settings import TaskOptions
from headway.storage.local import LocalStorage

RUN = "000000-0000"


@pytest.fixture(autouse=True)
def no_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Surviving power loss is tested elsewhere, and costs seconds."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)


def plan(name: str, *after: str, **options: Any) -> NodePlan:
    return NodePlan(name, "m:t", TaskOptions(**options), {}, after, ("o0",))


def begun(*plans: NodePlan) -> list[Event]:
    return [
        RunCreated(RUN, "m:f", Program("m", digest="d"), {}, 100.0, "0", plans, {}),
        DriverStarted(100.0, 1, "h", "d"),
    ]


def save(storage: LocalStorage, node: str, attempt: int, count: int) -> list[float]:
    """Save `count` checkpoints; returns their times."""
    checkpoint = Checkpoint(storage, node_prefix(RUN, node), attempt=attempt)
    for number in range(count):
        checkpoint.write(b"%d" % number)
    times = [report.time for report in checkpoint.history() if report.attempt == attempt]
    checkpoint.close()
    return times


def test_a_report_tells_what_was_saved_and_what_was_lost(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    *_, last = save(storage, "a", 0, 2)
    state = fold(
        [
            *begun(plan("a", retries=1), plan("b", "a")),
            AttemptStarted("a", 0, last - 10),
            CheckpointSaved("a", 0, 2, 1, last),
            AttemptWarned("a", 0, "odd", "something", last),
            AttemptEnded("a", 0, "app error", last + 5, error="ValueError: x", traceback="trace"),
            AttemptStarted("a", 1, last + 5),
            AttemptEnded("a", 1, "succeeded", last + 7, {"o0": 3}),
            AttemptStarted("b", 0, last + 7),
            AttemptEnded("b", 0, "succeeded", last + 8, {"o0": 4}),
            RunEnded("succeeded", last + 8, {"o0": 4}),
        ]
    )
    report = report_of(state, storage, alive=False, notes=["remark"])
    assert (report.run, report.status, report.result) == (RUN, "succeeded", 4)
    assert report.notes == ["remark"]
    a, b = report.nodes
    assert a.saved == pytest.approx(10)
    assert a.lost == pytest.approx(5)
    assert (b.saved, b.lost) == (0, 0)  # what succeeded is neither
    first, second = a.attempts
    assert [c.number for c in first.checkpoints] == [1, 2]
    assert second.checkpoints == []
    assert (first.outcome, first.error, first.warnings) == (
        "app error",
        "ValueError: x",
        ["something"],
    )
    assert first.log == f"{tmp_path}/runs/{RUN}/logs/a/0.log"


def test_an_attempt_whose_checkpoints_are_only_hinted_at_still_counts_them(tmp_path: Path) -> None:
    state = fold(
        [
            *begun(plan("a")),
            AttemptStarted("a", 0, 110),
            CheckpointSaved("a", 0, 1, 1, 118),
            AttemptEnded("a", 0, "killed", 117.5),  # another clock
        ]
    )
    [node] = report_of(state, LocalStorage(tmp_path), alive=True).nodes
    assert (node.saved, node.lost) == (8, 0)


def test_a_run_without_a_driver_is_interrupted_and_nothing_of_it_runs(tmp_path: Path) -> None:
    events = [
        *begun(plan("a")),
        AttemptStarted("a", 0, 110),
        CheckpointSaved("a", 0, 1, 1, 113),
        RunNoted("x", 115),
    ]
    state, storage = fold(events), LocalStorage(tmp_path)
    alive = report_of(state, storage, alive=True)
    assert (alive.status, alive.nodes[0].status) == ("running", "running")
    assert alive.nodes[0].attempts[0].outcome == "running"
    assert alive.nodes[0].lost == 0
    dead = report_of(state, storage, alive=False)
    assert (dead.status, dead.nodes[0].status) == ("interrupted", "ready")
    attempt = dead.nodes[0].attempts[0]
    assert (attempt.outcome, attempt.ended, attempt.error) == ("killed", 115, "its driver died")
    assert (dead.nodes[0].saved, dead.nodes[0].lost) == (3, 2)
    assert summary_of(state, alive=True).status == "running"
    assert summary_of(state, alive=False).status == "interrupted"


def test_a_summary_counts(tmp_path: Path) -> None:
    events = [
        *begun(plan("a"), plan("b")),
        AttemptStarted("a", 0, 1),
        AttemptEnded("a", 0, "succeeded", 2, {}),
        AttemptStarted("b", 0, 3),
        AttemptEnded("b", 0, "app error", 4, error="E: x"),
        RunEnded("failed", 5, error="b: app error: E: x"),
    ]
    summary = summary_of(fold(events), alive=False)
    assert (summary.nodes, summary.finished, summary.attempts) == (2, 1, 2)
    assert (summary.status, summary.ended, summary.error) == ("failed", 5, "b: app error: E: x")


def test_checkpoints_that_cannot_be_read_do_not_hide_the_rest(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    save(storage, "a", 0, 1)
    from headway.ledger.write import Ledger

    ledger = Ledger.open(storage, f"{node_prefix(RUN, 'a')}/ledger")
    ledger.append(b"no manifest")
    ledger.close()
    state = fold([*begun(plan("a")), AttemptStarted("a", 0, 110)])
    report = report_of(state, storage, alive=True)
    assert report.nodes[0].attempts[0].checkpoints == []
    assert "the checkpoints of a could not be read" in report.notes[0]


class Colour(enum.Enum):
    RED = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: float


def test_every_kind_of_value_has_a_json_form(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("text")
    zone = dt.timezone(dt.timedelta(hours=-3, minutes=-30))
    cases: list[tuple[Any, Any]] = [
        (None, None),
        (True, True),
        (2.5, 2.5),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        ("x", "x"),
        (b"\x00\x01", "AAE="),
        (bytes(MOST_BYTES + 1), f"<{MOST_BYTES + 1} bytes>"),
        ((1, (2, "x")), [1, [2, "x"]]),
        ({3}, [3]),
        ({"a": [1]}, {"a": [1]}),
        ({"$": 1, "b": (2,)}, {"$": 1, "b": [2]}),
        ({1: "x", (2, 3): "y"}, [[1, "x"], [[2, 3], "y"]]),
        (1 << 80, 1 << 80),
        ("\ud800", "�" * 3),
        (Colour.RED, "RED"),
        (Rights.READ | Rights.WRITE, 3),
        (Point(1, 2.0), {"x": 1, "y": 2.0}),
        (dt.date(2024, 2, 3), "2024-02-03"),
        (dt.datetime(2024, 2, 3, 4, 5, tzinfo=dt.UTC), "2024-02-03T04:05:00+00:00"),
        (dt.datetime(2024, 2, 3, 4, 5, tzinfo=zone), "2024-02-03T04:05:00-03:30"),
        (dt.datetime(2024, 2, 3, 4, 5), "2024-02-03T04:05:00"),  # noqa: DTZ001  # without a zone
        (dt.timedelta(days=1, seconds=1.5), 86401.5),
        (np.arange(4, dtype="<f4").reshape(2, 2), [[0.0, 1.0], [2.0, 3.0]]),
        (np.array([1j, 2]), ["1j", "(2+0j)"]),
        (np.float64(0.5), 0.5),
        (np.zeros((30, 50)), "<array 30×50 of <f8>"),
        (np.zeros((300, 500)), "<array 300×500 of <f8>"),
        (Path("some/where"), "some/where"),
        (file, "<file in.txt>"),
        (tmp_path / "empty", str(tmp_path / "empty")),
        (File(file), "<file in.txt>"),
        (bytes(100_000), "<bytes of 100000 bytes>"),
    ]
    values = Values(LocalStorage(tmp_path), "values")
    for value, expected in cases:
        shown = showable(values.encode(value, _annotation(value)))
        assert shown == expected, value
        json.dumps(shown, allow_nan=False)
    values.close()


def _annotation(value: Any) -> Any:
    return type(value) if value is None or isinstance(value, Colour | Rights | Point) else Any


def test_a_zone_with_a_name_and_what_needs_code_are_shown_in_words() -> None:
    moment = {"$": "datetime", "iso": "2024-01-01T00:00:00", "zone": {"key": "Europe/Berlin"}}
    assert showable(moment) == "2024-01-01T00:00:00[Europe/Berlin]"
    assert showable({"$": "pickle", "data": b"12345"}) == "<pickle of 5 bytes>"
    assert showable({"$": "novelty"}) == "<novelty>"
    broken = {"$": "array", "shape": [1], "dtype": "<f8", "data": b"123"}
    assert showable(broken) == "<array 1 of <f8>"
    assert showable({"$": "scalar", "shape": [], "dtype": "no"}) == "<scalar one of no>"


def test_large_texts_and_structures_are_fetched_to_be_shown(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    values = Values(storage, values_prefix(RUN))
    text, numbers = "x" * 100_000, list(range(50_000))
    ended = RunEnded("succeeded", 5, {"text": values.encode(text), "list": values.encode(numbers)})
    state = fold([*begun(), ended])
    report = report_of(state, storage, alive=False)
    assert report.result == {"text": text, "list": numbers}
    assert showable(values.encode(text)) == "<str of 100000 bytes>"
    too_large = {"$": "tree", "blob": "0" * 64, "size": MOST_FETCHED + 1}
    missing = {"$": "tree", "blob": "0" * 64, "size": 5}
    state.result = {"o0": [too_large, missing]}
    shown = report_of(state, storage, alive=False).result
    assert shown == [f"<tree of {MOST_FETCHED + 1} bytes>", "<tree of 5 bytes>"]


def test_outputs_are_shown_as_they_were_returned() -> None:
    assert showable_outputs({}) is None
    assert showable_outputs({"o0": 1}) == 1
    assert showable_outputs({"o0": 1, "o1": 2}) == [1, 2]
    assert showable_outputs({"loss": 1}) == {"loss": 1}


def failed(storage: LocalStorage, *events: Event, **options: Any) -> TaskFailed:
    state = fold([*begun(plan("a", **options), plan("b"), plan("c", "a")), *events])
    return failure(report_of(state, storage, alive=False), state)


def test_a_failure_says_outcome_attempt_checkpoint_log_and_what_to_type(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    *_, last = save(storage, "a", 1, 3)
    error = failed(
        storage,
        AttemptStarted("a", 0, last - 30),
        AttemptEnded("a", 0, "app error", last - 20),
        AttemptStarted("a", 1, last - 20),
        AttemptStarted("b", 0, last - 20),
        AttemptEnded("a", 1, "app error", last + 4, error="ValueError: x\nsecond"),
        AttemptEnded("b", 0, "non-recoverable", last + 4),
        RunEnded("failed", last + 4, error="a: app error"),
        retries=1,
    )
    assert str(error).splitlines() == [
        "a failed: app error, attempt 1 (2 of 2)",
        "  ValueError: x",
        "  second",
        "  saved: checkpoint 3 of attempt 1, 4.0 s before the end",
        f"  log: {tmp_path}/runs/{RUN}/logs/a/1.log",
        "  failed too: b",
        f"  go on with: headway resume {RUN}",
    ]
    assert (error.run, error.node, error.outcome) == (RUN, "a", "app error")


def test_a_failure_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    error = failed(
        LocalStorage(tmp_path),
        AttemptStarted("a", 0, 1),
        AttemptEnded("a", 0, "app error", 2),
        RunEnded("failed", 3),
    )
    assert "saved: no checkpoint" in str(error)


def test_a_cancelled_run_is_a_failure_of_no_node(tmp_path: Path) -> None:
    error = failed(
        LocalStorage(tmp_path),
        CancelRequested(2),
        RunEnded("cancelled", 3, error="cancelled by the user"),
    )
    assert str(error) == (
        f"run {RUN} cancelled: cancelled by the user. Go on with: headway resume {RUN}"
    )
    assert (error.node, error.outcome) == ("", "cancelled")


def said(*events: Event) -> tuple[str, RunState]:
    stream = io.BytesIO()
    console = Console(stream)
    state = RunState()
    from headway.engine.core import apply

    for event in events:
        apply(state, event)
        console.event(event, state)
    return stream.getvalue().decode(), state


def test_the_console_tells_of_what_went_wrong_and_of_new_attempts() -> None:
    text, _ = said(
        *begun(plan("a", retries=1)),
        AttemptStarted("a", 0, 1),
        CheckpointSaved("a", 0, 4, 1, 2),
        AttemptWarned("a", 0, "k", "odd", 2),
        AttemptEnded("a", 0, "app error", 3, error="E: x\nmore"),
        AttemptStarted("a", 1, 4),
        AttemptEnded("a", 1, "app error", 5),
        RunNoted("changed", 6),
        RunEnded("failed", 7),
    )
    assert text.splitlines() == [
        "headway: a: attempt 0: warning: odd",
        "headway: a: attempt 0: app error: E: x",
        "headway: a: attempt 1 starts after checkpoint 4",
        "headway: a: attempt 1 (2 of 2): app error: ",
        "headway: note: changed",
    ]


def test_the_console_begins_its_lines_on_lines_of_their_own() -> None:
    stream = io.BytesIO()
    console = Console(stream)
    console.started(RUN)
    console.output("a", 0, b"50 %")
    console.event(RunNoted("note", 1.0), RunState())
    console.output("a", 0, b" done\n")
    console.event(RunNoted("again", 1.0), RunState())
    assert stream.getvalue().decode().splitlines() == [
        f"headway: run {RUN} (if it stops: headway resume {RUN})",
        "50 %",
        "headway: note: note",
        " done",
        "headway: note: again",
    ]


def test_a_console_whose_stream_is_gone_falls_silent() -> None:
    stream = io.BytesIO()
    console = Console(stream)
    stream.close()
    console.started(RUN)
    console.output("a", 0, b"x")


def test_keys_of_a_run_lie_under_its_prefix() -> None:
    assert ledger_prefix(RUN).startswith(f"runs/{RUN}/")
    assert node_prefix(RUN, "score[1]/x") == f"runs/{RUN}/nodes/score[1]_x"

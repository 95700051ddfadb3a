"""What a run shows on stderr, in a pipe and in a terminal, and what is said when it fails."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from headway.cli.endings import ending
from headway.cli.lines import pause
from headway.cli.live import Live
from headway.cli.output import Paint
from headway.cli.progress import Plain, Progress, progress_for
from headway.cli.settings import Settings
from headway.engine.core import RunState, apply, decide
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
from headway.model.report import AttemptReport, CheckpointReport, NodeReport, RunReport
from headway.model.settings import Backoff, TaskOptions

RUN = "1tq4zk-8f3d"
T = 1_800_000_000.0


def plan(name: str, *after: str, **options: Any) -> NodePlan:
    return NodePlan(name, f"m:{name}", TaskOptions(**options), {}, after, ("o0",))


def created(*plans: NodePlan) -> list[Event]:
    opening = RunCreated(RUN, "m:w", Program("m"), {}, T, "0.1.0", plans, {})
    return [opening, DriverStarted(T, 1, "host", "")]


def ended(node: str, attempt: int, outcome: str, time: float, error: str = "") -> AttemptEnded:
    outputs = {"o0": 1} if outcome == "succeeded" else None
    return AttemptEnded(node, attempt, outcome, time, outputs, error, "Trace\n  line\nEnd")


def told(events: Sequence[Event], progress: Progress) -> RunState:
    state = RunState()
    for event in events:
        apply(state, event)
        progress.event(event, state)
    return state


def plain(**settings: Any) -> tuple[Progress, io.StringIO]:
    stream = io.StringIO()
    chosen = Settings(**settings)
    paint = Paint(chosen, stream)
    return Progress(Plain(stream, paint), chosen, paint), stream


STORY: list[Event] = [
    *created(plan("train", retries=1), plan("eval", "train")),
    AttemptStarted("train", 0, T + 1),
    CheckpointSaved("train", 0, 1, 1536, T + 2),
    CheckpointSaved("train", 0, 4, 100, T + 3),
    AttemptWarned("train", 0, "damage", "checkpoint 2 was skipped", T + 3),
    ended("train", 0, "app error", T + 3.5, "ValueError: bad\nmore"),
    AttemptStarted("train", 1, T + 4),
    ended("train", 1, "succeeded", T + 6),
    RunNoted("the code has changed", T + 6),
    AttemptStarted("eval", 0, T + 7),
    CancelRequested(T + 8),
    ended("eval", 0, "cancelled", T + 8),
    RunEnded("cancelled", T + 9),
]


def test_in_a_pipe_every_line_makes_sense_alone() -> None:
    progress, stream = plain()
    told(STORY, progress)
    assert stream.getvalue().splitlines() == [
        f"run {RUN}  (if it stops: headway resume {RUN})",
        "train  attempt 0 started",
        "train  attempt 0 checkpoint 1 saved (1.5 KiB)",
        "train  attempt 0 warning: checkpoint 2 was skipped",
        (
            "train  attempt 0 outcome app error after 2.5s: ValueError: bad "
            "(checkpoint 4, saved 0.5s before); next attempt at once"
        ),
        "train  attempt 1 started (checkpoint 4)",
        "train  attempt 1 outcome succeeded after 2s",
        "note: the code has changed",
        "eval  attempt 0 started",
        "cancelling",
        "eval  attempt 0 outcome cancelled after 1s (no checkpoint); not tried again",
    ]


def test_the_home_that_was_typed_is_in_the_command_that_resumes() -> None:
    progress, stream = plain(home="/some where")
    progress.started(RUN)
    progress.started(RUN)
    assert stream.getvalue().count("headway resume 1tq4zk-8f3d --home '/some where')\n") == 1


def test_colour_changes_nothing_but_colour() -> None:
    bare, bare_stream = plain()
    coloured, stream = plain(color="always")
    told(STORY, bare)
    told(STORY, coloured)
    assert "\x1b[" in stream.getvalue()
    import click

    assert click.unstyle(stream.getvalue()) == bare_stream.getvalue()


def test_a_wait_before_the_next_attempt_is_told_before_and_after_it_is_on_the_clock() -> None:
    state = RunState()
    for event in [
        *created(plan("train", retries=3, backoff=Backoff(initial=40.0, jitter=0.0))),
        AttemptStarted("train", 0, T),
        ended("train", 0, "app error", T),
    ]:
        apply(state, event)
    assert pause(state, "train") == 40.0
    import time

    decide(state, time.monotonic(), 1)
    assert 39.0 < (pause(state, "train") or 0) <= 40.0
    assert pause(state, "other") is None


def test_the_last_attempt_says_that_there_is_no_other_and_a_wait_says_how_long() -> None:
    progress, stream = plain()
    waits = Backoff(initial=40.0, jitter=0.0)
    told(
        [
            *created(plan("train", retries=1, backoff=waits)),
            AttemptStarted("train", 0, T),
            ended("train", 0, "oom", T + 1),
        ],
        progress,
    )
    assert "(no checkpoint); next attempt in 40s" in stream.getvalue()
    progress, stream = plain()
    told(
        [
            *created(plan("train")),
            AttemptStarted("train", 0, T),
            ended("train", 0, "timeout", T + 1),
        ],
        progress,
    )
    assert "no attempts left" in stream.getvalue()


def test_resuming_says_how_much_is_done_and_unknown_nodes_are_ignored() -> None:
    progress, stream = plain()
    told(
        [
            *STORY[:9],
            DriverStarted(T + 20, 2, "host", "", resumed=True),
            ended("gone", 0, "succeeded", T + 21),
        ],
        progress,
    )
    assert stream.getvalue().endswith("resuming: 1 of 2 nodes done\n")


def test_checkpoints_of_one_node_are_told_only_every_so_often() -> None:
    progress, stream = plain()
    saved = [CheckpointSaved("train", 0, n, 10, T + n / 10) for n in range(1, 120)]
    told([*created(plan("train")), AttemptStarted("train", 0, T), *saved], progress)
    numbers = [line.split()[4] for line in stream.getvalue().splitlines() if "saved" in line]
    assert numbers == ["1", "51", "101"]


def test_output_of_tasks_is_passed_on_in_whole_lines() -> None:
    progress, stream = plain()
    state = told(created(plan("a"), plan("b")), progress)
    stream.truncate(0)
    stream.seek(0)
    progress.output("a", 0, b"one\ntw")
    progress.output("b", 0, "grün\n".encode())
    progress.output("a", 0, b"o\n 10%\r 20%\r\nlast")
    assert stream.getvalue() == "a | one\nb | grün\na | two\na |  20%\n"
    for event in (AttemptStarted("a", 0, T), ended("a", 0, "succeeded", T)):
        progress.event(event, apply(state, event))
    assert "a | last\n" in stream.getvalue()
    progress.output("b", 0, b"tail\xff")
    progress.close()
    progress.close()
    assert stream.getvalue().endswith("b | tail\ufffd\n")


def test_the_only_node_needs_no_prefix_and_an_endless_line_is_cut() -> None:
    progress, stream = plain()
    told(created(plan("a")), progress)
    stream.truncate(0)
    stream.seek(0)
    progress.output("a", 0, b"x" * 70_000)
    assert stream.getvalue() == "x" * 70_000 + "\n"


def test_a_stderr_that_cannot_say_it_says_what_it_can() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Plain(stream, Paint(Settings(), stream)).line("grün")
    assert raw.getvalue() == b"gr?n\n"


def test_a_display_that_breaks_is_dropped_and_the_run_goes_on() -> None:
    class Broken(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise BrokenPipeError

    stream = Broken()
    progress = Progress(
        Plain(stream, Paint(Settings(), stream)), Settings(), Paint(Settings(), stream)
    )
    told(STORY, progress)
    progress.output("train", 0, b"x\n")
    progress.close()
    assert stream.writes == 1
    assert progress.run_id == RUN


def test_quiet_shows_nothing_but_knows_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    progress = progress_for(Settings(quiet=True))
    told(STORY, progress)
    progress.output("train", 0, b"x\n")
    progress.close()
    assert capsys.readouterr() == ("", "")
    assert progress.run_id == RUN


def test_the_live_picture_is_for_terminals_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_for(Settings())._view, Live)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(Settings())._view, Plain)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_for(Settings())._view, Plain)


def live(height: int = 20) -> tuple[Live, Console]:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, width=100, height=height, color_system=None, record=True
    )
    return Live(stream, Paint(Settings(color="never"), stream), console=console), console


def picture(view: Live, now: float) -> list[str]:
    console = Console(width=100, height=20, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(view.picture(now))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_picture_has_a_line_per_running_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.cli.live.time.time", lambda: T)
    view, _ = live()
    progress = Progress(view, Settings(), Paint(Settings(color="never"), io.StringIO()))
    try:
        told(
            [
                *created(plan("train"), plan("crawl", retries=2), plan("eval", "train")),
                AttemptStarted("train", 0, T),
                AttemptStarted("crawl", 0, T + 60),
                CheckpointSaved("train", 0, 7, 10, T + 100),
            ],
            progress,
        )
        progress.output("crawl", 0, b"page 3\r\x1b[1mpage 4\x1b[0m")
        lines = picture(view, T + 103)
        assert " ".join(lines[0].split()) == "train attempt 0 1:43 checkpoint 7, 3s ago"
        assert " ".join(lines[1].split()) == "crawl attempt 0 0:43 no checkpoint page 4"
        assert " ".join(lines[2].split()[1:]) == (
            "1:43 0 of 3 nodes done, 2 running Ctrl-C stops; it can be resumed"
        )
    finally:
        progress.close()


def test_the_picture_shows_who_waits_and_forgets_who_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.cli.live.time.time", lambda: T)
    view, console = live()
    progress = Progress(view, Settings(), Paint(Settings(color="never"), io.StringIO()))
    waits = Backoff(initial=40.0, jitter=0.0)
    try:
        state = told(
            [
                *created(plan("train", retries=1, backoff=waits), plan("eval")),
                AttemptStarted("eval", 0, T),
                ended("eval", 0, "succeeded", T),
                AttemptStarted("train", 0, T),
                CheckpointSaved("train", 0, 1, 10, T),
                ended("train", 0, "app error", T, "ValueError: bad"),
                ended("gone", 0, "app error", T),
                CancelRequested(T + 1),
            ],
            progress,
        )
        lines = picture(view, T + 10)
        assert " ".join(lines[0].split()) == "train attempt 1 in 30s checkpoint 1, 10s ago"
        assert "1 of 2 nodes done, 0 running, cancelling" in lines[-1]
        progress.output("train", 0, b"hello\n\nworld\n")
        progress.output("nobody", 0, b"partial")
        assert state.finished == 1
    finally:
        progress.close()
    text = console.export_text()
    assert "train │ hello\ntrain │ \ntrain │ world" in text
    assert "train  attempt 0 outcome app error" in text
    assert "eval  attempt 0 started" not in text  # the picture shows first attempts and checkpoints
    assert "checkpoint 1 saved" not in text


def test_a_picture_higher_than_the_terminal_is_cut() -> None:
    view, _ = live(height=10)
    progress = Progress(view, Settings(), Paint(Settings(color="never"), io.StringIO()))
    try:
        names = [f"n{index}" for index in range(30)]
        starts = [AttemptStarted(name, 0, T) for name in names]
        told([*created(*map(plan, names)), *starts], progress)
        lines = picture(view, T)
        assert len(lines) == 8
        assert lines[-2] == "… and 24 more"
    finally:
        progress.close()


def test_output_of_the_only_node_stands_alone_in_a_terminal() -> None:
    view, console = live()
    progress = Progress(view, Settings(), Paint(Settings(color="never"), io.StringIO()))
    told(created(plan("a")), progress)
    progress.output("a", 0, b"hello\n")
    progress.close()
    assert "\nhello\n" in console.export_text()


def checkpoint(number: int, time: float) -> CheckpointReport:
    return CheckpointReport(number, 0, time, 10, "bytes")


def attempt(number: int, outcome: str, *checkpoints: CheckpointReport) -> AttemptReport:
    log = f"/home/x/{number}.log"
    return AttemptReport(number, outcome, T, T + 10, list(checkpoints), "ValueError: bad", log)


def report(status: str, *nodes: NodeReport, error: str = "") -> RunReport:
    return RunReport(RUN, "m:w", status, None, list(nodes), T, T + 10, error)


def lines_of(found: RunReport, state: RunState | None = None, **settings: Any) -> list[str]:
    chosen = Settings(**settings)
    return ending(found, state, chosen, Paint(chosen, io.StringIO()))


def test_a_failure_says_outcome_attempt_saved_log_traceback_and_what_to_type() -> None:
    state = RunState()
    for event in [
        *created(plan("train", retries=1), plan("eval", "train")),
        AttemptStarted("train", 0, T),
        ended("train", 0, "app error", T),
        AttemptStarted("train", 1, T),
        ended("train", 1, "app error", T),
    ]:
        apply(state, event)
    failed = report(
        "failed",
        NodeReport(
            "train",
            "failed",
            [attempt(0, "app error", checkpoint(4, T + 7)), attempt(1, "app error")],
        ),
        NodeReport("eval", "skipped", []),
    )
    assert lines_of(failed, state, home="h") == [
        "train failed: app error in attempt 1 (2 of 2, retries=1)",
        "  end of the traceback:",
        "    Trace",
        "      line",
        "    End",
        "  saved: checkpoint 4, 3s before the end",
        "  log: none, it printed nothing",
        "not started, for they need what failed: eval",
        f"run {RUN} failed: 0 of 2 nodes done",
        f"go on with: headway resume {RUN} --home h",
    ]


@pytest.mark.parametrize(
    ("options", "outcomes", "words"),
    [
        ({}, ["non-recoverable"], "(which no retry would help)"),
        ({"max_interruptions": 1}, ["killed", "killed"], "(interruption 2, max_interruptions=1)"),
        ({}, ["killed"] * 10, "(10 interruptions in a row without a new checkpoint)"),
        ({"retries": 1}, ["killed", "oom", "oom"], "(3 of 3, retries=1)"),
    ],
)
def test_a_failure_says_which_budget_is_used_up(
    options: dict[str, Any], outcomes: list[str], words: str
) -> None:
    state = RunState()
    for event in created(plan("train", **options)):
        apply(state, event)
    for number, outcome in enumerate(outcomes):
        decide(state, 1e9 * (number + 1), 1)  # lets the back-off pass
        apply(state, AttemptStarted("train", number, T))
        apply(state, ended("train", number, outcome, T))
    attempts = [attempt(number, outcome) for number, outcome in enumerate(outcomes)]
    found = lines_of(report("failed", NodeReport("train", "failed", attempts)), state)
    assert found[0].endswith(words)
    assert "  saved: no checkpoint" in found


def test_without_its_events_a_failure_is_told_from_the_report() -> None:
    nodes = [NodeReport(f"n{i}", "failed", [attempt(2, "app error")]) for i in range(4)]
    found = lines_of(report("failed", NodeReport("n", "failed", []), *nodes))
    assert found[0] == "n failed"
    assert found[1:3] == ["n0 failed: app error in attempt 2 (3 of 3)", "  ValueError: bad"]
    assert "and 2 more nodes failed: n2, n3" in found


def test_an_interruption_says_what_is_saved() -> None:
    found = lines_of(
        report(
            "interrupted",
            NodeReport("a", "succeeded", [attempt(0, "succeeded")]),
            NodeReport("b", "ready", [attempt(0, "preempted", checkpoint(3, T + 10))]),
            NodeReport("c", "ready", [attempt(0, "preempted")]),
            NodeReport("d", "waiting", []),
        )
    )
    assert found == [
        f"run {RUN} interrupted: 1 of 4 nodes done",
        "  b: checkpoint 3, 0.00s before the end",
        "  c: no checkpoint",
        f"go on with: headway resume {RUN}",
    ]


def test_a_run_that_failed_as_a_whole_says_why() -> None:
    found = lines_of(report("failed", error="no node can start"))
    assert found[0] == f"run {RUN} failed: no node can start"


def test_the_environment_and_the_option_decide_on_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(os, "environ", {"TERM": "xterm"})
    assert Settings().colored(Terminal()) and not Settings().colored(io.StringIO())
    assert not Settings(color="never").colored(Terminal())
    monkeypatch.setattr(os, "environ", {"TERM": "xterm", "NO_COLOR": "1"})
    assert not Settings().colored(Terminal()) and Settings(color="always").colored(io.StringIO())
    monkeypatch.setattr(os, "environ", {"TERM": "dumb"})
    assert not Settings().colored(Terminal())


def test_an_attempt_that_leaves_with_its_driver_promises_no_next_one() -> None:
    progress, stream = plain()
    leaving = AttemptEnded("train", 0, "preempted", T + 1, error="left", charged=False)
    told([*created(plan("train")), AttemptStarted("train", 0, T), leaving], progress)
    assert stream.getvalue().endswith("after 1s: left (no checkpoint)\n")


def test_the_picture_says_that_it_stops() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    view = Live(stream, Paint(Settings(), stream), lambda: True, console=console)
    assert "stopping in good order; Ctrl-C again kills at once" in picture(view, T)[-1]


@pytest.mark.parametrize(
    ("line", "coloured", "bare"),
    [
        (b"plain \xc3\xbc", "plain ü", "plain ü"),
        (b"a\tb", "a\tb", "a\tb"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m", "red"),
        (b"\x1b[2J\x1b[?25lcleared\x1b[1A", "cleared", "cleared"),
        (b"\x1b]0;title\x07x\x1b]8;;http://e\x1b\\y", "xy", "xy"),
        (b"\x1b7\x1bMbell\x07\x08\x00", "bell", "bell"),
        (b"cut \x1b[12", "cut ", "cut "),
        (b"cut \x1b]0;never ends", "cut ", "cut "),
    ],
)
def test_output_of_tasks_cannot_move_the_cursor(line: bytes, coloured: str, bare: str) -> None:
    for color, expected in (("always", coloured), ("never", bare)):
        stream = io.StringIO()
        settings = Settings(color=color)
        view = Live(stream, Paint(settings, stream))
        view.task_lines("", [line])
        assert stream.getvalue() == expected + "\n"


def test_a_run_that_succeeded_says_how_long_it_took() -> None:
    progress, stream = plain()
    told([*STORY[:2], RunEnded("succeeded", T + 9)], progress)
    assert stream.getvalue().endswith(f"run {RUN} succeeded after 9s\n")

"""The driver's loop: what is recorded before what is done, and being told to leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from headway.engine.core import RunState
from headway.engine.driver import GRACE, Driver
from headway.engine.signals import told_to_leave
from headway.engine.tails import Tails
from headway.model.errors import CheckpointFenced, RunBusy, StorageFull, StorageUnavailable
from headway.model.events import (
    AttemptEnded,
    AttemptStarted,
    AttemptWarned,
    CheckpointSaved,
    DriverStarted,
    Event,
    NodePlan,
    RunCreated,
    RunEnded,
)
from headway.model.outcome import NodeStatus, RunStatus
from headway.model.program import (
    AttemptSpec,
    Died,
    Message,
    Program,
    Raised,
    Returned,
    Saved,
    Started,
    Warned,
)
from headway.model.settings import TaskOptions
from headway.ports import AttemptKey

DONE = Returned({"o0": 1}, clean=True)


class Fake:
    """Journal, executor, assigner, clock and observer in one, with one log of all that happened.

    `script` maps an attempt to what it says, as (seconds after its start, message).
    """

    def __init__(
        self, script: dict[AttemptKey, list[tuple[float, Message]]], slots: int = 2
    ) -> None:
        self.script = script
        self.slots = slots
        self.now = 0.0
        self.log: list[Any] = []
        self.due: list[tuple[float, AttemptKey, Message]] = []
        self.batches: list[tuple[Event, ...]] = []
        self.fail: BaseException | None = None
        self.fenced = False
        self.closed = False
        self.on_poll: Callable[[], None] = lambda: None
        self.folder = Path("/nonexistent")
        self.shown: list[Any] = []

    # the journal

    def append(self, *events: Event) -> None:
        if self.fail is not None:
            raise self.fail
        self.batches.append(events)
        self.log += [("recorded", type(event).__name__) for event in events]

    def check(self) -> None:
        if self.fenced:
            raise CheckpointFenced("newer")

    # the executor

    def submit(self, spec: AttemptSpec) -> None:
        self.log.append(("submitted", spec.node, spec.attempt))
        if (spec.node, spec.attempt) not in self.script:
            raise OSError("no more processes")
        for after, message in self.script[spec.node, spec.attempt]:
            self.due.append((self.now + after, (spec.node, spec.attempt), message))

    def stop(self, key: AttemptKey, grace: float) -> None:
        self.log.append(("stopped", *key, grace))
        code = -signal.SIGTERM if grace else -signal.SIGKILL
        self.due = [entry for entry in self.due if entry[1] != key]
        if grace == 0 or not self.script[key] or self.script[key][0][1] != Warned("deaf", ""):
            self.due.append((self.now + 0.1, key, Died(code)))

    def poll(self, timeout: float | None) -> Sequence[tuple[AttemptKey, Message]]:
        assert timeout is not None
        self.on_poll()
        self.due.sort(key=lambda entry: entry[0])
        if self.due and self.due[0][0] <= self.now + timeout:
            self.now, key, message = self.due.pop(0)
            return [(key, message)]
        self.now += timeout
        return []

    def wake(self) -> None:
        self.log.append("woken")

    def close(self) -> None:
        self.closed = True

    # the assigner

    def spec(self, state: RunState, node: str, attempt: int) -> AttemptSpec:
        log = str(self.folder / f"{node}-{attempt}.log")
        return AttemptSpec("h", "r", node, attempt, state.program, "m:t", {}, "digest", log)

    def outputs(self, state: RunState) -> dict[str, Any]:
        return {"o0": sorted(state.results)}

    # the clock

    def time(self) -> float:
        return 1e9 + self.now

    def monotonic(self) -> float:
        return self.now

    # the observer

    def started(self, run_id: str) -> None:
        self.shown.append(run_id)
        self.log.append("announced")

    def event(self, event: Event, state: RunState) -> None:
        self.shown.append(event)

    def output(self, node: str, attempt: int, data: bytes) -> None:
        self.shown.append((node, attempt, data))


def opening(*plans: NodePlan) -> list[Event]:
    return [
        RunCreated("r", "m:f", Program("m", digest="d"), {}, 0.0, "0", plans, {}),
        DriverStarted(0.0, 1, "h", "d"),
    ]


def plan(name: str, *after: str, **options: Any) -> NodePlan:
    return NodePlan(name, "m:t", TaskOptions(**options), {}, after, ("o0",))


def make(fake: Fake, *, watched: bool = False, **more: Any) -> Driver:
    observer = fake if watched else None
    return Driver(RunState(), fake, fake, fake, fake, observer=observer, draw=lambda: 0.5, **more)


def drive(fake: Fake, *plans: NodePlan, **more: Any) -> RunState:
    return make(fake, **more).run(opening(*plans))


def test_a_chain_of_tasks_costs_one_append_per_task() -> None:
    fake = Fake({("a", 0): [(0, DONE)], ("b", 0): [(0, DONE)], ("c", 0): [(0, DONE)]})
    state = drive(fake, plan("a"), plan("b", "a"), plan("c", "b"))
    assert state.status is RunStatus.SUCCEEDED
    assert state.result == {"o0": ["a", "b", "c"]}
    kinds = [[type(event).__name__ for event in batch] for batch in fake.batches]
    assert kinds == [
        ["RunCreated", "DriverStarted", "AttemptStarted"],
        ["AttemptEnded", "AttemptStarted"],
        ["AttemptEnded", "AttemptStarted"],
        ["AttemptEnded", "RunEnded"],
    ]
    assert fake.closed


def test_a_start_is_recorded_before_the_executor_hears_of_it() -> None:
    fake = Fake({("a", 0): [(0, DONE)], ("b", 0): [(0, DONE)]})
    drive(fake, plan("a"), plan("b", "a"), watched=True)
    happened = [entry for entry in fake.log if entry != "announced"]
    assert happened.index(("submitted", "a", 0)) > happened.index(("recorded", "AttemptStarted"))
    assert happened.index(("submitted", "b", 0)) > happened.index(("recorded", "AttemptEnded"))
    assert fake.log.index("announced") > fake.log.index(("recorded", "RunCreated"))
    [first, *_] = [e for batch in fake.batches for e in batch if isinstance(e, AttemptStarted)]
    assert first.inputs_digest == "digest"


def test_a_journal_that_cannot_be_written_stops_everything_before_it_is_acted_on() -> None:
    fake = Fake({})
    fake.fail = StorageFull("no space")
    with pytest.raises(StorageFull):
        drive(fake, plan("a"))
    assert fake.log == []
    assert fake.closed


def test_a_driver_that_was_fenced_leaves_and_says_who_has_the_run() -> None:
    fake = Fake({("a", 0): [(60, DONE)]})

    def fence() -> None:
        fake.fenced = fake.now > 3

    fake.on_poll = fence
    with pytest.raises(RunBusy, match="took run r over"):
        drive(fake, plan("a"))
    assert fake.closed
    assert fake.now < 5  # though nothing had to be recorded


def test_checkpoints_ride_along_and_only_the_newest_of_an_attempt_is_recorded() -> None:
    saves: list[tuple[float, Message]] = [(0.01 * n, Saved(n, 10, 5.0)) for n in range(1, 20)]
    warned: list[tuple[float, Message]] = [(0.5, Warned("odd", "text")), (0.6, DONE)]
    begun: list[tuple[float, Message]] = [(0.0, Started(1))]
    fake = Fake({("a", 0): begun + saves + warned})
    drive(fake, plan("a"), watched=True)
    events = [event for batch in fake.batches for event in batch]
    assert [e.number for e in events if isinstance(e, CheckpointSaved)] == [19]
    assert [e.message for e in events if isinstance(e, AttemptWarned)] == ["text"]
    assert len(fake.batches) == 2
    order = [type(event).__name__ for event in fake.batches[1]]
    assert order == ["CheckpointSaved", "AttemptWarned", "AttemptEnded", "RunEnded"]
    shown = [e.number for e in fake.shown if isinstance(e, CheckpointSaved)]
    assert shown == list(range(1, 20))  # whoever watches sees all of them, at once


def test_checkpoints_of_a_long_attempt_are_recorded_within_a_second() -> None:
    fake = Fake({("a", 0): [(5.0, Saved(1, 10, 5.0)), (20.0, DONE)]})
    times: list[float] = []
    fake.on_poll = lambda: times.append(fake.now) if len(fake.batches) == 2 else None
    drive(fake, plan("a"))
    assert [type(event).__name__ for event in fake.batches[1]] == ["CheckpointSaved"]
    assert 5.0 < times[0] <= 6.5


def test_a_timeout_stops_the_attempt_and_is_what_its_end_is_called() -> None:
    fake = Fake({("a", 0): [(60, DONE)], ("a", 1): [(0, DONE)]})
    state = drive(fake, plan("a", timeout=2.0, retries=1))
    assert [entry for entry in fake.log if entry[0] == "stopped"] == [("stopped", "a", 0, GRACE)]
    assert [a.outcome for a in state.nodes["a"].attempts] == ["timeout", "succeeded"]
    assert 2.0 <= fake.now < 3.0


def test_a_process_that_cannot_be_started_is_the_machines_fault() -> None:
    fake = Fake({("a", 1): [(0, DONE)]})
    state = drive(fake, plan("a"))
    first, second = state.nodes["a"].attempts
    assert (first.outcome, second.outcome) == ("node lost", "succeeded")
    assert "no more processes" in first.error


def test_late_news_of_an_attempt_that_is_over_changes_nothing() -> None:
    failed = Raised("app error", "E", "x", "trace")
    fake = Fake({("a", 0): [(0.0, failed), (0.2, DONE)], ("a", 1): [(1.0, failed)]})
    state = drive(fake, plan("a", retries=1))
    assert state.nodes["a"].status is NodeStatus.FAILED
    assert state.nodes["a"].attempts[0].traceback == "trace"
    assert state.error == "a: app error: E: x"


def test_cancelling_stops_the_attempts_and_ends_the_run() -> None:
    fake = Fake({("a", 0): [(60, DONE)]})
    state = drive(fake, plan("a"), plan("b", "a"), cancelled=lambda: fake.now > 3)
    assert state.status is RunStatus.CANCELLED
    assert state.nodes["a"].attempts[0].outcome == "cancelled"
    assert state.nodes["b"].status is NodeStatus.CANCELLED
    assert fake.now < 5


def test_not_knowing_whether_the_user_cancelled_is_no_reason_to_stop() -> None:
    def cancelled() -> bool:
        raise StorageUnavailable("flaky")

    fake = Fake({("a", 0): [(3, DONE)]})
    assert drive(fake, plan("a"), cancelled=cancelled).status is RunStatus.SUCCEEDED


def test_told_to_leave_it_stops_the_attempts_at_nobodys_cost() -> None:
    fake = Fake({("a", 0): [(60, DONE)]})
    driver = make(fake)
    fake.on_poll = lambda: driver.leave() if fake.now > 1 and "woken" not in fake.log else None
    state = driver.run(opening(plan("a", max_interruptions=0), plan("b", "a")))
    assert state.status is RunStatus.INTERRUPTED
    assert ("stopped", "a", 0, GRACE) in fake.log
    [ended] = [e for batch in fake.batches for e in batch if isinstance(e, AttemptEnded)]
    assert (ended.outcome, ended.charged) == ("preempted", False)
    assert fake.batches[-1][-1] == RunEnded(
        "interrupted", fake.time(), None, "its driver was told to leave"
    )
    assert state.nodes["a"].status is NodeStatus.READY


def test_told_twice_it_kills_what_does_not_go() -> None:
    fake = Fake({("a", 0): [(0, Warned("deaf", "")), (600, DONE)]})
    driver = make(fake)

    def tell() -> None:
        if fake.log.count("woken") < min(2, int(fake.now)):
            driver.leave()

    fake.on_poll = tell
    state = driver.run(opening(plan("a")))
    assert state.status is RunStatus.INTERRUPTED
    stops = [entry[3] for entry in fake.log if entry[0] == "stopped"]
    assert stops == [GRACE, 0.0]
    assert fake.now < 5


def test_told_before_anything_started_nothing_starts() -> None:
    fake = Fake({})
    driver = make(fake)
    driver.leave()
    assert driver.run(opening(plan("a"))).status is RunStatus.INTERRUPTED
    assert not any(entry[0] == "submitted" for entry in fake.log)


def test_a_result_that_comes_while_leaving_is_kept_and_may_even_end_the_run() -> None:
    fake = Fake({("a", 0): [(0.5, DONE)]})
    driver = make(fake)
    fake.on_poll = lambda: driver.leave() if "woken" not in fake.log else None

    def stop(key: AttemptKey, grace: float) -> None:
        fake.log.append(("stopped", *key, grace))

    fake.stop = stop  # type: ignore[method-assign]
    assert driver.run(opening(plan("a"))).status is RunStatus.SUCCEEDED


def test_the_output_of_attempts_is_shown_while_they_run_and_to_the_last_byte(
    tmp_path: Path,
) -> None:
    fake = Fake({("a", 0): [(2.0, DONE)]})
    fake.folder = tmp_path
    log = tmp_path / "a-0.log"
    marks = iter([(0.5, b"one\n"), (1.0, b"two\n"), (9.9, b"")])
    mark = [next(marks)]

    def write() -> None:
        if fake.now >= mark[0][0]:
            with log.open("ab") as file:
                file.write(mark[0][1])
            mark[0] = next(marks)
        if fake.now >= 1.9 and log.stat().st_size < 1000:
            with log.open("ab") as file:
                file.write(b"x" * 200_000)

    fake.on_poll = write
    drive(fake, plan("a"), watched=True)
    shown = [entry for entry in fake.shown if isinstance(entry, tuple)]
    assert [entry[2] for entry in shown[:2]] == [b"one\n", b"two\n"]
    assert b"".join(data for _, _, data in shown) == b"one\ntwo\n" + b"x" * 200_000
    end = next(i for i, e in enumerate(fake.shown) if isinstance(e, AttemptEnded))
    assert fake.shown.index(shown[-1]) < end


def test_a_log_that_is_not_there_shows_nothing(tmp_path: Path) -> None:
    tails = Tails()
    key = ("a", 0)
    tails.follow(key, str(tmp_path / "missing"))
    assert list(tails.news()) == []
    assert list(tails.finish(key)) == []
    assert list(tails.finish(key)) == []
    (tmp_path / "there").write_bytes(b"x")
    tails.follow(key, str(tmp_path / "there"))
    assert list(tails.news()) == [(key, b"x")]
    tails.close()
    assert list(tails.news()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_call_and_are_put_back(number: signal.Signals) -> None:
    calls: list[int] = []
    found = signal.signal(number, signal.SIG_DFL)  # it is ignored when the tests run under nohup
    try:
        with told_to_leave(lambda: calls.append(1)):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        assert len(calls) == 2
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, found)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with told_to_leave(lambda: pytest.fail("called")):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_leave_signals_alone() -> None:
    seen: list[Any] = []

    def inside() -> None:
        with told_to_leave(lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_signal_makes_a_real_driver_leave() -> None:
    fake = Fake({("a", 0): [(60, DONE)]})
    fake.on_poll = lambda: (
        os.kill(os.getpid(), signal.SIGTERM) if fake.now > 1 and "woken" not in fake.log else None
    )
    assert drive(fake, plan("a")).status is RunStatus.INTERRUPTED

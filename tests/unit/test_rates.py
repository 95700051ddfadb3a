"""How often attempts fail in a home: counted over its newest runs, and never a reason to fail."""

from __future__ import annotations

import pytest

from headway.checkpoint.cadence import Record
from headway.engine import rates
from headway.engine.journal import Journal
from headway.engine.keys import ledger_prefix
from headway.engine.rates import record_of
from headway.model.errors import StorageUnavailable
from headway.model.events import AttemptEnded, AttemptStarted, DriverStarted, NodePlan, RunCreated
from headway.model.program import Program
from headway.model.settings import TaskOptions
from headway.testing.memory import MemoryStorage

PLAN = NodePlan("a", "m:a", TaskOptions(retries=9), {}, (), ("o0",))


def begin(storage: MemoryStorage, number: int, *outcomes: str) -> str:
    """A run whose attempts took ten seconds each and ended so; one more is at work."""
    run = f"{number:06d}-0000"
    journal = Journal.open(storage, run, new=True)
    journal.append(
        RunCreated(run, "m:f", Program("m", "/m.py", ("/",), "d"), {}, 1.0, "0.1", (PLAN,), {}),
        DriverStarted(2.0, 7, "host", "d"),
    )
    for attempt, outcome in enumerate([*outcomes, ""]):
        at = 100.0 * attempt
        journal.append(AttemptStarted("a", attempt, at))
        if outcome:
            journal.append(AttemptEnded("a", attempt, outcome, at + 10))
    journal.close()
    return run


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


def test_failures_and_seconds_of_all_runs_are_added_up(storage: MemoryStorage) -> None:
    assert record_of(storage, "000001-0000") == Record()
    begin(storage, 1, "killed", "preempted")
    begin(storage, 2, "app error", "node lost", "oom")
    begin(storage, 3)
    assert record_of(storage, "000001-0000") == Record(5, 50.0)


def test_what_succeeded_or_was_cancelled_is_no_failure(storage: MemoryStorage) -> None:
    begin(storage, 1, "killed", "cancelled")
    assert record_of(storage, "000001-0000") == Record(1, 20.0)


def test_a_home_with_many_failures_is_saved_to_more_often(storage: MemoryStorage) -> None:
    begin(storage, 1, *["killed"] * 9)
    assert record_of(storage, "000001-0000").between < Record().between / 9


def test_only_the_newest_runs_count(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "_MOST_RUNS", 2)
    begin(storage, 1, *["killed"] * 5)
    begin(storage, 2, "killed")
    begin(storage, 3, "killed")
    assert record_of(storage, "000001-0000") == Record(2, 20.0)


def test_over_a_network_only_this_run_is_asked_for() -> None:
    storage = MemoryStorage(remote=True)
    begin(storage, 1, "killed")
    begin(storage, 2, *["killed"] * 5)
    assert record_of(storage, "000001-0000") == Record(1, 10.0)


def test_large_runs_are_left_out(storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_LARGEST", 30_000)
    begin(storage, 1, "killed")
    begin(storage, 2, *["killed"] * 300)
    assert record_of(storage, "000001-0000") == Record(1, 10.0)


def test_a_slow_home_is_asked_no_longer_than_it_may(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "_MOST_SECONDS", -1.0)
    begin(storage, 1, "killed")
    assert record_of(storage, "000001-0000") == Record()


def test_a_damaged_run_is_left_out(storage: MemoryStorage) -> None:
    begin(storage, 1, "killed")
    damaged = begin(storage, 2, "killed")
    storage.delete(ledger_prefix(damaged))
    storage.create(f"{ledger_prefix(damaged)}/nonsense", b"nonsense")
    assert record_of(storage, "000001-0000") == Record(1, 10.0)


def test_a_home_that_cannot_be_read_is_no_reason_to_fail(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> list[str]:
        raise StorageUnavailable("a planted fault")

    monkeypatch.setattr(storage, "list", fail)
    assert record_of(storage, "000001-0000") == Record()

"""A run's journal: what is read back, what is refused, and who may write."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headway.engine.journal import Journal, read_journal
from headway.engine.keys import ledger_prefix
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt, CheckpointFenced
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
from headway.model.settings import Backoff, TaskOptions
from headway.storage.local import LocalStorage
from headway.testing.memory import MemoryStorage

RUN = "000000-0000"
PLAN = NodePlan(
    "a",
    "m:a",
    TaskOptions(retries=2, timeout=1.5, backoff=Backoff(initial=1)),
    {"x": {"value": {"$": "tuple", "items": [1, b"x", None]}}},
    ("b",),
    ("o0",),
)
EVENTS: list[Event] = [
    RunCreated(
        RUN, "m:f", Program("m", "/m.py", ("/",), "d"), {"n": 1}, 1.0, "0.1", (PLAN,), {"o0": {}}
    ),
    DriverStarted(2.0, 7, "host", "d", resumed=True, replaced=(PLAN,), removed=("z",), outputs={}),
    AttemptStarted("a", 0, 3.0, "digest"),
    CheckpointSaved("a", 0, 1, 10, 4.0),
    AttemptWarned("a", 0, "damaged", "text", 5.0),
    AttemptEnded("a", 0, "app error", 6.0, None, "error", "trace", 0.25, charged=False),
    RunNoted("note", 7.0),
    CancelRequested(8.0),
    RunEnded("failed", 9.0, {"o0": [1, 2.5, "x"]}, "error"),
]


def test_every_kind_of_event_comes_back_as_it_was() -> None:
    storage = MemoryStorage()
    journal = Journal.open(storage, RUN)
    assert (journal.events, journal.notes) == ([], [])
    journal.append(*EVENTS[:4])
    for event in EVENTS[4:]:
        journal.append(event)
    journal.check()
    journal.close()
    assert read_journal(storage, RUN) == (EVENTS, [])
    assert Journal.open(storage, RUN).events == EVENTS


def test_a_run_that_does_not_exist_has_no_events() -> None:
    assert read_journal(MemoryStorage(), RUN) == ([], [])


def test_a_newer_driver_fences_the_older_one() -> None:
    storage = MemoryStorage()
    old = Journal.open(storage, RUN)
    old.append(EVENTS[0])
    new = Journal.open(storage, RUN)
    with pytest.raises(CheckpointFenced):
        old.check()
    with pytest.raises(CheckpointFenced):
        old.append(EVENTS[1])
    new.append(EVENTS[2])
    assert read_journal(storage, RUN)[0] == [EVENTS[0], EVENTS[2]]


def _spoil(home: Path, zeros: int) -> None:
    """Make the last `zeros` bytes of the journal zero, or with 0 flip a bit in the last event."""
    path = home / ledger_prefix(RUN) / "00000001"
    data = bytearray(path.read_bytes())
    used = len(data.rstrip(b"\0"))
    data[used - zeros : used] = bytes(zeros)
    data[used - 20] ^= not zeros
    path.write_bytes(data)


def test_what_an_append_that_died_left_behind_is_only_noted(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    journal = Journal.open(storage, RUN)
    journal.append(EVENTS[0])
    journal.append(RunNoted("x" * 2000, 1.0))
    _spoil(tmp_path, 1500)
    events, notes = read_journal(storage, RUN)
    assert events == EVENTS[:1]
    assert len(notes) == 1
    assert "end of the journal was ignored" in notes[0]
    reopened = Journal.open(storage, RUN)
    assert (reopened.events, reopened.notes) == (EVENTS[:1], notes)


def test_a_damaged_event_is_refused_and_the_ledger_left_as_it_is(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    journal = Journal.open(storage, RUN)
    journal.append(EVENTS[0])
    journal.append(EVENTS[1])
    _spoil(tmp_path, 0)
    for _ in range(2):
        with pytest.raises(
            CheckpointCorrupt, match=f"journal of run {RUN} is damaged .term 1, rec"
        ):
            read_journal(storage, RUN)
        with pytest.raises(CheckpointCorrupt, match=f"headway delete {RUN}"):
            Journal.open(storage, RUN)


def test_an_event_of_a_later_release_is_refused() -> None:
    storage = MemoryStorage()
    ledger = Ledger.open(storage, ledger_prefix(RUN))
    ledger.append(msgspec.msgpack.encode({"type": "run-teleported", "time": 1.0}))
    with pytest.raises(CheckpointCorrupt, match="newer headway wrote it"):
        read_journal(storage, RUN)


def test_the_journal_of_another_run_is_refused() -> None:
    """The name in it leads to places on this machine."""
    storage = MemoryStorage()
    Journal.open(storage, RUN).append(msgspec.structs.replace(EVENTS[0], run="../../elsewhere"))
    for read in (Journal.open, read_journal):
        with pytest.raises(CheckpointCorrupt, match="is that of another run"):
            read(storage, RUN)

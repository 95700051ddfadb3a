"""What the next attempt goes on from, when the one before died, its state is damaged, or reading fails
(P5, P6, P7)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.crash.driving import Runs
from tests.crash.nursery import Nursery
from tests.crash.tracing import READS, log_of, needs_strace, traced


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


def shown(runs: Runs) -> dict[str, Any]:
    """What `headway show --json` prints."""
    command = [sys.executable, "-m", "headway", "--home", str(runs.home), "show", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_attempts_that_die_before_they_write_lose_nothing(nursery: Nursery, tmp_path: Path) -> None:
    runs = Runs(nursery, tmp_path, entity="unlucky", inputs={})
    runs.finish()
    report = shown(runs)
    assert report["result"] == "attempt 3 found b'of attempt 0'"
    (node,) = report["nodes"]
    assert [a["outcome"] for a in node["attempts"]] == ["killed"] * 3 + ["succeeded"]
    assert [len(a["checkpoints"]) for a in node["attempts"]] == [1, 0, 0, 0]


def test_a_damaged_checkpoint_is_skipped_and_said_so(nursery: Nursery, tmp_path: Path) -> None:
    runs = Runs(nursery, tmp_path, entity="spoiled", inputs={})
    runs.finish()
    report = shown(runs)
    assert report["result"] == repr(b"the older")
    (node,) = report["nodes"]
    first, second = node["attempts"]
    assert [first["outcome"], second["outcome"]] == ["killed", "succeeded"]
    assert len(first["checkpoints"]) == 2 and first["warnings"] == []
    (warning,) = second["warnings"]
    assert "checkpoint 2" in warning and "checksum" in warning and "older checkpoint" in warning


@needs_strace
def test_a_fault_while_reading_is_a_retry_and_not_a_start_from_zero(
    nursery: Nursery, tmp_path: Path
) -> None:
    gate, log = str(tmp_path / "gate"), tmp_path / "log"
    runs = Runs(nursery, tmp_path, entity="patient", inputs={"gate": gate})
    driver = runs.driver()
    driver.go()
    starts = [note[1:] for note in wait_for(runs, "start", 2)]
    assert [attempt for _, attempt, _ in starts] == [0, 1]
    with traced(starts[1][2], log, "pread64:error=EIO:when=1", calls=READS):
        Path(f"{gate}-1").touch()
    wait_for(runs, "start", 3)
    Path(f"{gate}-2").touch()
    assert driver.wait() == 0, driver.said()
    assert any(call.injected and "/packs/" in call.path for call in log_of(log))
    report = shown(runs)
    assert report["result"] == "attempt 2 found of attempt 0"
    attempts = report["nodes"][0]["attempts"]
    assert [a["outcome"] for a in attempts] == ["killed", "node lost", "succeeded"]
    assert "Input/output error" in attempts[1]["error"]
    assert [len(a["checkpoints"]) for a in attempts] == [1, 0, 0]


def wait_for(runs: Runs, kind: str, count: int) -> list[list[Any]]:
    """Notes of a kind, when there are so many."""
    end = time.monotonic() + 60
    while len(found := runs.notes(kind)) < count:
        assert time.monotonic() < end, runs.notes()
        time.sleep(0.002)
    return found

"""SIGTERM and `kill -9` at random instants of a tracked loop (P14, P18): no step is torn, lost or doubled,
and the result is that of a run that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.counting import count
from tests.crash.nursery import MARK, descendants, survivors

pytestmark = pytest.mark.reliability("R2", "R9")

PROGRAM = Path(__file__).with_name("looping.py")
SAMPLE, RELEASE = 12, int(os.environ.get("HEADWAY_KILLS", "200"))
MOST = 6  # signals to one run
SEED = 11


class Loop:
    """A run of the program, in a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.mark = f"{home}"
        command = [sys.executable, "-m", "headway", "run", str(PROGRAM), "train"]
        self.process = subprocess.Popen(
            [*command, "--seed", str(SEED), "--pace", "0.003", "--json"],
            env={**os.environ, "HEADWAY_HOME": str(home), MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def worker(self) -> int | None:
        """The process that runs the body now."""
        for pid in descendants(self.mark):
            with suppress(OSError):
                if Path("/proc", str(pid), "comm").read_text().strip() == "headway worker"[:15]:
                    return pid
        return None

    def report(self) -> dict[str, Any]:
        """What it ended with."""
        said, errors = self.process.communicate(timeout=100)
        assert self.process.returncode == 0, errors
        found: dict[str, Any] = json.loads(said)
        return found

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """(what the program makes when it is left alone, seconds it takes)."""
    took = 0.0
    for number in range(2):
        began = time.monotonic()
        report = Loop(tmp_path_factory.mktemp(f"alone{number}")).report()
        took = time.monotonic() - began
    return report["result"], took


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
@pytest.mark.parametrize(
    "signals",
    [SAMPLE, pytest.param(RELEASE, marks=pytest.mark.slow)],
    ids=["sample", "release"],
)
@pytest.mark.timeout(3600)
def test_no_step_is_torn_or_doubled(
    undisturbed: tuple[dict[str, Any], float], tmp_path: Path, signals: int, number: signal.Signals
) -> None:
    expected, took = undisturbed
    source = random.Random(f"{signals} {number}")
    sent = runs = 0
    outcomes: Counter[str] = Counter()
    while sent < signals:
        loop = Loop(tmp_path / f"{runs}")
        runs += 1
        for _ in range(MOST):
            time.sleep(source.uniform(0, took / 2))
            worker = loop.worker()
            if loop.ended:
                break
            if worker is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker, number)
                    sent += 1
        report = loop.report()
        assert report["result"] == expected
        assert survivors(loop.mark) == []
        (node,) = report["nodes"]
        outcomes.update(attempt["outcome"] for attempt in node["attempts"])
        for attempt in node["attempts"]:
            if attempt["outcome"] == "preempted" and attempt["checkpoints"]:
                late = attempt["ended"] - attempt["checkpoints"][-1]["time"]
                assert late < 5.0, "the last save was made as it left"
    name = "preempted" if number == signal.SIGTERM else "killed"
    assert outcomes[name] >= signals // 2
    count("R2", f"{number.name}s to tracked loops", sent)
    count("R9", "interrupted runs with the result of an uninterrupted one", runs)

"""Runs of a program with a tracked loop that get signals at random instants."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.counting import count
from tests.crash.nursery import MARK, descendants, survivors

MOST = 6  # signals to one run
_AT_WORK = 0.8  # of the signals come when the loop is at work
_LATER = 0.6  # seconds after that has been seen, at most


class Loop:
    """A run of a program, in a process of its own.

    Args:
        home: its home.
        program: a file with a task `train`.
        arguments: of the task, as on the command line.
    """

    def __init__(self, home: Path, program: Path, arguments: Sequence[str]) -> None:
        self.mark = f"{home}"
        command = [sys.executable, "-m", "headway", "run", str(program), "train"]
        self.process = subprocess.Popen(
            [*command, *arguments, "--json"],
            env={**os.environ, "HEADWAY_HOME": str(home), MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def worker(self) -> list[int]:
        """The process that runs the body now, and behind it those that it has forked, as loaders do."""
        parents, workers = {}, []
        for pid in descendants(self.mark):
            with suppress(OSError, IndexError):
                name, _, rest = Path("/proc", str(pid), "stat").read_text().rpartition(")")
                parents[pid] = int(rest.split()[1])
                if name.endswith("(headway worker"):
                    workers.append(pid)
        found = [pid for pid in workers if parents[pid] not in workers][:1]
        return found + [pid for pid, parent in parents.items() if parent in found]

    def report(self) -> dict[str, Any]:
        """What it ended with."""
        said, errors = self.process.communicate(timeout=100)
        assert self.process.returncode == 0, errors
        found: dict[str, Any] = json.loads(said)
        return found

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None


class Target:
    """A program, and what it makes when it is left alone.

    Args:
        place: a directory of its own.
        program, arguments: as of `Loop`.
    """

    def __init__(self, place: Path, program: Path, *arguments: str) -> None:
        self._place, self._program, self._arguments = place, program, arguments
        self._runs = 0
        for _ in range(2):  # the second finds all that it imports in memory
            began = time.monotonic()
            self._expected = self._begin().report()["result"]
            self._took = time.monotonic() - began

    def _begin(self) -> Loop:
        self._runs += 1
        return Loop(self._place / f"{self._runs}", self._program, self._arguments)

    def strike(
        self,
        number: signal.Signals,
        signals: int,
        *,
        everybody: bool = False,
        at_work: Callable[[list[int]], bool] = bool,
    ) -> None:
        """Send signals at random instants; each run ends with what it makes when it is left alone.

        Args:
            number: of the signal.
            signals: how many, in all.
            everybody: send it also to what the worker has forked, as a cluster's shutdown does.
            at_work: given the worker and what it has forked, says whether its loop has begun; all signals
                but some come after that.
        """
        source = random.Random(f"{signals} {number} {everybody}")
        sent = runs = 0
        outcomes: Counter[str] = Counter()
        while sent < signals:
            loop = self._begin()
            runs += 1
            for _ in range(MOST):
                ready = at_work if source.random() < _AT_WORK else bool
                while not loop.ended and not ready(loop.worker()):
                    time.sleep(0.01)
                time.sleep(source.uniform(0, self._took / 2 if ready is bool else _LATER))
                workers = loop.worker()
                if loop.ended:
                    break
                for pid in workers if everybody else workers[:1]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                sent += bool(workers)
            report = loop.report()
            assert report["result"] == self._expected
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

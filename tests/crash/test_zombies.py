"""Attempts that are stopped, given up, and wake again: what they still do is never seen (P8).

A zombie is a real process under SIGSTOP, stopped before a chosen system call. While it sleeps, the next
attempt runs to its end. Then it goes on where it was.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.counting import count
from tests.crash.bodies import PREFIX, Plan, Step, random_plan
from tests.crash.driving import Runs
from tests.crash.judging import Case
from tests.crash.nursery import Child, Nursery
from tests.crash.tracing import log_of, needs_strace, points, run_traced, sample, traced

from headway.checkpoint.lineage import lineage_of
from headway.ledger.read import read_ledger
from headway.model.errors import CheckpointFenced
from headway.storage.local import LocalStorage

pytestmark = [needs_strace, pytest.mark.reliability("R8")]

ATTEMPT = "tests.crash.bodies:attempt"

PLAN: Plan = [
    Step("write", 100, 1),
    Step("write", 70_000, 2),
    Step("directory", 60_000, 3),
    Step("write", 9_000, 4),
    Step("write", 9_000, 5),  # a new term
    Step("write", 50, 6),
]
STOPS = ["pwrite64", "fsync", "fdatasync", "openat", "link", "unlink", "mkdir", "newfstatat"]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


def until(what: Callable[[], bool], why: str, patience: float = 30.0) -> None:
    """Wait for something that has to happen."""
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, f"never happened: {why}"
        time.sleep(0.0005)


def has_stopped(log: Path) -> bool:
    """Whether a traced process sleeps under SIGSTOP. (Its state in /proc does not tell: every traced
    call stops it for a moment, too.)"""
    return "--- stopped by SIGSTOP ---" in log.read_text(errors="replace")


class Zombies:
    """Stops an attempt somewhere, runs the next one, and wakes it up.

    Args:
        nursery: where children come from.
        place: an empty directory.
        plan: what the attempt saves.
    """

    def __init__(self, nursery: Nursery, place: Path, plan: Plan) -> None:
        self.nursery = nursery
        self.place = place
        self.plan = plan
        self.stopped = 0
        self.told = 0
        self._cases = 0

    def points(self) -> list[tuple[str, int]]:
        case, child = self._attempt()
        assert run_traced(child, self.place / "log", calls=STOPS) == 0, child.said()
        return points(log_of(self.place / "log"), case.home, STOPS)

    def strike(self, name: str, n: int) -> None:
        case, child = self._attempt()
        inject = f"{name}:signal=SIGSTOP:when={n}"
        with traced(child.pid, self.place / "log", inject, calls=STOPS):
            child.go()
            log = self.place / "log"
            until(lambda: child.ended() or has_stopped(log), f"a stop at {name} {n}")
            assert has_stopped(log), f"{name} {n} did not stop it"
            before = case.acked()
            self.stopped += 1
            successor = case.checkpoint(1)
            seen = len(successor.history())
            successor.write(b"first of the successor")
            os.kill(child.pid, signal.SIGCONT)
            assert child.wait() == 0, child.said()
        try:
            self._judge(case, before, seen)
            successor.write(b"second of the successor")  # never fenced by a zombie
            successor.close()
            last = case.checkpoint(2)
            assert last.read() == b"second of the successor"
            assert len(last.history()) == seen + 2
            last.close()
        except (AssertionError, CheckpointFenced) as error:
            error.add_note(f"stopped before {name} {n}; kept: {case.place}")
            raise
        case.clear()

    def _judge(self, case: Case, before: list[int], seen: int) -> None:
        order = [step.seed for step in self.plan]
        acked = case.acked()
        # What it was told is safe, the successor had seen; nothing was added behind its back.
        assert before == order[: len(before)] and len(before) <= seen <= len(before) + 1
        assert acked == order[: len(acked)] and len(acked) <= seen
        failures = case.failures()
        assert len(acked) + len(failures) == len(self.plan)
        assert {kind for _, kind, _ in failures} <= {"CheckpointFenced"}, failures
        self.told += bool(failures)
        chain = read_ledger(LocalStorage(case.home), f"{PREFIX}/ledger")
        assert not [damage for damage in chain.damage if not damage.tail], chain.damage
        assert len(lineage_of(chain, PREFIX).manifests) == seen + 1

    def _attempt(self) -> tuple[Case, Child]:
        self._cases += 1
        case = Case(self.place / f"case-{self._cases}", self.plan)
        steps = msgspec.to_builtins(self.plan)
        child = self.nursery.child(
            ATTEMPT, str(case.home), str(case.sources), str(case.side), steps
        )
        return case, child


def test_a_zombie_is_told_and_never_seen(nursery: Nursery, tmp_path: Path) -> None:
    zombies = Zombies(nursery, tmp_path, PLAN)
    for point in sample(zombies.points(), 2):
        zombies.strike(*point)
    assert zombies.stopped > 20 and zombies.told > zombies.stopped * 0.9
    count("R8", "processes stopped and woken", zombies.stopped)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_zombies_of_many_programs(nursery: Nursery, tmp_path: Path) -> None:
    stopped = told = 0
    for seed in range(12):
        plan = PLAN if seed == 0 else random_plan(400 + seed)
        zombies = Zombies(nursery, tmp_path / str(seed), plan)
        zombies.place.mkdir()
        for point in zombies.points():
            zombies.strike(*point)
        stopped, told = stopped + zombies.stopped, told + zombies.told
    count("R8", "processes stopped and woken", stopped)


class TestLate:
    """A zombie that had not used its checkpoint yet: it has to find out when it opens the ledger."""

    def test_it_is_fenced_by_an_attempt_that_only_looked(self, tmp_path: Path) -> None:
        case = Case(tmp_path / "case", [])
        late, newer = case.checkpoint(0), case.checkpoint(1)
        assert not newer.prev_exists()
        with pytest.raises(CheckpointFenced):
            late.write(b"late")
        newer.write(b"newer")  # and it does not disturb the one that it is late for
        assert case.checkpoint(2).read() == b"newer"

    def test_it_is_fenced_by_an_attempt_that_saved(self, tmp_path: Path) -> None:
        case = Case(tmp_path / "case", [])
        late, newer = case.checkpoint(0), case.checkpoint(1)
        newer.write(b"newer")
        for _ in range(2):
            with pytest.raises(CheckpointFenced):
                late.read()
        newer.write(b"newest")
        assert case.checkpoint(2).read() == b"newest"


class TestRuns:
    """Stopped attempts and drivers of a run that others went on with."""

    def test_an_attempt_that_is_stopped_is_given_up(self, nursery: Nursery, tmp_path: Path) -> None:
        runs, driver, worker, keeper = self._stopped(nursery, tmp_path)
        os.kill(driver.pid, signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
        runs.finish()  # after a moment's patience: they could have been on their way out
        before = runs.report()
        assert any("still there" in note for note in before.notes), before.notes
        os.kill(worker, signal.SIGCONT)
        self._sees_that_it_is_fenced(runs)
        os.kill(keeper, signal.SIGCONT)
        runs.judge(doubled=True)
        assert runs.report() == before

    def test_a_driver_that_is_stopped_finds_its_run_taken(
        self, nursery: Nursery, tmp_path: Path
    ) -> None:
        runs, driver, worker, keeper = self._stopped(nursery, tmp_path)
        os.kill(driver.pid, signal.SIGSTOP)
        for lock in runs.home.glob("runs/*/*.lock"):
            lock.unlink()  # as another machine would find it
        runs.finish()
        before = runs.report()
        os.kill(worker, signal.SIGCONT)
        self._sees_that_it_is_fenced(runs)
        os.kill(keeper, signal.SIGCONT)
        os.kill(driver.pid, signal.SIGCONT)
        assert driver.wait() == 1
        assert [note[1] for note in runs.notes("error")] == ["RunBusy"]
        runs.judge(doubled=True)
        assert runs.report() == before

    def test_a_driver_on_this_machine_is_not_pushed_aside(
        self, nursery: Nursery, tmp_path: Path
    ) -> None:
        runs, driver, worker, keeper = self._stopped(nursery, tmp_path)
        os.kill(driver.pid, signal.SIGSTOP)
        second = runs.driver()
        second.go()
        assert second.wait() == 1
        assert [note[1] for note in runs.notes("error")] == ["RunBusy"]
        for pid in (worker, keeper, driver.pid):
            os.kill(pid, signal.SIGCONT)
        assert driver.wait() == 0
        runs.judge()

    def test_of_drivers_that_come_at_once_one_drives(
        self, nursery: Nursery, tmp_path: Path
    ) -> None:
        runs, first, worker, keeper = self._stopped(nursery, tmp_path)
        for pid in (first.pid, worker, keeper):
            os.kill(pid, signal.SIGKILL)
        drivers = [runs.driver() for _ in range(5)]
        for driver in drivers:
            driver.go()
        codes = [driver.wait() for driver in drivers]
        assert codes.count(0) >= 1
        errors = [note[1] for note in runs.notes("error")]
        assert errors == ["RunBusy"] * codes.count(1) and set(codes) <= {0, 1}
        runs.judge()

    def _stopped(self, nursery: Nursery, tmp_path: Path) -> tuple[Runs, Child, int, int]:
        """A run whose attempt at the count is stopped, with its keeper, somewhere in the middle."""
        runs = Runs(nursery, tmp_path, n=400)
        driver = runs.driver()
        driver.go()
        until(lambda: len(runs.notes("acked")) > 20, "a count that counts")
        (worker,) = {note[3] for note in runs.notes("start")}
        keeper = parent_of(worker)
        os.kill(worker, signal.SIGSTOP)
        os.kill(keeper, signal.SIGSTOP)
        assert not runs.notes("ended")
        return runs, driver, worker, keeper

    def _sees_that_it_is_fenced(self, runs: Runs) -> None:
        until(lambda: bool(runs.notes("raised")), "the zombie's next save")
        assert runs.notes("raised") == [["raised", "count", 0, "CheckpointFenced"]]


def parent_of(pid: int) -> int:
    """Pid of the parent of a process."""
    return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])

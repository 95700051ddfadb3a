"""`kill -9` of the driver before every system call that matters, of starting, submitting, finishing
and resuming a run (P12, P13)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.counting import count
from tests.crash.driving import Runs
from tests.crash.nursery import Nursery, survivors
from tests.crash.tracing import CALLS, log_of, needs_strace, points, run_traced, sample

from headway import runtime
from headway.model.errors import InputError

pytestmark = [needs_strace, pytest.mark.reliability("R1")]

PROCESSES = [
    "socketpair",
    "pipe2",
    "vfork",
    "clone",
    "clone3",
    "sendto",
    "poll",
    "recvfrom",
    "wait4",
    "kill",
    "flock",
]
"""Calls by which a driver locks its run, and starts, tells, hears and ends attempts."""

SWEPT = [*CALLS, *PROCESSES]
KILLED = -9


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


class DriverSweep:
    """Kills one driver at a chosen point, and has the next one end the run.

    Args:
        nursery: where drivers come from.
        place: an empty directory.
        died: end the first driver's attempt at the count half-way, so that the one that is struck
            resumes; otherwise the first driver is struck.
    """

    def __init__(self, nursery: Nursery, place: Path, *, resumes: bool) -> None:
        self.nursery = nursery
        self.place = place
        self.resumes = resumes
        self.log = place / "strace.log"
        self.struck = 0
        self._runs = 0

    def runs(self) -> Runs:
        while True:
            self._runs += 1
            runs = Runs(self.nursery, self.place / f"{self._runs}", n=3)
            if not self.resumes:
                return runs
            first = runs.driver()
            code = run_traced(first, self.log, "pwrite64:signal=SIGKILL:when=9")
            assert code in {0, KILLED}, first.said()
            assert not survivors(first.mark)
            if code == KILLED:  # else more was written in one batch than usual, and it ended
                return runs

    def points(self) -> list[tuple[str, int]]:
        runs = self.runs()
        driver = runs.driver()
        assert run_traced(driver, self.log, calls=SWEPT) == 0, driver.said()
        runs.judge()
        calls = log_of(self.log)
        stored = points(calls, runs.home)
        told = [p for p in points(calls, Path(), SWEPT) if p[0] in PROCESSES]
        return stored + told

    def strike(self, name: str, n: int) -> None:
        runs = self.runs()
        driver = runs.driver()
        code = run_traced(driver, self.log, f"{name}:signal=SIGKILL:when={n}", calls=SWEPT)
        if code == 0:
            runs.judge()  # how often it polls and looks depends on timing: no kill, no point
            return
        assert code == KILLED, f"{name} {n} did not kill: {code}; {driver.said()}"
        self.struck += 1
        try:
            if n % 2:  # else the next driver meets whatever of the last one still lives
                assert not survivors(driver.mark), "orphans"
            self.go_on(runs)
        except AssertionError as error:
            error.add_note(f"killed at {name} {n}: {runs!r}")
            raise
        shutil.rmtree(runs.side.parent)

    def go_on(self, runs: Runs) -> None:
        finished, starts = runs.finished(), runs.starts()
        runs.finish()
        for node in finished:
            assert runs.starts().count(node) == starts.count(node), f"{node} ran again"
        runs.judge()


@pytest.mark.parametrize("resumes", [False, True], ids=["run", "resume"])
@pytest.mark.parametrize(
    "every",
    [pytest.param(9, id="sample"), pytest.param(1, id="all", marks=pytest.mark.slow)],
)
@pytest.mark.timeout(3600)
def test_a_run_survives_its_driver(
    nursery: Nursery, tmp_path: Path, resumes: bool, every: int
) -> None:
    sweep = DriverSweep(nursery, tmp_path, resumes=resumes)
    everywhere = sweep.points()
    chosen = sample(everywhere, every) if every == 1 else everywhere[int(resumes) :: every]
    for point in chosen:
        sweep.strike(*point)
    assert sweep.struck >= len(chosen) * 0.7
    count("R1", "kill points of a driver", sweep.struck)


def test_deleting_a_run_is_all_or_nothing(nursery: Nursery, tmp_path: Path) -> None:
    runs = Runs(nursery, tmp_path / "a", n=2)
    runs.finish()
    run_id = runs.notes("run")[0][1]
    kept = tmp_path / "kept"
    shutil.copytree(runs.home, kept)
    log = tmp_path / "strace.log"
    home = str(runs.home)
    where: list[tuple[str, int]] = []
    struck = 0
    for point in [None, *range(200)]:
        if point is not None and point >= len(where):
            break
        shutil.rmtree(runs.home)
        shutil.copytree(kept, runs.home)
        child = nursery.child("tests.crash.driving:delete", home, run_id)
        if point is None:
            assert run_traced(child, log) == 0, child.said()
            where = points(log_of(log), runs.home)
            continue
        name, n = where[point]
        code = run_traced(child, log, f"{name}:signal=SIGKILL:when={n}")
        assert code == KILLED, (name, n, child.said())  # nothing of a delete depends on timing
        struck += 1
        opened = runtime.open_home(home)
        if runtime.runs(opened):
            runs.judge_history(1)  # not gone, so whole
            runtime.delete(opened, run_id)
        assert runtime.runs(opened) == []
        with pytest.raises(InputError):
            runtime.show(opened, run_id)
    assert struck == len(where) > 10
    count("R1", "kill points of a delete", struck)

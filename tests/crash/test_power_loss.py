"""The power fails: on a real filesystem, cut off without a flush at a chosen instant (P2, P12).

A loop-mounted disk is shut down by the filesystem's own shutdown call, which throws away what was not
flushed. What had been acknowledged by then has to be there when it is mounted again.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.counting import count
from tests.crash.bodies import STANDARD, Plan, random_plan
from tests.crash.driving import Runs
from tests.crash.judging import Case
from tests.crash.mounts import Disk, disk
from tests.crash.nursery import Nursery, survivors
from tests.crash.tracing import log_of, needs_strace, points, run_traced, sample

from headway.engine.journal import read_journal
from headway.model.events import RunEnded

pytestmark = [pytest.mark.reliability("R3"), pytest.mark.root, needs_strace]

ATTEMPT = "tests.crash.bodies:attempt"
KILLED = -9

KINDS = ["ext4", "xfs"]
ROOM = 16 << 20  # bytes that a case may need on the disk


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


class PowerLoss:
    """Saves on a disk, and the power fails before the n-th call of a name.

    Args:
        nursery: where children come from.
        place: an empty directory, not on the disk.
        plugged: the disk.
        plan: what is saved.
        mutant: name of a bug of `planted`.
    """

    def __init__(
        self, nursery: Nursery, place: Path, plugged: Disk, plan: Plan, mutant: str = ""
    ) -> None:
        self.nursery = nursery
        self.place = place
        self.disk = plugged
        self.plan = plan
        self.mutant = mutant
        self.failures = 0
        self._cases = 0

    def points(self) -> list[tuple[str, int]]:
        case, code = self._attempt()
        assert code == 0
        return points(log_of(self.place / "log"), case.home)

    def strike(self, name: str, n: int) -> None:
        """The process stops dead before that call, and the power with it."""
        case, code = self._attempt(f"{name}:signal=SIGKILL:when={n}")
        if code == 0:
            case.judge()  # this time the call did not come: no kill, no point
            case.clear()
            return
        assert code == KILLED, (name, n, code)
        self.disk.fail()
        self.disk.power_cycle()
        self.failures += 1
        try:
            case.judge()
        except AssertionError as error:
            error.add_note(f"power failed before {name} {n}; acked {case.acked()}; {case.place}")
            raise
        case.clear()

    def strike_sometime(self, after: float) -> None:
        """The power fails under a process that is running."""
        case = self._case()
        child = self.nursery.child(ATTEMPT, *self._arguments(case))
        child.go()
        time.sleep(after)
        acked = case.acked()
        self.disk.fail()
        child.wait()  # it got errors, which is no ack
        self.disk.power_cycle()
        self.failures += 1
        case.judge(acked=acked, may={step.seed for step in self.plan})
        case.clear()

    def _case(self) -> Case:
        self._cases += 1
        name = f"case-{self._cases}"
        if shutil.disk_usage(self.disk.root).free < ROOM:
            self.disk.format()  # removing what is there would be undone by the next power failure
        case = Case(self.place / name, self.plan, home=self.disk.root / name)
        fd = os.open(self.disk.root, os.O_RDONLY)
        os.fsync(fd)  # the home itself was there before
        os.close(fd)
        return case

    def _attempt(self, *inject: str) -> tuple[Case, int]:
        case = self._case()
        child = self.nursery.child(ATTEMPT, *self._arguments(case))
        return case, run_traced(child, self.place / "log", *inject)

    def _arguments(self, case: Case) -> tuple[object, ...]:
        steps = msgspec.to_builtins(self.plan)
        return str(case.home), str(case.sources), str(case.side), steps, 0, self.mutant


@pytest.fixture(params=KINDS)
def plugged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path, request.param) as made:
        yield made


@pytest.mark.parametrize(
    "every", [pytest.param(6, id="sample"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
@pytest.mark.timeout(3600)
def test_what_was_acknowledged_survives(
    nursery: Nursery, tmp_path: Path, plugged: Disk, every: int
) -> None:
    plans = [STANDARD] if every > 1 else [STANDARD, *map(random_plan, range(9000, 9020))]
    total = aimed = 0
    for index, plan in enumerate(plans):
        plugged.format()
        loss = PowerLoss(nursery, tmp_path / f"plan-{index}", plugged, plan)
        loss.place.mkdir()
        where = sample(loss.points(), every)
        for point in where:
            loss.strike(*point)
        total, aimed = total + loss.failures, aimed + len(where)
    assert total > 15 and total >= aimed * 0.9
    count("R3", "power cuts of a real filesystem", total)


def test_under_a_process_that_saves(nursery: Nursery, tmp_path: Path, plugged: Disk) -> None:
    loss = PowerLoss(nursery, tmp_path, plugged, [*STANDARD, *random_plan(3), *random_plan(4)])
    source = random.Random(5)
    for _ in range(6):
        loss.strike_sometime(source.uniform(0.0, 0.03))
    assert loss.failures == 6


@pytest.mark.parametrize(
    "mutant",
    ["log_flush_dropped", "file_flush_dropped", "directory_flush_dropped", "record_before_pack"],
)
def test_a_planted_bug_is_caught(nursery: Nursery, tmp_path: Path, mutant: str) -> None:
    with disk(tmp_path, "ext4") as plugged:
        loss = PowerLoss(nursery, tmp_path, plugged, STANDARD, mutant)
        caught = 0
        for point in loss.points()[5::6]:
            try:
                loss.strike(*point)
            except (AssertionError, Exception) as error:  # noqa: BLE001  # any loss will do
                print(f"{mutant}: caught at {point}: {type(error).__name__}: {error}"[:200])
                caught += 1
                break
        assert caught, f"nobody noticed {mutant} in {loss.failures} power failures"
        count("R3", "mutants caught")


class TestRuns:
    def test_a_run_goes_on_after_the_power_was_off(
        self, nursery: Nursery, tmp_path: Path, plugged: Disk
    ) -> None:
        source = random.Random(6)
        for number in range(2):
            runs = Runs(nursery, tmp_path / str(number), n=40, home=plugged.root / f"h{number}")
            self._strike(runs, plugged, source)
            runs.finish()
            runs.judge()

    @pytest.mark.parametrize(
        "every", [pytest.param(14, id="sample"), pytest.param(1, id="all", marks=pytest.mark.slow)]
    )
    @pytest.mark.timeout(3600)
    def test_at_every_step_of_a_driver(self, nursery: Nursery, tmp_path: Path, every: int) -> None:
        with disk(tmp_path, "ext4") as plugged:
            log = tmp_path / "log"
            first = Runs(nursery, tmp_path / "0", n=2, home=plugged.root / "h0")
            assert run_traced(first.driver(), log) == 0
            where = points(log_of(log), first.home)[every // 2 :: every]
            struck = 0
            for number, (name, n) in enumerate(where, start=1):
                runs = Runs(nursery, tmp_path / f"{number}", n=2, home=plugged.root / f"h{number}")
                driver = runs.driver()
                code = run_traced(driver, log, f"{name}:signal=SIGKILL:when={n}")
                if code == 0:
                    runs.judge()  # how often it looks depends on timing: no kill, no point
                    continue
                assert code == KILLED, (name, n, code, driver.said())
                struck += 1
                plugged.fail()
                assert not survivors(driver.mark)
                plugged.power_cycle()
                runs.finish()
                runs.judge()
            assert struck >= len(where) * 0.7
            count("R3", "power cuts under a driver", struck)

    def test_an_end_that_was_reported_is_still_the_end(
        self, nursery: Nursery, tmp_path: Path, plugged: Disk
    ) -> None:
        # Its driver is killed after it wrote the end, and before that was durable. Whoever reads
        # the journal next finds it whole, and tells the user: so it must not get lost after that.
        log = tmp_path / "log"
        undisturbed = Runs(nursery, tmp_path / "a", n=1, home=plugged.root / "a")
        assert run_traced(undisturbed.driver(), log) == 0
        n = sum(name == "fdatasync" for name, _ in points(log_of(log), undisturbed.home))
        for number in range(20):
            runs = Runs(nursery, tmp_path / f"b{number}", n=1, home=plugged.root / f"b{number}")
            code = run_traced(runs.driver(), log, f"fdatasync:signal=SIGKILL:when={n}")
            written = read_journal(runs.storage(), runs.run_id() or "")[0]
            if code == KILLED and isinstance(written[-1], RunEnded):
                break  # what is written in one batch depends on timing, so it may take some tries
        else:
            raise AssertionError("no driver was killed between the write of its end and the flush")
        runs.finish()
        starts = runs.starts()
        plugged.fail()
        plugged.power_cycle()
        runs.finish()
        assert runs.starts() == starts
        runs.judge()

    def _strike(self, runs: Runs, plugged: Disk, source: random.Random) -> None:
        """Let it work, cut the power, see everything end, and switch on again."""
        driver = runs.driver()
        driver.go()
        end = time.monotonic() + 30
        goal = source.randint(0, 30)
        while not any(note[0] == "acked" and note[1] >= goal for note in runs.notes()):
            assert time.monotonic() < end and not driver.ended(), driver.said()
            time.sleep(0.001)
        plugged.fail()
        code = driver.wait(30)
        assert code != 0
        assert not survivors(driver.mark)
        plugged.power_cycle()

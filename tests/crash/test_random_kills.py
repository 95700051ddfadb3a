"""`kill -9` of drivers, workers and keepers at random instants of a run (P1, P7, P12, P13).

The instants are uniform over the time that an undisturbed run takes, from a seed. Kills that came too
late, when the run had ended, are not counted.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.counting import count
from tests.crash.driving import Runs
from tests.crash.nursery import Child, Nursery, descendants

pytestmark = pytest.mark.reliability("R2", "R9")

SAMPLE, RELEASE = 12, int(os.environ.get("HEADWAY_KILLS", "350"))  # each of three victims
STEPS, PAUSE = 40, 0.004
MOST = 3  # kills of one run's attempts: after that a back-off would only make it longer

amount = pytest.mark.parametrize(
    "kills",
    [
        pytest.param(SAMPLE, id="sample"),
        pytest.param(RELEASE, id="release", marks=pytest.mark.slow),
    ],
)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def duration(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that an undisturbed run takes: the second one, with everything warm."""
    took = 0.0
    for _ in range(2):
        runs = new_run(nursery, tmp_path_factory.mktemp("undisturbed"))
        began = time.monotonic()
        runs.finish()
        took = time.monotonic() - began
        runs.judge()
    return took


def new_run(nursery: Nursery, place: Path) -> Runs:
    return Runs(nursery, place, n=STEPS, pause=PAUSE)


PHASES = 3  # at so many stages of a run at least; chance may take more kills than were asked for


def phase(runs: Runs) -> str:
    """How far a run has come, to show that the instants are spread."""
    last = runs.notes()[-1:] or [["nothing"]]
    return str(last[0][0])


@amount
@pytest.mark.timeout(3600)
def test_drivers(nursery: Nursery, tmp_path: Path, duration: float, kills: int) -> None:
    source = random.Random(kills)
    struck = runs_made = 0
    phases: Counter[str] = Counter()
    while struck < kills or (len(phases) < PHASES and struck < 8 * kills):
        runs = new_run(nursery, tmp_path / f"{runs_made}")
        runs_made += 1
        while True:
            finished, starts = runs.finished(), runs.starts()
            driver = runs.driver()
            driver.go()
            time.sleep(source.uniform(0, duration))
            killed = kill(driver.pid, driver)
            for node in finished:
                assert runs.starts().count(node) == starts.count(node), (
                    f"{node} ran again: {runs!r}"
                )
            if not killed:
                assert driver.wait() == 0, driver.said()
                break
            struck += 1
            phases[phase(runs)] += 1
            if source.random() < 0.5:
                runs.finish()
                break
        runs.judge()
        shutil.rmtree(runs.side.parent)
    assert len(phases) >= PHASES
    count("R2", "kills of drivers", struck)
    count("R9", "interrupted runs with the result of an uninterrupted one", runs_made)


@amount
@pytest.mark.parametrize("victim", ["headway worker", "headway keeper"])
@pytest.mark.timeout(3600)
def test_attempts(
    nursery: Nursery, tmp_path: Path, duration: float, kills: int, victim: str
) -> None:
    source = random.Random(f"{kills} {victim}")
    struck = runs_made = 0
    phases: Counter[str] = Counter()
    while struck < kills or (len(phases) < PHASES and struck < 8 * kills):
        runs = new_run(nursery, tmp_path / f"{runs_made}")
        runs_made += 1
        driver = runs.driver()
        driver.go()
        of_this = 0
        while of_this < MOST:
            time.sleep(source.uniform(0, duration))
            found = [pid for pid in descendants(driver.mark) if name_of(pid) == victim[:15]]
            if driver.ended():
                break
            for pid in source.sample(found, min(1, len(found))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    of_this += 1
                    phases[phase(runs)] += 1
        assert driver.wait() == 0, driver.said()
        struck += of_this
        runs.judge()
        shutil.rmtree(runs.side.parent)
    assert len(phases) >= PHASES
    count("R2", f"kills of {victim.removeprefix('headway ')}s", struck)
    count("R9", "interrupted runs with the result of an uninterrupted one", runs_made)


def kill(pid: int, driver: Child) -> bool:
    """Kill -9; whether that is what ended it."""
    if driver.ended():
        return False
    os.kill(pid, signal.SIGKILL)  # not reaped yet, so the pid is still its own
    return driver.wait() == -signal.SIGKILL


def name_of(pid: int) -> str:
    """What a process calls itself."""
    with suppress(OSError):
        return Path("/proc", str(pid), "comm").read_text().strip()
    return ""

"""I/O errors under a driver: it says what is wrong and leaves, and `resume` goes on when it is cured
(P3, P4, P12)."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.counting import count
from tests.crash.driving import Runs
from tests.crash.mounts import read_only, tmpfs
from tests.crash.nursery import Nursery, survivors
from tests.crash.test_faults import ERRORS, FAULTY, Fault, all_faults, never_twice
from tests.crash.tracing import log_of, needs_strace, points, run_traced

pytestmark = [needs_strace, pytest.mark.reliability("R4")]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


class DriverFaults:
    """Drivers whose system calls fail.

    Args:
        nursery: where drivers come from.
        place: an empty directory.
    """

    def __init__(self, nursery: Nursery, place: Path) -> None:
        self.nursery = nursery
        self.place = place
        self.log = place / "strace.log"
        self.struck = 0
        self.failed = 0
        self._runs = 0

    def runs(self) -> Runs:
        self._runs += 1
        return Runs(self.nursery, self.place / f"{self._runs}", n=2)

    def faults(self) -> list[Fault]:
        runs = self.runs()
        assert run_traced(runs.driver(), self.log) == 0
        found = all_faults(points(log_of(self.log), runs.home, FAULTY))
        # A close that fails closes all the same, but not when it is injected: then the pipe by which
        # a new process says that it has started would stay open for ever.
        return [fault for fault in found if fault[0] != "close" or not fault[3]]

    def strike(self, name: str, n: int, error: str, lasting: bool) -> None:
        runs = self.runs()
        driver = runs.driver()
        inject = f"{name}:error={error}:when={n}{'+' if lasting else ''}"
        try:
            code = run_traced(driver, self.log, inject)
            calls = log_of(self.log)
            hit = [call for call in calls if call.injected]
            if any(call.name == "close" and str(runs.home) not in call.path for call in hit):
                return  # a pipe's: that cannot fail in the world outside
            self.struck += bool(hit)
            errors = runs.notes("error")
            assert code == (1 if errors else 0), driver.said()
            assert {note[1] for note in errors} <= {ERRORS[error]}, errors
            self.failed += bool(errors)
            never_twice(calls)
            assert not survivors(driver.mark)
            finished, starts = runs.finished(), runs.starts()
            runs.finish()
            for node in finished:
                assert runs.starts().count(node) == starts.count(node), f"{node} ran again"
            runs.judge()
        except AssertionError as found:
            found.add_note(f"{name} {n} {error}, lasting: {lasting}: {runs!r}")
            raise
        shutil.rmtree(runs.side.parent)


@pytest.mark.parametrize(
    "share",
    [pytest.param(14, id="sample"), pytest.param(None, id="all", marks=pytest.mark.slow)],
)
@pytest.mark.timeout(3600)
def test_a_driver_says_what_failed_and_can_be_resumed(
    nursery: Nursery, tmp_path: Path, share: int | None
) -> None:
    faults = DriverFaults(nursery, tmp_path)
    everything = faults.faults()
    chosen = everything if share is None else random.Random(9).sample(everything, share)
    for fault in chosen:
        faults.strike(*fault)
    assert faults.struck >= len(chosen) * 0.8 and faults.failed >= len(chosen) / 2
    count("R4", "faults that struck a driver", faults.struck)


@pytest.mark.root
def test_a_home_that_became_read_only(nursery: Nursery, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", "8m") as place:
        runs = Runs(nursery, tmp_path / "a", home=place / "home", n=3)
        log = tmp_path / "log"
        assert run_traced(runs.driver(), log, "fdatasync:signal=SIGKILL:when=3") == -9
        assert not survivors(runs.marks[0])
        read_only(place, on=True)
        before = runs.report()  # looking is allowed
        assert before.status == "interrupted"
        driver = runs.driver()
        driver.go()
        assert driver.wait() == 1
        ((_, kind, text),) = runs.notes("error")
        assert kind == "StorageDenied" and "Read-only file system" in text
        assert runs.report() == before
        read_only(place, on=False)
        runs.finish()
        runs.judge()


@pytest.mark.root
def test_a_journal_on_a_full_disk(nursery: Nursery, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount") as place:
        runs = Runs(nursery, tmp_path / "a", home=place / "home", entity="hoard", inputs={})
        driver = runs.driver()
        driver.go()
        assert driver.wait() == 1
        ((_, kind, text),) = runs.notes("error")
        assert kind == "StorageFull"
        assert "No space left on device" in text and "`headway resume`" in text
        assert not survivors(driver.mark)
        assert runs.report().status == "interrupted"  # it can be looked at while the disk is full
        again = runs.driver()
        again.go()
        assert again.wait() == 1
        assert [note[1] for note in runs.notes("error")] == ["StorageFull"] * 2
        (runs.home / "hoard").unlink()
        runs.finish()
        report = runs.report()
        assert (report.status, report.result) == ("succeeded", "x" * 30_000)
        assert len(runs.notes("doubled")) == 0

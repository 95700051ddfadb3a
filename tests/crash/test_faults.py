"""I/O errors from the kernel, one at every system call: the right error, and nothing earlier lost
(P3, P4, P6). Each test counts the faults that struck."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from tests.counting import count
from tests.crash.bodies import PREFIX, Plan, Step, notes_in, random_plan
from tests.crash.judging import Case
from tests.crash.mounts import enlarge, read_only, tmpfs
from tests.crash.nursery import Nursery
from tests.crash.tracing import READS, Call, log_of, needs_strace, points, run_traced

from headway.model.errors import StorageDenied

pytestmark = [needs_strace, pytest.mark.reliability("R4")]

ATTEMPT = "tests.crash.bodies:attempt"
LOAD = "tests.crash.bodies:load"
CRAMPED = "tests.crash.bodies:cramped"

PLAN: Plan = [
    Step("write", 100, 1),
    Step("write", 70_000, 2),
    Step("directory", 60_000, 3),
    Step("write", 9_000, 4),
    Step("write", 9_000, 5),  # a new term
    Step("reader", 1_200_000, 6),
    Step("write", 50, 7),
    Step("state", 50_000, 8),
    Step("state", 50_000, 9),
]

FAULTY = [
    "pwrite64",
    "fsync",
    "fdatasync",
    "openat",
    "link",
    "mkdir",
    "close",
    "ftruncate",
    "fallocate",
]
ERRORS = {
    "EIO": "StorageUnavailable",
    "ENOSPC": "StorageFull",
    "EDQUOT": "StorageFull",
    "EROFS": "StorageDenied",
    "EMFILE": "StorageFull",
}

Fault = tuple[str, int, str, bool]
"""(call, n, error, for good)."""


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


def all_faults(where: list[tuple[str, int]]) -> list[Fault]:
    return [
        (name, n, error, lasting)
        for name, n in where
        for error in ERRORS
        for lasting in (False, True)
        if error != "EMFILE" or name == "openat"
    ]


class Faults:
    """Attempts whose system calls fail.

    Args:
        nursery: where children come from.
        place: an empty directory.
        plan: what the attempts save.
    """

    def __init__(self, nursery: Nursery, place: Path, plan: Plan) -> None:
        self.nursery = nursery
        self.place = place
        self.plan = plan
        self.struck = 0
        self.raised = 0
        self._cases = 0

    def points(self) -> list[tuple[str, int]]:
        case, calls = self._attempt()
        assert case.judge() == [step.seed for step in self.plan]
        return points(calls, case.home, FAULTY) + points(calls, case.sources, FAULTY)

    def strike(self, name: str, n: int, error: str, lasting: bool) -> None:
        when = f"{n}+" if lasting else str(n)
        case, calls = self._attempt(f"{name}:error={error}:when={when}")
        injected = [call for call in calls if call.injected]
        assert injected, f"{name} {n} was not struck"
        self.struck += len(injected)
        failures = case.failures()
        self.raised += len(failures)
        try:
            assert {kind for _, kind, _ in failures} <= {ERRORS[error]}, failures
            assert all("Earlier checkpoints are safe" in text for _, _, text in failures)
            if not lasting:  # one fault, one failed save at most; then it goes on
                assert len(failures) <= 1, failures
                assert len(failures) + len(case.acked()) == len(self.plan)
            never_twice(calls)
            case.judge()
        except AssertionError as found:
            found.add_note(f"{name} {n} {error}, lasting: {lasting}; kept: {case.place}")
            raise
        case.clear()

    def _attempt(self, *inject: str) -> tuple[Case, list[Call]]:
        self._cases += 1
        case = Case(self.place / f"case-{self._cases}", self.plan)
        steps = msgspec.to_builtins(self.plan)
        child = self.nursery.child(
            ATTEMPT, str(case.home), str(case.sources), str(case.side), steps
        )
        log = self.place / "strace.log"
        code = run_traced(child, log, *inject)
        assert code == 0, child.said()
        return case, log_of(log)


def never_twice(calls: list[Call]) -> None:
    """A file whose fsync failed is never fsynced again: the kernel would say that all is well."""
    failed: set[str] = set()
    for call in calls:
        if call.name not in {"fsync", "fdatasync"}:
            continue
        file = call.path.removesuffix("(deleted)")
        if not re.search(r"/(\.tmp-[0-9a-f]+|\d{8}-\d{6})$", file):
            assert Path(file).suffix == "" and "packs/" not in file  # a directory
            continue
        assert file not in failed, f"{file} was fsynced again after that had failed"
        if call.failed:
            failed.add(file)


def test_one_fault_fails_one_save_and_nothing_else(nursery: Nursery, tmp_path: Path) -> None:
    faults = Faults(nursery, tmp_path, PLAN)
    everything = all_faults(faults.points())
    chosen = random.Random(4).sample(everything, 120)
    for fault in chosen:
        faults.strike(*fault)
    assert faults.struck >= len(chosen) and faults.raised >= len(chosen) / 2
    count("R4", "faults that struck", faults.struck)
    count("R4", "saves that raised", faults.raised)


def test_closing_what_was_only_read_cannot_fail_a_save(nursery: Nursery, tmp_path: Path) -> None:
    # It once passed the bare OSError on to the user, though every byte had been saved.
    faults = Faults(nursery, tmp_path, PLAN)
    case, calls = faults._attempt()
    closes = [n for name, n in points(calls, case.sources, ["close"])]
    for n in closes:
        faults.strike("close", n, "EIO", lasting=False)
    assert faults.struck == len(closes) > 4 and faults.raised == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_call_with_every_error(nursery: Nursery, tmp_path: Path) -> None:
    for seed in range(6):
        plan = PLAN if seed == 0 else random_plan(7000 + seed)
        faults = Faults(nursery, tmp_path / str(seed), plan)
        faults.place.mkdir()
        chosen = all_faults(faults.points())
        for fault in chosen:
            faults.strike(*fault)
        count("R4", "faults that struck", faults.struck)
        count("R4", "saves that raised", faults.raised)


class TestLoading:
    """A fault while loading is an error, never "no checkpoint" and never an older one."""

    PLAN: Plan = [Step("write", 300, 31), Step("write", 2_300_000, 32)]
    ERRORS = {"EIO": "StorageUnavailable", "EACCES": "StorageDenied", "ENOMEM": "StorageFull"}

    def test_it_is_an_error(self, nursery: Nursery, tmp_path: Path) -> None:
        case = Case(tmp_path / "case", self.PLAN)
        steps = msgspec.to_builtins(self.PLAN)
        log = tmp_path / "strace.log"
        nursery.run(ATTEMPT, str(case.home), str(case.sources), str(case.side), steps)

        def loading(*inject: str) -> list[list[object]]:
            side = tmp_path / "read"
            side.unlink(missing_ok=True)
            child = nursery.child(LOAD, str(case.home), str(side), steps)
            assert run_traced(child, log, *inject, calls=READS) == 0, child.said()
            return notes_in(side)

        assert loading() == [["read", 32]]
        where = points(log_of(log), case.home, READS)
        assert {"openat", "pread64", "read", "getdents64"} <= {name for name, _ in where}
        struck = raised = 0
        for name, n in where:
            for error, kind in self.ERRORS.items():
                (said,) = loading(f"{name}:error={error}:when={n}")
                assert any(call.injected for call in log_of(log)), (name, n)
                struck += 1
                raised += said[0] == "failed"
                assert said == ["read", 32] or said[:3] == ["failed", 0, kind], (name, n, said)
        assert loading() == [["read", 32]]  # and none of it did any harm
        case.judge()
        assert raised > struck / 2
        count("R4", "faults that struck a load", struck)


class TestLimits:
    def test_no_descriptors_left(self, nursery: Nursery, tmp_path: Path) -> None:
        told: list[int] = []
        for spare in range(6):
            case = Case(tmp_path / str(spare), PLAN)
            steps = msgspec.to_builtins(PLAN)
            nursery.run(CRAMPED, str(case.home), str(case.side), str(case.sources), steps, spare)
            failures = case.failures()
            assert {kind for _, kind, _ in failures} <= {"StorageFull", "InputError"}, failures
            assert all("Too many open files" in text for _, _, text in failures), failures
            told.append(len(failures))
            case.judge()
        assert told[0] == len(PLAN) and told[-1] == 0
        assert all(fewer >= more for fewer, more in pairwise(told))

    @pytest.mark.root
    def test_a_read_only_home(self, nursery: Nursery, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "mount", "16m") as place:
            case = Case(tmp_path / "case", PLAN, home=place / "home")
            before, after = PLAN[:3], PLAN[3:]
            for plan in (before, after):
                read_only(place, on=plan is after)
                steps = msgspec.to_builtins(plan)
                nursery.run(ATTEMPT, str(case.home), str(case.sources), str(case.side), steps)
            assert case.acked() == [step.seed for step in before]
            assert [kind for _, kind, _ in case.failures()] == ["StorageDenied"] * len(after)
            with pytest.raises(StorageDenied, match="Read-only file system"):
                case.checkpoint().read()
            read_only(place, on=False)
            assert case.judge() == case.acked()

    @pytest.mark.root
    def test_a_full_disk(self, nursery: Nursery, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "mount") as place:
            plan = [Step("write", 90_000 if seed % 3 else 3_000, seed) for seed in range(1, 40)]
            case = Case(tmp_path / "case", plan, home=place / "home")
            steps = msgspec.to_builtins(plan)
            nursery.run(ATTEMPT, str(case.home), str(case.sources), str(case.side), steps)
            acked, failures = case.acked(), case.failures()
            assert {kind for _, kind, _ in failures} == {"StorageFull"} and len(acked) > 5
            early = [text for _, _, text in failures if "so it was not begun" in text]
            late = [text for _, _, text in failures if "No space left on device" in text]
            assert len(early) + len(late) == len(failures)
            assert early, "nobody looked how much room there was"
            for pack in (case.home / PREFIX / "packs").iterdir():
                assert pack.stat().st_size > 0, "space was not given back"
            enlarge(place, "8m")
            case.judge()

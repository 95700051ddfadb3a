"""`kill -9` before every system call that matters, of saving, opening and restoring (P1, P7).

The kill is injected by strace at the n-th call of a name, so each point is struck on purpose, and each
is proven to have been struck: the process ended by signal 9.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.counting import count
from tests.crash.bodies import STANDARD, Plan, Step, random_plan, tree_at
from tests.crash.judging import Case
from tests.crash.nursery import Nursery
from tests.crash.tracing import log_of, needs_strace, points, run_traced, sample

pytestmark = [needs_strace, pytest.mark.reliability("R1")]

ATTEMPT = "tests.crash.bodies:attempt"
RESTORE = "tests.crash.bodies:restore"
KILLED = -9
SAMPLE = 3  # the default suite strikes every third point, and all of the rare calls
RELEASE = 10_000  # points that the long version strikes at least (TARGETS, R1)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


class Sweep:
    """Kills one attempt at chosen points, and judges what it left.

    Args:
        nursery: where children come from.
        place: an empty directory.
        plan: the saves of the attempt that is killed.
        before: the saves of an attempt before it, which ended well.
    """

    def __init__(self, nursery: Nursery, place: Path, plan: Plan, before: Plan) -> None:
        self.nursery = nursery
        self.place = place
        self.plan = plan
        self.before = before
        self.struck = 0
        self._cases = 0
        self._log = place / "strace.log"

    def case(self) -> Case:
        """A fresh home, with what came before in it."""
        self._cases += 1
        case = Case(self.place / f"case-{self._cases}", [*self.before, *self.plan])
        if self.before:
            self.nursery.run(ATTEMPT, *self._arguments(case, self.before, 0))
        return case

    def points(self) -> list[tuple[str, int]]:
        """Where an attempt can be killed, counted in one that is not."""
        case = self.case()
        child = self.nursery.child(ATTEMPT, *self._arguments(case, self.plan, 1))
        assert run_traced(child, self._log) == 0, child.said()
        everything = case.judge()
        assert everything == [step.seed for step in case.plan]
        case.clear()
        return points(log_of(self._log), case.place)

    def strike(self, *killed: tuple[str, int]) -> None:
        """Kill one attempt after the other, each at its point, and judge what is left."""
        case = self.case()
        in_flight: set[int] = set()
        for number, (name, n) in enumerate(killed, start=1):
            done = {*case.acked(), *in_flight}
            left = [step for step in self.plan if step.seed not in done]
            child = self.nursery.child(ATTEMPT, *self._arguments(case, left, number))
            code = run_traced(child, self._log, f"{name}:signal=SIGKILL:when={n}")
            assert code in {0, KILLED}, f"{name} {n} did not kill: {code}; {child.said()}"
            self.struck += code == KILLED
            following = (step.seed for step in left if step.seed not in case.acked())
            in_flight |= {*following} if code != KILLED else {next(following, 0)}
        try:
            case.judge(may=in_flight)
        except AssertionError as error:
            error.add_note(f"killed at {killed}; {case.acked()} acknowledged; kept: {case.place}")
            raise
        case.clear()

    def _arguments(self, case: Case, plan: Plan, number: int) -> tuple[object, ...]:
        steps = msgspec.to_builtins(plan)
        return str(case.home), str(case.sources), str(case.side), steps, number


FRESH: Plan = []
OLDER: Plan = [Step("write", 200, 51), Step("directory", 50_000, 52), Step("write", 15_000, 53)]


@pytest.mark.parametrize("before", [FRESH, OLDER], ids=["first attempt", "later attempt"])
def test_a_kill_leaves_every_acknowledged_checkpoint(
    nursery: Nursery, tmp_path: Path, before: Plan
) -> None:
    sweep = Sweep(nursery, tmp_path, STANDARD, before)
    chosen = sample(sweep.points(), SAMPLE)
    assert {name for name, _ in chosen} >= {"pwrite64", "fsync", "fdatasync", "link", "unlink"}
    for point in chosen:
        sweep.strike(point)
    assert sweep.struck >= len(chosen) * 0.98
    count("R1", "kill points", sweep.struck)


def test_two_attempts_killed_in_a_row_lose_nothing(nursery: Nursery, tmp_path: Path) -> None:
    sweep = Sweep(nursery, tmp_path, STANDARD, OLDER)
    source = random.Random(2)
    first, second = sweep.points(), sweep.points()
    for _ in range(30):
        sweep.strike(source.choice(first), source.choice(second[: len(second) // 2]))
    assert sweep.struck > 45  # the second attempt may have less to do than its point asks for
    count("R1", "kills of attempts in a row", sweep.struck)


@pytest.mark.slow
def test_a_release_has_ten_thousand_points(nursery: Nursery, tmp_path: Path) -> None:
    struck, seed = 0, 0
    while struck < RELEASE:
        plan = STANDARD if seed == 0 else random_plan(seed)
        before = [FRESH, OLDER][seed % 2]
        sweep = Sweep(nursery, tmp_path / str(seed), plan, before)
        for point in sweep.points():
            sweep.strike(point)
        struck, seed = struck + sweep.struck, seed + 1
        shutil.rmtree(sweep.place)
    count("R1", "kill points", struck)
    count("R1", "programs", seed)


@pytest.mark.slow
def test_pairs_of_kills_of_many_programs(nursery: Nursery, tmp_path: Path) -> None:
    struck = 0
    for seed in range(1000, 1040):
        source = random.Random(seed)
        sweep = Sweep(nursery, tmp_path / str(seed), random_plan(seed), OLDER)
        where = sweep.points()
        for _ in range(40):
            sweep.strike(*source.choices(where, k=source.randint(2, 4)))
        struck += sweep.struck
        shutil.rmtree(sweep.place)
    count("R1", "kills of attempts in a row", struck)


def test_a_killed_restore_can_be_done_again(nursery: Nursery, tmp_path: Path) -> None:
    step = Step("directory", 90_000, 61)
    case = Case(tmp_path / "case", [step])
    nursery.run(
        ATTEMPT, str(case.home), str(case.sources), str(case.side), [msgspec.to_builtins(step)], 0
    )
    log, target = tmp_path / "strace.log", tmp_path / "target"

    def restoring(*inject: str) -> int:
        child = nursery.child(RESTORE, str(case.home), str(target))
        return run_traced(child, log, *inject)

    assert restoring() == 0
    where = points(log_of(log), tmp_path)
    assert {"mkdirat", "openat", "write", "renameat", "close"} <= {name for name, _ in where}
    struck = 0
    for name, n in where:
        if target.exists():
            shutil.rmtree(target)
        assert restoring(f"{name}:signal=SIGKILL:when={n}") == KILLED, (name, n)
        struck += 1
        if struck % 2:  # over what the killed one left, or beside it
            assert restoring() == 0, (name, n)
            assert tree_at(target) == step.tree, (name, n)
    case.judge()
    count("R1", "kill points of a restore", struck)

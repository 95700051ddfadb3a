"""Giving checkpoints up never takes one away that somebody finds: not when processes are killed, when the
power fails, or when a zombie goes on (P1, P8, P10)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.counting import count
from tests.crash.actors import Violation
from tests.crash.bodies import PREFIX, Plan, Step
from tests.crash.jobs import Plan as Reach
from tests.crash.jobs import crash, deaths, recorded
from tests.crash.judging import Case
from tests.crash.keeping import (
    NODE,
    PACKS,
    Actor,
    Inodes,
    KeepingJob,
    KeepingJudge,
    live,
    save,
    turn_of,
)
from tests.crash.mutants import Code, Edit, Mutant, planted, real
from tests.crash.nursery import Nursery
from tests.crash.test_kill_sweep import ATTEMPT, KILLED, nursery
from tests.crash.tracing import log_of, needs_strace, points, run_traced, sample

from headway.checkpoint.garbage import collect, look
from headway.checkpoint.space import pack_name
from headway.storage.local import LocalStorage

pytestmark = pytest.mark.reliability("R1", "R3", "R8")

__all__ = ["nursery"]

# The mutants

EARLY = Mutant(
    "a pack is deleted before the record that gives it up",
    (
        Edit(
            "turn",
            "        ledger.append(_ENCODER.encode(manifest))\n",
            "        space.give_up(manifest, gone.values(), 0)\n"
            "        ledger.append(_ENCODER.encode(manifest))\n"
            "        space._named.update(n for m in gone.values() for n in m.packs)\n",
        ),
    ),
)
UNSEEN = Mutant(
    "a pack is deleted without a look for a newer claim",
    (
        Edit(
            "turn",
            "        ledger.append(_ENCODER.encode(manifest))\n",
            "        try:\n"
            "            ledger.append(_ENCODER.encode(manifest))\n"
            "        except Exception as error:\n"
            "            if type(error).__name__ != 'CheckpointFenced':\n"
            "                raise\n",
        ),
    ),
)
FOREIGN = Mutant(
    "a pack that another turn made is used again",
    (
        Edit(
            "space",
            "        self._going.update(unnamed(names, self._named, self._term))\n",
            "        self._spares += unnamed(names, self._named, self._term)\n",
        ),
    ),
)
NEWER = Mutant(
    "packs of newer terms are swept too",
    (Edit("space", "place is not None and place[0] < before", "place is not None"),),
)
FORGETFUL = Mutant(
    "packs of a record whose append failed go at once",
    (
        Edit(
            "turn",
            "        ledger.append(_ENCODER.encode(manifest))\n",
            "        try:\n"
            "            ledger.append(_ENCODER.encode(manifest))\n"
            "        except BaseException:\n"
            "            space.give_up(manifest, [manifest], 0)\n"
            "            raise\n",
        ),
    ),
)

# Power losses

FIRST = KeepingJob(0, (3000, 2500, 3600, 2000), keep=2)
SECOND = KeepingJob(1, (2700, 4100), keep=1)


def lose_power(code: Code, root: Path, reach: Reach, *, every: int = 1) -> KeepingJudge:
    """Cut the power at every instant of one attempt after the other: both undisturbed, the first killed at
    any of its calls, any flush failing."""
    judge = KeepingJudge()
    events, calls, flushes = recorded(code, root, FIRST, SECOND)
    crash(events, 0, judge, reach)
    for die_at in range(0, calls, every):
        events, _, _ = recorded(code, root, FIRST, SECOND, die_at=die_at)
        crash(events, deaths(events), judge, reach)
    for fail_at in range(0, flushes, every):
        events, _, _ = recorded(code, root, FIRST, SECOND, fail_at=fail_at)
        crash(events, 0, judge, reach)
    return judge


def test_no_power_loss_leaves_a_checkpoint_without_its_packs(tmp_path: Path) -> None:
    judge = lose_power(real(), tmp_path / "home", Reach(most=48))
    count("R3", "states after a power loss", judge.homes)
    count("R3", "of them with checkpoints given up", judge.deleted)
    homes = judge.homes
    assert homes > 20_000
    deleted = judge.deleted
    assert deleted > 1_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_power_loss_does_in_the_long_sweep(tmp_path: Path) -> None:
    judge = lose_power(real(), tmp_path / "home", Reach(most=1024))
    count("R3", "states after a power loss", judge.homes)
    count("R3", "of them with checkpoints given up", judge.deleted)
    homes = judge.homes  # pytest would show all that the judge has seen
    assert homes > 100_000


@pytest.mark.parametrize("mutant", [EARLY, FORGETFUL], ids=str)
def test_a_deletion_that_comes_too_early_is_found_out(mutant: Mutant, tmp_path: Path) -> None:
    with planted(mutant) as code, pytest.raises(Violation, match="cannot be read"):
        lose_power(code, tmp_path / "home", Reach(most=24))


# Zombies: two attempts, every point at which one is stopped for the other

KEEP = 2


def older(code: Code) -> Any:
    def body(storage: Any) -> None:
        turn = turn_of(code, storage, 1, KEEP)
        for number in range(4):
            save(turn, storage, f"old-{number}", 100 + number)
        turn.close()

    return body


def newer(code: Code) -> Any:
    def body(storage: Any) -> None:
        turn = turn_of(code, storage, 2, KEEP)
        turn.opened()
        turn.load(lambda manifest: manifest)
        for number in range(3):
            save(turn, storage, f"new-{number}", 200 + number)
        turn.close()

    return body


def before(code: Code) -> Inodes:
    """A store in which an attempt has ended."""
    shared = Inodes()
    turn = turn_of(code, shared, 0, KEEP)
    for number in range(2):
        save(turn, shared, f"first-{number}", 50 + number)
    turn.close()
    leftover = shared.create_pack(f"{PACKS}/{pack_name(1, 900)}")
    leftover.write(b"of a killed save")
    return shared


def collector(storage: Any) -> None:
    """`headway gc`, where it should not be: beside an attempt at work."""
    collect(storage, NODE)


def rash(storage: Any) -> None:
    """The same without a claim."""
    for name in look(storage, NODE).packs:
        storage.delete(f"{PACKS}/{name}")


def schedules(code: Code, second: Callable[[Any], None] | None = None) -> int:
    """Stop the older attempt at each of its operations, let the newer one go on to each of its own, then
    let both end, the older one first, and look at each point. Returns how many schedules there were."""
    second = second or newer(code)
    tried = first_steps = 0
    while True:
        second_steps = 0
        while True:
            shared = before(code)
            old, new = Actor(shared, older(code)), Actor(shared, second)
            try:
                stopped = old.step(first_steps) == first_steps
                going = new.step(second_steps) == second_steps
                live(shared)
                old.finish()
                live(shared)
                new.finish()
                left = live(shared)
            finally:
                for actor in (old, new):
                    if not actor.ended:
                        actor.finish()
            tried += 1
            assert 0 < len(left) <= KEEP
            if not going:
                break
            second_steps += 1
        if not stopped:
            return tried
        first_steps += 1


def test_a_zombie_never_takes_a_checkpoint_away() -> None:
    tried = schedules(real())
    count("R8", "schedules of a zombie and its successor", tried)
    assert tried > 1_000


def test_garbage_is_collected_beside_an_attempt_without_harm() -> None:
    tried = schedules(real(), collector)
    count("R8", "schedules of an attempt and a collector", tried)
    assert tried > 500
    with pytest.raises(Violation, match="cannot be read"):
        schedules(real(), rash)


@pytest.mark.parametrize("mutant", [UNSEEN, FOREIGN, NEWER], ids=str)
def test_a_zombie_that_breaks_the_rules_is_found_out(mutant: Mutant) -> None:
    with planted(mutant) as code, pytest.raises(Violation, match="cannot be read"):
        schedules(code)
    count("R8", "mutants caught")


# Kills

STEPS: Plan = [
    Step("write", 70_000, 1),
    Step("write", 100, 2),
    Step("file", 40_000, 3),
    Step("write", 80_000, 4),
    Step("directory", 60_000, 5),
    Step("write", 90_000, 6),
]


def survivors(saved: Plan, keep: int | None) -> list[int]:
    """Seeds of the checkpoints that are there when these have been saved."""
    counted = [step for step in saved if keep is not None or step.size > 32_768]
    gone = counted[: -(keep or 3)]
    return [step.seed for step in saved if step not in gone]


def judge_kept(case: Case, keep: int | None) -> None:
    """What has to hold after an attempt that keeps so many was killed, and after the one that follows."""
    done = len(case.acked())
    found = case.seeds()
    # The save that was struck may have got as far as its record.
    assert found in (survivors(STEPS[:done], keep), survivors(STEPS[: done + 1], keep))
    following = case.checkpoint(keep=keep)
    following.write(b"z" * 50_000)  # what was left behind goes now
    following.close()
    named = {name for manifest in case.manifests() for name in manifest.packs}
    assert set(LocalStorage(case.home).list(f"{PREFIX}/packs")) == named
    last = case.checkpoint(91)
    assert last.read() == b"z" * 50_000
    last.close()


class Sweep:
    """Kills one attempt at chosen system calls.

    Args:
        nursery: where children come from.
        place: an empty directory.
        keep: how many checkpoints stay.
    """

    def __init__(self, nursery: Nursery, place: Path, keep: int | None) -> None:
        self.nursery = nursery
        self.place = place
        self.keep = keep
        self.struck = 0
        self._log = place / "strace.log"

    def points(self) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """Where it can be killed: everywhere, and where a pack is about to be deleted."""
        case = Case(self.place / "whole", STEPS)
        assert self._attempt(case) == 0
        judge_kept(case, self.keep)
        calls = log_of(self._log)
        packs = str(case.home / PREFIX / "packs")
        unlinks = [c for c in calls if c.name == "unlink" and c.path.startswith(packs)]
        assert len(unlinks) >= 2, "nothing was deleted"
        where = points(calls, case.place)
        case.clear()
        return where, [point for point in where if point[0] == "unlink"]

    def strike(self, name: str, n: int) -> None:
        """Kill it before the n-th call of that name, and judge what is left."""
        case = Case(self.place / f"case-{name}-{n}", STEPS)
        self.struck += self._attempt(case, f"{name}:signal=SIGKILL:when={n}") == KILLED
        try:
            judge_kept(case, self.keep)
        except AssertionError as error:
            error.add_note(f"killed at {name} {n}; {case.acked()} acknowledged; kept: {case.place}")
            raise
        case.clear()

    def _attempt(self, case: Case, *inject: str) -> int:
        steps = msgspec.to_builtins(STEPS)
        arguments = (str(case.home), str(case.sources), str(case.side), steps, 1, "", self.keep)
        return run_traced(self.nursery.child(ATTEMPT, *arguments), self._log, *inject)


@needs_strace
def test_a_kill_of_a_save_that_gives_up_leaves_what_is_kept(
    nursery: Nursery, tmp_path: Path
) -> None:
    sweep = Sweep(nursery, tmp_path, 2)
    where, unlinks = sweep.points()
    chosen = dict.fromkeys([*sample(where, 12), *unlinks])
    for point in chosen:
        sweep.strike(*point)
    assert sweep.struck >= len(chosen) * 0.95
    count("R1", "kill points of saves that give up", sweep.struck)


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("keep", [1, 2, None], ids=["one", "two", "by default"])
def test_every_kill_of_a_save_that_gives_up_does(
    nursery: Nursery, tmp_path: Path, keep: int | None
) -> None:
    sweep = Sweep(nursery, tmp_path, keep)
    where, _ = sweep.points()
    for point in where:
        sweep.strike(*point)
    assert sweep.struck >= len(where) * 0.95
    count("R1", "kill points of saves that give up", sweep.struck)

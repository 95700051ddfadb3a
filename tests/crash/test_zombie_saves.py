"""A save that stands still at any call of its storage, while the next attempts go on, and then ends (P8).

In one process: each attempt has a way of its own to a home in memory, which can be frozen at its n-th
call, before or after the call's effect. An attempt stands still in a save; its successor looks, saves,
perhaps stands still itself; the last one ends well. Then those that stood still go on, in any order.
"""

from __future__ import annotations

import random
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.counting import count
from tests.drawing import TIMES
from tests.stateful.contents import KINDS, Named, check, stored, what

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointFenced
from headway.testing.faults import Count, Freeze
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/nodes/n"
SAMPLE, RELEASE = 250, 10_000
pytestmark = pytest.mark.reliability("R8")


@dataclass
class Standing:
    """An attempt that stands still in a save."""

    attempt: Attempt
    save: Future[Any]
    named: Named


@dataclass
class Attempt:
    """One attempt, and what it was told is safe."""

    checkpoint: Checkpoint
    freeze: Freeze
    acked: list[Named] = field(default_factory=list)
    seen: list[Named] = field(default_factory=list)


class Schedule:
    """One schedule, a function of its seed.

    Attributes:
        stood: attempts that stood still, and went on as zombies.
        told: those of them that were told.
    """

    def __init__(self, seed: int, scratch: Path) -> None:
        self.source = random.Random(seed)
        self.home = MemoryStorage()
        self.scratch = scratch
        self.saves = 0
        self.stood = 0
        self.told = 0

    def play(self) -> None:
        number = self.source.choice([2, 2, 2, 3])
        standing: list[Standing] = []
        truth: list[Named] = []  # what the newest attempt knows
        with ThreadPoolExecutor(number) as pool:
            try:
                for rank in range(number):
                    attempt = self._begin(rank, truth)
                    for _ in range(self.source.randint(0 if rank else 1, 2)):
                        self._save(attempt)
                    if rank < number - 1:
                        self._stand_still(pool, attempt, standing)
                    truth = [*attempt.seen, *attempt.acked]
                self._look(truth)
                last = attempt
                self.source.shuffle(standing)
                for zombie in standing:
                    self._wake(zombie, truth)
                    self._look(truth)
                    self._save(last)  # never fenced by a zombie
                    truth = [*last.seen, *last.acked]
                    self._look(truth)
            finally:
                for one in standing:
                    one.attempt.freeze.release()

    def _begin(self, rank: int, truth: list[Named]) -> Attempt:
        freeze = Freeze(self.home, None, after=self.source.random() < 0.5)
        checkpoint = Checkpoint(freeze, PREFIX, attempt=rank, scratch=self.scratch, keep="all")
        attempt = Attempt(checkpoint, freeze)
        exists = attempt.checkpoint.prev_exists()
        attempt.seen = self._stored()
        assert exists == bool(attempt.seen)
        # All that was acknowledged, and perhaps what stood still: in the middle of its record.
        assert attempt.seen[: len(truth)] == truth
        assert len(attempt.seen) <= len(truth) + 1
        if attempt.seen:
            check(attempt.checkpoint, attempt.seen[-1])
        return attempt

    def _save(self, attempt: Attempt) -> None:
        named, source = self._new()
        _saved(attempt.checkpoint, source)
        attempt.acked.append(named)

    def _stand_still(
        self, pool: ThreadPoolExecutor, attempt: Attempt, standing: list[Standing]
    ) -> None:
        named, source = self._new()
        calls = calls_of(named[1], bool(attempt.acked or attempt.seen))
        attempt.freeze.arm(self.source.randint(1, calls))
        save = pool.submit(_saved, attempt.checkpoint, source)
        save.add_done_callback(lambda _: attempt.freeze.frozen.set())
        attempt.freeze.frozen.wait()
        if attempt.freeze.struck:
            standing.append(Standing(attempt, save, named))
            self.stood += 1
        else:  # fewer calls this time
            save.result()
            attempt.acked.append(named)

    def _wake(self, zombie: Standing, truth: list[Named]) -> None:
        attempt = zombie.attempt
        attempt.freeze.disarm()
        attempt.freeze.release()
        error = zombie.save.exception()
        if error is None:  # it stood behind its last look: then it has been seen
            assert zombie.named in truth, f"{zombie.named} was acknowledged, and {truth} is there"
        else:
            assert isinstance(error, CheckpointFenced), error
            self.told += 1
        for _ in range(2):
            with pytest.raises(CheckpointFenced):
                _saved(attempt.checkpoint, self._new()[1])

    def _new(self) -> tuple[Named, Any]:
        self.saves += 1
        named = self.saves, self.source.choice(KINDS)
        return named, what(named, self.scratch / f"source-{self.saves}")

    def _stored(self) -> list[Named]:
        lineage = read_lineage(self.home, PREFIX)
        assert not [damage for damage in lineage.damage if not damage.tail]
        return [stored(self.home, PREFIX, manifest) for manifest in lineage.manifests]

    def _look(self, truth: list[Named]) -> None:
        found = self._stored()
        assert found == truth, f"{found} is there, and it was {truth}"


def _saved(checkpoint: Checkpoint, source: Any) -> None:
    if isinstance(source, bytes):
        checkpoint.write(source)
    elif isinstance(source, dict):
        checkpoint.save(source, wait=False).wait()
    else:
        checkpoint.save(source)


@cache
def calls_of(kind: str, later: bool) -> int:
    """How many calls of its storage a save of this kind makes."""
    import tempfile

    counted = Count(MemoryStorage())
    checkpoint = Checkpoint(counted, PREFIX)
    if later:
        checkpoint.write(b"1")
    checkpoint.prev_exists()
    before = counted.struck
    with tempfile.TemporaryDirectory() as scratch:
        _saved(checkpoint, what((2, kind), Path(scratch, "source")))
    checkpoint.close()
    return counted.struck - before


def play(seeds: range, scratch: Path) -> tuple[int, int]:
    """(zombies, those that were told) of all schedules."""
    stood = told = 0
    for seed in seeds:
        place = scratch / str(seed)
        place.mkdir()
        schedule = Schedule(seed, place)
        try:
            schedule.play()
        except BaseException as error:
            error.add_note(f"Schedule({seed})")
            raise
        stood, told = stood + schedule.stood, told + schedule.told
        shutil.rmtree(place)
    return stood, told


def test_a_save_that_stood_still_is_told_and_never_seen(tmp_path: Path) -> None:
    stood, told = play(range(SAMPLE), tmp_path)
    assert stood > SAMPLE * 0.9
    assert told > stood * 0.7
    count("R8", "schedules of saves that stood still", SAMPLE)
    count("R8", "zombies told", told)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_schedules(tmp_path: Path) -> None:
    seeds = range(SAMPLE, SAMPLE + RELEASE * max(1, TIMES // 30))
    _, told = play(seeds, tmp_path)
    count("R8", "schedules of saves that stood still", len(seeds))
    count("R8", "zombies told", told)


def test_without_the_look_for_newer_claims_it_would_be_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "_look_for_newer", lambda self: None)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        play(range(30), tmp_path)
    count("R8", "mutants caught")

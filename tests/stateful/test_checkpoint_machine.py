"""A node's checkpoints under random use: attempts that live at once, die in the middle of anything, go on
as zombies, on a storage that fails, with what is kept changing from one attempt to the next.

The model is what the newest attempt knows: the checkpoints that it was given when it opened, and those
that it was told are safe. What failed may show up until its writer has gone on, or for the next attempt
to find; nothing else ever may. Every attempt has a way to the storage of its own, whose next calls fail
as planned, or are the last ones.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.counting import count
from tests.drawing import drawn
from tests.stateful.contents import KINDS, PACKED, Named, check, stored, what

from headway.checkpoint import retain
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.checkpoint.turn import Turn
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointFenced, HeadwayError, StorageError
from headway.model.settings import Keep
from headway.ports import Storage
from headway.storage.local import LocalStorage
from headway.testing.faults import Planned
from headway.testing.memory import MemoryStorage
from headway.testing.wrapping import Call

PREFIX = "runs/r/nodes/n"
KEPT = 3  # checkpoints with packs, when nothing was said
T = TypeVar("T")
_STEPS = st.lists(st.sampled_from(["", "", "before", "after", "torn"]), min_size=1, max_size=6)
_LAST = st.integers(0, 5).map(lambda calls: [""] * calls + ["last"])
TROUBLE = _STEPS | _LAST
"""What becomes of an attempt's next calls: they fail here and there, or it dies after some of them."""
pytestmark = [pytest.mark.hypothesis, pytest.mark.reliability("R8")]


class Process(Planned):
    """One attempt's way to the storage. Behind the call that is planned to be its last one, nothing has
    an effect any more."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.dead = False

    def around(self, call: Call, act: Callable[[], T]) -> T:
        with self.lock:
            last = self.plan[:1] == ["last"]
            if last and not self.dead:
                self.struck += 1
                self.dead = True
        if self.dead:
            raise StorageError("this process was killed")
        return super().around(call, act)

    def let_go(self, call: Call, act: Callable[[], None]) -> None:
        if call.name == "close" or not self.dead:
            act()


@dataclass(eq=False)
class Attempt:
    """An attempt, and what it knows.

    Attributes:
        view: the checkpoints that it can go on from, oldest first; None before it opened.
        limbo: what it could not save, and was not told is out.
        fenced: it was told so, or may be.
    """

    checkpoint: Checkpoint
    process: Process
    rank: int
    keep: Keep
    view: list[Named] | None = None
    limbo: list[Named] = field(default_factory=list)
    fenced: bool = False

    def after(self, new: Named) -> list[Named]:
        """What is there once `new` is."""
        found = [*(self.view or []), new]
        if self.keep == "all" or (self.keep is None and new[1] not in PACKED):
            return found
        if isinstance(self.keep, int):
            return found[-self.keep :]
        packed = [named for named in found if named[1] in PACKED][-KEPT:]
        return [named for named in found if named[1] not in PACKED or named in packed]


class CheckpointMachine(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = Path(tempfile.mkdtemp(prefix="headway-"))
        self.storage = self.home()
        self.attempts: list[Attempt] = []
        self.newest: Attempt | None = None  # the last one that opened
        self.highest = 0  # rank of all claims that stand for certain ...
        self.perhaps = 0  # ... and of those that may stand all the same
        self.saves = 0
        self.seen: dict[str, int] = {}

    def home(self) -> Storage:
        return MemoryStorage()

    def teardown(self) -> None:
        for attempt in self.attempts:
            attempt.process.plan = []
            attempt.checkpoint.close()
        shutil.rmtree(self.scratch)
        for what_happened, number in self.seen.items():
            count("R8", what_happened, number)

    # What attempts do

    @rule(
        later=st.sampled_from([1, 1, 1, 0, -1]),
        keep=st.sampled_from([None, None, 1, 2, "all"]),
        opens=st.booleans(),
    )
    def begin(self, later: int, keep: Keep, opens: bool) -> None:
        rank = max(0, self.perhaps + later)
        process = Process(self.storage)
        checkpoint = Checkpoint(process, PREFIX, attempt=rank, scratch=self.scratch, keep=keep)
        self.attempts.append(Attempt(checkpoint, process, rank, keep))
        if opens:
            self._opened(0)

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 3), kind=st.sampled_from(KINDS), plan=st.just([]) | TROUBLE)
    def save(self, which: int, kind: str, plan: list[str]) -> None:
        attempt = self._opened(which)
        if attempt is not None:
            attempt.process.plan = attempt.process.plan or plan
            named, source = self._new(kind)
            save = (
                attempt.checkpoint.write if isinstance(source, bytes) else attempt.checkpoint.save
            )
            self._told(attempt, named, lambda: save(source))

    @precondition(lambda self: self.attempts)
    @rule(
        which=st.integers(0, 3),
        kinds=st.lists(st.sampled_from(KINDS[3:]), min_size=1, max_size=3),
        plan=st.just([]) | TROUBLE,
    )
    def save_in_the_background(self, which: int, kinds: list[str], plan: list[str]) -> None:
        attempt = self._opened(which)
        if attempt is None:
            return
        attempt.process.plan = attempt.process.plan or plan
        begun: list[tuple[Named, Any]] = []
        for kind in kinds:
            named, source = self._new(kind)
            before = attempt.process.struck
            try:
                handle = attempt.checkpoint.save(source, wait=False)
            except (StorageError, CheckpointFenced):  # the one before failed: this one never began
                assert attempt.process.struck > before or begun or attempt.process.dead
                break
            begun.append((named, handle))
            for name in ("after", "hot", "list"):  # the state goes on changing
                if name in source:
                    source[name][:] = [0] * len(source[name])
        for named, handle in begun:
            self._told(attempt, named, handle.wait, background=True)
        attempt.checkpoint.flush()
        self._note("saves in the background", len(begun))

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 3))
    def look(self, which: int) -> None:
        attempt = self._opened(which)
        if attempt is None:
            return
        assert attempt.view is not None
        before = attempt.process.struck
        try:
            if attempt is not self.newest:  # what a zombie knew may be given up by now
                attempt.checkpoint.prev_exists()
            elif attempt.view:
                assert attempt.checkpoint.prev_exists()
                assert len(attempt.checkpoint.history()) == len(attempt.view)
                check(attempt.checkpoint, attempt.view[-1])
            else:
                assert not attempt.checkpoint.prev_exists()
                assert attempt.checkpoint.load() is None
        except StorageError:
            assert attempt.process.struck > before or attempt.process.dead
        else:
            self._note("looks")

    @precondition(lambda self: len(self.attempts) > 3)
    @rule(which=st.integers(0, 3))
    def end(self, which: int) -> None:
        attempt = self._chosen(which)
        attempt.process.plan = []
        attempt.checkpoint.close()
        self.attempts.remove(attempt)

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 3), plan=TROUBLE)
    def trouble(self, which: int, plan: list[str]) -> None:
        self._chosen(which).process.plan = plan

    # What has to be true

    @invariant()
    def every_checkpoint_that_is_there_is_whole_and_belongs(self) -> None:
        found = self._stored()
        if self.newest is None:
            assert not found or self.perhaps
            return
        assert found in self._possible(), f"{found} is there, and not one of {self._possible()}"

    def _possible(self) -> list[list[Named]]:
        newest = self.newest
        if newest is None or newest.view is None:
            return [[]]
        return [newest.view, *(newest.after(named) for named in newest.limbo)]

    def _stored(self) -> list[Named]:
        lineage = read_lineage(self.storage, PREFIX)
        assert all(damage.tail for damage in lineage.damage), lineage.damage
        return [stored(self.storage, PREFIX, manifest) for manifest in lineage.manifests]

    # Help

    def _chosen(self, which: int) -> Attempt:
        return self.attempts[-1 - which % min(4, len(self.attempts))]

    def _new(self, kind: str) -> tuple[Named, Any]:
        self.saves += 1
        named = self.saves, kind
        return named, what(named, self.scratch / f"source-{self.saves}")

    def _note(self, what_happened: str, number: int = 1) -> None:
        self.seen[what_happened] = self.seen.get(what_happened, 0) + number

    def _opened(self, which: int) -> Attempt | None:
        """An attempt that has opened the ledger; None when it could not."""
        attempt = self._chosen(which)
        if attempt.view is not None:
            return attempt
        before = attempt.process.struck
        try:
            attempt.checkpoint.prev_exists()
        except CheckpointFenced:
            assert attempt.rank < self.perhaps
            self._note("late attempts turned away")
            return None
        except StorageError:
            # Its claim may stand all the same, and fence those of lower and equal rank.
            assert attempt.process.struck > before or attempt.process.dead
            self.perhaps = max(self.perhaps, attempt.rank)
            for other in self.attempts:
                other.fenced |= other.rank <= attempt.rank and other is not attempt
            return None
        assert attempt.rank >= self.highest
        self.highest, self.perhaps = attempt.rank, max(self.perhaps, attempt.rank)
        found = self._stored()
        assert found in self._possible(), f"given {found}, and not one of {self._possible()}"
        attempt.view = found
        self.newest = attempt
        return attempt

    def _told(
        self, attempt: Attempt, named: Named, save: Callable[[], Any], *, background: bool = False
    ) -> None:
        """Save, and note what the attempt was told of it."""
        before = attempt.process.struck
        try:
            save()
        except CheckpointFenced:
            assert attempt.fenced or attempt is not self.newest
            attempt.fenced = True
            attempt.limbo.append(named)  # the one that fenced it may have died
            self._note("zombies told")
        except StorageError:
            assert attempt.process.struck > before or attempt.process.dead or background
            attempt.limbo.append(named)
            self._note("saves that failed or were killed")
        else:
            assert attempt is self.newest, f"{named} was acknowledged to a zombie"
            attempt.view = attempt.after(named)
            attempt.limbo.clear()
            self._note("saves acknowledged")


class OnADisk(CheckpointMachine):
    """The same on a filesystem."""

    def home(self) -> Storage:
        place = self.scratch / "home"
        place.mkdir()
        return LocalStorage(place)


_SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
CheckpointMachine.TestCase.settings = drawn(60, stateful_step_count=30, suppress_health_check=_SLOW)
OnADisk.TestCase.settings = drawn(10, stateful_step_count=25, suppress_health_check=_SLOW)
TestCheckpoints = CheckpointMachine.TestCase
TestCheckpointsOnADisk = OnADisk.TestCase


# What the machine would find


def _no_look_for_newer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "_look_for_newer", lambda self: None)


def _no_ranks(patch: pytest.MonkeyPatch) -> None:
    opened = Ledger.open
    patch.setattr(Ledger, "open", lambda *args, **named: opened(*args, **{**named, "rank": 0}))


def _one_too_many_given_up(patch: pytest.MonkeyPatch) -> None:
    given_up = retain.given_up

    def more(rule: retain.Rule, older: Any, new: Any, bad: Any) -> Any:
        found = given_up(rule, older, new, bad)
        return (*found, older[-1].number) if found and older[-1].number not in found else found

    patch.setattr("headway.checkpoint.turn.given_up", more)


def _packs_deleted_first(patch: pytest.MonkeyPatch) -> None:
    commit = Turn.commit

    def hasty(self: Turn, *args: Any, **named: Any) -> Any:
        assert self._space is not None
        if len(self._concerned) > 1:  # as good as given up, one would think
            oldest = next(iter(self._concerned.values()))
            for pack in oldest.packs:
                self.storage.delete(f"{self.packs}/{pack}")
        return commit(self, *args, **named)

    patch.setattr(Turn, "commit", hasty)


@pytest.mark.parametrize(
    "plant", [_no_look_for_newer, _no_ranks, _one_too_many_given_up, _packs_deleted_first]
)
def test_the_machine_finds(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    quick = settings(
        drawn(60, stateful_step_count=30, suppress_health_check=_SLOW),
        phases=[Phase.generate],
        database=None,
        report_multiple_bugs=False,
    )
    with pytest.raises(BaseException) as found:  # whatever the machine says
        run_state_machine_as_test(CheckpointMachine, settings=quick)
    assert isinstance(found.value, AssertionError | HeadwayError | BaseExceptionGroup)
    count("R8", "mutants caught")

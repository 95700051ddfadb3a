"""Working directories under random use: files come, grow, move and go, saves of every kind are made, fail,
or are cut off by a death, and the next attempt goes on. State and directories are always of one checkpoint.

The model is the tree that was there at each save, read by plain means. What an attempt finds is what the
newest save left that was acknowledged; or a later one that was not, if its record was made all the same.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.counting import count
from tests.drawing import drawn
from tests.stateful.test_checkpoint_machine import TROUBLE, Process

from headway.checkpoint.background import SaveHandle
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.snapshot import Mark
from headway.checkpoint.turn import Turn
from headway.checkpoint.working import Working
from headway.model.errors import CheckpointError, HeadwayError, StorageError
from headway.ports import Storage
from headway.storage.local import LocalStorage
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/nodes/n"
NAMES = ["crawl", "index"]
FILES = ["a", "b", "in/c", "in/deep/d"]
SIZES = [0, 10, 3000, 70_000, 1_500_000]
PLANS: st.SearchStrategy[list[str]] = st.just([]) | st.just([]) | TROUBLE
Trees = dict[str, dict[str, tuple[int, bytes | None]]]
pytestmark = [pytest.mark.hypothesis, pytest.mark.reliability("R8")]


def trees(checkpoint: Checkpoint) -> Trees:
    """All that its working directories hold: name -> path -> (mode, content; None for a directory)."""
    return {name: _tree(place) for name, place in checkpoint.directories().items()}


def _tree(place: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        path.relative_to(place).as_posix(): (
            stat.S_IMODE(path.stat().st_mode),
            path.read_bytes() if path.is_file() else None,
        )
        for path in place.rglob("*")
    }


@dataclass(eq=False)
class Alive:
    """The attempt at work.

    Attributes:
        pending: saves in the background whose end is not known yet: (number of the save, handle).
    """

    checkpoint: Checkpoint
    process: Process
    pending: list[tuple[int, SaveHandle]] = field(default_factory=list)


class WorkingMachine(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = Path(tempfile.mkdtemp(prefix="headway-"))
        self.storage = self.home()
        self.saves = 0
        self.was: dict[int, Trees] = {}  # save -> what was there
        self.newest = 0  # the save that was acknowledged last
        self.limbo: list[int] = []
        self.begun = 0
        self.seen: dict[str, int] = {}
        self.now = self._begin()

    def home(self) -> Storage:
        return MemoryStorage()

    def teardown(self) -> None:
        self._die()
        left = [path for path in self.scratch.iterdir() if path.name != "home"]
        shutil.rmtree(self.scratch)
        for what, number in self.seen.items():
            count("R8", what, number)
        assert not left, "an attempt left something behind"

    # What bodies do to their files

    @rule(name=st.sampled_from(NAMES))
    def ask(self, name: str) -> None:
        checkpoint = self.now.checkpoint
        known = checkpoint.directories()
        before = self.now.process.struck
        try:
            place = checkpoint.directory(name)
        except StorageError:
            assert self.now.process.struck > before or self.now.process.dead
            return
        if name in known:
            assert place == checkpoint.directory(name)
        assert place.is_dir()

    @rule(
        name=st.sampled_from(NAMES),
        file=st.sampled_from(FILES),
        size=st.sampled_from(SIZES),
        seed=st.integers(0, 3),
        way=st.sampled_from(["new", "append", "in place", "renamed", "long ago"]),
    )
    def write(self, name: str, file: str, size: int, seed: int, way: str) -> None:
        path = self._path(name, file)
        if path is None or path.is_dir():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        data = np.random.default_rng(seed).bytes(size)
        if way == "append":
            with open(path, "ab") as opened:
                opened.write(data)
        elif way == "in place" and path.exists():
            with open(path, "r+b") as opened:
                opened.write(data[: path.stat().st_size])  # it stays as long as it was
        elif way == "renamed":
            other = path.with_name("other")
            other.write_bytes(data)
            other.replace(path)
        else:
            path.write_bytes(data)
        if way == "long ago":
            os.utime(path, (1e9, 1e9))

    @rule(name=st.sampled_from(NAMES), file=st.sampled_from([*FILES, "in", "void"]))
    def change(self, name: str, file: str) -> None:
        path = self._path(name, file)
        if path is None:
            return
        if path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        elif "/" not in file:
            path.mkdir()

    @rule(name=st.sampled_from(NAMES), file=st.sampled_from(FILES))
    def allow(self, name: str, file: str) -> None:
        path = self._path(name, file)
        if path is not None and path.is_file():
            path.chmod(0o600 if path.stat().st_mode & 0o100 else 0o755)

    def _path(self, name: str, file: str) -> Path | None:
        place = self.now.checkpoint.directories().get(name)
        if place is None or self.now.process.dead:
            return None
        given = self.now.checkpoint._working.given(name)  # else the body does not know of it
        path = None if given is None else place / file
        return None if path is None or any(p.is_file() for p in path.parents) else path

    # Saves

    @precondition(lambda self: not self.now.process.dead)
    @rule(
        kind=st.sampled_from(["bytes", "many bytes", "state", "much state"]),
        plan=PLANS,
    )
    def save(self, kind: str, plan: list[str]) -> None:
        self.now.process.plan = plan
        number, source = self._new(kind)
        checkpoint = self.now.checkpoint
        before = self.now.process.struck
        try:
            if isinstance(source, bytes):
                checkpoint.write(source)
            else:
                checkpoint.save(source)
        except StorageError:
            assert self.now.process.struck > before or self.now.process.dead
            self._settle()
            self.limbo.append(number)
            self._note("saves that failed or were killed")
        else:
            self._settle()
            self._acknowledged(number)
        self.was[number] = self._there()

    @precondition(lambda self: not self.now.process.dead)
    @rule(kind=st.sampled_from(["state", "much state"]), plan=PLANS)
    def save_in_the_background(self, kind: str, plan: list[str]) -> None:
        self.now.process.plan = plan
        number, source = self._new(kind)
        self.was[number] = self._there()
        checkpoint = self.now.checkpoint
        checkpoint._states.drain()
        with checkpoint._lock:  # the save does not go on before this is released
            try:
                saved = checkpoint.save(source, wait=False)
            except StorageError:
                self._settle()
                self.limbo.append(number)
                return
            self.was[number] = self._there()  # what is carried on may have come only now
            for name in NAMES:
                self.write(name, "a", 70_000, number, "new")
                self.change(name, "b")
        checkpoint._states.drain()  # else it would be chance when the storage's plan is used up
        self.now.pending.append((number, saved))

    # Attempts

    @rule(first=st.sampled_from(["state", "directory", "save", "nothing"]), closed=st.booleans())
    def go_on(self, first: str, closed: bool) -> None:
        """The attempt ends, or dies, and the next one begins."""
        if closed:
            self.now.process.plan = []
            self._settle()
        self._die()
        found = self.newest
        if first == "save":  # without a look; so another attempt looks before
            found, _ = self._newest(self._begin().checkpoint, close=True)
        self.now = self._begin()
        checkpoint = self.now.checkpoint
        if first == "nothing":
            return
        if first == "save":
            number, source = self._new("state")
            checkpoint.save(source)
            self.was[number] = self._there()
            assert self._there() == self.was.get(found, {})
            self._acknowledged(number)
            return
        if first == "directory":
            checkpoint.directory("crawl")
        found, there = self._newest(checkpoint)
        if first == "state":
            assert there == self.was.get(found, {})
        expected = {"crawl": {}, **self.was.get(found, {})}
        checkpoint.directory("crawl")
        assert self._there() == expected, f"not the directories of save {found}"
        self.newest, self.limbo = found, []
        self._note("attempts that went on")

    def _newest(self, checkpoint: Checkpoint, *, close: bool = False) -> tuple[int, Trees]:
        """(number of the save that is the newest, the directories with it): it must be one that may be."""
        try:
            state = checkpoint.load()
        except CheckpointError:
            data = checkpoint.read()
            assert data is not None
            number = int(data[:8])
        else:
            number = 0 if state is None else state["number"]
        there = trees(checkpoint)
        if close:
            checkpoint.close()
        possible = [self.newest, *(n for n in self.limbo if n > self.newest)]
        assert number in possible, f"found save {number}, and not one of {possible}"
        return number, there

    # Help

    def _begin(self) -> Alive:
        self.begun += 1
        process = Process(self.storage)
        return Alive(Checkpoint(process, PREFIX, attempt=self.begun, scratch=self.scratch), process)

    def _die(self) -> None:
        """What is in flight has no effect from now on."""
        self.now.process.dead = True
        self._settle()
        self.now.checkpoint.close()

    def _settle(self) -> None:
        """Learn what became of the saves in the background."""
        for number, saved in self.now.pending:
            try:
                saved.wait()
            except StorageError:
                self.limbo.append(number)
            else:
                self._acknowledged(number)
                self._note("saves in the background")
        self.now.pending.clear()

    def _acknowledged(self, number: int) -> None:
        self.newest, self.limbo = number, []
        self._note("saves acknowledged")

    def _there(self) -> Trees:
        return trees(self.now.checkpoint)

    def _new(self, kind: str) -> tuple[int, Any]:
        self.saves += 1
        number = self.saves
        if kind == "bytes":
            return number, b"%08d" % number
        if kind == "many bytes":
            return number, b"%08d" % number * 9000
        state: dict[str, Any] = {"number": number}
        if kind == "much state":
            state["w"] = np.full(30_000, number)
        return number, state

    def _note(self, what: str, number: int = 1) -> None:
        self.seen[what] = self.seen.get(what, 0) + number


class OnADisk(WorkingMachine):
    """The same on a filesystem."""

    def home(self) -> Storage:
        place = self.scratch / "home"
        place.mkdir()
        return LocalStorage(place)


_SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
WorkingMachine.TestCase.settings = drawn(60, stateful_step_count=30, suppress_health_check=_SLOW)
OnADisk.TestCase.settings = drawn(8, stateful_step_count=25, suppress_health_check=_SLOW)
TestWorking = WorkingMachine.TestCase
TestWorkingOnADisk = OnADisk.TestCase


# What the machine would find


def _not_carried_on(patch: pytest.MonkeyPatch) -> None:
    real = Working.snapshot

    def snapshot(self: Working, turn: Turn, *, copy: bool) -> Any:
        return real(self, turn, copy=copy) if self._asked else lambda: None

    patch.setattr(Working, "snapshot", snapshot)


def _times_trusted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("headway.checkpoint.snapshot.RACY", -(10**18))
    real = Mark.of

    def without(found: os.stat_result) -> Mark:
        return real(found)._replace(written=0, changed=0)

    patch.setattr(Mark, "of", staticmethod(without))


def _copied_late(patch: pytest.MonkeyPatch) -> None:
    real = Working.snapshot
    patch.setattr(Working, "snapshot", lambda self, turn, copy: real(self, turn, copy=False))


@pytest.mark.parametrize("plant", [_not_carried_on, _times_trusted, _copied_late])
def test_the_machine_finds(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    quick = settings(
        drawn(100, stateful_step_count=40, suppress_health_check=_SLOW),
        phases=[Phase.generate],
        database=None,
        report_multiple_bugs=False,
    )
    with pytest.raises(BaseException) as found:  # whatever the machine says
        run_state_machine_as_test(WorkingMachine, settings=quick)
    assert isinstance(found.value, AssertionError | HeadwayError | BaseExceptionGroup | OSError)
    count("R8", "mutants caught")

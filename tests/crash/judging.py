"""What has to hold of a node after its attempt was killed, failed, fenced or cut off from power."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.bodies import INPUTS, PREFIX, STATES, Plan, Step, Tree, notes_in, tree_at

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import lineage_of
from headway.checkpoint.restore import content
from headway.ledger.read import read_ledger
from headway.model.manifest import Manifest
from headway.model.program import Warned
from headway.model.settings import Keep
from headway.storage.local import LocalStorage

AFTER = b"written by the attempt after"


@dataclass
class Case:
    """A home, what attempts do to it, and what they said.

    Args:
        place: an empty directory of its own; the home may be elsewhere.
        plan: the saves of all attempts, in order.
    """

    place: Path
    plan: Plan
    home: Path = Path()
    warned: list[Warned] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        if self.home == Path():
            self.home = self.place / "home"
        self.home.mkdir(exist_ok=True)
        self.sources.mkdir()
        for step in self.plan:
            step.lay_out(self.sources / str(step.seed))

    @property
    def sources(self) -> Path:
        return self.place / "sources"

    @property
    def side(self) -> Path:
        return self.place / "side"

    def checkpoint(self, attempt: int = 90, *, keep: Keep = "all") -> Checkpoint:
        """The next attempt, in this process, with a storage of its own."""
        return Checkpoint(
            LocalStorage(self.home),
            PREFIX,
            attempt=attempt,
            inputs=INPUTS,
            on_warning=self.warned.append,
            keep=keep,
        )

    def manifests(self) -> tuple[Manifest, ...]:
        """The checkpoints that a reader finds; no kill is damage."""
        ledger = read_ledger(LocalStorage(self.home), f"{PREFIX}/ledger")
        lineage = lineage_of(ledger, PREFIX)
        damaged = [damage for damage in lineage.damage if not damage.tail]
        assert not damaged, f"a kill is no damage, but: {damaged}"
        return lineage.manifests

    def seeds(self) -> list[int]:
        """Which steps they are of, every byte compared."""
        storage = LocalStorage(self.home)
        return [self._seed_of(storage, manifest) for manifest in self.manifests()]

    def acked(self) -> list[int]:
        """Seeds of the saves that returned, in order."""
        return [note[1] for note in notes_in(self.side) if note[0] == "acked"]

    def failures(self) -> list[tuple[int, str, str]]:
        """(seed, error's type, message) of the saves that raised."""
        return [(n[1], n[2], n[3]) for n in notes_in(self.side) if n[0] == "failed"]

    def clear(self) -> None:
        """Give the space back: a sweep makes thousands of these."""
        shutil.rmtree(self.place)

    def in_flight(self) -> set[int]:
        """Seeds of what may or may not be there: all that failed, and the one after the last."""
        done = [note[1] for note in notes_in(self.side) if note[0] in {"acked", "failed"}]
        following = [step.seed for step in self.plan if step.seed not in done][:1]
        return {seed for seed, _, _ in self.failures()} | set(following)

    def judge(self, *, acked: list[int] | None = None, may: set[int] | None = None) -> list[int]:
        """Be the next attempt and the one after, and check all that was promised.

        Args:
            acked: seeds of the saves that must be there; those that were noted by default.
            may: seeds of those that may be there besides; the unfinished ones by default.

        Returns:
            Seeds of what is there, oldest first.
        """
        acked = self.acked() if acked is None else acked
        may = self.in_flight() if may is None else may
        found = self.seeds()
        order = [step.seed for step in self.plan]
        assert found == sorted(found, key=order.index), f"out of order: {found}"
        assert len(set(found)) == len(found), f"twice: {found}"
        lost = set(acked) - set(found)
        assert not lost, f"acknowledged and lost: {sorted(lost)} of {acked}; found {found}"
        extra = set(found) - set(acked) - may
        assert not extra, f"neither acknowledged nor in flight: {sorted(extra)}"

        following = self.checkpoint()
        assert following.prev_exists() == bool(found)
        target = self.place / "restored"
        if found and self._step(found[-1]).how in STATES:
            assert following.load() == self._step(found[-1]).state
        elif found:
            assert following.restore(target) == target
            assert tree_at(target) == self._expected(found[-1])
            shutil.rmtree(target)
        else:
            assert following.restore(target) is None and following.read() is None
        following.write(AFTER)
        numbers = [report.number for report in following.history()]
        following.close()

        last = self.checkpoint(91)
        assert last.read() == AFTER
        assert [report.number for report in last.history()] == numbers
        assert len(numbers) == len(found) + 1 and sorted(set(numbers)) == numbers
        last.close()
        assert {warning.kind for warning in self.warned} <= {"unfinished"}, self.warned
        return found

    def _seed_of(self, storage: LocalStorage, manifest: Manifest) -> int:
        """Which step a checkpoint is of; every byte of it is compared."""
        tree: Tree = {
            entry.name: (
                entry.kind,
                entry.mode,
                b""
                if entry.kind == "directory"
                else b"".join(content(storage, f"{PREFIX}/packs", manifest, entry)),
            )
            for entry in manifest.entries
        }
        for step in self.plan:
            if self._expected(step.seed) == tree:
                return step.seed
        raise AssertionError(f"checkpoint {manifest.number} is nothing that was ever saved")

    def _expected(self, seed: int) -> Tree:
        return _tree(self._step(seed))

    def _step(self, seed: int) -> Step:
        return next(step for step in self.plan if step.seed == seed)


@functools.cache
def _tree(step: Step) -> Tree:
    return step.tree

"""An attempt's turn on the checkpoints of its node: which there are, which is the newest good one, and
the record that makes a new one.

WRITE ORDER. S1: content is durable, its packs' names included. S2: only then is the record that names it
appended; it also gives up the checkpoints that are not kept. S3: only when that is acknowledged are packs
deleted that no checkpoint names any more, and only by the writer that was acknowledged (`space` has the
details). So a record never names bytes that a power cut can take away, and nothing is deleted before what
replaces it is durable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from headway.checkpoint.beside import Beside
from headway.checkpoint.identity import believe
from headway.checkpoint.lineage import Lineage, lineage_of, report_of, skipped
from headway.checkpoint.retain import Metric, Rule, given_up, metric_of
from headway.checkpoint.space import LARGE, Space, readable
from headway.checkpoint.working import Working
from headway.ledger.read import Chain
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt
from headway.model.manifest import Entry, Manifest
from headway.model.program import Saved, Warned
from headway.model.report import CheckpointReport
from headway.ports import Storage

T = TypeVar("T")
_ENCODER = msgspec.msgpack.Encoder()


class Turn:
    """One attempt's view of its node's ledger. Not safe to use from several threads at once: the handle
    serialises them.

    Args:
        storage, prefix: where the node is.
        attempt: whose turn it is.
        inputs: digest of the node's inputs; checkpoints of others are passed over.
        on_saved, on_warning: are told what a person should know.
        rule: which checkpoints are kept.
        working: the attempt's working directories.

    Attributes:
        packs: key below which the packs are.
        good: the newest checkpoint that this process wrote or verified itself: what it may refer to.
    """

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        *,
        attempt: int,
        inputs: str,
        on_saved: Callable[[Saved], None],
        on_warning: Callable[[Warned], None],
        rule: Rule = Rule(),  # noqa: B008  # it is frozen
        working: Working | None = None,
    ) -> None:
        self.storage = storage
        self.attempt = attempt
        self.packs = f"{prefix}/packs"
        self.good: Manifest | None = None
        self._prefix = prefix
        self._inputs = inputs
        self._on_saved = on_saved
        self._on_warning = on_warning
        self._rule = rule
        self._working = working or Working()
        self._ledger: Ledger | None = None
        self._space: Space | None = None
        self._manifests: dict[int, Manifest] = {}  # of these inputs, oldest first
        self._concerned: dict[int, Manifest] = {}  # those, of all inputs, that may be given up
        self._unsure: dict[int, Manifest] = {}  # their append did not return: in the chain, or not
        self._bad: dict[int, str] = {}
        self._next = 1
        self._share: float | None = None  # of its bytes that the last save had to write
        self._told_of_room = False

    def opened(self) -> Ledger:
        """The ledger, claimed at first use: a task that saves nothing costs nothing."""
        if self._ledger is None:
            key = f"{self._prefix}/ledger"
            found: list[Lineage] = []

            def inspect(chain: Chain) -> None:
                found[:] = [lineage_of(chain, key)]
                self._refuse_if_lost(found[0])

            # Ranked by attempt: one that was given up must not take the state from its successor.
            ledger = Ledger.open(self.storage, key, rank=self.attempt, inspect=inspect)
            lineage = found[0]
            live = lineage.manifests
            self._manifests = {m.number: m for m in live if m.inputs == self._inputs}
            self._concerned = {m.number: m for m in live if self._rule.concerns(m)}
            sound = all(damage.tail for damage in lineage.damage)
            self._space = Space(self.storage, self.packs, live, ledger.term, sound=sound)
            self._next = lineage.next_number
            self._ledger = ledger
            for damage in lineage.damage:
                self._warn("unfinished" if damage.tail else "damaged", f"{key}: {skipped(damage)}")
        return self._ledger

    def newest(self) -> Manifest | None:
        """The newest checkpoint that is not known to be bad; None when there never was one.

        Raises:
            CheckpointCorrupt: there were some, and all are bad.
        """
        self.opened()
        if (latest := self.latest) is not None:
            return latest
        if self._manifests:
            reasons = "; ".join(self._bad.values())
            raise CheckpointCorrupt(
                f"none of the {len(self._manifests)} checkpoints of {self._prefix} can be read "
                f"({reasons}). Put the home back from a copy and resume, or start over with a new "
                "`headway run`."
            )
        return None

    @property
    def latest(self) -> Manifest | None:
        """As `newest`, but None also when all are bad."""
        self.opened()
        live = reversed(self._manifests.values())
        return next((manifest for manifest in live if manifest.number not in self._bad), None)

    def load(self, load: Callable[[Manifest], T]) -> T | None:
        """`load` the newest checkpoint that passes its checks; older ones stand in, with a warning. It is
        shown what was saved; the working directories beside that are filled before."""
        while (manifest := self.newest()) is not None:
            self._working.allow(manifest)
            try:
                believe(self.storage, manifest)
                self._working.follow(self.storage, self.packs, manifest)
                value = load(manifest.only(manifest.given))
            except CheckpointCorrupt as error:
                self._bad[manifest.number] = str(error)
                self._warn("damaged", f"{error}. Going on from the next older checkpoint.")
                continue
            self.good = manifest
            return value
        return None

    def history(self) -> list[CheckpointReport]:
        """All checkpoints, oldest first."""
        self.opened()
        return [report_of(m, valid=m.number not in self._bad) for m in self._manifests.values()]

    def new_pack(self) -> str:
        """Key for a pack. Its name has the term in it, so no two writers ever have the same one."""
        term = self.opened().term
        assert self._space is not None
        return self._space.new(term)

    def spare_pack(self) -> str | None:
        """A pack of this turn that no checkpoint names any more: for `create_pack(reuse=)`, at once. None
        when there is none; the space of packs is kept for reuse only if this is asked for."""
        self.opened()
        assert self._space is not None
        return self._space.spare()

    def thin(self) -> set[str]:
        """Packs of the newest good checkpoint that the next one should refer to no more."""
        self.opened()
        assert self._space is not None
        return set() if self.good is None else self._space.thin(self.good)

    def metric(self, state: Mapping[Any, Any] | None) -> Metric | None:
        """What `keep_best` compares, of a state (None: bytes or files) that is about to be saved.

        Raises:
            InputError: the state has no such number.
        """
        return metric_of(self._rule, state)

    def likely(self, size: int) -> int:
        """Bytes that a save of `size` has to write, as far as can be told before: all of them when there
        is nothing to refer to, else the share that it was the last time, else nobody knows: 0."""
        return size if self.good is None else int(size * (self._share or 0.0))

    def require_room(self, size: int) -> None:
        """See that a save has the room that it needs, before it is begun.

        Args:
            size: bytes that will be written. Too few are safe (the save fails when the disk is full),
                too many refuse a save that may have succeeded.

        Raises:
            StorageFull: there is not so much room, and nothing that may be deleted makes it.
        """
        self.opened()
        assert self._space is not None
        self._space.require(size, self._rule)

    def commit(
        self,
        began: float,
        kind: str,
        size: int,
        entries: tuple[Entry, ...],
        packs: tuple[str, ...] = (),
        skeleton: bytes | None = None,
        stored: tuple[int, ...] = (),
        *,
        metric: Metric | None = None,
        beside: Beside | None = None,
    ) -> Manifest:
        """Append the record that makes a checkpoint of content that is durable, and gives up those that
        are not kept (S2); then delete what nobody names any more (S3).

        Args:
            began: monotonic time when the save began.
            kind, size, entries, packs, skeleton, stored, metric: see `Manifest`.
            beside: working directories, their content durable too.

        Raises:
            CheckpointFenced: a newer attempt took over.
            StorageError: it could not be recorded; earlier checkpoints stay as they are.
        """
        ledger = self.opened()
        number, self._next = self._next, self._next + 1  # a failed save leaves a gap
        manifest = Manifest(
            number=number,
            attempt=self.attempt,
            inputs=self._inputs,
            time=time.time(),
            cost=time.monotonic() - began,
            kind=kind,
            size=size,
            entries=entries,
            packs=packs,
            skeleton=skeleton,
            stored=stored,
            metric=metric,
        )
        if beside is not None:
            manifest = beside.joined_to(manifest)
        space = self._space
        assert space is not None
        gone = dict(self._unsure)
        if self._rule.concerns(manifest):
            older = [*self._concerned.values()]
            for old in given_up(self._rule, older, manifest, self._bad):
                gone[old] = self._concerned[old]
        if gone:
            manifest = msgspec.structs.replace(manifest, dropped=tuple(gone))
        space.hold(manifest)
        self._unsure[number] = manifest  # until we know better: an exception may strike anywhere
        ledger.append(_ENCODER.encode(manifest))
        before, self.good = self.good, manifest
        self._manifests[number] = manifest
        if self._rule.concerns(manifest):
            self._concerned[number] = manifest
        if beside is not None:
            beside.done(number)
        for old in (*gone, number):
            self._unsure.pop(old, None)
        for old in gone:
            self._manifests.pop(old, None)
            self._concerned.pop(old, None)
            self._bad.pop(old, None)
        size = manifest.size
        self._on_saved(Saved(number, size, manifest.time))
        written = space.written(manifest, before)
        space.give_up(manifest, gone.values(), written)  # S3
        if before is not None and size:
            self._share = min(1.0, written / size)
        self._tell_of_room(written)
        return manifest

    def close(self) -> None:
        """Let go of the ledger."""
        ledger, self._ledger = self._ledger, None
        space, self._space = self._space, None
        if space is not None:
            space.close()
        if ledger is not None:
            ledger.close()

    def _tell_of_room(self, written: int) -> None:
        """Say once that the next save like this one will not fit: before it fails."""
        if self._told_of_room or written < LARGE:
            return
        room = self.storage.room()
        if room is not None and room < written:
            self._told_of_room = True
            self._warn(
                "space",
                f"the home {self.storage.url} has {readable(room)} left, and the last checkpoint took "
                f"{readable(written)}: one more like it will not fit. {self._rule.advice()}",
            )

    def _refuse_if_lost(self, lineage: Lineage) -> None:
        """Absence must be proven: with damage and nothing readable, there was something."""
        lost = [damage for damage in lineage.damage if not damage.tail]
        if lost and not any(m.inputs == self._inputs for m in lineage.manifests):
            raise CheckpointCorrupt(
                f"the checkpoints of {self._prefix} are damaged and none is left to go on from "
                f"(term {lost[0].term}, record {lost[0].seq}: {lost[0].reason}). Put the home back "
                "from a copy and resume, or start over with a new `headway run`."
            )

    def _warn(self, kind: str, message: str) -> None:
        self._on_warning(Warned(kind, message))

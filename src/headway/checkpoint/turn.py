"""An attempt's turn on the checkpoints of its node: which there are, which is the newest good one, and
the record that makes a new one.

WRITE ORDER. S1: content is durable, its packs' names included. S2: only then is the record that names it
appended. S3: only when that is acknowledged are packs deleted that no checkpoint names any more, and
only by the writer that was acknowledged. So a record never names bytes that a power cut can take away,
and nothing is deleted before what replaces it is durable.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from headway.checkpoint.identity import believe
from headway.checkpoint.lineage import Lineage, lineage_of, report_of, skipped
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
    ) -> None:
        self.storage = storage
        self.attempt = attempt
        self.packs = f"{prefix}/packs"
        self.good: Manifest | None = None
        self._prefix = prefix
        self._inputs = inputs
        self._on_saved = on_saved
        self._on_warning = on_warning
        self._ledger: Ledger | None = None
        self._manifests: list[Manifest] = []
        self._bad: dict[int, str] = {}
        self._next = 1
        self._packs_made = 0

    def opened(self) -> Ledger:
        """The ledger, claimed at first use: a task that saves nothing costs nothing."""
        if self._ledger is None:
            key = f"{self._prefix}/ledger"
            found: list[Lineage] = []

            def inspect(chain: Chain) -> None:
                found[:] = [lineage_of(chain, key)]
                self._refuse_if_lost(found[0])

            # Ranked by attempt: one that was given up must not take the state from its successor.
            self._ledger = Ledger.open(self.storage, key, rank=self.attempt, inspect=inspect)
            lineage = found[0]
            self._manifests = [m for m in lineage.manifests if m.inputs == self._inputs]
            self._next = lineage.next_number
            for damage in lineage.damage:
                self._warn("unfinished" if damage.tail else "damaged", f"{key}: {skipped(damage)}")
        return self._ledger

    def newest(self) -> Manifest | None:
        """The newest checkpoint that is not known to be bad; None when there never was one.

        Raises:
            CheckpointCorrupt: there were some, and all are bad.
        """
        self.opened()
        for manifest in reversed(self._manifests):
            if manifest.number not in self._bad:
                return manifest
        if self._manifests:
            reasons = "; ".join(self._bad.values())
            raise CheckpointCorrupt(
                f"none of the {len(self._manifests)} checkpoints of {self._prefix} can be read "
                f"({reasons}). Put the home back from a copy and resume, or start over with a new "
                "`headway run`."
            )
        return None

    def load(self, load: Callable[[Manifest], T]) -> T | None:
        """`load` the newest checkpoint that passes its checks; older ones stand in, with a warning."""
        while (manifest := self.newest()) is not None:
            try:
                believe(self.storage, manifest)
                value = load(manifest)
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
        return [report_of(m, valid=m.number not in self._bad) for m in self._manifests]

    def new_pack(self) -> str:
        """Key for a pack. Its name has the term in it, so no two writers ever have the same one."""
        self._packs_made += 1
        return f"{self.packs}/{self.opened().term:08d}-{self._packs_made:06d}"

    def commit(
        self,
        began: float,
        kind: str,
        size: int,
        entries: tuple[Entry, ...],
        packs: tuple[str, ...] = (),
        skeleton: bytes | None = None,
        stored: tuple[int, ...] = (),
    ) -> Manifest:
        """Append the record that makes a checkpoint of content that is durable (S2).

        Args:
            began: monotonic time when the save began.
            kind, size, entries, packs, skeleton, stored: see `Manifest`.

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
        )
        ledger.append(_ENCODER.encode(manifest))
        self._manifests.append(manifest)
        self.good = manifest
        self._on_saved(Saved(number, size, manifest.time))
        return manifest

    def close(self) -> None:
        """Let go of the ledger."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

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

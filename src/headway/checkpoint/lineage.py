"""A node's checkpoints, read from its ledger: which there are, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from headway.ledger.read import Chain, Damage, read_ledger
from headway.ledger.record import UNREADABLE
from headway.model.errors import CheckpointCorrupt
from headway.model.manifest import Accompanied, Dropped, Manifest
from headway.model.report import CheckpointReport
from headway.ports import Storage

_MOST_CHECKPOINTS = 2**53
_DECODER = msgspec.msgpack.Decoder(Manifest | Accompanied | Dropped)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Checkpoints of one node.

    Attributes:
        manifests: those that were not given up, oldest first.
        damage: what the ledger could not give.
        newest: the highest number that was ever used, dropped ones included.
    """

    manifests: tuple[Manifest, ...]
    damage: tuple[Damage, ...]
    newest: int = 0

    @property
    def next_number(self) -> int:
        """Above every number that was ever used: a damaged record may have had one too."""
        return self.newest + 1 + sum(not damage.tail for damage in self.damage)


def records_of(chain: Chain, where: str) -> Iterator[Manifest | Dropped]:
    """What a ledger's chain says, oldest first.

    Raises:
        CheckpointCorrupt: a record passes its checksum and is not a checkpoint: it was written by a
            newer headway, or by something else.
    """
    for record in chain.records:
        try:
            found = _DECODER.decode(record.payload)
        except UNREADABLE as error:
            raise CheckpointCorrupt(
                f"record {record.term}.{record.seq} of {where} is not a checkpoint that this version "
                f"can read ({error}). Was it written by a newer headway? Upgrade, then resume."
            ) from error
        if isinstance(found, Manifest) and not 0 < found.number < _MOST_CHECKPOINTS:
            raise CheckpointCorrupt(
                f"record {record.term}.{record.seq} of {where} is checkpoint {found.number}, which no "
                "headway can have saved. Put the home back from a copy."
            )
        yield found


def lineage_of(chain: Chain, where: str) -> Lineage:
    """Fold a ledger's chain.

    Raises:
        CheckpointCorrupt: as for `records_of`.
    """
    manifests: dict[int, Manifest] = {}
    newest = 0
    for found in records_of(chain, where):
        for number in found.numbers if isinstance(found, Dropped) else found.dropped:
            manifests.pop(number, None)
        if isinstance(found, Manifest):
            manifests[found.number] = found
            newest = max(newest, found.number)
    return Lineage(tuple(manifests.values()), chain.damage, newest)


def report_of(manifest: Manifest, *, valid: bool = True) -> CheckpointReport:
    """A checkpoint as `show` lists it."""
    return CheckpointReport(
        number=manifest.number,
        attempt=manifest.attempt,
        time=manifest.time,
        size=manifest.size,
        kind=manifest.kind,
        valid=valid,
        directories=manifest.directories,
    )


def skipped(damage: Damage) -> str:
    """What a person is told about damage."""
    what = "an unfinished save" if damage.tail else "a damaged checkpoint"
    return f"{what} was skipped: record {damage.term}.{damage.seq}: {damage.reason}"


def read_lineage(storage: Storage, prefix: str) -> Lineage:
    """The checkpoints of the node under `prefix`, without claiming its ledger.

    Raises:
        CheckpointCorrupt: see `lineage_of`.
        StorageError: the home could not be read.
    """
    key = f"{prefix}/ledger"
    return lineage_of(read_ledger(storage, key), key)


def history_of(storage: Storage, prefix: str) -> list[CheckpointReport]:
    """The checkpoints of `read_lineage` as reports, oldest first."""
    return [report_of(manifest) for manifest in read_lineage(storage, prefix).manifests]

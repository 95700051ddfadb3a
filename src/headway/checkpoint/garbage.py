"""Packs of a node that nobody will name again, when no attempt of it is at work.

A look reads, and claims nothing. Deleting claims the ledger first: then no writer of an older term can be
acknowledged any more, so a pack of an older term that no checkpoint of the chain names is never named again
(P10). That is the argument of `space`, S3a to S3e, without a save. A claim costs a small file for good, so
it is made only where there is something to delete.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from headway.checkpoint.lineage import Lineage, lineage_of
from headway.checkpoint.space import unnamed
from headway.ledger.read import Chain, read_ledger
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt
from headway.model.manifest import Dropped
from headway.ports import Storage
from headway.storage.upkeep import usage

_ENCODER = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can go, or has gone.

    Attributes:
        packs: names of packs.
        size: bytes of them.
        numbers: checkpoints that are given up for it.
    """

    packs: tuple[str, ...] = ()
    size: int = 0
    numbers: tuple[int, ...] = ()


def look(storage: Storage, prefix: str, keep: int | None = None) -> Garbage:
    """What `collect` would delete, as of now.

    Args:
        storage: the home.
        prefix: of the node.
        keep: how many checkpoints of the same inputs stay; None is all that are there.

    Raises:
        CheckpointCorrupt: the ledger is damaged: what seems to be nobody's may be somebody's.
        StorageError: the home could not be read.
    """
    chain = read_ledger(storage, f"{prefix}/ledger")
    lineage = _sound(chain, prefix)
    return _garbage(storage, prefix, lineage, chain.newest + 1, keep)


def collect(storage: Storage, prefix: str, keep: int | None = None) -> Garbage:
    """Delete what nobody needs. An attempt that is at work all the same is fenced.

    Args:
        storage, prefix, keep: as for `look`.

    Raises:
        CheckpointCorrupt, StorageError: as for `look`.
        CheckpointFenced: an attempt of the node began meanwhile; nothing was deleted.
    """
    if not (found := look(storage, prefix, keep)).packs and not found.numbers:
        return found
    key = f"{prefix}/ledger"
    before = read_ledger(storage, key)
    lineages: list[Lineage] = []
    ledger = Ledger.open(
        storage,
        key,
        rank=before.rank,
        inspect=lambda chain: lineages.append(_sound(chain, prefix)),
    )
    try:
        found = _garbage(storage, prefix, lineages[-1], ledger.term, keep)
        if found.numbers:
            ledger.append(_ENCODER.encode(Dropped(found.numbers)))
        for name in found.packs:
            storage.delete(f"{prefix}/packs/{name}")
    finally:
        ledger.close()
    return found


def _sound(chain: Chain, prefix: str) -> Lineage:
    """The checkpoints, when none was lost to damage."""
    lost = [damage for damage in chain.damage if not damage.tail]
    if lost:
        raise CheckpointCorrupt(
            f"{prefix} is left alone: its ledger is damaged (term {lost[0].term}, record {lost[0].seq}: "
            f"{lost[0].reason}), so what seems to be nobody's may be somebody's"
        )
    return lineage_of(chain, f"{prefix}/ledger")


def _garbage(
    storage: Storage, prefix: str, lineage: Lineage, before: int, keep: int | None
) -> Garbage:
    numbers: list[int] = []
    if keep is not None:
        by_inputs: dict[str, list[int]] = {}
        for manifest in lineage.manifests:
            by_inputs.setdefault(manifest.inputs, []).append(manifest.number)
        numbers = sorted(n for found in by_inputs.values() for n in found[:-keep])
    live = (m for m in lineage.manifests if m.number not in numbers)
    named = {name for manifest in live for name in manifest.packs}
    packs = unnamed(storage.list(f"{prefix}/packs"), named, before)
    size = sum(usage(storage, f"{prefix}/packs/{name}") for name in packs)
    return Garbage(tuple(packs), size, tuple(numbers))

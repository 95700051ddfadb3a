"""The packs of one turn: which are named by a checkpoint, which are to go, which may be used again.

DELETION ORDER (S3 of `turn`, in full)
S3a A pack is deleted, or offered for reuse, only after a record was acknowledged by which nobody names it:
    the record that gives its last checkpoint up, or the seal that opened this turn. A newer writer reads
    that record too, so it builds on nothing that goes.
S3b A record whose append failed, or was interrupted, may be in the chain all the same. The next record
    gives it up by its number, like any other; until that is acknowledged its packs stay.
S3c Of packs that no record ever named, those of older terms go: their writers can be acknowledged no more.
    Never one of this turn (it may be in flight) or of a newer one.
S3d Only a pack that this very turn made is offered for reuse: the writer of an older one may still be alive
    and writing. Unlinking is harmless to it, and to us.
S3e Where records were lost to damage nothing is swept: what nobody seems to name may be named in a copy of
    the ledger that somebody puts back.

A deletion that fails is tried again after the next save; it never fails a save.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable

from headway.checkpoint.retain import Rule
from headway.checkpoint.thinning import Needs
from headway.model.errors import StorageError, StorageFull
from headway.model.manifest import Manifest
from headway.ports import Storage

LARGE = 1 << 20
"""Bytes of a save from which on it is worth a look at how much room is left."""
SPARES = 1
"""Packs that are kept for reuse, at most."""
_NAME = re.compile(r"(\d{8,})-(\d{6,})")


def pack_name(term: int, number: int) -> str:
    """Name of a pack: the term that makes it, and a count within the turn."""
    return f"{term:08d}-{number:06d}"


def pack_place(name: str) -> tuple[int, int] | None:
    """(term, count) of a pack's name; None when it is not one."""
    found = _NAME.fullmatch(name)
    return None if found is None else (int(found[1]), int(found[2]))


def pack_sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes of each pack that a checkpoint names; where they were not noted, of the part that it uses."""
    ends = [0] * len(manifest.packs)
    for entry in manifest.entries:
        for chunk in entry.chunks:
            ends[chunk.pack] = max(ends[chunk.pack], chunk.offset + chunk.held)
    stored = [*manifest.stored, *([0] * len(ends))]
    return {
        name: max(end, noted)
        for name, end, noted in zip(manifest.packs, ends, stored, strict=False)
    }


class Space:
    """See the module.

    Args:
        storage: the home.
        packs: key below which the packs are.
        manifests: the checkpoints that are there.
        term: the first term of this turn.
        sound: no record was lost to damage (S3e).
    """

    def __init__(
        self, storage: Storage, packs: str, manifests: Iterable[Manifest], term: int, *, sound: bool
    ) -> None:
        self._storage = storage
        self._packs = packs
        self._term = term
        self._process = os.getpid()
        self._swept = not sound
        self._named: Counter[str] = Counter()  # by how many checkpoints
        self._count = 0
        self._made: set[str] = set()  # by this turn
        self._sizes: dict[str, int] = {}  # of packs that this turn made and that were named
        self._going: set[str] = set()  # to be deleted; what could not be deleted is among them
        self._spares: list[str] = []
        self._reuses = False
        there = [*manifests]
        for manifest in there:
            self._named.update(manifest.packs)
        self._needs = Needs(there)

    def new(self, term: int) -> str:
        """Key for a new pack of this turn, whose term is `term` now.

        What older turns left behind is swept first, so that a task whose saves are killed again and
        again does not fill the disk.
        """
        self.sweep()
        self._count += 1
        name = pack_name(term, self._count)
        self._made.add(name)
        return f"{self._packs}/{name}"

    def hold(self, new: Manifest) -> None:
        """A record that names these packs is about to be appended: whatever becomes of it, they are
        named from here on, until a record that gives it up is acknowledged (S3b)."""
        fresh = [name for name in new.packs if name in self._made and name not in self._sizes]
        if fresh:
            sizes = pack_sizes(new)
            self._sizes.update((name, sizes[name]) for name in fresh)
        self._named.update(new.packs)

    def thin(self, base: Manifest) -> set[str]:
        """Packs of a checkpoint that the next one should refer to no more."""
        return self._needs.thin(base)

    def give_up(self, new: Manifest, gone: Collection[Manifest], written: int) -> None:
        """Delete what nobody needs any more, now that a record was acknowledged that gives these up.

        Args:
            new: the checkpoint of that record.
            gone: checkpoints; each was there at the beginning, or held.
            written: bytes that the new checkpoint had to write.
        """
        dead = []
        for manifest in gone:
            for name in manifest.packs:
                self._named[name] -= 1
                if self._named[name] <= 0:
                    del self._named[name]
                    dead.append(name)
        self._needs.add(new)
        self._needs.drop(gone, self._named)
        self._retire(dead, written)
        self.sweep()
        self._delete()

    def written(self, new: Manifest, before: Manifest | None) -> int:
        """Bytes of the packs of this turn that one checkpoint names and the one before does not."""
        old = () if before is None else before.packs
        return sum(self._sizes.get(name, 0) for name in new.packs if name not in old)

    def spare(self) -> str | None:
        """The key of a pack whose space may be written over, if there is one (S3d)."""
        self._reuses = True
        if not self._spares:
            return None
        name = self._spares.pop()
        self._going.add(name)  # should it not be taken after all
        return f"{self._packs}/{name}"

    def sweep(self) -> None:
        """Delete packs of older terms that no checkpoint names (S3c), once for each turn."""
        if self._swept:
            return
        self._swept = True
        try:
            names = self._storage.list(self._packs)
        except StorageError:
            return  # the next turn looks again
        self._going.update(unnamed(names, self._named, self._term))
        self._delete()

    def require(self, size: int, rule: Rule) -> None:
        """See that there is room for a save before it is begun.

        Args:
            size: bytes that will be written.
            rule: what is kept, for the message.

        Raises:
            StorageFull: there is none, and nothing that may be deleted makes any.
        """
        room = self._storage.room()
        if room is None or size <= room:
            return
        self.sweep()
        self._delete()
        room = self._storage.room()
        spare = sum(self._sizes[name] for name in self._spares)
        if room is None or size <= room + spare:
            return
        failure = StorageFull(
            f"a checkpoint needs {readable(size)} and the home {self._storage.url} has "
            f"{readable(room)} left, so it was not begun. Earlier checkpoints are safe. "
            f"{rule.advice()} Then `headway resume`."
        )
        failure.errno = errno.ENOSPC
        raise failure

    def close(self) -> None:
        """Give back what was kept for reuse. Never raises."""
        if os.getpid() != self._process:
            return  # a fork: its parent goes on with them
        self._going.update(self._spares)
        self._spares.clear()
        self._delete()

    def _retire(self, dead: list[str], written: int) -> None:
        """Packs that no checkpoint names any more, as an acknowledged record says (S3a)."""
        mine = {name: self._sizes[name] for name in dead if name in self._made}  # S3d
        self._made.difference_update(dead)
        for name in sorted(mine, key=lambda name: -mine[name]):
            # A spare that is far larger than what is saved would only lie there.
            if self._reuses and len(self._spares) < SPARES and mine[name] <= 2 * written:
                self._spares.append(name)
        self._going.update(name for name in dead if name not in self._spares)

    def _delete(self) -> None:
        for name in sorted(self._going):
            with contextlib.suppress(
                StorageError
            ):  # it is only lost space; the next save tries again
                self._storage.delete(f"{self._packs}/{name}")
                self._going.discard(name)
                self._sizes.pop(name, None)


def unnamed(names: Iterable[str], named: Iterable[str], before: int) -> list[str]:
    """Of the packs there are, those of terms older than `before` that no checkpoint names."""
    live = set(named)
    places = ((name, pack_place(name)) for name in names if name not in live)
    return [name for name, place in places if place is not None and place[0] < before]


def readable(count: int) -> str:
    """Bytes for a message: `17 B`, `1.5 GiB`."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):  # the last one is used below
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"

"""Which packs a new checkpoint should refer to no more, so that space follows what is needed.

A pack goes when no checkpoint names it any more. What still lives in a mostly dead one keeps all of it, so
it is written anew instead. Dead is what no checkpoint that is kept needs: while an older one needs a pack,
writing from it anew would give nothing back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from headway.model.manifest import Manifest

_BOUND = 2
"""What a checkpoint's packs take is at most this many times what is needed of them."""


class Needs:
    """Of each pack, the bytes that are needed by the checkpoint which needs most of it: the oldest that
    names it, as later ones only ever refer to less.

    Args:
        manifests: the checkpoints that are there, oldest first.
    """

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self._manifests: dict[int, Manifest] = {}
        self._of: dict[str, tuple[int, int]] = {}  # pack -> (who needs it most, bytes)
        for manifest in manifests:
            self.add(manifest)

    def add(self, manifest: Manifest) -> None:
        """There is a newer checkpoint."""
        if manifest.packs:
            self._manifests[manifest.number] = manifest
            self._count(manifest)

    def drop(self, gone: Iterable[Manifest], still_named: Iterable[str]) -> None:
        """Checkpoints were given up.

        Args:
            gone: those.
            still_named: the packs that other ones name.
        """
        numbers = {manifest.number for manifest in gone}
        for number in numbers:
            self._manifests.pop(number, None)
        lost = {name for name, (number, _) in self._of.items() if number in numbers}
        for name in lost:
            del self._of[name]
        lost.intersection_update(still_named)
        for manifest in self._manifests.values():
            if not lost:
                break
            if not lost.isdisjoint(manifest.packs):
                self._count(manifest)
                lost.difference_update(manifest.packs)

    def thin(self, base: Manifest) -> set[str]:
        """The packs of a checkpoint that the next one should leave, the emptiest first."""
        held = dict(zip(base.packs, base.stored, strict=False))
        needed = {name: self._of[name][1] if name in self._of else 0 for name in held}
        thin: set[str] = set()
        taken, full = sum(held.values()), sum(needed.values())
        for name in sorted(held, key=lambda name: needed[name] / max(held[name], 1)):
            if taken <= _BOUND * full:
                break
            thin.add(name)
            taken -= held[name]
            full -= needed[name]
        return thin

    def _count(self, manifest: Manifest) -> None:
        """What it needs of the packs that no older one names."""
        fresh = {i: name for i, name in enumerate(manifest.packs) if name not in self._of}
        if not fresh:
            return
        live: Counter[int] = Counter()
        for entry in manifest.entries:
            for chunk in entry.chunks:
                live[chunk.pack] += chunk.held
        self._of.update((name, (manifest.number, live[i])) for i, name in fresh.items())

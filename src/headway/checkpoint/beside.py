"""What a record holds beside what was saved: the working directories' share of one checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from headway.model.manifest import Accompanied, Entry, Manifest


@dataclass(frozen=True, slots=True)
class Beside:
    """Working directories, their content durable (S1).

    Attributes:
        entries, packs, stored, size: as in a `Manifest`.
        done: told the number of the checkpoint that has them, once that is acknowledged.
    """

    entries: tuple[Entry, ...]
    packs: tuple[str, ...]
    stored: tuple[int, ...]
    size: int
    done: Callable[[int], None]

    def joined_to(self, manifest: Manifest) -> Manifest:
        """The record of a checkpoint, with these beside what it holds."""
        held = {name: getattr(manifest, name) for name in Manifest.__struct_fields__}
        packs = {name: number for number, name in enumerate(manifest.packs)}
        places = [packs.setdefault(name, len(packs)) for name in self.packs]
        stored = [*manifest.stored, *[0] * (len(packs) - len(manifest.stored))]
        for place, noted in zip(places, self.stored, strict=True):
            stored[place] = max(stored[place], noted)
        held["entries"] = (*manifest.entries, *(_moved(entry, places) for entry in self.entries))
        held["size"] = manifest.size + self.size
        return Accompanied(
            **{**held, "packs": tuple(packs), "stored": tuple(stored)}, own=len(manifest.entries)
        )


def _moved(entry: Entry, places: list[int]) -> Entry:
    """The entry, its packs counted as the whole record counts them."""
    if not entry.chunks:
        return entry
    chunks = tuple(msgspec.structs.replace(c, pack=places[c.pack]) for c in entry.chunks)
    return msgspec.structs.replace(entry, chunks=chunks)

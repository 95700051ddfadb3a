"""Several directories in one checkpoint: each is a directory at its top, under a name of its own."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from headway.checkpoint.directory import check_names, to_directory
from headway.checkpoint.source import Item, from_path, size_of
from headway.model.errors import InputError
from headway.model.manifest import Manifest
from headway.ports import Storage
from headway.storage.faults import storage_error

Choose = Callable[[Sequence[str]], Mapping[str, Path]]
"""Names at the top of a checkpoint -> where those of them go that are wanted."""


class Directories:
    """What `Checkpoint.save` takes to save several directories at once.

    Args:
        paths: name -> directory. The names have no `/` in them.
        settled: asked when all of it was read, and before the checkpoint is made: whether nothing changed
            meanwhile.
    """

    def __init__(self, paths: Mapping[str, Path], settled: Callable[[], bool]) -> None:
        self._paths = paths
        self._settled = settled

    @property
    def size(self) -> int:
        """Bytes of all files in them, as far as they can be looked at."""
        return sum(size_of(path) for path in self._paths.values())

    def items(self) -> Iterator[Item]:
        """All of it, in the order of the names that were given.

        Raises:
            InputError: it is not settled, or holds something that is no file and no directory.
            StorageError: something of it cannot be read.
        """
        for name, path in self._paths.items():
            try:
                mode = stat.S_IMODE(path.stat().st_mode)
            except OSError as error:
                raise storage_error(error, f"look at {path}", place=str(path)) from error
            yield Item(name, "directory", mode, ())
            for item in from_path(path):
                yield Item(f"{name}/{item.name}", item.kind, item.mode, item.pieces, item.whole)
        if not self._settled():
            raise InputError(
                f"{', '.join(map(str, self._paths.values()))}: something changed while it was saved"
            )


def to_directories(
    storage: Storage, packs: str, manifest: Manifest, choose: Choose
) -> dict[str, Path]:
    """Put each directory at the top of a checkpoint into a place of its own, all of it verified.

    Returns:
        What `choose` said; each place holds exactly its directory now.

    Raises:
        InputError, CheckpointCorrupt, StorageError: as for `to_directory`.
    """
    check_names(manifest)
    places = dict(choose([entry.name for entry in manifest.entries if "/" not in entry.name]))
    for name, place in places.items():
        inner = tuple(
            msgspec.structs.replace(entry, name=entry.name.removeprefix(f"{name}/"))
            for entry in manifest.entries
            if entry.name.startswith(f"{name}/")
        )
        to_directory(storage, packs, msgspec.structs.replace(manifest, entries=inner), place)
    return places

"""Reading a checkpoint back: every byte is verified before anybody sees it.

A directory is restored in two steps. Everything is written to a hidden place below the target and
verified; only then is it moved into place. So a damaged checkpoint leaves the target as it was, and
what is there afterwards is exactly what was saved.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headway.checkpoint.identity import verify
from headway.checkpoint.state import rebuild
from headway.model.errors import CheckpointCorrupt, CheckpointError, InputError, StorageError
from headway.model.manifest import Entry, Manifest
from headway.ports import KeyMissing, Storage
from headway.storage.faults import storage_error

_STAGING = ".headway-restore-"
LARGEST_CHUNK = 64 << 20  # bytes; a record that asks for more is not ours


def content(storage: Storage, packs: str, manifest: Manifest, entry: Entry) -> Iterator[bytes]:
    """The verified pieces of a file.

    Args:
        packs: key below which the packs are.

    Raises:
        CheckpointCorrupt: a chunk is missing, too short, or not what was saved.
        StorageError: the store could not be read: says nothing about the checkpoint.
    """
    if entry.data is not None:
        if len(entry.data) != entry.size:
            raise _corrupt(manifest, entry, "its size is not what its record says")
        if entry.data:
            yield entry.data
        return
    if sum(chunk.length for chunk in entry.chunks) != entry.size:
        raise _corrupt(manifest, entry, "its size is not what its record says")
    for chunk in entry.chunks:
        if not 0 < chunk.length <= LARGEST_CHUNK or not 0 <= chunk.pack < len(manifest.packs):
            raise _corrupt(manifest, entry, "its record names impossible chunks")
        name = manifest.packs[chunk.pack]
        if "/" in name or name.startswith("."):
            raise _corrupt(manifest, entry, f"its record names a pack elsewhere: {name!r}")
        try:
            data = storage.read_range(f"{packs}/{name}", chunk.offset, chunk.length)
        except KeyMissing:
            raise _corrupt(manifest, entry, f"pack {name} is missing") from None
        if len(data) != chunk.length or not verify(data, chunk.hash):
            raise _corrupt(manifest, entry, f"bytes of pack {name} fail their checksum")
        yield data


def state_of(storage: Storage, packs: str, manifest: Manifest) -> Any:
    """The typed state of a checkpoint.

    Raises:
        CheckpointError: it holds none.
        CheckpointCorrupt, StorageError: as for `content`.
    """
    if manifest.skeleton is None:
        use = "restore" if manifest.kind == "directory" else "read"
        raise CheckpointError(
            f"checkpoint {manifest.number} holds {manifest.kind}, and load() gives typed state that "
            f"save(mapping) stored. Use {use}()."
        )

    def fill(part: int, view: memoryview) -> None:
        for piece in content(storage, packs, manifest, manifest.entries[part]):
            view[: len(piece)] = piece
            view = view[len(piece) :]

    for (
        entry
    ) in manifest.entries:  # before memory is made for it: a size is only what a record says
        held = len(entry.data) if entry.data is not None else sum(c.length for c in entry.chunks)
        if entry.size != held:
            raise _corrupt(manifest, entry, "its size is not what its record says")
    return rebuild(manifest.skeleton, [entry.size for entry in manifest.entries], fill)


def check_names(manifest: Manifest) -> None:
    """Refuse a record whose names could lead outside the target, or contradict each other."""
    kinds: dict[str, str] = {}
    for entry in manifest.entries:
        parts = entry.name.split("/")
        good = all(parts) and not any(part in {".", ".."} or "\0" in part for part in parts)
        parent = "/".join(parts[:-1])
        if not good or entry.name in kinds or (parent and kinds.get(parent) != "directory"):
            raise _corrupt(manifest, entry, "its name is not one that a save can have made")
        kinds[entry.name] = entry.kind


def to_directory(storage: Storage, packs: str, manifest: Manifest, target: Path) -> None:
    """Make `target` hold exactly this checkpoint.

    Args:
        target: a directory; made when missing. What it holds already must be part of the
            checkpoint (it is replaced), so that nothing is ever mixed.

    Raises:
        InputError: `target` holds something else; nothing was changed.
        CheckpointCorrupt: the checkpoint fails its checks; nothing was changed.
    """
    check_names(manifest)
    _refuse_leftovers(manifest, target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for killed in target.glob(f"{_STAGING}*"):
            shutil.rmtree(killed)
        staging = target / f"{_STAGING}{secrets.token_hex(8)}"
        staging.mkdir(mode=0o700)
        try:
            _fill(storage, packs, manifest, staging)
            _move(manifest, staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, f"restore into {target}", place=str(target)) from error


def _fill(storage: Storage, packs: str, manifest: Manifest, staging: Path) -> None:
    for entry in manifest.entries:
        place = staging / entry.name
        if entry.kind == "directory":
            place.mkdir(mode=0o700)
            continue
        with open(place, "xb", buffering=0) as file:
            for piece in content(storage, packs, manifest, entry):
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            os.fchmod(file.fileno(), stat.S_IMODE(entry.mode))


def _move(manifest: Manifest, staging: Path, target: Path) -> None:
    for entry in manifest.entries:
        place = target / entry.name
        if entry.kind == "directory":
            place.mkdir(mode=0o700, exist_ok=True)
        else:
            os.replace(staging / entry.name, place)
    for entry in reversed(manifest.entries):
        if entry.kind == "directory":  # last, and inner ones first: a mode may forbid writing
            os.chmod(target / entry.name, stat.S_IMODE(entry.mode))


def _refuse_leftovers(manifest: Manifest, target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(f"{target} is not a directory, so nothing can be restored into it")
    foreign = sorted(itertools.islice(_foreign(manifest, target), 4))
    if foreign:
        some = ", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else "")
        raise InputError(
            f"{target} holds files that are not in checkpoint {manifest.number} ({some}), and a "
            "checkpoint is never mixed with other files. Restore into an empty or new directory, "
            "or call restore() without a path for a fresh one."
        )


def _foreign(manifest: Manifest, target: Path) -> Iterator[str]:
    kinds = {entry.name: entry.kind for entry in manifest.entries}
    for base, directories, files in os.walk(target):
        if base == str(target):  # what a restore that was killed half-way left is ours to remove
            directories[:] = [name for name in directories if not name.startswith(_STAGING)]
        for name in [*directories, *files]:
            path = Path(base, name)
            inner = path.relative_to(target).as_posix()
            kind = "directory" if path.is_dir() and not path.is_symlink() else "file"
            if path.is_symlink() or kinds.get(inner) != kind:
                yield inner


def _corrupt(manifest: Manifest, entry: Entry, why: str) -> CheckpointCorrupt:
    return CheckpointCorrupt(f"checkpoint {manifest.number}: {entry.name!r} is damaged: {why}")

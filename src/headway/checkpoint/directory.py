"""Putting a checkpoint's files into a directory: all of them or none, and nothing outside of it.

Everything is written to a hidden place below the target and verified; only then is it moved into place.
So a damaged checkpoint leaves the target as it was, and what is there afterwards is exactly what was
saved.

Both places are held open, and everything below them is reached from there, a name at a time, through
directories only. So neither a name in a record nor a symlink that somebody puts there in the middle of a
restore leads outside.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from headway.checkpoint.fill import sized
from headway.checkpoint.restore import content, corrupt
from headway.model.errors import InputError, StorageError, StorageFull
from headway.model.manifest import Manifest
from headway.ports import Storage
from headway.storage.faults import storage_error

_STAGING = ".headway-restore-"
_MODES = 0o777  # set-uid, set-gid and sticky bits stay behind: whose they were, nobody knows
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def check_names(manifest: Manifest) -> None:
    """Refuse a record whose names could lead outside the target, or contradict each other."""
    kinds: dict[str, str] = {}
    for entry in manifest.entries:
        parts = entry.name.split("/")
        good = all(parts) and not any(part in {".", ".."} or "\0" in part for part in parts)
        parent = "/".join(parts[:-1])
        if not good or entry.name in kinds or (parent and kinds.get(parent) != "directory"):
            raise corrupt(manifest, entry, "its name is not one that a save can have made")
        if entry.kind not in {"file", "directory"}:
            raise corrupt(manifest, entry, f"it is a {entry.kind!r}, and no file or directory")
        kinds[entry.name] = entry.kind


def to_directory(storage: Storage, packs: str, manifest: Manifest, target: Path) -> None:
    """Make `target` hold exactly this checkpoint.

    Args:
        target: a directory; made when missing. What it holds already must be part of the
            checkpoint (it is replaced), so that nothing is ever mixed.

    Raises:
        InputError: `target` holds something else; nothing was changed.
        CheckpointCorrupt: the checkpoint fails its checks; nothing was changed.
        StorageFull: it does not fit; nothing was changed.
        StorageError: the home could not be read, or `target` not be written.
    """
    check_names(manifest)
    sized(manifest)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(f"{target} is not a directory, so nothing can be restored into it")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _Place(os.open(target, _DIRECTORY)) as place:
            _refuse_leftovers(manifest, place, target)
            _refuse_what_does_not_fit(manifest, place, target)
            name = f"{_STAGING}{secrets.token_hex(8)}"
            os.mkdir(name, 0o700, dir_fd=place.root)
            try:
                with _Place(os.open(name, _DIRECTORY, dir_fd=place.root)) as staging:
                    _fill(storage, packs, manifest, staging)
                    _move(manifest, staging, place)
            finally:
                shutil.rmtree(name, ignore_errors=True, dir_fd=place.root)
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, f"restore into {target}", place=str(target)) from error


class _Place:
    """A directory that is held open, and what is below it.

    Args:
        root: its descriptor; closed with this.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self._held = (
            "",
            root,
        )  # the parent asked for last: entries of one directory follow each other

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()
        os.close(self.root)

    def within(self, parent: str) -> int:
        """A descriptor of the directory `parent` ("" is this one itself), until the next call.

        Raises:
            OSError: it, or one on the way to it, is no directory, or a symlink.
        """
        if self._held[0] != parent:
            self._let_go()
            found = self.root
            for part in parent.split("/") if parent else ():
                inner = os.open(part, _DIRECTORY, dir_fd=found)
                if found != self.root:
                    os.close(found)
                found = inner
            self._held = parent, found
        return self._held[1]

    def _let_go(self) -> None:
        held, self._held = self._held[1], ("", self.root)
        if held != self.root:
            os.close(held)


def _fill(storage: Storage, packs: str, manifest: Manifest, staging: _Place) -> None:
    for entry in manifest.entries:
        parent, _, name = entry.name.rpartition("/")
        inside = staging.within(parent)
        if entry.kind == "directory":
            os.mkdir(name, 0o700, dir_fd=inside)
            continue
        with os.fdopen(os.open(name, _FILE, 0o600, dir_fd=inside), "wb", buffering=0) as file:
            for piece in content(storage, packs, manifest, entry):
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            os.fchmod(file.fileno(), entry.mode & _MODES)


def _move(manifest: Manifest, staging: _Place, place: _Place) -> None:
    for entry in manifest.entries:
        parent, _, name = entry.name.rpartition("/")
        inside = place.within(parent)
        if entry.kind == "directory":
            with contextlib.suppress(FileExistsError):  # if it is none, `within` says so
                os.mkdir(name, 0o700, dir_fd=inside)
        else:
            os.rename(name, name, src_dir_fd=staging.within(parent), dst_dir_fd=inside)
    for entry in reversed(manifest.entries):
        if entry.kind == "directory":  # last, and inner ones first: a mode may forbid writing
            os.fchmod(place.within(entry.name), entry.mode & _MODES)


def _refuse_leftovers(manifest: Manifest, place: _Place, target: Path) -> None:
    """Refuse files that are not in the checkpoint, and remove what a restore that was killed left."""
    foreign = sorted(itertools.islice(_foreign(manifest, place), 4))
    if foreign:
        some = ", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else "")
        raise InputError(
            f"{target} holds files that are not in checkpoint {manifest.number} ({some}), and a "
            "checkpoint is never mixed with other files. Restore into an empty or new directory, "
            "or call restore() without a path for a fresh one."
        )
    for name in os.listdir(place.root):
        if name.startswith(_STAGING) and _is_directory(name, place.root):
            shutil.rmtree(name, dir_fd=place.root)


def _foreign(manifest: Manifest, place: _Place) -> Iterator[str]:
    kinds = {entry.name: entry.kind for entry in manifest.entries}
    for base, directories, files, fd in os.fwalk(".", dir_fd=place.root):
        if base == ".":  # what a restore that was killed half-way left is ours to remove
            directories[:] = [name for name in directories if not name.startswith(_STAGING)]
        for name in [*directories, *files]:
            inner = f"{base}/{name}".removeprefix("./")
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
            if stat.S_ISLNK(status.st_mode) or kinds.get(inner) != kind:
                yield inner


def _is_directory(name: str, fd: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)


def _refuse_what_does_not_fit(manifest: Manifest, place: _Place, target: Path) -> None:
    """Before anything is written: a size is only what a record says, and a full disk hurts others."""
    found = os.fstatvfs(place.root)
    needed = sum(max(entry.size, 0) for entry in manifest.entries)
    room = found.f_bavail * found.f_frsize
    if found.f_blocks and needed > room:
        raise StorageFull(
            f"checkpoint {manifest.number} needs {needed} bytes, and there are {room} where {target} "
            "is. Make room, or restore somewhere else."
        )


class Scratch:
    """A fresh directory for one checkpoint's files.

    Args:
        base: where it is made; None is the system's place for such.
    """

    def __init__(self, base: Path | None) -> None:
        self._base = base
        self._there: tuple[int, Path] | None = None

    def filled(self, number: int, fill: Callable[[Path], object]) -> Path:
        """The directory of checkpoint `number`, which `fill` is asked to fill when it is not there."""
        if self._there is None or self._there[0] != number:
            self.drop()
            place = Path(tempfile.mkdtemp(prefix="headway-", dir=self._base))
            try:
                fill(place)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
            self._there = number, place
        return self._there[1]

    def drop(self) -> None:
        """Remove it."""
        there, self._there = self._there, None
        if there is not None:
            shutil.rmtree(there[1], ignore_errors=True)

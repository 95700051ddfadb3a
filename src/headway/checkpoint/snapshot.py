"""What a directory tree is at one moment, without reading more of it than has changed.

A file is told from what it was by its *mark*: inode, size, mode and times. A mark that is the same tells
that nothing changed only if no write since can have left it the same. So a file is not trusted
- when it was written shortly before it was read: the next write may come within the same tick of the file
  system's clock (git's rule for its index). That clock is asked, and not ours: it may be a server's;
- while this process has it mapped for writing: such writes change no time once a page is dirty.
What another process writes through a mapping of its own, that was there before the save, is not seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from headway.checkpoint.source import Item, checked_name, from_path
from headway.storage.faults import storage_error

RACY = 2_000_000_000
"""Nanoseconds before a look, within which a file must not have been written to be trusted: the coarsest
clock of a file system."""
IN_MEMORY = 32 << 20
"""Bytes of small files whose copies are kept in memory."""

_SMALL = 1 << 20
_FICLONE = 0x40049409  # of <linux/fs.h>; `fcntl` has it from Python 3.13 on


class Mark(NamedTuple):
    """What tells one content of a file from another without reading it."""

    mode: int
    device: int
    inode: int
    size: int
    written: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> Mark:
        """Of what `stat` says."""
        return cls(
            found.st_mode,
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )

    @property
    def is_directory(self) -> bool:
        """Whether it is of a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def permissions(self) -> int:
        """The permission bits."""
        return stat.S_IMODE(self.mode)


def look(place: Path, names: Iterable[str]) -> dict[str, Mark]:
    """All that is in directories of `place`, they included: path below `place` -> mark, parents before
    children.

    Raises:
        InputError: a name is not text.
        StorageError: it cannot be looked at; something may have vanished in between.
    """
    found: dict[str, Mark] = {}
    for name in names:
        path = f"{place}/{name}"
        try:
            found[name] = Mark.of(os.lstat(path))
        except OSError as error:
            raise storage_error(error, f"look at {path}", place=path) from error
        if found[name].is_directory:
            _look(path, f"{name}/", found)
    return found


def _look(path: str, prefix: str, found: dict[str, Mark]) -> None:
    try:
        with os.scandir(path) as there:
            entries = sorted(
                (entry.name, Mark.of(entry.stat(follow_symlinks=False))) for entry in there
            )
    except OSError as error:
        raise storage_error(error, f"list {path}", place=path) from error
    for name, mark in entries:
        found[checked_name(prefix + name, f"{path}/{name}")] = mark
        if mark.is_directory:
            _look(f"{path}/{name}", f"{prefix}{name}/", found)


class Trust:
    """Which marks may be trusted, as of now.

    Args:
        clock: a file of ours on the same file system; its time is set.
        place: the directory that the marks' names are below.
    """

    def __init__(self, clock: Path, place: Path) -> None:
        try:
            os.utime(clock)
            self.now = os.stat(clock).st_mtime_ns
        except OSError as error:
            raise storage_error(error, f"ask for the time at {clock}", place=str(clock)) from error
        self._place = os.path.realpath(place)
        self._mapped: Container[bytes] | None = None

    def __call__(self, name: str, mark: Mark) -> bool:
        """Whether the mark will be another one after the next write."""
        return mark.written < self.now - RACY and not self._is_mapped(name, mark)

    def _is_mapped(self, name: str, mark: Mark) -> bool:
        path = os.fsencode(f"{self._place}/{name}").replace(b"\n", rb"\012")
        return self._mapped is None or path in self._mapped or b"%d" % mark.inode in self._mapped

    def look_at_mappings(self) -> None:
        """Find what is mapped for writing; until then nothing is trusted. Where there is no `/proc`
        nothing ever is."""
        mapped: set[bytes] = set()
        with contextlib.suppress(OSError), open("/proc/self/maps", "rb") as maps:
            for line in maps:
                fields = line.rstrip(b"\n").split(None, 5)
                if len(fields) == 6 and fields[1][1:2] == b"w" and fields[1][3:4] == b"s":
                    mapped.update((fields[4], fields[5]))  # overlays have other inodes there
            self._mapped = mapped


class Copies:
    """Copies of files that are read later, when the files themselves may be others.

    Args:
        folder: an empty directory for those that are not small, on the same file system.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, Item] = {}
        self._files: dict[str, Path] = {}
        self._size = 0

    def add(self, name: str, path: str, mark: Mark) -> None:
        """Copy a file.

        Raises:
            InputError: it is no file, or changed meanwhile.
            StorageError: it cannot be read, or its copy not be written.
        """
        small = mark.size <= _SMALL and self._size + mark.size <= IN_MEMORY
        if small or not stat.S_ISREG(mark.mode):  # what is no file is refused there
            (self._held[name],) = from_path(Path(path))
            self._size += mark.size
            return
        copy = self._folder / f"{len(self._files)}"
        try:
            _copy(path, copy)
        except OSError as error:
            raise storage_error(error, f"copy {path}", place=str(self._folder)) from error
        self._files[name] = copy

    def item(self, name: str) -> Item | None:
        """What was copied of a file; None when it was not."""
        if name in self._files:
            (item,) = from_path(self._files[name])
            return item
        return self._held.get(name)


def _copy(path: str, copy: Path) -> None:
    """Without a copy of the bytes, where the file system can share them."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as source, open(copy, "xb", buffering=0) as target:
        try:
            fcntl.ioctl(target, _FICLONE, source.fileno())
        except OSError:
            shutil.copyfileobj(source, target, _SMALL)

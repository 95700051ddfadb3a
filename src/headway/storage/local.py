"""A home on a POSIX filesystem.

WRITE ORDER. A file is created under a temporary name, written, fsynced, linked to its own name (`link`
fails when that exists), and the directory is fsynced: visible means whole, returned means durable. A
log is created zero-filled, so that an append changes no metadata and is one `pwrite` and one
`fdatasync`. Directories are made from the top down, each fsynced into its parent; a directory that
somebody else made is fsynced too before it is relied on, for its maker may have been killed between
the two. An fsync that fails is never tried again: the kernel may have dropped the pages and would
report success.

Limits. `has` and `link` must be coherent between all processes that share the home: true on one
machine; a network filesystem needs its lookup cache off. Disks that lie about flushes cannot be helped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from headway.model.errors import InputError, StorageUnavailable
from headway.ports import LARGEST_LOG, READERS, KeyExists, KeyMissing, LogWriter, PackWriter, unseen
from headway.storage import ranges
from headway.storage.faults import storage_error
from headway.storage.packs import LocalPack, recycle
from headway.storage.posix import faults, sync_directory, write_all

_HIDDEN = ".tmp-"
_NOT_A_NAME = {"", ".", ".."}
_Kept = list[int]


def _regular(path: str, flags: int) -> int:
    """Open a file to read it. A pipe that somebody put in its place would wait for ever, and a device
    never end."""
    fd = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return fd


class LocalStorage:
    """`headway.ports.Storage` on a directory.

    Args:
        root: the home.
        marker: name of a file that a home has. When given, absence below the home counts as proven,
            and directories are made, only while the marker is there: an unmounted disk looks empty.
    """

    def __init__(self, root: Path, *, marker: str | None = None) -> None:
        self._root = root
        self._url = str(root)
        self._marker = marker
        self._durable: set[Path] = set()
        self._packs: set[str] = set()  # made here: only their space may be written over
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The home's absolute path."""
        return self._url

    @property
    def trusted(self) -> bool:
        """Whether the home belongs to this user and nobody else can write into it."""
        with faults(f"look at {self._root}"):
            found = self._root.stat()
        return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)

    @property
    def remote(self) -> bool:
        """See `Storage.remote`."""
        return False

    def path(self, key: str) -> Path:
        """Where `key` is on this machine."""
        return Path(self._place(key))

    def _place(self, key: str) -> str:
        if not _NOT_A_NAME.isdisjoint(key.split("/")) or "\0" in key:
            raise InputError(f"{key!r} is not a key: it needs names separated by single slashes")
        return f"{self._url}/{key}"

    def create(self, key: str, data: bytes) -> None:
        """See `Storage.create`."""
        with self._born(key) as (fd, _):
            write_all(fd, data, 0)

    def create_log(self, key: str, head: bytes, room: int) -> LogWriter:
        """See `Storage.create_log`."""
        with self._born(key) as (fd, keep):
            write_all(fd, head + bytes(room), 0)
            keep.append(os.dup(fd))
        return _LocalLog(keep[0], key, len(head), room)

    def create_pack(self, key: str, *, size: int = 0, reuse: str | None = None) -> PackWriter:
        """See `Storage.create_pack`."""
        path = self.path(key)
        with faults(f"create {key} in {self._root}"):
            self._make_directory(path.parent)
            ours = reuse is not None and reuse in self._packs
            recycled = recycle(self.path(reuse), path) if reuse is not None and ours else None
            new = os.O_CREAT | os.O_EXCL if recycled is None else 0
            try:
                fd = os.open(path, new | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                raise KeyExists(f"{key} exists already in {self._root}") from None
        with self._lock:
            self._packs.discard(reuse or "")
            self._packs.add(key)
        if reuse is not None and not ours:  # another writer's, who may be writing there still
            self.delete(reuse)
        return LocalPack(fd, path, key, size, recycled or 0)

    def settle(self, key: str, offset: int, data: bytes) -> None:
        """Write the same bytes once more and flush them: a page whose write-back failed earlier is
        clean in the kernel's eyes. A flush alone would not write it, and once it is evicted a reader
        gets what the disk had before; so the bytes come from the caller, who checked them."""
        with faults(f"make {key} durable in {self._root}"):
            fd = os.open(self.path(key), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                write_all(fd, data, offset)
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def read(self, key: str) -> bytes:
        """See `Storage.read`."""
        with self._absence(key), open(self.path(key), "rb", opener=_regular) as file:
            return file.read()

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """See `Storage.read_range`."""
        with self._absence(key), open(self.path(key), "rb", buffering=0, opener=_regular) as file:
            pieces = []
            while length > 0 and (piece := os.pread(file.fileno(), length, offset)):
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(
        self, key: str, offset: int, into: memoryview, seen: Callable[[int], None] = unseen
    ) -> int:
        """See `Storage.read_into`."""
        with self._absence(key), open(self.path(key), "rb", buffering=0, opener=_regular) as file:
            return ranges.read_into(file.fileno(), offset, into.cast("B"), seen)

    def readers(self, key: str) -> int:
        """See `Storage.readers`: what the page cache has is copied, by as many threads as processors."""
        with contextlib.suppress(OSError), open(self.path(key), "rb", opener=_regular) as file:
            if ranges.cached(file.fileno(), 0, os.fstat(file.fileno()).st_size):
                return min(READERS, len(os.sched_getaffinity(0)))
        return READERS

    def read_log(self, key: str) -> bytes:
        """See `Storage.read_log`."""
        with self._absence(key), open(self.path(key), "rb", opener=_regular) as file:
            return file.read(min(os.fstat(file.fileno()).st_size, LARGEST_LOG + 1))

    def room(self) -> int | None:
        """See `Storage.room`: what the filesystem leaves to this user."""
        with faults(f"look at {self._root}"):
            found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def list(self, prefix: str) -> list[str]:
        """See `Storage.list`."""
        try:
            with self._absence(prefix):
                names = os.listdir(self.path(prefix) if prefix else self._root)
        except KeyMissing:
            return []
        return sorted(name for name in names if not name.startswith(_HIDDEN))

    def has(self, key: str) -> bool:
        """See `Storage.has`."""
        try:  # once per append: no context managers, no Path objects
            os.stat(self._place(key))
        except FileNotFoundError:
            self._prove_home()
            return False
        except OSError as error:
            raise storage_error(error, f"look for {key} in {self._root}") from error
        return True

    def delete(self, prefix: str) -> None:
        """A file goes in one step. A directory is hidden in one step, then removed: a kill in between
        leaves no half."""
        path = self.path(prefix)
        with faults(f"delete {prefix} in {self._root}"):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            except (IsADirectoryError, PermissionError):
                pass  # POSIX lets a system say either of a directory
            else:
                with self._lock:
                    self._packs.discard(prefix)
                sync_directory(path.parent)
                return
            hidden = path.parent / f"{_HIDDEN}deleted-{secrets.token_hex(8)}"
            try:
                path.rename(hidden)
            except FileNotFoundError:
                return
            with self._lock:
                self._durable = {p for p in self._durable if p != path and path not in p.parents}
                self._packs = {p for p in self._packs if not p.startswith(f"{prefix}/")}
            sync_directory(path.parent)
            shutil.rmtree(hidden)

    @contextlib.contextmanager
    def _born(self, key: str) -> Iterator[tuple[int, _Kept]]:
        """A new file: fill it in the block; afterwards it is there, whole and durable.

        The list takes duplicates of the descriptor that shall stay open when all went well.
        """
        path = self.path(key)
        keep: _Kept = []
        born = False
        with faults(f"create {key} in {self._root}"):
            self._make_directory(path.parent)
            temporary = path.parent / f"{_HIDDEN}{secrets.token_hex(8)}"
            fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
            try:
                yield fd, keep
                os.fsync(fd)
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    raise KeyExists(f"{key} exists already in {self._root}") from None
                sync_directory(path.parent)
                born = True
            finally:
                with contextlib.suppress(OSError):  # all is flushed, or has failed already
                    os.close(fd)
                with contextlib.suppress(OSError):  # a leftover name is hidden and harmless
                    temporary.unlink()
                if not born:
                    for descriptor in keep:
                        os.close(descriptor)

    def _make_directory(self, directory: Path) -> None:
        """Make `directory` and all between it and the root, each durable in its parent."""
        if directory in self._durable and directory.is_dir():
            return
        self._prove_home()
        missing = [directory, *directory.parents]
        chain = list(reversed(missing[: missing.index(self._root)]))
        for step in chain:
            if step in self._durable and step.is_dir():
                continue
            with contextlib.suppress(FileExistsError):
                step.mkdir(mode=0o755)
            sync_directory(step.parent)
            with self._lock:
                self._durable.add(step)

    @contextlib.contextmanager
    def _absence(self, key: str) -> Iterator[None]:
        """Turn "no such file" into `KeyMissing`, once it is sure that the home itself is there."""
        with faults(f"read {key} in {self._root}"):
            try:
                yield
            except FileNotFoundError:
                self._prove_home()
                raise KeyMissing(f"there is no {key} in {self._root}") from None

    def _prove_home(self) -> None:
        if self._marker is not None and not os.path.exists(f"{self._url}/{self._marker}"):
            raise StorageUnavailable(
                f"the home {self._root} is not there: {self._marker} is missing from it. "
                "Is the disk mounted? Name another home with --home or HEADWAY_HOME."
            )


class _LocalLog:
    """A zero-filled file that is written from front to back."""

    def __init__(self, fd: int, key: str, position: int, room: int) -> None:
        self._fd = fd
        self._key = key
        self._position = position
        self._room = room

    @property
    def room(self) -> int:
        return self._room

    def append(self, data: bytes) -> None:
        if len(data) > self._room:
            raise ValueError(f"{len(data)} bytes do not fit into the {self._room} left in a log")
        try:
            write_all(self._fd, data, self._position)
            os.fdatasync(self._fd)
        except BaseException as error:
            self.close()  # final, as in `_final`
            if isinstance(error, OSError):
                raise storage_error(error, f"write {self._key}") from error
            raise
        self._position += len(data)
        self._room -= len(data)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # every append was flushed: nothing can be lost here
                os.close(fd)

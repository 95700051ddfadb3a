"""Files and directories in the home, and copies of them below a scratch directory.

A file is its name, its permission bits and its bytes. A directory is a manifest (one entry for each
directory and file below it, in the order of their names) and one blob: the bytes of its files, one
after the other. So 10,000 small files cost one durable write, and nothing is ever held whole in memory.

Coming back, names are checked: nothing is written outside the directory that was made for the copy.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from headway.engine.blobs import PIECE, Blob, Blobs
from headway.model.errors import CheckpointCorrupt, HeadwayError, InputError

INLINE = 32 << 10
"""Bytes up to which content is kept inside the value instead of in a blob."""

# What a tree that no encoder made comes to: absent keys, other types.
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
_MODES = 0o777  # set-uid, set-gid and sticky bits stay behind


def is_content(path: Path) -> bool:
    """Whether `path` names a regular file or a directory now."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a NUL in the path names nothing
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def store(path: Path, blobs: Blobs, where: str, *, only: str | None = None) -> dict[str, Any]:
    """Keep the file or directory at `path`.

    Args:
        where: what it is for, in messages.
        only: "file" or "directory" when it must be that; None takes either.

    Returns:
        The plain tree that `fetch` reads, its kind under "$". Symlinks are followed at `path`
        itself, which the caller named, and refused below it.

    Raises:
        InputError: `path` is missing, unreadable or of another kind, holds a symlink or a special
            file, or changes meanwhile.
        StorageError: the home could not be written.
    """
    with _readable(where):
        status = path.stat()
    mode = status.st_mode
    kind = "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "special file"
    if kind != (only or kind) or kind == "special file":
        wanted = only or "file or directory"
        raise InputError(f"{where}: {str(path)!r} is a {kind}, and a {wanted} is needed")
    plain: dict[str, Any] = {
        "$": kind,
        "name": os.fsencode(path.name or path.resolve().name or "root"),
        "mode": mode & _MODES,
    }
    if kind == "file":
        return {**plain, **_keep([path], status.st_size, blobs, where, path)}
    entries = list(_walk(path, where))
    files = [path / os.fsdecode(name) for name, _, size in entries if size is not None]
    total = sum(size or 0 for _, _, size in entries)
    return {**plain, "entries": entries, **_keep(files, total, blobs, where, path)}


def stored_name(plain: dict[str, Any]) -> str:
    """The name that `plain` restores to.

    Raises:
        CheckpointCorrupt: it is no single name.
    """
    name = plain.get("name")
    if not isinstance(name, bytes) or name in {b"", b".", b".."} or b"/" in name or b"\0" in name:
        raise CheckpointCorrupt(f"a stored file has the name {name!r}, which is not a file's name")
    return os.fsdecode(name)


def fetch(plain: dict[str, Any], blobs: Blobs, directory: Path) -> Path:
    """Make a copy of what `store` kept, directly below `directory` (new and empty).

    Raises:
        CheckpointCorrupt: the content is damaged or missing, or would leave `directory`.
        StorageError: the home could not be read.
        OSError: the copy could not be written.
    """
    target = directory / stored_name(plain)
    source = _Source(_content(plain, blobs))
    if plain["$"] == "file":
        _write_file(target, plain["mode"], source, None)
    else:
        target.mkdir(mode=0o700)
        made: list[tuple[Path, int]] = [(target, plain["mode"])]
        known = {b""}
        for relative, mode, size in plain["entries"]:
            path = target / _below(relative, known)
            if size is None:
                path.mkdir(mode=0o700)
                made.append((path, mode))
                known.add(relative)
            else:
                _write_file(path, mode, source, size)
        for path, mode in reversed(made):  # last, for a directory may be read-only
            path.chmod(mode & _MODES)
    source.finish()
    return target


class Scratch:
    """Where copies are made: a directory that goes when the process ends, or at `close`.

    Args:
        base: an existing directory to make it in; None is the system's place for such.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._base = base
        self._root: Path | None = None
        self._lock = threading.Lock()

    def copy(self, plain: dict[str, Any], blobs: Blobs) -> Path:
        """A fresh copy of what `store` kept; raises what `fetch` raises, and then leaves nothing."""
        directory = self._fresh()
        try:
            return fetch(plain, blobs, directory)
        except BaseException as error:
            _remove(directory, os.getpid())
            if isinstance(error, _UNREADABLE) and not isinstance(error, HeadwayError):
                why = f"{type(error).__name__}: {str(error)[:200]}"
                raise CheckpointCorrupt(f"a stored file cannot be read: {why}") from error
            raise

    def _fresh(self) -> Path:
        with self._lock:
            if self._root is None:
                self._root = Path(tempfile.mkdtemp(prefix="headway-", dir=self._base))
                owner = os.getpid()
                atexit.register(_remove, self._root, owner)
            return Path(tempfile.mkdtemp(prefix="", dir=self._root))

    def close(self) -> None:
        """Remove all copies. Never raises."""
        with self._lock:
            root, self._root = self._root, None
        if root is not None:
            _remove(root, os.getpid())


def _remove(root: Path, owner: int) -> None:
    if os.getpid() != owner:  # a forked child must not take its parent's files away
        return
    for directory, _, _ in os.walk(root):
        with contextlib.suppress(OSError):  # read-only directories of the user keep their entries
            os.chmod(directory, 0o700)
    shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{where}: cannot read {error.filename!r}: {error.strerror}") from error


def _walk(root: Path, where: str) -> Iterator[list[Any]]:
    """`[relative name, mode, size]` of everything below `root`, parents first; directories have no
    size."""
    waiting = [b""]
    while waiting:
        parent = waiting.pop()
        with _readable(where), os.scandir(os.path.join(os.fsencode(root), parent)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            relative = parent + b"/" + entry.name if parent else entry.name
            with _readable(where):
                status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield [relative, status.st_mode & _MODES, status.st_size]
            elif stat.S_ISDIR(status.st_mode):
                yield [relative, status.st_mode & _MODES, None]
                waiting.append(relative)
            else:
                kind = "symlink" if stat.S_ISLNK(status.st_mode) else "special file"
                raise InputError(
                    f"{where}: {os.fsdecode(entry.path)!r} is a {kind}; only regular files and "
                    "directories can be kept. Copy what it stands for, or leave it out."
                )


def _keep(paths: list[Path], size: int, blobs: Blobs, where: str, what: Path) -> dict[str, Any]:
    """Keep the bytes of `paths`, one after the other, `size` in all."""
    if size <= INLINE:
        data = b"".join(_bytes_of(paths, where))
        kept: dict[str, Any] = {"data": data}
        found = len(data)
    else:
        name = f"{where}: {str(what)!r}"
        blob = blobs.put_stream(lambda: _joined(_bytes_of(paths, where)), name)
        kept, found = {"blob": blob.digest, "size": blob.size}, blob.size
    if found != size:
        raise InputError(f"{where}: {str(what)!r} changed while it was being stored")
    return kept


def _bytes_of(paths: list[Path], where: str) -> Iterator[bytes]:
    for path in paths:
        with _readable(where), open(path, "rb", buffering=0) as file:
            while piece := file.read(PIECE):
                yield piece


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of at least `PIECE / 8`, so that small files do not cost a write each."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= PIECE // 8:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _content(plain: dict[str, Any], blobs: Blobs) -> Iterator[bytes]:
    if "data" in plain:
        return iter([plain["data"]])
    return blobs.pieces(Blob(plain["blob"], plain["size"]))


def _below(relative: Any, known: set[bytes]) -> str:
    """`relative` as text, once it is sure to lead to a new name in a directory made before."""
    parent, _, name = relative.rpartition(b"/")
    if name in {b"", b".", b".."} or b"\0" in name or parent not in known or relative[:1] == b"/":
        raise CheckpointCorrupt(f"a stored directory has an entry {relative!r}, which leaves it")
    return os.fsdecode(relative)


class _Source:
    """The content, in pieces of the lengths asked for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def take(self, size: int | None) -> Iterator[memoryview]:
        """The next `size` bytes; None is all that is left."""
        while size is None or size > 0:
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    if size is not None:
                        raise CheckpointCorrupt("a stored directory is shorter than its manifest")
                    return
                self._rest = memoryview(piece)
            part = self._rest[:size]
            self._rest = self._rest[len(part) :]
            size = None if size is None else size - len(part)
            yield part

    def finish(self) -> None:
        """Nothing may be left; reading to the end is also what verifies a blob."""
        if any(len(part) for part in self.take(None)):
            raise CheckpointCorrupt("a stored directory is longer than its manifest")


def _write_file(path: Path, mode: int, source: _Source, size: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with io.FileIO(os.open(path, flags, 0o600), "wb") as file:
        for part in source.take(size):
            _write_all(file, part)
        os.fchmod(file.fileno(), mode & _MODES)


def _write_all(file: io.FileIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]

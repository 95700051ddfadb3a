"""What a `save` was given, as a stream of named files and directories."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headway.checkpoint.state import Part
from headway.model.errors import InputError
from headway.storage.faults import storage_error

PIECE = 1 << 20  # bytes read at once, and the size of a chunk
LARGE_FILE = 8 << 20
"""Bytes from which on a file is read by several threads."""
READER_NAME = "data"  # the file that `write(bytes)` and `save(reader)` make


class BinaryReader(Protocol):
    """What `open(path, "rb")` and `io.BytesIO` have."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        ...


class Whole:
    """A large file that is read piece by piece, in any order and from several threads.

    Args:
        path: for messages.
        fd: the file; it belongs to this object.
        found: what `fstat` said of it.
    """

    def __init__(self, path: str, fd: int, found: os.stat_result) -> None:
        self.size = found.st_size
        self._path = path
        self._fd = fd
        self._found = found

    def read_into(self, offset: int, into: memoryview) -> None:
        """Fill memory from the file.

        Raises:
            InputError: it became shorter.
        """
        done = 0
        try:
            while done < len(into) and (got := os.preadv(self._fd, [into[done:]], offset + done)):
                done += got
        except OSError as error:
            raise storage_error(error, f"read {self._path}", place=self._path) from error
        if done < len(into):
            raise _changed(self._path)

    def close(self) -> None:
        """Call it once, in the end.

        Raises:
            InputError: the file changed meanwhile.
        """
        try:
            after = os.fstat(self._fd)
        finally:
            _close(self._fd)
        if (after.st_size, after.st_mtime_ns) != (self.size, self._found.st_mtime_ns):
            raise _changed(self._path)


@dataclass(frozen=True, slots=True)
class Item:
    """A file or directory to save; `pieces` of a file can be walked once, and have to be. A large file
    comes as `whole`, and has no pieces."""

    name: str
    kind: str
    mode: int
    pieces: Iterable[bytes | memoryview]
    whole: Whole | None = None


def from_bytes(data: bytes | bytearray | memoryview) -> Iterator[Item]:
    """One file with `data`."""
    view = memoryview(data).cast("B")
    pieces = (view[at : at + PIECE] for at in range(0, len(view), PIECE))
    yield Item(READER_NAME, "file", 0o644, pieces)


def from_reader(reader: BinaryReader) -> Iterator[Item]:
    """One file with everything that `reader` still has, read piece by piece."""
    yield Item(READER_NAME, "file", 0o644, _read_all(reader))


def from_parts(parts: Iterable[Part]) -> Iterator[Item]:
    """The raw memory of a state's arrays and tensors."""
    for part in parts:
        view = part.data
        pieces = (view[at : at + PIECE] for at in range(0, len(view), PIECE))
        yield Item(part.name, "part", 0, pieces)


def from_path(path: Path) -> Iterator[Item]:
    """A file under its own name, or what is in a directory, all of it, in sorted order."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise InputError(f"save() was given {str(path)!r}, which does not exist") from None
    except OSError as error:
        raise storage_error(error, f"look at {path}", place=str(path)) from error
    if stat.S_ISDIR(found.st_mode):
        return _directory(str(path), "")
    return (_file(str(path), path.name) for _ in range(1))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a directory; what cannot be looked at is left out."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    size = 0
    for base, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):  # it is for an estimate; the save itself will tell
                size += os.lstat(f"{base}/{name}").st_size
    return size


def _directory(path: str, prefix: str) -> Iterator[Item]:
    """Strings, and no system call that is not needed: there may be a million files."""
    try:
        with os.scandir(path) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    except OSError as error:
        raise storage_error(error, f"list {path}", place=path) from error
    for name, is_directory in entries:
        inner = f"{path}/{name}"
        if is_directory:
            mode = stat.S_IMODE(os.lstat(inner).st_mode)
            yield Item(checked_name(prefix + name, inner), "directory", mode, ())
            yield from _directory(inner, f"{prefix}{name}/")
        else:
            yield _file(inner, prefix + name)


def _file(path: str, name: str) -> Item:
    checked_name(name, path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _not_a_file(path) or storage_error(error, f"read {path}", place=path) from error
    try:
        found = os.fstat(fd)
        mode, size = stat.S_IMODE(found.st_mode), found.st_size
        if not stat.S_ISREG(found.st_mode):
            raise _not_a_file(path) or _changed(path)
        if size >= LARGE_FILE:
            whole = Whole(path, fd, found)
            fd = -1
            return Item(name, "file", mode, (), whole)
        return Item(name, "file", mode, _read_file(path, fd, found))
    except OSError as error:
        raise storage_error(error, f"read {path}", place=path) from error
    finally:
        if fd >= 0:
            _close(fd)


def _not_a_file(path: str) -> InputError | None:
    """Why what is there cannot be saved; None when it is a file."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISLNK(mode):
        return InputError(
            f"{path} is a symbolic link, and a checkpoint holds only files and directories. "
            "Save what it points to: save(path.resolve())."
        )
    if not stat.S_ISREG(mode):
        return InputError(f"{path} is not a regular file or a directory, so it cannot be saved")
    return None


def checked_name(name: str, path: str) -> str:
    """The name of a file or directory at `path`.

    Raises:
        InputError: it is not text.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"the name of {Path(path)!r} is not valid UTF-8, so it cannot be put back everywhere. "
            "Rename it."
        ) from None
    return name


def _read_file(path: str, fd: int, found: os.stat_result) -> list[bytes]:
    """The pieces of a file that is not large."""
    size, pieces = 0, []
    while size <= found.st_size:  # one byte more than there should be: it may have grown
        piece = os.read(fd, min(PIECE, found.st_size + 1 - size))
        if not piece:
            break
        size += len(piece)
        pieces.append(piece)
        if size == found.st_size and len(piece) < PIECE:
            break  # fewer than were asked for: the end
    if size != found.st_size or os.fstat(fd).st_mtime_ns != found.st_mtime_ns:
        raise _changed(path)
    return pieces


def _changed(path: str) -> InputError:
    return InputError(
        f"{path} changed while it was being saved. Close it before save(), or write it under "
        "another name and rename it when it is whole."
    )


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):  # it was only read, and all of it: nothing can be lost
        os.close(fd)


def _read_all(reader: BinaryReader) -> Iterator[bytes]:
    buffer = b""
    while True:
        piece = reader.read(PIECE)
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise InputError(
                f"save() needs a reader of bytes, and this one gave {type(piece).__name__}: "
                'open the file with mode "rb"'
            )
        buffer += piece
        while len(buffer) >= PIECE:
            yield buffer[:PIECE]
            buffer = buffer[PIECE:]
        if not piece:
            break
    if buffer:
        yield buffer

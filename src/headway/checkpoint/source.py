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
READER_NAME = "data"  # the file that `write(bytes)` and `save(reader)` make


class BinaryReader(Protocol):
    """What `open(path, "rb")` and `io.BytesIO` have."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """A file or directory to save; `pieces` of a file can be walked once."""

    name: str
    kind: str
    mode: int
    pieces: Iterator[bytes | memoryview]


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
        return _directory(path, "")
    return iter([_file(path, path.name)])


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


def _directory(path: Path, prefix: str) -> Iterator[Item]:
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise storage_error(error, f"list {path}", place=str(path)) from error
    for name in names:
        inner = path / name
        if inner.is_dir() and not inner.is_symlink():
            mode = stat.S_IMODE(inner.lstat().st_mode)
            yield Item(_checked(prefix + name, inner), "directory", mode, iter(()))
            yield from _directory(inner, f"{prefix}{name}/")
        else:
            yield _file(inner, prefix + name)


def _file(path: Path, name: str) -> Item:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise InputError(
            f"{path} is a symbolic link, and a checkpoint holds only files and directories. "
            "Save what it points to: save(path.resolve())."
        )
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is not a regular file or a directory, so it cannot be saved")
    return Item(_checked(name, path), "file", stat.S_IMODE(found.st_mode), _read_file(path))


def _checked(name: str, path: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"the name of {path!r} is not valid UTF-8, so it cannot be put back everywhere. Rename it."
        ) from None
    return name


def _read_file(path: Path) -> Iterator[bytes]:
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(_close, fd)
            before = os.fstat(fd)
            size = 0
            while piece := os.read(fd, PIECE):
                while len(piece) < PIECE and (more := os.read(fd, PIECE - len(piece))):
                    piece += more
                size += len(piece)
                yield piece
            after = os.fstat(fd)
        except OSError as error:
            raise storage_error(error, f"read {path}", place=str(path)) from error
        if size != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
            raise InputError(
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

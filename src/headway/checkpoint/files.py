"""Saving bytes, files and directories: read to their end while the body waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from headway.checkpoint.save import INLINE, Content, known_chunks
from headway.checkpoint.several import Directories
from headway.checkpoint.source import (
    READER_NAME,
    BinaryReader,
    Item,
    from_bytes,
    from_path,
    from_reader,
    size_of,
)
from headway.checkpoint.turn import Turn
from headway.checkpoint.working import Working
from headway.model.errors import InputError
from headway.model.manifest import Entry


@dataclass(frozen=True, slots=True)
class Given:
    """What is to be saved.

    Attributes:
        items: reads it.
        kind: as in a `Manifest`.
        size: bytes of it, as far as that can be told before.
    """

    items: Callable[[], Iterable[Item]]
    kind: str
    size: Callable[[], int]


def given(source: str | os.PathLike[str] | BinaryReader | Directories) -> Given:
    """What `Checkpoint.save` was given, other than state.

    Raises:
        InputError: it is nothing that can be saved.
    """
    if isinstance(source, Directories):
        return Given(source.items, "directory", lambda: source.size)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        kind = "directory" if path.is_dir() else "file"
        return Given(lambda: from_path(path), kind, lambda: size_of(path))
    if isinstance(source, bytes | bytearray | memoryview):
        raise InputError("save() takes a path or a reader; for bytes use write(data)")
    if callable(getattr(source, "read", None)):
        reader = source
        return Given(lambda: from_reader(reader), "bytes", lambda: 0)
    raise InputError(
        "save() takes a path, a directory, a binary reader or a mapping, and got "
        f"{type(source).__name__}"
    )


def given_bytes(data: bytes | bytearray | memoryview) -> memoryview:
    """What `Checkpoint.write` was given.

    Raises:
        InputError: it is not bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        hint = ": write(text.encode())" if isinstance(data, str) else ""
        raise InputError(f"write() takes bytes, and got {type(data).__name__}{hint}")
    return memoryview(data).cast("B")


class FileSaves:
    """The saves of bytes and files of one attempt. Guarded by the lock that guards the turn.

    Args:
        turn: the attempt's turn.
        working: its working directories.
    """

    def __init__(self, turn: Turn, working: Working) -> None:
        self._turn = turn
        self._working = working

    def write(self, view: memoryview) -> int:
        """Save bytes; the checkpoint's number."""
        if len(view) > INLINE:
            return self.save(Given(lambda: from_bytes(view), "bytes", lambda: len(view)))
        turn = self._turn  # the common case, without the machinery for what is large
        turn.opened()
        began = time.monotonic()
        beside = self._working.snapshot(turn, copy=False)()
        entry = Entry(READER_NAME, "file", 0o644, len(view), bytes(view))
        return turn.commit(began, "bytes", len(view), (entry,), beside=beside).number

    def save(self, source: Given) -> int:
        """Save files; the checkpoint's number."""
        turn = self._turn
        turn.opened()
        began = time.monotonic()
        turn.require_room(turn.likely(source.size()))
        beside = self._working.snapshot(turn, copy=False)()
        known = {} if turn.good is None else known_chunks(turn.good)
        made = Content(turn.storage, turn.new_pack, known, turn.spare_pack)
        try:
            made.add(source.items())
            entries, packs = made.finish()
        except BaseException:
            made.abort()
            raise
        return turn.commit(began, source.kind, made.size, entries, packs, beside=beside).number

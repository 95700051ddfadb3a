"""Working directories: what `Checkpoint.directory` gives, filled from a checkpoint and saved with the next.

D1 What a checkpoint has of them is in its one record, beside what was saved. There is no instant at which
   one of the two is there without the other, and the content is durable before the record, like any (S1).
D2 They are filled from the checkpoint that the state is loaded from: whatever loads a checkpoint fills them
   first, and one whose directories fail their checks is bad as a whole. When a directory is asked for
   first, all of its checkpoint is verified, so that the state cannot turn out bad after it.
D3 Once the body has a path, its directories are the body's: headway reads them, and writes there no more.
   A load that would go back behind the checkpoint that they come from is an error; the next attempt gets
   both from the older one.
D4 What the newest checkpoint has of directories, the next one has too, whether or not this attempt asked
   for them. So a save before the first `directory` loses nothing.
D5 A checkpoint has them as they were at one moment, while `save` had the body: the look before everything
   is read equals the one after it, or all of it is read again. With `wait=False` what changed is copied
   then, and written later.
D6 A file is not read again only if its mark is what it was when this process last saved or restored it, and
   could be trusted then (`snapshot`); and only chunks of a checkpoint that this process wrote or verified
   are referred to. What is in thin packs is written anew, as for states.
D7 Each attempt has a place of its own, private to the user, and empty before it is filled. It goes with the
   attempt (`private`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from headway.checkpoint.beside import Beside
from headway.checkpoint.fill import Filler, Target, sized
from headway.checkpoint.identity import fits
from headway.checkpoint.private import LOCK, Private, remove
from headway.checkpoint.restore import corrupt
from headway.checkpoint.save import INLINE, Content, KnownChunks, known_chunks
from headway.checkpoint.several import to_directories
from headway.checkpoint.snapshot import Copies, Mark, Trust, look
from headway.checkpoint.source import Item, from_path
from headway.model.errors import CheckpointCorrupt, CheckpointError, InputError, StorageError
from headway.model.manifest import Entry, Manifest
from headway.ports import Storage
from headway.storage.faults import storage_error

if TYPE_CHECKING:
    from headway.checkpoint.turn import Turn

R = TypeVar("R")
TRIES = 8
"""Looks at directories in which something changes, before a save gives up."""
_PAUSE = 0.02  # seconds after the first of them; each is twice as long as the one before
_SMALL = INLINE // 8  # bytes of new content that go into the record, which stays for good
_LONGEST = 200  # bytes of a name
_OLD = 10.0  # seconds before now: the time that restored files bear at most

Written = Callable[[], Beside | None]
"""Makes durable what a checkpoint is to have of the directories; None when there are none."""


def checked_directory(name: str) -> str:
    """The name of a working directory.

    Raises:
        InputError: it is none.
    """
    good = isinstance(name, str) and name not in {"", ".", ".."} and not {"/", "\0"} & {*name}
    if good:
        with contextlib.suppress(UnicodeEncodeError):
            if len(name.encode()) <= _LONGEST:
                return name
    raise InputError(
        f"directory() takes the name of one directory, such as 'crawl', and got {name!r}: no '/' in it, "
        f"not '.' or '..', at most {_LONGEST} bytes"
    )


@dataclass(frozen=True, slots=True)
class _Moment:
    """The directories at one moment.

    Attributes:
        marks: all that was there.
        kept: what is as it was in an older checkpoint, by its entry there.
        trusted: names whose marks can be trusted from here on.
        whole: all of it is as it was there.
    """

    marks: dict[str, Mark]
    kept: dict[str, Entry]
    trusted: set[str]
    whole: bool


class Working:
    """The working directories of one attempt. Guarded by the lock that guards the turn.

    Args:
        parent: where its place is made; None is the system's place for such.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._place: Private | None = None
        self._names: list[str] = []
        self._asked = False  # the body has been given a path
        self._of: int | None = None  # the checkpoint that was loaded, or saved, last
        self._entries: dict[str, Entry] = {}  # of a checkpoint ...
        self._marks: dict[str, Mark] = {}  # ... and of its files that are to be trusted
        self._last: dict[str, Mark] = {}  # all that was there when it was saved

    def paths(self) -> dict[str, Path]:
        """Name -> path of all that there are."""
        return {name: self._at(name) for name in self._names}

    def given(self, name: str) -> Path | None:
        """The path that the body was given for a name."""
        return self._at(name) if self._asked and name in self._names else None

    def path(self, turn: Turn, name: str) -> Path:
        """See `Checkpoint.directory`."""
        if not self._asked:
            turn.load(lambda manifest: _prove(turn, manifest))  # D2; fills them, by way of `follow`
            self._of = self._of or 0
            self._asked = True
        if name not in self._names:
            path = self._at(name)
            try:
                path.mkdir(parents=True)
            except OSError as error:
                raise storage_error(error, f"make {path}", place=str(path)) from error
            self._names.append(name)
        return self._at(name)

    # Filling

    def allow(self, manifest: Manifest) -> None:
        """Refuse to load a checkpoint older than the directories that the body has (D3).

        Raises:
            CheckpointCorrupt: it is, because the one that they belong to is damaged.
        """
        if self._asked and self._of is not None and manifest.number < self._of:
            raise CheckpointCorrupt(
                f"checkpoint {self._of} turned out damaged after this attempt had its working directories "
                f"({', '.join(self._names)}), which do not go with checkpoint {manifest.number} before it. "
                "End this attempt: the next one goes on with both from there."
            )

    def follow(self, storage: Storage, packs: str, manifest: Manifest) -> None:
        """A checkpoint is about to be loaded: make the directories what it has of them (D2).

        Raises:
            CheckpointCorrupt, StorageError: as for `to_directory`.
        """
        if self._asked or manifest.number == self._of:
            return
        self.close()
        if manifest.beside:
            try:
                self._fill(storage, packs, manifest)
            except BaseException:
                self.close()
                raise
        self._of = manifest.number

    def _fill(self, storage: Storage, packs: str, manifest: Manifest) -> None:
        tops = {entry.name: entry for entry in manifest.beside if "/" not in entry.name}
        for entry in tops.values():
            if entry.kind != "directory":
                raise corrupt(manifest, entry, "it is no directory")

        def choose(names: Sequence[str]) -> dict[str, Path]:
            return {name: self._at(name) for name in names}

        to_directories(storage, packs, manifest.only(manifest.beside), choose)
        self._names = list(tops)
        self._entries = {entry.name: entry for entry in manifest.beside if entry.kind == "file"}
        now = time.time()
        when = manifest.time if 0 < manifest.time < now - _OLD else now - _OLD
        for name in self._entries:  # no write from now on leaves such a time
            path = self._at(name)
            with contextlib.suppress(OSError):  # in a directory that nobody may enter
                os.utime(path, (when, when))
                self._marks[name] = Mark.of(os.lstat(path))
        for name, entry in tops.items():
            os.chmod(self._at(name), entry.mode & 0o777)

    # Saving

    def snapshot(self, turn: Turn, *, copy: bool) -> Written:
        """What a save has to do for the directories, before its record is made.

        Args:
            turn: the attempt's, opened.
            copy: it is called when the body goes on already, so they are read now.

        Raises:
            InputError: something changes all the time, or is no file and no directory.
            CheckpointCorrupt, StorageError: they could not be read, or not be carried on (D4).
        """
        newest = turn.latest
        if self._of is None and newest is not None and newest.beside:
            turn.load(lambda manifest: _prove(turn, manifest))  # D4
        if not self._names:
            return lambda: None
        if not copy:
            return lambda: self._settled(lambda moment: self._written(turn, moment, None))
        folder = self._root() / "copies"
        remove(folder)  # of a save that was interrupted
        thin = turn.thin()

        def taken(moment: _Moment) -> Written:
            remove(folder)
            folder.mkdir()
            copies = Copies(folder)
            chunks = _chunks(turn, thin)
            for name, mark in moment.marks.items():
                old = moment.kept.get(name)
                known = old is not None and all((c.hash, c.length) in chunks for c in old.chunks)
                if not mark.is_directory and not known:
                    copies.add(name, str(self._at(name)), mark)

            def written() -> Beside:
                try:
                    return self._written(turn, moment, copies, thin)
                finally:
                    remove(folder)

            return written

        return self._settled(taken)

    def _settled(self, read: Callable[[_Moment], R]) -> R:
        """What `read` makes of a moment, once nothing changed while it did (D5)."""
        for number in range(TRIES):
            before = self._look()
            try:
                found = read(before)
                if before.whole or self._is_still(before):
                    return found
            except (InputError, StorageError):
                if self._is_still(before):
                    raise
            time.sleep(_PAUSE * 2**number)
        raise InputError(
            f"the working directories ({', '.join(self._names)}) changed all the time while they were "
            "being saved. Hold what writes there (threads, other processes) while save() runs."
        )

    def _is_still(self, before: _Moment) -> bool:
        try:
            return look(self._at(), self._names) == before.marks
        except (InputError, StorageError):
            return False

    def _look(self) -> _Moment:
        for name, path in self.paths().items():
            if path.is_symlink() or not path.is_dir():
                raise InputError(
                    f"{path}, which directory({name!r}) gave, is no directory any more. Leave it in place, "
                    "and remove what is in it instead."
                )
        trust = Trust(self._root() / LOCK, self._at())
        marks = look(self._at(), self._names)
        files = {name: mark for name, mark in marks.items() if not mark.is_directory}
        kept = {n: self._entries[n] for n, mark in files.items() if self._marks.get(n) == mark}
        if len(kept) < len(files):
            trust.look_at_mappings()
        trusted = {n for n, mark in files.items() if n in kept or trust(n, mark)}
        return _Moment(marks, kept, trusted, len(kept) == len(files) and marks == self._last)

    def _written(
        self, turn: Turn, moment: _Moment, copies: Copies | None, thin: set[str] | None = None
    ) -> Beside:
        chunks = _chunks(turn, turn.thin() if thin is None else thin)
        made = Content(turn.storage, turn.new_pack, chunks, inline=_SMALL)
        try:
            for name, mark in moment.marks.items():
                old = moment.kept.get(name)
                if mark.is_directory:
                    made.add([Item(name, "directory", mark.permissions, ())])
                elif old is not None and old.data is not None:
                    made.add([Item(name, "file", mark.permissions, [old.data])])
                elif old is None or not made.refer(old):
                    item = self._item(name, mark, copies)
                    made.add([Item(name, "file", mark.permissions, item.pieces, item.whole)])
            entries, packs = made.finish()
        except BaseException:
            made.abort()
            raise

        def done(number: int) -> None:
            self._of = number
            self._entries = {entry.name: entry for entry in entries if entry.kind == "file"}
            self._marks = {name: moment.marks[name] for name in moment.trusted}
            self._last = moment.marks

        return Beside(entries, packs, _stored(turn, entries, packs), made.size, done)

    def _item(self, name: str, mark: Mark, copies: Copies | None) -> Item:
        """A file's content as it was at the moment."""
        item = None if copies is None else copies.item(name)
        if item is None:
            path = self._at(name)
            (item,) = from_path(path)
            # Copied was what is not in the checkpoint before; and another thread has saved since.
            if copies is not None and Mark.of(os.lstat(path)) != mark:
                raise CheckpointError(f"{path} changed while several threads saved; save again")
        return item

    # The place

    def _root(self) -> Path:
        if self._place is None:
            self._place = Private(self._parent)
        return self._place.path

    def _at(self, name: str = "") -> Path:
        return self._root() / "directories" / name

    def close(self) -> None:
        """Remove them. Never raises."""
        place, self._place = self._place, None
        self._names, self._of = [], None
        self._entries, self._marks, self._last = {}, {}, {}
        if place is not None:
            place.remove()


def _prove(turn: Turn, manifest: Manifest) -> None:
    """Read and verify what a checkpoint was given, unless this process did, or wrote it.

    Raises:
        CheckpointCorrupt, StorageError: as for `Filler.fill`.
    """
    if turn.good is not None and turn.good.number == manifest.number:
        return
    sized(manifest)
    kinds = enumerate(entry.kind for entry in manifest.entries)
    parts = [Target(part, put=lambda *_: None) for part, kind in kinds if kind != "directory"]
    Filler(turn.storage, turn.packs, manifest).fill(parts)


def _chunks(turn: Turn, thin: set[str]) -> KnownChunks:
    """The chunks that may be referred to (D6); with a key, not those that are known by a mere checksum."""
    good = turn.good
    known = {} if good is None else known_chunks(good.only(good.beside))
    return {
        chunk: place for chunk, place in known.items() if place[0] not in thin and fits(chunk[0])
    }


def _stored(turn: Turn, entries: Sequence[Entry], packs: Sequence[str]) -> tuple[int, ...]:
    """Bytes in each of the packs: as noted, and in the new one."""
    before = {} if turn.good is None else dict(zip(turn.good.packs, turn.good.stored, strict=False))
    ends = [before.get(name, 0) for name in packs]
    for entry in entries:
        for chunk in entry.chunks:
            ends[chunk.pack] = max(ends[chunk.pack], chunk.offset + chunk.length)
    return tuple(ends)

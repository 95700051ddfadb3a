"""Directories that are kept for a command, which knows nothing of it: saved while it runs, and put back
before it runs again.

What a save reads must belong together, and nobody says when it does. So a directory is saved when nothing
in it has changed for `QUIET` seconds, and nothing changes while it is read. Programs write what belongs
together in one go; and one that was killed by a signal may have been in the middle of that.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.several import Directories
from headway.model.errors import CheckpointFenced, HeadwayError, InputError, StorageError
from headway.model.program import Warned
from headway.storage.faults import storage_error

QUIET = 1.0
"""Seconds for which nothing must have changed."""
TRIES = 10
"""Looks at a directory that is being written, before it waits for the next time."""

_OURS, _MOVING = ".headway-kept-", ".headway-kept-moving-"
_State = tuple[tuple[object, ...], ...]


class Kept:
    """The directories of one attempt.

    Args:
        checkpoint: where they are saved; nobody else uses it.
        directories: absolute paths, none inside another.
        every: seconds between two saves.
        aside: what tells this attempt from others, in the name of a directory that is set aside.
        warn: takes what a person should know, from any thread.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        directories: Sequence[Path],
        *,
        every: float,
        aside: str,
        warn: Callable[[Warned], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._directories = list(directories)
        self._every = every
        self._aside = aside
        self._warn = warn
        self._told: set[str] = set()
        self._saved: _State | None = None  # what the newest checkpoint has
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="headway-kept", daemon=True)
        self._fenced: CheckpointFenced | None = None

    def put_back(self) -> None:
        """Make the directories what they were in the newest checkpoint; without one they stay as they are.

        What else is in such a directory is removed, if it is the very directory that was saved. If it is
        another one (on another machine's disk, or made anew), its content is set aside, next to it.

        Raises:
            CheckpointCorrupt, StorageError: they could not be; nothing was removed.
        """
        staged: dict[int, str] = {}
        staging = f"{_OURS}{secrets.token_hex(8)}"

        def choose(names: Sequence[str]) -> dict[str, Path]:
            staged.clear()
            staged.update({int(name.partition(":")[0]): name for name in names})
            places = {}
            for index, name in staged.items():
                place = self._directories[index] / staging
                place.mkdir(parents=True, exist_ok=True)
                _empty(place)
                places[name] = place
            return places

        try:
            for directory in self._directories:
                _clear(directory)
            if self._checkpoint.restore_parts(choose) is None:
                return
            for index, directory in enumerate(self._directories):
                self._exchange(directory, directory / staging, staged.get(index))
        except OSError as error:
            where = ", ".join(map(str, self._directories))
            raise storage_error(error, f"put {where} back", place=where) from error
        found = self._look()
        if all(name == _name(index, self._directories[index]) for index, name in staged.items()):
            self._saved = found
        else:
            self._save(found)  # from here on these are the directories of the run

    def start(self) -> None:
        """Begin to save them every so often."""
        self._thread.start()

    def check(self) -> None:
        """Raise what the command must not outlive.

        Raises:
            CheckpointFenced: a newer attempt took over.
        """
        if self._fenced is not None:
            raise self._fenced

    def stop(self) -> None:
        """Save no more, but for `last`. Waits for a save that was begun."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def last(self, *, by_itself: bool) -> None:
        """Save once more, when the command has ended.

        Args:
            by_itself: no signal ended it. Else what it wrote last is saved only if it is old enough.

        Raises:
            CheckpointFenced: a newer attempt took over.
        """
        if not by_itself and time.time() - _newest(self._look()) < QUIET:
            return  # it may have been in the middle of writing
        for _ in range(TRIES):
            found = self._look()
            if found == self._saved or self._save(found):
                break
            time.sleep(
                QUIET / TRIES
            )  # something of it is left, which will be killed with the worker
        self.check()

    def _keep(self) -> None:
        while not self._stop.wait(self._every) and self._fenced is None:
            self._save_when_quiet()

    def _save_when_quiet(self) -> None:
        before = self._look()
        for _ in range(TRIES):
            if before == self._saved or self._stop.wait(QUIET):
                return
            found = self._look()
            if found == before and self._save(found):
                return
            before = found
        self._tell(
            "busy",
            f"{self._listed()} could not be saved: something in there changed all the time. A directory is "
            f"saved when it has not changed for {QUIET:g} s.",
        )

    def _save(self, found: _State) -> bool:
        """Save them; False when something changed meanwhile, and nothing was saved."""
        paths = {
            _name(index, directory): directory
            for index, directory in enumerate(self._directories)
            if directory.is_dir()
        }
        if not paths:
            return True  # none was made so far
        try:
            self._checkpoint.save(Directories(paths, lambda: self._look() == found))
        except CheckpointFenced as error:
            self._fenced = error
            return True
        except (InputError, StorageError) as error:
            if self._look() != found:
                return False
            self._tell(type(error).__name__, f"{self._listed()} could not be saved: {error}")
            return True
        except (HeadwayError, MemoryError, OSError) as error:
            self._tell(type(error).__name__, f"{self._listed()} could not be saved: {error}")
            return True
        self._saved = found
        return True

    def _listed(self) -> str:
        return ", ".join(map(str, self._directories))

    def _tell(self, kind: str, text: str) -> None:
        """Say it once for each kind: what a disk has left, say, is another number each time."""
        if kind not in self._told:
            self._told.add(kind)
            self._warn(Warned("unsaved", text))

    def _look(self) -> _State:
        """All that tells one state of the directories from another, without reading a file."""
        found: list[tuple[object, ...]] = []
        for directory in self._directories:
            _look(str(directory), found)
            _note(directory, found)
        return tuple(found)

    def _exchange(self, directory: Path, staging: Path, name: str | None) -> None:
        """Put what was staged in the place of a directory's content. Whoever is killed in here leaves what
        the next attempt does again, before the command runs."""
        old = [each for each in _names(directory) if each != staging.name]
        if old and name is not None and _is_known(name, directory, {*old} & {*_names(staging)}):
            trash = directory / f"{_OURS}{secrets.token_hex(8)}"
            trash.mkdir()
            _move(directory, old, trash)
        elif old:
            trash = None
            there = directory.with_name(f"{directory.name}.before-{self._aside}")
            there.mkdir()
            _move(directory, old, there)
            self._warn(
                Warned(
                    "set-aside",
                    f"what was in {directory} is in {there} now: this run did not save it",
                )
            )
        else:
            trash = None
        if name is None:  # it was not there
            with contextlib.suppress(FileNotFoundError):
                directory.rmdir()
            return
        moving = directory / staging.name.replace(_OURS, _MOVING)
        staging.rename(moving)
        _move(moving, _names(moving), directory)
        moving.rmdir()
        if trash is not None:
            _remove(trash)


def _clear(directory: Path) -> None:
    """Remove what an attempt left that was killed while it put things back."""
    names = _names(directory)
    if any(name.startswith(_MOVING) for name in names):
        _empty(directory)  # what was there before is out of it, and some of ours is in it
        return
    for name in names:
        if name.startswith(_OURS):
            _remove(directory / name)


def _name(index: int, directory: Path) -> str:
    """Name of a directory in a checkpoint: which it is, and what it is known by again."""
    found = directory.stat()
    return f"{index}:{_machine()}:{found.st_dev}:{found.st_ino}"


def _machine() -> str:
    return "".join(c if c.isalnum() else "-" for c in os.uname().nodename)


def _is_known(name: str, directory: Path, common: set[str]) -> bool:
    """Whether a directory is the one that was saved under a name.

    Args:
        common: names that are in it, and in what was saved of it. With them, its inode is enough: machines
            that share a disk have other names for that.
    """
    now = _name(_number(name), directory)
    return name == now or (bool(common) and name.rpartition(":")[2] == now.rpartition(":")[2])


def _number(name: str) -> int:
    return int(name.partition(":")[0])


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _look(path: str, found: list[tuple[object, ...]]) -> None:
    try:
        with os.scandir(path) as entries:
            inner = sorted(entries, key=lambda entry: entry.name)
        for entry in inner:
            _note(entry, found)
            if entry.is_dir(follow_symlinks=False):
                _look(entry.path, found)
    except OSError as error:  # something vanished in between, or may not be looked at
        found.append((path, error.errno))


def _note(place: Path | os.DirEntry[str], found: list[tuple[object, ...]]) -> None:
    try:
        s = place.stat(follow_symlinks=False)
    except OSError as error:  # it vanished
        found.append((os.fspath(place), error.errno))
        return
    changed = s.st_mtime_ns, s.st_ctime_ns
    found.append((os.fspath(place), s.st_mode, s.st_ino, s.st_size, *changed))


def _newest(state: _State) -> float:
    """When something was changed last, in Unix seconds."""
    times = [entry[5] for entry in state if len(entry) == 6]
    return max((time for time in times if isinstance(time, int)), default=0) / 1e9


def _move(source: Path, names: Sequence[str], target: Path) -> None:
    for name in names:
        mode = os.lstat(source / name).st_mode
        locked = stat.S_ISDIR(mode) and not mode & stat.S_IWUSR
        if locked:  # it cannot be moved: its entry for the parent changes
            os.chmod(source / name, 0o700)
        os.rename(source / name, target / name)
        if locked:
            os.chmod(target / name, stat.S_IMODE(mode))


def _empty(directory: Path) -> None:
    for name in _names(directory):
        _remove(directory / name)


def _remove(path: Path) -> None:
    """Remove a file or a tree, read-only directories too."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for base, _, _ in os.walk(path):
        os.chmod(base, 0o700)
    shutil.rmtree(path)

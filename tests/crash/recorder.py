"""What the storage really asks of the operating system, in order.

Within `recording(root)` the calls of `os` that change files below `root` are made and noted. Flushes
are noted and not made: a test is interested in what *would* be lost. A call can be made to fail, and
the process can "die" at a call: from there on nothing it does has an effect, its `finally` blocks
included, as after SIGKILL.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

PAGE = 4096


class Event(NamedTuple):
    """One thing that happened.

    `kind` is mkdir, create, link, unlink (of entry `name` in directory `place`; a file is its
    number), write (`data` at `offset` of a file), truncate (a file to `offset` bytes), sync (of a
    file), sync-failed, sync-directory, and ack (`what` the caller was told). Space that is allocated is
    a write of zeros behind the file's end, and a write past the page cache is a write.
    """

    kind: str
    place: str = ""
    name: str = ""
    file: int = -1
    offset: int = 0
    data: bytes = b""
    what: Any = None


class Killed(BaseException):
    """The recorded process is dead."""


@dataclass
class Recorder:
    """The trace, and where to strike.

    Attributes:
        events: what happened so far.
        calls: how many calls were made that a process can die at.
        flushes: how many flushes were asked for.
        die_at: the call (counted from 0) at which the process dies; None never.
        fail_at: the flush (counted from 0) that fails; None never.
    """

    root: Path
    die_at: int | None = None
    fail_at: int | None = None
    events: list[Event] = field(default_factory=list)
    calls: int = 0
    flushes: int = 0
    dead: bool = False
    _names: dict[str, int] = field(default_factory=dict)
    _open: dict[int, int | str] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def ack(self, what: Any) -> None:
        """Note what the caller was told."""
        self.events.append(Event("ack", what=what))

    def revive(self) -> None:
        """A new process begins."""
        self.dead = False
        self.die_at = None

    def call(self) -> bool:
        """Whether the process dies at this call."""
        if self.dead:
            raise Killed
        self.calls += 1
        return self.die_at is not None and self.calls > self.die_at

    def die(self) -> None:
        """End the process: its descriptors are closed, nothing else of it happens."""
        self.dead = True
        raise Killed

    def split(self, path: Any) -> tuple[str, str, str] | None:
        """(key, directory, name) of a path below the root."""
        path = Path(path)
        if not path.is_relative_to(self.root):
            return None
        key = path.relative_to(self.root).as_posix()
        place, _, name = key.rpartition("/")
        return key, place, name


@contextlib.contextmanager
def recording(
    root: Path, *, die_at: int | None = None, fail_at: int | None = None
) -> Iterator[Recorder]:
    """Record what happens below `root`; see `Recorder`."""
    recorder = Recorder(root, die_at, fail_at)
    temporary = itertools.count()
    before = {name: getattr(os, name) for name in _REPLACED}
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            mock.patch.object(secrets, "token_hex", lambda size: f"{next(temporary):0{2 * size}x}")
        )
        for name, make in _REPLACED.items():
            stack.enter_context(mock.patch.object(os, name, make(recorder, before[name])))
        try:
            yield recorder
        finally:
            for descriptor in recorder._open:
                before["close"](descriptor)


_Make = Callable[[Recorder, Callable[..., Any]], Callable[..., Any]]


def _opens(recorder: Recorder, real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(path: Any, flags: int, mode: int = 0o777) -> int:
        where = recorder.split(path)
        if where is None:
            return int(real(path, flags, mode))
        if recorder.call():
            recorder.die()
        key, place, name = where
        flags &= ~os.O_DIRECT  # what was not flushed is lost all the same
        descriptor = int(real(path, flags, mode))
        if os.path.isdir(path):
            recorder._open[descriptor] = "" if key == "." else key
        else:
            if key not in recorder._names:
                recorder._names[key] = next(recorder._numbers)
                recorder.events.append(Event("create", place, name, recorder._names[key]))
            recorder._open[descriptor] = recorder._names[key]
        return descriptor

    return replaced


def _closes(recorder: Recorder, real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(descriptor: int) -> None:
        if recorder.dead and descriptor in recorder._open:
            raise Killed
        recorder._open.pop(descriptor, None)
        real(descriptor)

    return replaced


def _dups(recorder: Recorder, real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(descriptor: int) -> int:
        if recorder.dead:
            raise Killed
        copy = int(real(descriptor))
        if descriptor in recorder._open:
            recorder._open[copy] = recorder._open[descriptor]
        return copy

    return replaced


def _writes(recorder: Recorder, real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(descriptor: int, data: Any, offset: int) -> int:
        file = recorder._open.get(descriptor)
        if not isinstance(file, int):
            return int(real(descriptor, data, offset))
        dies = recorder.call()
        data = bytes(data)
        if dies:  # a killed write stops at a page's end
            data = data[: max(0, (offset // PAGE + 1) * PAGE - offset)]
            data = data if len(data) % PAGE == 0 or (offset + len(data)) % PAGE == 0 else b""
        done = int(real(descriptor, data, offset)) if data else 0
        if done:
            recorder.events.append(Event("write", file=file, offset=offset, data=data[:done]))
            recorder._sizes[file] = max(recorder._sizes.get(file, 0), offset + done)
        if dies:
            recorder.die()
        return done

    return replaced


def _truncates(recorder: Recorder, real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(descriptor: int, size: int) -> None:
        file = recorder._open.get(descriptor)
        if not isinstance(file, int):
            real(descriptor, size)
            return
        if recorder.call():
            recorder.die()
        real(descriptor, size)
        recorder.events.append(Event("truncate", file=file, offset=size))
        recorder._sizes[file] = size

    return replaced


def allocating(recorder: Recorder) -> Callable[[int, int, int], bool]:
    """What stands in for `headway.storage.posix.allocate` while a recorder listens."""

    def allocate(descriptor: int, offset: int, length: int) -> bool:
        file = recorder._open[descriptor]
        assert isinstance(file, int)
        if recorder.call():
            recorder.die()
        size = recorder._sizes.get(file, 0)
        if offset + length > size:
            data = bytes(offset + length - size)
            os.truncate(descriptor, offset + length)
            recorder.events.append(Event("write", file=file, offset=size, data=data))
            recorder._sizes[file] = offset + length
        return True

    return allocate


def _syncs(recorder: Recorder, real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(descriptor: int) -> None:
        what = recorder._open.get(descriptor)
        if what is None:
            real(descriptor)
            return
        if recorder.call():
            recorder.die()
        number, recorder.flushes = recorder.flushes, recorder.flushes + 1
        failed = number == recorder.fail_at
        if isinstance(what, int):
            recorder.events.append(Event("sync-failed" if failed else "sync", file=what))
        elif not failed:
            recorder.events.append(Event("sync-directory", what))
        if failed:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return replaced


def _links(recorder: Recorder, real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(source: Any, target: Any) -> None:
        if recorder.call():
            recorder.die()
        real(source, target)
        old, new = recorder.split(source), recorder.split(target)
        assert old is not None
        assert new is not None
        key, place, name = new
        recorder._names[key] = recorder._names[old[0]]
        recorder.events.append(Event("link", place, name, recorder._names[key]))

    return replaced


def _unlinks(recorder: Recorder, real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(path: Any) -> None:
        where = recorder.split(path)
        if where is None:
            real(path)
            return
        if recorder.call():
            recorder.die()
        real(path)
        key, place, name = where
        recorder._names.pop(key, None)
        recorder.events.append(Event("unlink", place, name))

    return replaced


def _mkdirs(recorder: Recorder, real: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(path: Any, mode: int = 0o777) -> None:
        where = recorder.split(path)
        if where is None:
            real(path, mode)
            return
        if recorder.call():
            recorder.die()
        real(path, mode)
        recorder.events.append(Event("mkdir", where[1], where[2]))

    return replaced


_REPLACED: dict[str, _Make] = {
    "open": _opens,
    "close": _closes,
    "dup": _dups,
    "pwrite": _writes,
    "ftruncate": _truncates,
    "fsync": _syncs,
    "fdatasync": _syncs,
    "link": _links,
    "unlink": _unlinks,
    "mkdir": _mkdirs,
}

"""A directory of a process's own, for as long as that lives.

Who made it removes it. What a process left that was killed is removed by the next one that makes such a
directory in the same place: a lock tells, which the kernel lets go of when its last holder is dead. The
name says the machine, because on some network file systems locks are not seen by other ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from headway.storage.faults import storage_error

AGE = 60.0
"""Seconds for which a directory is left alone: its maker may not have locked it so far."""
LOCK = "clock"
"""A file in it, which is locked. It tells the time of the file system too: see `snapshot.Trust`."""


class Private:
    """One directory.

    Args:
        parent: where it is made; its owner removes all of that in the end. None is the system's place for
            such, where what others left is removed.

    Attributes:
        path: where it is.

    Raises:
        StorageError: it cannot be made.
    """

    def __init__(self, parent: Path | None) -> None:
        base = Path(tempfile.gettempdir()) if parent is None else parent
        if parent is None:
            _sweep(base)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_prefix(), dir=base))
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, f"make a directory in {base}", place=str(base)) from error
        self._process = os.getpid()
        with contextlib.suppress(OSError):  # no locks here: then nobody takes it for left behind
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Remove it, in the process that made it; a fork lets go of it. Never raises."""
        if os.getpid() == self._process:
            remove(self.path)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def remove(place: Path) -> None:
    """Remove a tree, read-only directories in it too. Never raises."""
    for base, _, _ in os.walk(place):
        with contextlib.suppress(OSError):
            os.chmod(base, 0o700)
    shutil.rmtree(place, ignore_errors=True)


def _prefix() -> str:
    machine = "".join(c if c.isalnum() else "-" for c in os.uname().nodename)
    return f"headway-files-{machine}-"


def _sweep(base: Path) -> None:
    """Remove what processes of this user left here that are dead."""
    prefix, now = _prefix(), time.time()
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if not entry.name.startswith(prefix) or not entry.is_dir(follow_symlinks=False):
                    continue
                found = entry.stat(follow_symlinks=False)
                if found.st_uid == os.geteuid() and found.st_ctime < now - AGE:
                    _remove_if_dead(Path(entry.path))


def _remove_if_dead(place: Path) -> None:
    lock = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while somebody has it
        remove(place)
    finally:
        os.close(lock)

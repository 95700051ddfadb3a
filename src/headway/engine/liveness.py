"""Whether a run's driver, or an attempt of an earlier one, still lives on this machine.

`flock` on two files of the run: `driver.lock` is held by the driver, `attempts.lock` by every process
of its executor, which inherit the descriptor; the kernel lets go of both when the processes end,
however they end. This is for courtesy only: a clear `RunBusy`, and resuming without two processes at
work on one node. What must never go wrong rests on the fencing of ledgers, which needs no lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from headway.model.errors import RunBusy

DRIVER = "driver.lock"
ATTEMPTS = "attempts.lock"

_TRIES = 20  # somebody who only looks (`is_held`) has the lock for an instant
_PAUSE = 0.02


class Lock:
    """A lock that is held until `close`, or until every process that has `fd` is gone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Let go. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # letting go is all that was asked
                os.close(fd)


def lock_driver(
    directory: Path,
    run: str,
    *,
    new: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Lock:
    """Become the run's driver on this machine.

    Args:
        directory: the run's directory; made when `new`.
        run: id of the run, for messages.
        new: the run must not exist yet.
        sleep: waits that many seconds.

    Raises:
        RunBusy: a process on this machine drives the run.
        FileExistsError: `new`, and something has this id already.
        OSError: the lock file could not be made.
    """
    path, flags = directory / DRIVER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    if new:
        directory.mkdir(parents=True)
        flags |= os.O_EXCL
    fd = os.open(path, flags, 0o644)
    try:
        if not _lock(fd, _TRIES, sleep) or not _is_named(fd, path):
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
            who = f"process {pid}" if pid else "another process"
            raise RunBusy(
                f"run {run} is being driven by {who} on this machine. Watch it with "
                f"`headway show {run}`, stop it with `headway cancel {run}`."
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return Lock(fd)


def is_driven(directory: Path) -> bool:
    """Whether a driver of this run lives on this machine."""
    return _is_held(directory / DRIVER)


def has_attempts(directory: Path) -> bool:
    """Whether processes of an attempt of this run live on this machine."""
    return _is_held(directory / ATTEMPTS)


def lock_attempts(
    directory: Path, patience: float, sleep: Callable[[float], None] = time.sleep
) -> tuple[Lock, bool]:
    """Take the lock that this driver's executor will hand on to its processes.

    Args:
        directory: the run's directory.
        patience: seconds to wait for the processes of the driver before to be gone.
        sleep: waits that many seconds.

    Returns:
        (lock, whether they are gone). When not, the lock is on a new file, and the old processes
        keep theirs, which has no name any more.
    """
    path = directory / ATTEMPTS
    fd = _open(path)
    gone = _lock(fd, max(1, round(patience / _PAUSE)), sleep)
    if not gone:
        os.close(fd)
        path.unlink(missing_ok=True)
        fd = _open(path)
        _lock(fd, 1, sleep)  # nobody else has this file: only the run's driver gets here
    return Lock(fd), gone


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _is_named(fd: int, path: Path) -> bool:
    """Whether a lock is on the file that others would lock: who held it may have removed that."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _is_held(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no such file, or none of our business
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _lock(fd: int, tries: int, sleep: Callable[[float], None]) -> bool:
    for attempt in range(tries):
        if attempt:
            sleep(_PAUSE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False

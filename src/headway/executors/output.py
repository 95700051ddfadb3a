"""Where a worker's standard output and error go: into the log of the attempt, while it runs.

Most short attempts print nothing, and to make a directory and a file for each, and to remove both, takes
longer than the attempt. So a log that stayed empty is taken along to the next attempt, by renaming its
directory. Whoever reads logs by name makes sure, after reading, that the name still stands for the
same file.
"""

from __future__ import annotations

import fcntl
import os
import sys

from headway.executors.family import libc


class Output:
    """Descriptors 1 and 2 of this process, and what Python and C hold back above them.

    Redirecting descriptors, not objects, catches what C code and child processes write.
    """

    def __init__(self) -> None:
        self._before = (_copy(1), _copy(2))
        self._path = ""
        self._fd = -1
        self._file = (0, 0)  # device and inode: a body may close the descriptor, and open another
        self._flags = 0
        self._alone = False  # we made its directory, so no other attempt has a log there
        self._free = False  # it may be taken along to the next attempt
        for stream in (sys.stdout, sys.stderr):
            # Lines appear in the log when they are written, and no character ends a body.
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(line_buffering=True, errors="backslashreplace")

    def to_log(self, path: str) -> None:
        """Send output to the end of the file at `path`, which is made with its directories.

        Raises:
            OSError: it cannot be opened.
        """
        if not self._take_along(path):
            self._leave()
            self._open(path)
        self._path = path
        os.dup2(self._fd, 1)
        os.dup2(self._fd, 2)

    def back(self) -> bool:
        """Send output to where it went before; whether the log is still empty.

        For the end of an attempt that left nothing behind which could still write.
        """
        flush()
        for number, fd in zip((1, 2), self._before, strict=True):
            os.dup2(fd, number)
        try:
            found = os.fstat(self._fd)
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        except OSError:  # the body closed it
            return False
        empty = self._is(found) and found.st_size == 0
        self._free = empty and self._alone and flags == self._flags
        return empty

    def _take_along(self, path: str) -> bool:
        """Give the empty log of the attempt before the name that this one's shall have."""
        free, self._free = self._free, False
        old, name = os.path.split(self._path)
        new, wanted = os.path.split(path)
        if not free or name != wanted or os.path.dirname(old) != os.path.dirname(new):
            return False
        try:
            os.rename(old, new)
            # Looked at afterwards: whoever removes empty logs may have been faster.
            found = os.fstat(self._fd)
        except OSError:
            return False
        return found.st_nlink == 1 and found.st_size == 0

    def _leave(self) -> None:
        """Be done with the log of the attempt before."""
        try:
            if self._fd >= 0 and self._is(os.fstat(self._fd)):
                os.close(self._fd)
        except OSError:
            pass  # the body closed it
        self._fd = -1
        if self._path:
            remove_if_empty(self._path)

    def _open(self, path: str) -> None:
        directory = os.path.dirname(path)
        self._alone = True
        try:
            os.mkdir(directory)
        except FileExistsError:
            self._alone = False
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o666)
        except FileNotFoundError:  # whoever removed the last log in it removed the directory too
            os.makedirs(directory, exist_ok=True)
            self._fd = os.open(path, flags, 0o666)
        self._flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        found = os.fstat(self._fd)
        self._file = (found.st_dev, found.st_ino)

    def _is(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) == self._file


def remove_if_empty(path: str) -> None:
    """Remove a log without a byte, and its directory with the last log. Never raises."""
    try:
        if os.stat(path).st_size == 0:
            os.unlink(path)
            os.rmdir(os.path.dirname(path))  # of a map of 100,000 silent items nothing stays
    except OSError:
        pass  # other attempts have logs there; an empty file is untidy, nothing more


def flush() -> None:
    """Write out what Python's and C's standard streams hold back. Never raises."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except Exception:  # noqa: BLE001  # the body may have closed it, or put anything there
            pass
    libc.fflush(None)


def _copy(number: int) -> int:
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:  # the driver was started with it closed
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

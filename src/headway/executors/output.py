"""Where a worker's standard output and error go: into the log of the attempt, while it runs."""

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
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, flags, 0o666)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)

    def back(self) -> None:
        """Send output to where it went before."""
        flush()
        for number, fd in zip((1, 2), self._before, strict=True):
            os.dup2(fd, number)


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

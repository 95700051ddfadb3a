"""The live output of running attempts: what was added to their log files since the last look."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from headway.ports import AttemptKey

_PIECE = 64 * 1024
_PIECES = 16


class Tails:
    """Follows the log files of attempts. A log that cannot be read shows nothing: the output of a
    task is for people, and no reason to disturb the run."""

    def __init__(self) -> None:
        self._logs: dict[AttemptKey, tuple[str, int | None, int]] = {}  # path, descriptor, offset

    def follow(self, key: AttemptKey, path: str) -> None:
        """Begin with an attempt whose log is, or will be, at `path`."""
        self._logs[key] = (path, None, 0)

    def news(self) -> Iterator[tuple[AttemptKey, bytes]]:
        """What was added to all logs, at most 16 pieces of 64 KiB each, so that none starves."""
        for key in list(self._logs):
            for _ in range(_PIECES):
                data = self._read(key)
                if data:
                    yield key, data
                if len(data) < _PIECE:
                    break

    def finish(self, key: AttemptKey) -> Iterator[bytes]:
        """The rest of an attempt's log, in pieces; it is followed no more."""
        if key not in self._logs:
            return
        while data := self._read(key):
            yield data
        self.forget(key)

    def forget(self, key: AttemptKey) -> None:
        """Follow an attempt no more."""
        _, fd, _ = self._logs.pop(key, ("", None, 0))
        if fd is not None:
            with contextlib.suppress(OSError):  # reading is over either way
                os.close(fd)

    def close(self) -> None:
        """Follow nothing any more."""
        for key in list(self._logs):
            self.forget(key)

    def _read(self, key: AttemptKey) -> bytes:
        path, fd, offset = self._logs[key]
        try:
            if fd is None:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(fd, _PIECE, offset)
        except OSError:
            data = b""
        self._logs[key] = (path, fd, offset + len(data))
        return data

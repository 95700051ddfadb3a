"""Which signals came while a driver has handlers of its own for them."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading

_LEAVE = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class Signals:
    """Remembers the first signal that told this process to leave, between entry and exit.

    The interpreter writes each signal's number to the wake-up descriptor, whatever its handler is.
    Outside the main thread, where no signal arrives, it remembers nothing.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._before = -1

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            reader, writer = socket.socketpair()
            reader.setblocking(False)
            writer.setblocking(False)
            self._ends = reader, writer
            self._before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def __exit__(self, *_: object) -> None:
        if self._ends is not None:
            signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
            self._look()
            for end in self._ends:
                end.close()
            self._ends = None

    @property
    def first(self) -> int | None:
        """The first such signal so far."""
        self._look()
        return self._first

    def _look(self) -> None:
        if self._ends is None or self._first is not None:
            return
        with contextlib.suppress(OSError):  # nothing came, or the display asks after the end
            told = [number for number in self._ends[0].recv(4096) if number in _LEAVE]
            self._first = told[0] if told else None

"""Processes that contestants leave behind, such as a peer's servers after it was killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

from headway.executors.family import children

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_PATIENCE = 5.0


class Orphans:
    """Makes this process the parent of what its offspring leaves, so that it can be found by pid.

    Children that exist already are none of its business.
    """

    def __init__(self) -> None:
        ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
        self._spared = set(children(os.getpid()))

    def end(self) -> None:
        """Kill all of them. Call it only while nothing runs that was started on purpose."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            left = set(children(os.getpid())) - self._spared
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

"""The process of a command: started so that it dies with its worker, and told to go as the worker is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from headway.executors import family
from headway.model.errors import NonRecoverableError
from headway.ports import Leave

PATIENCE = 3.0
"""Seconds from SIGTERM until what is left of a command is killed; the worker needs the rest of its grace
for the directories that are kept."""

_TICK = 0.05  # seconds between two looks


class Process:
    """A command that runs, in a process group of its own.

    Args:
        words: the command line.
        directory: where it starts.
        environment: all of its environment.

    Attributes:
        told: whether it was told to go before it ended.

    Raises:
        NonRecoverableError: it cannot be started.
    """

    def __init__(
        self, words: Sequence[str], directory: str, environment: Mapping[str, str]
    ) -> None:
        self.told = False
        try:
            self._process = subprocess.Popen(  # the child makes one system call there
                list(words),
                cwd=directory,
                env=dict(environment),
                process_group=0,
                preexec_fn=partial(family.die_with_parent, os.getpid()),  # noqa: PLW1509  # one call
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NonRecoverableError(
                f"{words[0]!r} cannot be started in {directory}: "
                f"{getattr(error, 'strerror', None) or error}"
            ) from error

    def wait(
        self, leave: Leave | None, owner: Callable[[], int | None], tick: Callable[[], None]
    ) -> int:
        """Wait for its end, and pass on that it has to go; then nothing of its group is left.

        Args:
            leave: says when the worker is told to go.
            owner: pid of the process of the command that tracks, if one does.
            tick: is called again and again meanwhile. What it raises ends the command.

        Returns:
            Its exit code, or minus the signal that it died of.
        """
        pid, end = self._process.pid, 0.0
        spared: set[int] = set()
        try:
            while (code := family.exit_code(pid)) is None:
                tick()
                if leave is not None and leave.told and not self.told:
                    self.told, end = True, time.monotonic() + PATIENCE
                    spared = _tell(pid, owner())
                if self.told and time.monotonic() >= end:
                    _kill(pid)
                time.sleep(_TICK)
            # A shell dies of SIGTERM at once, and what it started may still save something.
            while self.told and time.monotonic() < end and _others(pid) - spared:
                tick()
                time.sleep(_TICK)
            return code
        finally:
            _kill(pid)  # while it is not reaped, its group is nobody else's
            self._process.wait()


def _tell(group: int, owner: int | None) -> set[int]:
    """SIGTERM for a process group. The children of the process that tracks (those of a data loader) are
    left to it: it needs them until it has saved.

    Returns:
        Pids of those that were not told.
    """
    members = family.group_of(group)
    spared: set[int] = set()
    if owner in members:
        found = {owner}
        while found:
            found = {pid for pid, parent in members.items() if parent in found} - spared
            spared |= found
    for pid in members.keys() - spared if spared else ():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if not spared:
            os.killpg(group, signal.SIGTERM)
        os.killpg(group, signal.SIGCONT)  # what is stopped would not hear it
    return spared


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _others(group: int) -> set[int]:
    """The members of a process group that live, but for its leader."""
    return {pid for pid in family.group_of(group) if pid != group and family.is_running(pid)}

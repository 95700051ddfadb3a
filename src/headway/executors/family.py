"""Processes and their offspring: whose children they are, and making all of them go.

A body may start processes that start processes that detach themselves. Nothing of an attempt may
outlive it, so a keeper adopts what detaches (it is a *subreaper*), and kills by descent rather than
by process group alone. Linux has all of this; elsewhere the process group has to do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

TOKEN = "HEADWAY_FAMILY"
"""Environment variable that marks a keeper and all its descendants."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

libc = ctypes.CDLL(None, use_errno=True)


def name_process(name: str) -> None:
    """Name this process for `ps -o comm` and `top` (15 characters are kept)."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents end."""
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def die_with_parent(parent: int) -> None:
    """Be killed when `parent`, which must be this process's parent, ends in any way."""
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it ended before the request was made
        os._exit(1)


def _prctl(option: int, argument: object) -> None:
    if sys.platform == "linux":
        zero = ctypes.c_ulong(0)
        # A kernel that refuses leaves us with process groups alone, as on other systems.
        libc.prctl(ctypes.c_int(option), argument, zero, zero, zero)


def has_children() -> bool:
    """Whether this process has a child, running or dead. A dead one is reaped by the question."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def exit_code(pid: int) -> int | None:
    """How child `pid` ended (its exit code, or minus the signal), None while it lives.

    The child is left to be reaped, so that its pid and process group cannot be taken by another.
    """
    if sys.platform == "darwin":  # no waitid there
        ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def kill_child(pid: int) -> None:
    """Kill child `pid`, its process group and everything it left to us; returns when all are gone.

    For a process that has no other children than `pid` and what descends from it. What another user
    owns (a body ran `sudo`) cannot be killed and is left.
    """
    spared: set[int] = set()
    family = {pid}
    while family:
        for member in family:
            if kill_group(member):
                _reap(member)
            else:
                spared.add(member)
        # The children of what was just killed are ours now.
        family = set(children(os.getpid())) - spared if has_children() else set()


def kill_group(pid: int) -> bool:
    """SIGKILL for `pid` and for the process group that it leads, if it leads one.

    Returns:
        False when `pid` belongs to another user.
    """
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def children(parent: int) -> list[int]:
    """Pids of the children of `parent`; [] where there is no /proc."""
    return [pid for pid in _pids() if _parent(pid) == parent]


def group_of(leader: int) -> dict[int, int]:
    """The processes of a group, running or dead: pid -> pid of the parent; {} where there is no /proc."""
    found = {pid: _stat(pid) for pid in _pids()}
    return {
        pid: int(parent) for pid, (_, parent, group) in found.items() if group == b"%d" % leader
    }


def kill_marked(token: str, worker: int | None, end: float) -> None:
    """Kill what is left of a family whose keeper is dead; returns when all are gone.

    Args:
        token: value of `TOKEN` in the environment that the keeper was started with.
        worker: pid of the worker, whose process group goes too; None when there was none.
        end: time (monotonic) at which to give up; a process that hangs in the kernel stays.
    """
    mark = f"{TOKEN}={token}\0".encode()
    killed = set() if worker is None else {worker}
    if worker is not None:
        kill_group(worker)
    while time.monotonic() < end:
        found = [pid for pid in _pids() if mark in _read(f"/proc/{pid}/environ")]
        for pid in found:
            kill_group(pid)
        # A process that is ending has no environment any more, and is still there.
        killed.update(found)
        if not any(is_running(pid) for pid in killed):
            return
        time.sleep(0.002)


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    return _stat(pid)[0] not in {b"", b"Z", b"X"}


def _stat(pid: int) -> tuple[bytes, bytes, bytes]:
    """(state, pid of the parent, process group); (b"", b"0", b"0") when there is no such process."""
    # The name, in parentheses, may hold anything: look behind it.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (fields[0], fields[1], fields[2]) if fields else (b"", b"0", b"0")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:  # the process is gone, or another user's
        return b""

"""A keeper's rare moments, in this process. Its daily work is in the executor's contract."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from headway.executors import family, keeper
from headway.executors.wire import Channel, Kind
from headway.model.outcome import Outcome
from headway.model.program import AttemptSpec, Message, Program, Raised


@pytest.fixture
def driver() -> Iterator[tuple[Channel, keeper._Keeper]]:
    """The driver's end, and a keeper that has not begun to serve."""
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGCHLD)
    guard = keeper._Keeper(Channel(theirs), os.getpid())
    channel = Channel(ours)
    yield channel, guard
    guard.forget()
    channel.close()
    signal.signal(signal.SIGCHLD, before)


def spec() -> bytes:
    program = Program("m", "/m.py", (), "d")
    return msgspec.msgpack.encode(AttemptSpec("h", "r", "n", 0, program, "m:t", {}, "", "/log"))


def test_a_machine_without_room_for_a_process_is_at_fault_and_not_the_task(
    driver: tuple[Channel, keeper._Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fork() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    channel, guard = driver
    monkeypatch.setattr(os, "fork", no_fork)
    before = len(os.listdir("/proc/self/fd"))
    channel.send(Kind.ATTEMPT, spec())
    channel.send(Kind.LEAVE)
    guard.serve()
    frames = channel.drain()
    assert [kind for kind, _ in frames] == [Kind.READY, Kind.LAST]
    raised = msgspec.msgpack.decode(frames[1][1], type=Message)
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.NODE_LOST
    assert "--jobs" in raised.message
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_stop_that_finds_nothing_running_is_late_and_does_nothing(
    driver: tuple[Channel, keeper._Keeper],
) -> None:
    channel, guard = driver
    channel.send(Kind.STOP, b"0.0")
    channel.send(Kind.LEAVE)
    guard.serve()
    assert channel.drain() == [(Kind.READY, b"")]


def test_without_pidfds_the_channel_tells_of_the_drivers_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", unknown)
    assert keeper._pidfd_of(os.getpid()) is None
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGCHLD)
    guard = keeper._Keeper(Channel(theirs), os.getpid())
    ours.close()
    guard.serve()
    guard.forget()
    signal.signal(signal.SIGCHLD, before)


FOREIGN = """
import os, signal
from headway.executors import family

real = os.kill

def denied(pid, number):
    if pid == foreign:
        raise PermissionError
    real(pid, number)

foreign = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
child = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
os.kill = os.killpg = denied
family.kill_child(child)
print(family.children(os.getpid()) == [foreign])
real(foreign, signal.SIGKILL)
"""


def test_a_process_that_another_user_owns_is_left() -> None:
    """A body that ran `sudo`: nobody may wait for what cannot be killed."""
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "True\n"


def test_exit_code_leaves_the_child_to_be_reaped() -> None:
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert family.exit_code(child) == 3
    assert family.exit_code(child) == 3
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3

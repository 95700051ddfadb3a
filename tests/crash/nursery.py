"""Real processes to kill, by the thousand: forked from one that has imported headway already.

A test asks the nursery for a child that will call a function. The child waits until it is told to go,
so that a tracer can be attached first and counts system calls from the call on, not from the start of
an interpreter. Starting one takes milliseconds; its death is an ordinary process's death.

`python -m tests.crash.nursery` is the other side: one thread, JSON lines in and out. It kills what it
started when its test goes away.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn, Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds after which a child that should have ended counts as hung."""

MARK = "HEADWAY_CRASH_TEST"
"""Environment variable that a child and all its descendants carry."""


class Child:
    """A process that has not begun yet. `go`, then `wait`."""

    def __init__(self, nursery: Nursery, pid: int, mark: str, said: Path) -> None:
        self.pid = pid
        self.mark = mark
        self._nursery = nursery
        self._said = said

    def go(self) -> None:
        """Let it call its function."""
        self._nursery.ask({"go": self.pid})

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, or minus the signal that ended it.

        Raises:
            AssertionError: it has not ended in time (it is killed then).
        """
        code = self._nursery.ask({"wait": self.pid, "timeout": timeout})
        if code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._nursery.ask({"wait": self.pid, "timeout": PATIENCE})
            raise AssertionError(f"process {self.pid} hung for {timeout} s; it said: {self.said()}")
        assert isinstance(code, int)
        return code

    def ended(self) -> bool:
        """Whether it is over, without waiting."""
        return self._nursery.ask({"wait": self.pid, "timeout": 0.0}) is not None

    def said(self) -> str:
        """What it wrote to its standard output and error."""
        return self._said.read_text(errors="replace")


class Nursery:
    """Starts children. Use as a context manager, one for each test module."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._born = 0
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

        self._family = f"{os.getpid()}-{self._server.pid}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(PATIENCE)
        self._server.stdout.close()
        for pid in _marked(f"{MARK}={self._family}-"):  # a test that failed may leave stopped ones
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def child(self, function: str, *args: Any, env: dict[str, str] | None = None) -> Child:
        """A child that will call `module:function` with JSON-able arguments.

        It exits with 0, or with 1 and a traceback when the function raises.
        """
        self._born += 1
        mark = f"{self._family}-{self._born}"
        said = self._place / f"child-{self._born}.txt"
        request = {
            "function": function,
            "args": args,
            "env": {MARK: mark, **(env or {})},
            "said": str(said),
        }
        pid = self.ask(request)
        assert isinstance(pid, int)
        return Child(self, pid, mark, said)

    def run(self, function: str, *args: Any, timeout: float = PATIENCE) -> None:
        """Call a function in a child, which has to succeed."""
        child = self.child(function, *args)
        child.go()
        code = child.wait(timeout)
        assert code == 0, child.said()

    def ask(self, request: dict[str, Any]) -> object:
        """One question to the other side."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the nursery is gone"
        return json.loads(answer)["answer"]


def descendants(mark: str) -> list[int]:
    """Programs that a child started, and what they forked: they carry its mark in their environment."""
    return _marked(f"{MARK}={mark}\0")


def _marked(text: str) -> list[int]:
    needle = text.encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        with contextlib.suppress(OSError):
            environment = Path("/proc", entry, "environ").read_bytes() + b"\0"
            if needle in environment and _state(int(entry)) not in "ZX":
                found.append(int(entry))
    return found


def _state(pid: int) -> str:
    stat = Path("/proc", str(pid), "stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def survivors(mark: str, patience: float = 10.0) -> list[int]:
    """Processes with that mark that are still there after `patience` seconds."""
    end = time.monotonic() + patience
    while (left := descendants(mark)) and time.monotonic() < end:
        time.sleep(0.005)
    return left


class _Server:
    def __init__(self) -> None:
        self._gates: dict[int, int] = {}  # of those that wait: closing it lets one go
        self._alive: set[int] = set()
        self._ended: dict[int, int] = {}

    def serve(self) -> None:
        try:
            for line in sys.stdin:
                request = json.loads(line)
                print(json.dumps({"answer": self._answer(request)}), flush=True)
        finally:
            for pid in self._alive:  # not reaped yet, so the pids are still theirs
                os.kill(pid, signal.SIGKILL)

    def _answer(self, request: dict[str, Any]) -> int | None:
        if "function" in request:
            return self._fork(request)
        if "go" in request:
            os.close(self._gates.pop(request["go"]))
            return None
        return self._wait(request["wait"], request["timeout"])

    def _fork(self, request: dict[str, Any]) -> int:
        gate, opener = os.pipe()
        ready, readier = os.pipe()
        pid = os.fork()
        if pid == 0:
            _live(request, gate, readier)
        os.close(gate)
        os.close(readier)
        os.read(ready, 1)  # it is at the gate: what it does before must not be counted
        os.close(ready)
        self._gates[pid] = opener
        self._alive.add(pid)
        self._ended.pop(pid, None)  # of another child, thousands ago
        return pid

    def _wait(self, pid: int, timeout: float) -> int | None:
        if pid not in self._ended:
            pidfd = os.pidfd_open(pid)
            try:
                ready, _, _ = select.select([pidfd], [], [], timeout)
            finally:
                os.close(pidfd)
            if not ready:
                return None
            self._ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            self._alive.remove(pid)
        return self._ended[pid]


def _live(request: dict[str, Any], gate: int, readier: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        _let_anyone_trace()
        said = os.open(request["said"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        for fd in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, gate, readier}:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(fd)
        os.environ.update(request["env"])
        module, _, name = request["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        os.close(readier)
        select.select([gate], [], [])  # a call that nobody counts
        os.close(gate)
        function(*request["args"])
        code = 0
    except BaseException:  # noqa: BLE001  # the last thing that this process says
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _let_anyone_trace() -> None:
    """Where only parents may trace (Yama), say that a test's `strace` may, too."""
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_ptracer, anyone = 0x59616D61, ctypes.c_ulong(-1 & (2**64 - 1))
    libc.prctl(ctypes.c_int(pr_set_ptracer), anyone, 0, 0, 0)


def _main() -> None:
    # Imported once, before any fork: a child begins with a warm interpreter.
    for name in ("tests.crash.bodies", "tests.crash.driving", "headway.executors.local"):
        importlib.import_module(name)
    _Server().serve()


if __name__ == "__main__":
    _main()

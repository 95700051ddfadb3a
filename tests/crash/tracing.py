"""System calls of a child: logged, counted, and made to fail, stop or kill at the n-th.

`strace` is attached before the child begins, so its counters (one for each call's name) begin there.
An injected signal strikes on entry: the call has not happened.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.crash.nursery import PATIENCE, Child

CALLS = ["write", "pwrite64", "fsync", "fdatasync", "link", "linkat", "rename", "renameat"]
CALLS += ["renameat2", "openat", "close", "unlink", "unlinkat", "mkdir", "mkdirat", "ftruncate"]
CALLS += ["fallocate"]
"""What can change what is stored, or hands out the means to."""

READS = ["openat", "pread64", "read", "getdents64", "newfstatat", "fstat", "stat", "lseek", "close"]
"""What loading a checkpoint asks the kernel."""


def _why_not() -> str:
    """Why processes cannot be traced here; "" when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if scope.exists() and int(scope.read_text()) > 1:
        return "this machine allows tracing to root alone, or to nobody (ptrace_scope)"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "processes may not be traced here" if tried.returncode else ""


_WHY_NOT = _why_not()
needs_strace = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)

_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\)? += +(.*)$")


@dataclass(frozen=True)
class Call:
    """One line of a log; `path` is the file that a descriptor or the first path stands for."""

    name: str
    arguments: str
    outcome: str

    @property
    def path(self) -> str:
        found = re.match(r'(?:-?\d+|AT_FDCWD)<([^>]*)>(?:, "([^"]*)")?|"([^"]*)"', self.arguments)
        if found is None:
            return ""
        base, inner, plain = found.groups()
        if plain is not None:
            return str(plain)
        return str(Path(base, inner)) if inner else str(base)

    @property
    def injected(self) -> bool:
        return "(INJECTED)" in self.outcome

    @property
    def failed(self) -> bool:
        return self.outcome.startswith("-1 ")


def log_of(path: Path) -> list[Call]:
    """The calls in a log, in order. One that a kill cut short has no outcome and is left out."""
    found = (_LINE.match(line) for line in path.read_text(errors="replace").splitlines())
    return [Call(*line.groups()) for line in found if line]


def points(calls: list[Call], below: Path, names: list[str] = CALLS) -> list[tuple[str, int]]:
    """(name, n) for each call that concerns a file below a directory, `n` counting as strace does.

    `close` is told by the descriptor's path, like all others; what the interpreter itself reads
    and writes elsewhere is passed over.
    """
    seen: Counter[str] = Counter()
    found = []
    for call in calls:
        seen[call.name] += 1
        if call.name in names and call.path.startswith(str(below)):
            found.append((call.name, seen[call.name]))
    return found


def sample(found: list[tuple[str, int]], every: int) -> list[tuple[str, int]]:
    """Every so-manieth point, the same in each run of the tests, and all of a name with few."""
    total = Counter(name for name, _ in found)
    seen: Counter[str] = Counter()
    chosen = []
    for name, n in found:
        seen[name] += 1
        if total[name] <= every + 1 or seen[name] % every == 1 % every:
            chosen.append((name, n))
    return chosen


@contextlib.contextmanager
def traced(pid: int, log: Path, *inject: str, calls: list[str] = CALLS) -> Iterator[None]:
    """Have a process traced. It has to end, and is let go on, in the block.

    Args:
        pid: the process; only its first thread.
        log: takes the calls.
        inject: what follows strace's `inject=`, such as "fsync:error=EIO:when=2+".
        calls: what is logged; what is injected has to be among it.
    """
    tracer = subprocess.Popen(
        [
            *("strace", "-y", "-o", str(log), "-p", str(pid), "-s", "256"),
            *("-e", "trace=" + ",".join(f"?{call}" for call in calls)),
            *(part for one in inject for part in ("-e", f"inject={one}")),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    try:
        attached = tracer.stderr.readline()
        assert "attached" in attached, f"strace could not attach: {attached}"
        yield
        tracer.wait(PATIENCE)
    finally:
        if tracer.poll() is None:
            tracer.terminate()  # it lets the child go on untraced
            tracer.wait(PATIENCE)
        tracer.stderr.close()


def run_traced(
    child: Child, log: Path, *inject: str, calls: list[str] = CALLS, timeout: float = PATIENCE
) -> int:
    """Let a traced child run to its end; returns how it ended."""
    with traced(child.pid, log, *inject, calls=calls):
        child.go()
        return child.wait(timeout)

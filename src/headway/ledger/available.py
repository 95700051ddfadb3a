"""Memory that can still be had. A size in a record is only what somebody wrote there: it is compared with
this before memory is asked for, because a kernel that promises more than it has kills later instead."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path

from headway.model.errors import CheckpointError

SMALL = 16 << 20
"""Bytes up to which nobody asks."""
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def require(size: int, what: str) -> None:
    """Refuse to make room for `size` bytes when there is none.

    Raises:
        CheckpointError: this machine, or what this process may use of it, has less left.
    """
    if size <= SMALL:
        return
    room = memory_left()
    if room is not None and size > room:
        raise CheckpointError(
            f"{what} needs {size} bytes of memory, and there are {room} left for this process. Load it "
            "where there is more; load(into=…) fills memory that is there already."
        )


def memory_left() -> int | None:
    """Bytes that this process can still use: of the machine, its swap included, of its control groups,
    and of its own limit. None where nobody says."""
    return min((max(0, room) for room in _rooms()), default=None)


def _rooms() -> Iterator[int]:
    machine = _numbers(_PROC / "meminfo", r"(MemAvailable|SwapFree):\s+(\d+) kB")
    if "MemAvailable" in machine:
        yield 1024 * sum(machine.values())
    for group in _groups():
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            cached = _numbers(group / "memory.stat", r"(inactive_file) (\d+)")
            yield limit - used + sum(cached.values())
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        pages = _text(_PROC / "self/statm").split()
        yield limit - int(pages[0]) * resource.getpagesize() if pages else limit


def _groups() -> Iterator[Path]:
    """This process's control group and those around it (version 2)."""
    found = re.search(r"^0::/(.*)$", _text(_PROC / "self/cgroup"), re.MULTILINE)
    group = _CGROUPS / (found[1] if found is not None else "")
    while group.is_relative_to(_CGROUPS) and ".." not in group.parts:
        yield group
        group = group.parent


def _numbers(path: Path, pattern: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(pattern, _text(path))}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another system, or a version that does not say
        return ""

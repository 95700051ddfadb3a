"""The machine in words: what a reader needs to judge the figures, and nothing that tells whose it is."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine(place: Path) -> dict[str, str]:
    """What was measured on.

    Args:
        place: the directory in which the benchmarks work.
    """
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores, {_processor()}",
        "memory": f"{pages * page / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": _filesystem(place),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": f"{os.getloadavg()[0]:.1f} processes ran on average in the minute before",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _filesystem(place: Path) -> str:
    """Type of the filesystem that `place` is on, such as ext4, and its options."""
    device = os.stat(place).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = "unknown"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            found = f"{rest.split()[0]} ({fields.split()[5]})"
    return found

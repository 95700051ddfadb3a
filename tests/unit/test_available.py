"""Memory that can still be had: of the machine, of control groups, of the process."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from headway.ledger import available
from headway.model.errors import CheckpointError

GIB = 1 << 30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB left, one of them swap, whose process is in the group /pod/job."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(
        "MemTotal: 9437184 kB\nMemAvailable: 7340032 kB\nSwapTotal: 1 kB\nSwapFree: 1048576 kB\n"
    )
    (tmp_path / "proc" / "self" / "cgroup").write_text("1:name=systemd:/x\n0::/pod/job\n")
    (tmp_path / "proc" / "self" / "statm").write_text("262144 1 1 1 0 1 0\n")
    for name in ("cgroups", "cgroups/pod", "cgroups/pod/job"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(available, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(available, "_CGROUPS", tmp_path / "cgroups")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    return tmp_path


def group(place: Path, limit: str, used: int, cached: int = 0) -> None:
    (place / "memory.max").write_text(f"{limit}\n")
    (place / "memory.current").write_text(f"{used}\n")
    (place / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")


def test_the_machine_has_what_is_available_and_its_swap(system: Path) -> None:
    assert available.memory_left() == 8 * GIB


def test_a_group_without_a_limit_says_nothing(system: Path) -> None:
    group(system / "cgroups" / "pod" / "job", "max", GIB)
    assert available.memory_left() == 8 * GIB


@pytest.mark.parametrize("place", ["pod/job", "pod", "."])
def test_the_tightest_group_around_counts_without_its_cache(system: Path, place: str) -> None:
    group(system / "cgroups" / place, str(3 * GIB), 2 * GIB, GIB // 2)
    assert available.memory_left() == 3 * GIB // 2


def test_the_process_may_have_a_limit_of_its_own(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = GIB // resource.getpagesize()
    (system / "proc" / "self" / "statm").write_text(f"{pages} 1 1 1 0 1 0\n")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4 * GIB, 4 * GIB))
    assert available.memory_left() == 3 * GIB


def test_where_nobody_says_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(available, "_PROC", tmp_path)
    monkeypatch.setattr(available, "_CGROUPS", tmp_path)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    assert available.memory_left() is None
    available.require(1 << 60, "a state")


def test_more_than_there_is_is_refused_with_both_sizes(system: Path) -> None:
    available.require(8 * GIB, "a state")
    with pytest.raises(
        CheckpointError, match=rf"a state needs {9 * GIB} bytes.* are {8 * GIB} left"
    ):
        available.require(9 * GIB, "a state")


def test_nobody_asks_for_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available, "memory_left", lambda: pytest.fail("it asked"))
    available.require(available.SMALL, "a state")

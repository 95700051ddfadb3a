"""What the page cache has of a file: the same by the call that newer kernels have as by the older one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.storage import ranges

SIZE = 4 << 20


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A durable file of `SIZE` bytes."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("call", ["cachestat", "mincore"])
def test_the_page_cache_is_asked_and_not_filled(
    fd: int, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call == "mincore":
        monkeypatch.setattr(ranges, "_pages_cached", lambda *_: None)
    elif ranges._pages_cached(fd, 0, SIZE) is None:
        pytest.skip("this kernel has no cachestat")
    os.pread(fd, SIZE, 0)
    assert ranges.cached(fd, 0, SIZE)
    assert ranges.cached(fd, SIZE // 2, 10 * SIZE)  # what is beyond the end is nobody's
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if ranges.cached(fd, 0, SIZE):
        pytest.skip("this filesystem keeps everything in memory")
    assert not ranges.cached(fd, 0, SIZE)
    os.pread(fd, SIZE // 4, 0)
    assert ranges.cached(fd, 0, SIZE // 4)


def test_a_kernel_that_does_not_tell_says_so(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_CACHESTAT", 100_000)
    assert ranges._pages_cached(fd, 0, SIZE) is None

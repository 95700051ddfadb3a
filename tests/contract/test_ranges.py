"""Ranges of files in memory: from the page cache or past it, aligned or not, and never wrong bytes."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from headway.model.errors import StorageUnavailable
from headway.storage import ranges
from headway.storage.local import LocalStorage

SIZE = 300_123


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    data = random.Random(1).randbytes(SIZE)
    (tmp_path / "k").write_bytes(data)
    return data


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers of two pages, and nothing is too short to go past the cache."""
    monkeypatch.setattr(ranges, "_WORTH_IT", 1)
    monkeypatch.setattr(ranges, "_BUFFER", 8192)
    monkeypatch.setattr(ranges, "_AT_ONCE", 16_384)
    monkeypatch.setattr(ranges, "_local", threading.local())
    monkeypatch.setattr(ranges, "_refusing", set())


class Past:
    """Counts reads past the page cache, and can refuse them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = self.refused = 0
        self.refuse = ""
        self._fcntl, self._preadv = fcntl.fcntl, os.preadv
        monkeypatch.setattr(fcntl, "fcntl", self.fcntl)
        monkeypatch.setattr(os, "preadv", self.preadv)

    def fcntl(self, fd: int, command: int, argument: int = 0) -> int:
        if self.refuse == "flag" and command == fcntl.F_SETFL and argument & os.O_DIRECT:
            self.refused += 1
            raise OSError(errno.EINVAL, "no O_DIRECT")
        return int(self._fcntl(fd, command, argument))

    def preadv(self, fd: int, pieces: Any, offset: int) -> int:
        if self._fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            if self.refuse == "read":
                self.refused += 1
                raise OSError(errno.EINVAL, "no O_DIRECT")
            self.reads += 1
        return self._preadv(fd, pieces, offset)


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> Past:
    return Past(monkeypatch)


def evicted(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@pytest.mark.parametrize("way", ["cached", "past the cache", "refused by flag", "refused by read"])
def test_every_range_comes_back_into_any_memory(
    tmp_path: Path,
    content: bytes,
    small: None,
    past: Past,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    past.refuse = way.removeprefix("refused by ") if way.startswith("refused") else ""
    if way != "cached":
        monkeypatch.setattr(ranges, "cached", lambda *_: False)
    storage = LocalStorage(tmp_path)
    source = random.Random(2)
    edges = [0, 1, 4095, 4096, 8192, 12_288, 100_000, SIZE - 4096, SIZE - 1, SIZE, SIZE + 5000]
    for _ in range(400):
        offset = source.choice([*edges, source.randrange(SIZE)])
        length = source.choice([1, 100, 4096, 8191, 8192, 40_960, 65_537, SIZE])
        shift = source.choice([0, 0, 512, 16, 1])
        memory = mmap.mmap(-1, length + shift)
        counts: list[int] = []
        got = storage.read_into(
            "k", offset, memoryview(memory)[shift : shift + length], counts.append
        )
        assert counts == sorted(counts) and counts[-1:] == ([got] if got else [])
        assert got == max(0, min(length, SIZE - offset)), (offset, length, shift)
        assert memory[shift : shift + got] == content[offset : offset + got], (
            offset,
            length,
            shift,
        )
        assert not any(memory[shift + got :]), "bytes behind the range"
    if way == "cached":
        assert past.reads == 0
    elif way == "past the cache" and past.reads == 0:
        pytest.skip("the filesystem of the temporary directory does not take O_DIRECT")
    elif past.refuse:
        assert past.refused == 1


def test_what_is_cached_is_taken_from_there(tmp_path: Path, past: Past) -> None:
    data = random.Random(3).randbytes(3 << 20)
    (tmp_path / "k").write_bytes(data)
    storage = LocalStorage(tmp_path)
    into = bytearray(len(data))
    assert storage.read_into("k", 0, memoryview(into)) == len(data)
    assert into == data and past.reads == 0


def test_what_is_not_cached_goes_past_it(tmp_path: Path, past: Past) -> None:
    data = random.Random(3).randbytes(3 << 20)
    (tmp_path / "k").write_bytes(data)
    evicted(tmp_path / "k")
    into = bytearray(len(data))
    assert LocalStorage(tmp_path).read_into("k", 0, memoryview(into)) == len(data)
    assert into == data
    if past.reads == 0:
        pytest.skip("the filesystem of the temporary directory is always cached")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_fault_past_the_cache_is_a_fault(
    tmp_path: Path, content: bytes, small: None, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(ranges, "cached", lambda *_: False)
    struck = []

    def fault(fd: int, pieces: Any, offset: int) -> int:
        struck.append(offset)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", fault)
    with pytest.raises(StorageUnavailable, match="could not read k"):
        LocalStorage(tmp_path).read_into("k", 0, memoryview(bytearray(100_000)))
    assert len(struck) == 1
    assert set(os.listdir("/proc/self/fd")) == before

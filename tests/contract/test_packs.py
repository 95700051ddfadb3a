"""Packs on a disk: every way a byte can take, what is refused, what is never written over."""

from __future__ import annotations

import errno
import mmap
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.crash.mounts import enlarge, tmpfs

from headway.model.errors import StorageError, StorageFull, StorageUnavailable
from headway.ports import ALIGN, LARGE, KeyExists, PackWriter
from headway.storage import packs
from headway.storage.local import LocalStorage
from headway.storage.posix import address, copy


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


class Calls:
    """Watches `os.open` and `os.pwrite`, and can refuse O_DIRECT at either."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open, self._pwrite = os.open, os.pwrite
        self.refuse_open = self.refuse_write = False
        self.short = 0
        self.direct: set[int] = set()
        self.past_the_cache = 0
        self.refused = 0
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(packs, "_refusing", set())

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT and self.refuse_open:
            self.refused += 1
            raise OSError(errno.EINVAL, "no O_DIRECT")
        fd = self._open(path, flags, mode)
        (self.direct.add if flags & os.O_DIRECT else self.direct.discard)(fd)
        return fd

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        if fd in self.direct:
            if self.refuse_write:
                self.refused += 1
                raise OSError(errno.EINVAL, "no O_DIRECT")
            assert offset % ALIGN == 0 and len(data) % ALIGN == 0
            self.past_the_cache += 1
            if self.short and len(data) > self.short:
                return self._pwrite(fd, memoryview(data)[: self.short], offset)
        return self._pwrite(fd, data, offset)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers of two pages: some kilobytes go the ways that gigabytes go elsewhere."""
    monkeypatch.setattr(packs, "_GATHER", 2 * ALIGN)
    monkeypatch.setattr(packs, "_STRAIGHT", ALIGN)
    monkeypatch.setattr(packs, "_AHEAD", 16 * ALIGN)


def aligned(data: bytes) -> memoryview:
    """`data` at the beginning of a page."""
    held = mmap.mmap(-1, max(len(data), 1))
    held[: len(data)] = data
    return memoryview(held)[: len(data)]


def pieces_of(seed: int, count: int) -> list[bytes | memoryview]:
    """Pieces around the sizes where something changes; some of them aligned, some read-only."""
    source = random.Random(seed)
    sizes = [0, 1, 7, 500, 4095, 4096, 4097, 8191, 8192, 8193, 12_288, 20_000, 65_536, 70_001]
    made: list[bytes | memoryview] = []
    for _ in range(count):
        data = source.randbytes(source.choice(sizes))
        held = [aligned(data), aligned(data).toreadonly(), memoryview(bytearray(b"x" + data))[1:]]
        form = source.randrange(4)
        made.append(held[form] if form < 3 else data)
    return made


def written(pack: PackWriter, pieces: list[bytes | memoryview], threads: int = 1) -> list[int]:
    if threads == 1:
        return [pack.write(piece) for piece in pieces]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(pack.write, pieces))


def check(stored: bytes, offsets: list[int], pieces: list[bytes | memoryview]) -> None:
    end = 0
    for offset, piece in sorted(zip(offsets, pieces, strict=True), key=lambda pair: pair[0]):
        if len(piece) == 0:
            continue
        assert offset >= end and not any(stored[end:offset])
        assert len(piece) < LARGE or offset % ALIGN == 0
        end = offset + len(piece)
        assert stored[offset:end] == piece
    assert len(stored) == end


@pytest.mark.parametrize("way", ["direct", "short", "refused at open", "refused at write"])
@pytest.mark.parametrize("threads", [1, 4])
def test_every_piece_is_where_it_was_said_to_be(
    home: Path, calls: Calls, small: None, way: str, threads: int
) -> None:
    calls.refuse_open, calls.refuse_write = way == "refused at open", way == "refused at write"
    calls.short = ALIGN if way == "short" else 0
    storage = LocalStorage(home)
    older = None
    for seed in range(25):
        pieces = pieces_of(seed, 25)
        size = sum(map(len, pieces)) if seed % 3 == 0 else 0
        pack = storage.create_pack(f"p/{seed}", size=size, reuse=older)
        offsets = written(pack, pieces, threads)
        pack.commit()
        check(storage.read(f"p/{seed}"), offsets, pieces)
        older = f"p/{seed}" if seed % 2 == 0 else None
    if calls.refuse_open or calls.refuse_write:
        assert calls.refused == 1, "a filesystem that refused once is not asked again and again"
    elif calls.past_the_cache == 0:
        pytest.skip("the filesystem of the temporary directory does not take O_DIRECT")


def test_large_packs_go_past_the_page_cache_and_small_ones_do_not(home: Path, calls: Calls) -> None:
    storage = LocalStorage(home)
    for key, size in (("small", 70_000), ("large", 3_000_000)):
        pack = storage.create_pack(key)
        pack.write(bytes([7]) * size)
        pack.commit()
        assert storage.read(key) == bytes([7]) * size
        if key == "small":
            assert not calls.direct and calls.past_the_cache == 0
    if not calls.past_the_cache:
        pytest.skip("the filesystem of the temporary directory does not take O_DIRECT")


def test_a_file_whose_size_was_guessed_takes_no_more_than_it_holds(home: Path) -> None:
    storage = LocalStorage(home)
    pack = storage.create_pack("p", size=30_000_000)
    pack.write(bytes([7]) * 5_000_001)
    pack.commit()
    found = (home / "p").stat()
    assert found.st_size == 5_000_001
    assert found.st_blocks * 512 < 6_000_000


def test_memory_of_a_pack_is_bounded_however_many_threads_write(
    home: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, most = os.pwrite, [0]
    pack: Any = LocalStorage(home).create_pack("p")

    def slow(fd: int, data: Any, offset: int) -> int:
        most[0] = max(most[0], pack._made - len(pack._spare))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    pieces = [bytes([number]) * 20_000 for number in range(200)]
    offsets = written(pack, list(pieces), 16)
    pack.commit()
    check((home / "p").read_bytes(), offsets, list(pieces))
    assert 0 < most[0] <= packs._BUFFERS


@pytest.mark.parametrize("size", [500, 5000, 20_000])
def test_what_fails_for_one_thread_ends_the_pack_for_all(
    home: Path, small: None, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    real, left = os.pwrite, [5]

    def fault(fd: int, data: Any, offset: int) -> int:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", fault)
    pack = LocalStorage(home).create_pack("p")
    kinds = []

    def write(number: int) -> None:
        try:
            pack.write(bytes([number]) * size)
        except StorageError as error:
            kinds.append(type(error))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(200)))
    assert kinds.count(StorageFull) == 1 and set(kinds) == {StorageFull, StorageUnavailable}
    written_by_then = -left[0]
    with pytest.raises(StorageUnavailable, match="failed before, or is finished"):
        pack.commit()
    with pytest.raises(StorageUnavailable, match="failed before, or is finished"):
        pack.write(b"x")
    assert -left[0] == written_by_then
    pack.abort()
    assert set(os.listdir("/proc/self/fd")) == before
    assert not (home / "p").exists()


def test_recycled_space_is_the_same_file_under_another_name(home: Path) -> None:
    storage = LocalStorage(home)
    pack = storage.create_pack("a")
    pack.write(b"a" * 3_000_000)
    pack.commit()
    inode = (home / "a").stat().st_ino
    pack = storage.create_pack("b", reuse="a")
    assert not storage.has("a")
    pack.write(b"b" * 2_000_000)
    pack.commit()
    assert (home / "b").stat().st_ino == inode
    assert storage.read("b") == b"b" * 2_000_000


def test_what_another_writer_made_is_never_written_over(home: Path) -> None:
    # It may be a zombie, which is writing there at this moment.
    other = LocalStorage(home)
    pack = other.create_pack("a")
    pack.write(b"a" * 3_000_000)
    pack.commit()
    inode = (home / "a").stat().st_ino
    with open(home / "a", "rb") as held:
        pack = LocalStorage(home).create_pack("b", reuse="a")
        pack.write(b"b" * 3_000_000)
        pack.commit()
        assert held.read() == b"a" * 3_000_000
    assert not other.has("a")
    assert other.read("b") == b"b" * 3_000_000
    assert (home / "b").stat().st_ino != inode


def test_a_backup_made_of_links_is_never_written_over(home: Path, tmp_path: Path) -> None:
    storage = LocalStorage(home)
    pack = storage.create_pack("a")
    pack.write(b"a" * 3_000_000)
    pack.commit()
    os.link(home / "a", tmp_path / "backup")
    pack = storage.create_pack("b", reuse="a")
    pack.write(b"b" * 3_000_000)
    pack.commit()
    assert (tmp_path / "backup").read_bytes() == b"a" * 3_000_000
    assert not storage.has("a") and storage.read("b") == b"b" * 3_000_000


def test_a_name_that_is_taken_leaves_what_was_to_be_recycled(home: Path) -> None:
    storage = LocalStorage(home)
    for key in "ab":
        pack = storage.create_pack(key)
        pack.write(key.encode())
        pack.commit()
    with pytest.raises(KeyExists, match="b exists already"):
        storage.create_pack("b", reuse="a")
    assert storage.read("a") == b"a" and storage.read("b") == b"b"


def test_recycling_what_is_gone_makes_a_new_file(home: Path) -> None:
    storage = LocalStorage(home)
    pack = storage.create_pack("a")
    pack.commit()
    (home / "a").unlink()
    pack = storage.create_pack("b", reuse="a")
    pack.write(b"b")
    pack.commit()
    assert storage.read("b") == b"b"


@pytest.mark.root
def test_a_disk_that_is_too_small_says_so_before_anything_is_written(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "8m") as place:
        storage = LocalStorage(place)
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(StorageFull):
            storage.create_pack("pack", size=30_000_000)
        assert storage.list("") == []
        assert set(os.listdir("/proc/self/fd")) == before
        pack = storage.create_pack("pack")  # space taken ahead is a guess, and no reason to fail
        piece = aligned(b"x" * 1_000_000)
        for _ in range(7):
            pack.write(piece)
        with pytest.raises(StorageFull):
            pack.write(memoryview(bytes(2_000_000)))
        pack.abort()
        assert storage.list("") == []
        enlarge(place, "64m")
        storage.create_pack("pack", size=30_000_000).abort()


def test_an_address_is_where_the_memory_is() -> None:
    data = bytearray(range(200))
    view = memoryview(data)
    assert address(view[7:]) == address(view) + 7 == address(view.toreadonly()[7:])
    copy(address(view), address(view[100:]), 50)
    assert data[:50] == bytes(range(100, 150))
    assert address(aligned(b"x" * 10)) % mmap.PAGESIZE == 0

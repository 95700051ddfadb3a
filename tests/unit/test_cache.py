"""What was read over a network once is kept on this machine, and never believed."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.checkpoint.cache import DEFAULT, Cache, limit, name_of, open_cache
from headway.checkpoint.handle import Checkpoint
from headway.testing.memory import MemoryStorage


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HEADWAY_CACHE_SIZE", "10G")
    return tmp_path / "headway" / "chunks"


def state() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "noise": rng.integers(0, 256, 20 << 20, np.uint8),
        "numbers": np.arange(300_000),
        "small": rng.standard_normal(9000),
    }


def reads(storage: MemoryStorage) -> int:
    return sum(method == "read_into" for method, _ in storage.calls)


def load(storage: MemoryStorage) -> dict[str, Any]:
    checkpoint = Checkpoint(storage, "n", attempt=len(storage.calls))
    found: dict[str, Any] = checkpoint.load()
    checkpoint.close()
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in one)


@pytest.fixture
def remote() -> MemoryStorage:
    storage = MemoryStorage(remote=True)
    checkpoint = Checkpoint(storage, "n")
    checkpoint.save(state())
    checkpoint.close()
    return storage


def test_the_next_attempt_on_this_machine_reads_nothing_over_the_network(
    remote: MemoryStorage, place: Path
) -> None:
    assert same(load(remote), state())
    before = reads(remote)
    assert before > 0
    assert same(load(remote), state())
    assert reads(remote) == before
    assert place.stat().st_mode & 0o077 == 0


def test_what_is_damaged_here_is_read_again(remote: MemoryStorage, place: Path) -> None:
    load(remote)
    dice = random.Random(0)
    for damage in ("flip", "cut", "swap"):
        files = sorted(place.iterdir())
        for file in files:
            data = bytearray(file.read_bytes())
            if damage == "flip":
                for _ in range(len(data) // 50_000 + 1):
                    data[dice.randrange(len(data))] ^= 1
                file.write_bytes(data)
            elif damage == "cut":
                file.write_bytes(data[:-1])
            else:
                file.write_bytes(bytes(len(data)))
        before = reads(remote)
        assert same(load(remote), state())
        assert reads(remote) > before
        before = reads(remote)
        assert same(load(remote), state())
        assert reads(remote) == before


def test_damage_in_the_store_is_not_hidden_for_ever_nor_made_up(remote: MemoryStorage) -> None:
    """What is kept here is verified by the same hashes: it is as good as the store's own."""
    load(remote)
    [pack] = [key for key in remote.objects if "/packs/" in key]
    remote.objects[pack][:] = bytes(len(remote.objects[pack]))
    assert same(load(remote), state())


def test_nothing_is_kept_of_a_local_home(place: Path) -> None:
    storage = MemoryStorage()
    checkpoint = Checkpoint(storage, "n")
    checkpoint.save(state())
    checkpoint.close()
    load(storage)
    assert not place.exists()


def test_nothing_is_kept_unless_somebody_asks(
    remote: MemoryStorage, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADWAY_CACHE_SIZE")
    assert open_cache() is None
    load(remote)
    assert not place.exists()


def test_a_cache_that_cannot_be_written_is_no_trouble(remote: MemoryStorage, place: Path) -> None:
    place.parent.mkdir(parents=True)
    place.write_bytes(b"in the way")
    assert same(load(remote), state())


def test_the_least_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 1000)
    for number in range(3):
        cache.put(f"{number}", memoryview(bytes([number]) * 300))
        os.utime(tmp_path / "c" / f"{number}", (number, number))
    into = memoryview(bytearray(300))
    assert cache.get("0", into) and into[0] == 0  # used just now
    cache.put("3", memoryview(b"3" * 300))
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["0", "2", "3"]
    cache.put("4", memoryview(b"4" * 900))  # more than is sensible
    assert not cache.get("4", memoryview(bytearray(900)))
    cache.drop("3")
    cache.drop("3")
    assert not cache.get("3", into)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, DEFAULT),
        ("", DEFAULT),
        ("0", 0),
        ("1000", 1000),
        ("5G", 5 << 30),
        ("1.5 GiB", 3 << 29),
        ("20mb", 20 << 20),
        ("-4", 0),
        ("much", DEFAULT),
        ("inf", DEFAULT),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str | None, size: int) -> None:
    assert limit(text) == size


def test_a_name_is_of_the_chunks_in_their_order() -> None:
    assert name_of([b"a" * 16, b"b" * 16]) != name_of([b"b" * 16, b"a" * 16])


def test_threads_keep_all_that_there_is_room_for(tmp_path: Path) -> None:
    """While one of them looks at what is there, others rename what they have written."""
    cache = Cache(tmp_path / "kept", 8 << 20)

    def put(number: int) -> None:
        cache._held = None  # look again
        cache.put(f"{number}", memoryview(bytes([number % 256]) * 1000))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(1500)))
    assert len(list((tmp_path / "kept").iterdir())) == 1500

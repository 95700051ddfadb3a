"""What every storage does, whatever it is made of (`headway.ports.Storage`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from tests import stores

from headway.model.errors import InputError, StorageError
from headway.ports import ALIGN, LARGE, KeyExists, KeyMissing, Storage


@pytest.fixture(params=stores.KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return stores.fresh(request.param, request, tmp_path)


@pytest.fixture(params=["local", "memory"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A store with directories. A bucket has none: nothing relies on what they forbid."""
    return stores.fresh(request.param, request, tmp_path)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 4096])
def test_what_is_created_is_read(storage: Storage, data: bytes) -> None:
    storage.create("runs/r/a", data)
    assert storage.read("runs/r/a") == data
    assert storage.has("runs/r/a")


def test_creating_again_fails_and_changes_nothing(storage: Storage) -> None:
    storage.create("a/b", b"first")
    with pytest.raises(KeyExists, match="a/b"):
        storage.create("a/b", b"second")
    with pytest.raises(KeyExists):
        storage.create_log("a/b", b"second", 100)
    with pytest.raises(KeyExists):
        storage.create_pack("a/b")
    assert storage.read("a/b") == b"first"
    assert storage.list("a") == ["b"]


def test_nothing_can_be_below_a_file_nor_a_file_where_something_is_below(tree: Storage) -> None:
    tree.create("a", b"object")
    with pytest.raises(StorageError):
        tree.create("a/b", b"below")
    assert tree.read("a") == b"object"
    tree.create("c/d", b"object")
    with pytest.raises(KeyExists):
        tree.create("c", b"there is something below it")


def test_what_was_appended_to_a_log_that_is_not_there_cannot_be_settled(tree: Storage) -> None:
    with pytest.raises(StorageError):
        tree.settle("other", 0, b"x")


def test_absence_is_an_error_of_its_own(storage: Storage) -> None:
    storage.create("runs/r/a", b"")
    for key in ("b", "runs/b", "runs/r/b", "other/x/y"):
        with pytest.raises(KeyMissing):
            storage.read(key)
        with pytest.raises(KeyMissing):
            storage.read_range(key, 0, 1)
        with pytest.raises(KeyMissing):
            storage.read_log(key)
        assert not storage.has(key)
        assert storage.list(key) == []
        storage.delete(key)


def test_a_list_names_what_is_directly_below(storage: Storage) -> None:
    assert storage.list("") == []
    for key in ("b/2", "b/10/x", "b/10/y", "a", "bb/z"):
        storage.create(key, b"")
    assert storage.list("") == ["a", "b", "bb"]
    assert storage.list("b") == ["10", "2"]
    assert storage.list("b/10") == ["x", "y"]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 4, b"0123"), (3, 3, b"345"), (8, 9, b"89"), (10, 1, b""), (99, 5, b""), (2, 0, b"")],
)
def test_a_range_ends_where_the_object_does(
    storage: Storage, offset: int, length: int, expected: bytes
) -> None:
    storage.create("k", b"0123456789")
    assert storage.read_range("k", offset, length) == expected


def test_deleting_takes_everything_below_and_nothing_beside(storage: Storage) -> None:
    for key in ("r/a/1", "r/a/2/3", "r/ab", "r/b"):
        storage.create(key, b"x")
    storage.delete("r/a")
    assert storage.list("r") == ["ab", "b"]
    assert not storage.has("r/a/2/3")
    storage.delete("r/ab")
    storage.delete("r/ab")
    assert storage.list("r") == ["b"]
    storage.create("r/a/1", b"again")
    assert storage.read("r/a/1") == b"again"


@pytest.mark.parametrize(
    "key", ["", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/../../b", "a/./b"]
)
def test_a_key_that_could_leave_the_home_is_refused(storage: Storage, key: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: storage.create(key, b""),
        lambda: storage.create_log(key, b"", 8),
        lambda: storage.create_pack(key),
        lambda: storage.read(key),
        lambda: storage.read_range(key, 0, 1),
        lambda: storage.has(key),
        lambda: storage.delete(key),
        lambda: storage.settle(key, 0, b""),
    ]
    if key:  # "" is what is directly below the home
        calls.append(lambda: storage.list(key))
    for call in calls:
        with pytest.raises(InputError, match="not a key"):
            call()
    assert storage.list("") == []


def test_a_log_is_whole_from_the_first_instant_and_zero_behind_what_was_appended(
    storage: Storage,
) -> None:
    log = storage.create_log("l/1", b"head", 20)
    assert storage.read_log("l/1") == b"head" + bytes(20)
    assert log.room == 20
    log.append(b"one")
    assert log.room == 17
    log.append(b"two")
    assert storage.read_log("l/1") == b"headonetwo" + bytes(14)
    log.close()
    log.close()
    assert storage.read_log("l/1") == b"headonetwo" + bytes(14)


def test_a_log_takes_what_fits_and_nothing_more(storage: Storage) -> None:
    log = storage.create_log("l", b"", 5)
    log.append(b"123")
    with pytest.raises(ValueError, match="do not fit"):
        log.append(b"456")
    assert storage.read_log("l") == b"123\0\0"
    log.append(b"45")
    assert log.room == 0
    assert storage.read_log("l") == b"12345"


def test_settling_leaves_the_bytes_as_they_are(storage: Storage) -> None:
    log = storage.create_log("l", b"head", 10)
    log.append(b"record")
    storage.settle("l", 4, b"record")
    storage.settle("l", 0, b"head")
    log.append(b"more")
    assert storage.read_log("l") == b"headrecordmore"


def test_a_pack_says_where_each_piece_begins(storage: Storage) -> None:
    big = bytes(range(256)) * 5000
    pack = storage.create_pack("packs/1")
    pieces: list[bytes | memoryview] = [
        b"small",
        b"",
        big,
        memoryview(b"view")[1:],
        big[:100_000],
        b"end",
    ]
    offsets = [pack.write(piece) for piece in pieces]
    pack.commit()
    stored = bytearray(storage.read("packs/1"))
    end = 0
    for offset, piece in zip(offsets, pieces, strict=True):
        assert offset >= end and not any(stored[end:offset])
        assert len(piece) < LARGE or offset % ALIGN == 0
        end = offset + len(piece)
        assert bytes(stored[offset:end]) == piece
    assert not any(stored[end:])
    assert storage.read_range("packs/1", offsets[3], 3) == b"iew"


def test_memory_is_filled_from_what_is_stored(storage: Storage) -> None:
    pack = storage.create_pack("p")
    content = bytes(range(256)) * 3000
    start = pack.write(content)
    pack.commit()
    into = bytearray(500_000)
    assert storage.read_into("p", start + 77, memoryview(into)) == len(into)
    assert into == content[77 : 77 + len(into)]
    few = memoryview(bytearray(10))
    size = len(storage.read("p"))
    assert storage.read_into("p", size - 4, few) == 4
    assert storage.read_into("p", size + 5, few) == 0
    with pytest.raises(KeyMissing):
        storage.read_into("other", 0, few)


def test_threads_write_to_one_pack(storage: Storage) -> None:
    pack = storage.create_pack("p", size=40 * 70_000)
    pieces = [bytes([number]) * (70_000 if number % 3 else 300) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        offsets = list(pool.map(pack.write, pieces))
    pack.commit()
    stored = storage.read("p")
    for offset, piece in zip(offsets, pieces, strict=True):
        assert stored[offset : offset + len(piece)] == piece


def test_a_pack_may_take_the_place_of_one_that_nobody_needs(storage: Storage) -> None:
    for key, content, reuse in (("a", b"x", None), ("b", b"y", "a"), ("c", b"z", "b")):
        pack = storage.create_pack(key, reuse=reuse)
        at = pack.write(content * 200_000)
        pack.commit()
        assert storage.read_range(key, at, 200_000) == content * 200_000
        assert not storage.has(reuse or "other")


def test_a_piece_of_a_pack_is_measured_in_bytes(storage: Storage) -> None:
    pack = cast("Any", storage.create_pack("p"))  # what an array library may hand over
    numbers = memoryview(bytearray(80)).cast("d")
    assert len(numbers) == 10
    assert pack.write(numbers) == 0
    assert pack.write(b"x") == 80
    pack.commit()
    assert len(storage.read("p")) == 81


def test_a_pack_of_many_small_pieces(storage: Storage) -> None:
    pack = storage.create_pack("p")
    pieces = [bytes([number % 256]) * 70_000 for number in range(40)]
    offsets = [pack.write(piece) for piece in pieces]
    pack.commit()
    stored = storage.read("p")
    for offset, piece in zip(offsets, pieces, strict=True):
        assert stored[offset : offset + len(piece)] == piece


def test_an_aborted_pack_gives_its_space_back(storage: Storage) -> None:
    pack = storage.create_pack("p/1")
    pack.write(b"x" * 3_000_000)
    pack.abort()
    pack.abort()
    assert storage.list("p") == []
    storage.create_pack("p/1").abort()


def test_of_many_creators_one_wins(storage: Storage) -> None:
    start = threading.Barrier(8)
    won: list[int] = []

    def create(number: int) -> None:
        start.wait()
        try:
            storage.create_log("race/1", bytes([number]) * 64, 100).close()
        except KeyExists:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read_log("race/1") == bytes(won) * 64 + bytes(100)
    assert storage.list("race") == ["1"]


def test_a_store_says_where_it_is_and_whom_it_trusts(storage: Storage) -> None:
    assert storage.url
    assert storage.trusted == ("://" not in storage.url)
    room = storage.room()
    assert room is None or room > 0

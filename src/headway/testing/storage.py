"""What every storage does, whatever it is made of: a suite for yours.

    from headway.testing.storage import StorageContract

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self, tmp_path):
            return MyStorage(tmp_path)

pytest collects the tests that the class inherits. Each gets a storage of its own, empty. A ledger on it has
a suite too: `headway.testing.ledger`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, cast

import pytest

from headway.model.errors import InputError, StorageError
from headway.ports import KeyExists, KeyMissing, Storage
from headway.testing.packs import PackContract, noise

NAMES = [
    "plain",
    "ünïcödé",
    "日本語",
    "🦆",
    "two words",
    "a+b=c&d?#%41",
    "-",
    "~",
    ".hidden",
    "x" * 200,
]
"""Names that a key may have between its slashes."""


class StorageContract(PackContract):
    """Inherit from it, and give it a fixture `storage`.

    Attributes:
        folders: as in a filesystem, nothing can be below an object's key, nor an object at a key with
            something below it. False for a store of flat keys, as buckets are; some of them go on
            for a while to list a folder in which nothing is left, and may.
        deletes_at_once: `delete` takes all that is below a prefix away in one step. False where it goes
            one by one.
        slow: each call goes over a network: the sweeps of the suite are shorter.
    """

    folders: ClassVar[bool] = True
    deletes_at_once: ClassVar[bool] = True
    slow: ClassVar[bool] = False

    @pytest.fixture
    def storage(self) -> Storage:
        """A storage of the kind that is tested, empty."""
        raise NotImplementedError("override the fixture `storage` in your subclass")

    # Objects

    @pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
    def test_what_is_created_is_read(self, storage: Storage, size: int) -> None:
        data = noise(size)
        storage.create("runs/r/a", data)
        assert storage.read("runs/r/a") == data
        assert storage.has("runs/r/a")

    def test_what_was_given_can_be_changed_afterwards(self, storage: Storage) -> None:
        data = bytearray(b"before")
        cast("Any", storage).create("k", data)
        data[:] = b"after!"
        assert storage.read("k") == b"before"

    def test_creating_again_fails_and_changes_nothing(self, storage: Storage) -> None:
        storage.create("a/b", b"first")
        with pytest.raises(KeyExists, match="a/b"):
            storage.create("a/b", b"second")
        with pytest.raises(KeyExists):
            storage.create("a/b", b"first")
        with pytest.raises(KeyExists):
            storage.create_log("a/b", b"second", 100)
        with pytest.raises(KeyExists):
            storage.create_pack("a/b")
        assert storage.read("a/b") == b"first"
        assert storage.list("a") == ["b"]

    def test_what_is_in_no_log_cannot_be_settled(self, storage: Storage) -> None:
        if not self.folders:
            pytest.skip("this storage has flat keys, and settles by looking")
        with pytest.raises(StorageError):
            storage.settle("other", 0, b"x")

    def test_a_folder_is_no_place_for_an_object(self, storage: Storage) -> None:
        if not self.folders:
            pytest.skip("this storage has flat keys")
        storage.create("a/b", b"first")
        with pytest.raises(KeyExists):
            storage.create("a", b"there is something below it")
        assert storage.list("a") == ["b"]
        with pytest.raises(StorageError):
            storage.create("a/b/c", b"below an object")
        assert storage.read("a/b") == b"first"

    def test_absence_is_an_error_of_its_own(self, storage: Storage) -> None:
        storage.create("runs/r/a", b"")
        for key in ("b", "runs/b", "runs/r/b", "other/x/y"):
            for reading in (
                lambda: storage.read(key),  # noqa: B023  # it is called at once
                lambda: storage.read_range(key, 0, 1),  # noqa: B023
                lambda: storage.read_into(key, 0, memoryview(bytearray(1))),  # noqa: B023
                lambda: storage.read_log(key),  # noqa: B023
            ):
                with pytest.raises(KeyMissing):
                    reading()
            assert not storage.has(key)
            assert storage.list(key) == []
            storage.delete(key)
        assert storage.list("runs/r") == ["a"]

    def test_a_prefix_is_no_object(self, storage: Storage) -> None:
        storage.create("runs/r/a", b"x")
        for prefix in ("runs", "runs/r"):
            with pytest.raises(StorageError):
                storage.read(prefix)

    @pytest.mark.parametrize(
        "key", ["", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/../../b", "a/./b", "a\0"]
    )
    def test_a_key_that_could_leave_the_home_is_refused(self, storage: Storage, key: str) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: storage.create(key, b""),
            lambda: storage.create_log(key, b"", 8),
            lambda: storage.create_pack(key),
            lambda: storage.read(key),
            lambda: storage.read_range(key, 0, 1),
            lambda: storage.read_into(key, 0, memoryview(bytearray(1))),
            lambda: storage.read_log(key),
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

    @pytest.mark.parametrize("name", NAMES)
    def test_a_name_may_be_of_any_letters(self, storage: Storage, name: str) -> None:
        storage.create(f"runs/{name}/{name}", name.encode())
        assert storage.read(f"runs/{name}/{name}") == name.encode()
        assert storage.list("runs") == storage.list(f"runs/{name}") == [name]
        storage.delete(f"runs/{name}")
        assert self._left(storage, "runs") == []

    # Reading parts

    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [(0, 4, b"0123"), (3, 3, b"345"), (8, 9, b"89"), (10, 1, b""), (99, 5, b""), (2, 0, b"")],
    )
    def test_a_range_ends_where_the_object_does(
        self, storage: Storage, offset: int, length: int, expected: bytes
    ) -> None:
        storage.create("k", b"0123456789")
        assert storage.read_range("k", offset, length) == expected
        into = bytearray(b"." * length)
        assert storage.read_into("k", offset, memoryview(into)) == len(expected)
        assert into == expected + b"." * (length - len(expected))

    def test_memory_is_filled_from_what_is_stored(self, storage: Storage) -> None:
        content = noise(768_000)
        pack = storage.create_pack("p")
        start = pack.write(content)
        pack.commit()
        into = bytearray(500_000)
        assert storage.read_into("p", start + 77, memoryview(into)) == len(into)
        assert into == content[77 : 77 + len(into)]
        few = memoryview(bytearray(10))
        size = len(storage.read("p"))
        assert storage.read_into("p", size - 4, few) == 4
        assert storage.read_into("p", size + 5, few) == 0
        # What an array library may hand over.
        numbers = cast("memoryview[int]", memoryview(bytearray(80)).cast("d"))
        assert storage.read_into("p", start, numbers) == 80
        assert numbers.tobytes() == content[:80]

    def test_what_is_said_to_be_there_is_there(self, storage: Storage) -> None:
        content = noise(5_000_000)
        pack = storage.create_pack("p")
        start = pack.write(content)
        pack.commit()
        into = bytearray(len(content))
        counts = [0]

        def seen(count: int) -> None:
            before = counts[-1]
            assert before <= count <= len(into)
            assert into[before:count] == content[before:count]
            counts.append(count)

        assert storage.read_into("p", start, memoryview(into), seen) == len(content)
        assert into == content
        assert storage.readers("p") >= 1
        assert storage.readers("absent") >= 1

    def test_threads_read_into_parts_of_one_memory(self, storage: Storage) -> None:
        content = noise(1_000_000)
        pack = storage.create_pack("p")
        start = pack.write(content)
        pack.commit()
        into = bytearray(len(content))

        def read(at: int) -> int:
            view = memoryview(into)[at : at + 70_001]
            return storage.read_into("p", start + at, view)

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(read, range(0, len(content), 70_001))) == len(content)
        assert into == content

    # Lists and deletion

    def test_a_list_names_what_is_directly_below(self, storage: Storage) -> None:
        assert storage.list("") == []
        for key in ("b/2", "b/10/x", "b/10/y", "a", "bb/z", "b-/q"):
            storage.create(key, b"")
        storage.create_log("b/3", b"", 10).append(b"x")
        assert storage.list("") == ["a", "b", "b-", "bb"]
        assert storage.list("b") == ["10", "2", "3"]
        assert storage.list("b/10") == ["x", "y"]

    def test_a_list_is_sorted_however_long_it_is(self, storage: Storage) -> None:
        names = [f"{number:x}" for number in range(60 if self.slow else 300)]
        for name in names:
            storage.create(f"many/{name}", b"")
        assert storage.list("many") == sorted(names)

    def test_deleting_takes_everything_below_and_nothing_beside(self, storage: Storage) -> None:
        for key in ("r/a/1", "r/a/2/3", "r/ab", "r/b"):
            storage.create(key, b"x")
        storage.create_log("r/a/log", b"head", 10).append(b"x")
        storage.delete("r/a")
        assert self._left(storage, "r") == ["ab", "b"]
        assert not storage.has("r/a/2/3")
        assert not storage.has("r/a/log")
        storage.delete("r/ab")
        storage.delete("r/ab")
        assert self._left(storage, "r") == ["b"]
        storage.create("r/a/1", b"again")
        assert storage.read("r/a/1") == b"again"
        storage.delete("r/a/1")
        assert self._left(storage, "r/a") == []

    def _left(self, storage: Storage, prefix: str) -> list[str]:
        """What is listed below a prefix after something was deleted there."""
        names = storage.list(prefix)
        if self.folders:
            return names
        keys = {name: f"{prefix}/{name}" for name in names}
        return [name for name, key in keys.items() if storage.has(key) or self._left(storage, key)]

    def test_a_prefix_goes_in_one_step(self, storage: Storage) -> None:
        if not self.deletes_at_once:
            pytest.skip("this storage deletes one by one")
        keys = [f"d/{number % 7}/{number}" for number in range(150)]
        for key in keys:
            storage.create(key, b"x")
        looking, stop = threading.Event(), threading.Event()

        def look() -> list[bool]:
            seen: list[bool] = []
            while not stop.is_set():
                for key in keys:
                    seen.append(storage.has(key))
                    looking.set()
            return seen

        with ThreadPoolExecutor(1) as pool:
            looked = pool.submit(look)
            try:
                looking.wait(timeout=10)
                storage.delete("d")
            finally:
                stop.set()
            seen = [*looked.result(), False]
        assert storage.list("") == []
        first = seen.index(False)
        assert not any(seen[first:]), "one key was gone, and another still there"

    # Logs

    def test_a_log_is_whole_from_the_first_instant_and_zero_behind_what_was_appended(
        self, storage: Storage
    ) -> None:
        log = storage.create_log("l/1", b"head", 20)
        assert storage.has("l/1")
        assert storage.read_log("l/1") == b"head" + bytes(20)
        assert storage.read_range("l/1", 0, 4) == b"head"
        assert log.room == 20
        log.append(b"one")
        assert log.room == 17
        log.append(b"two")
        assert storage.read_log("l/1") == b"headonetwo" + bytes(14)
        log.close()
        log.close()
        assert storage.read_log("l/1") == b"headonetwo" + bytes(14)
        assert storage.list("l") == ["1"]

    def test_a_log_takes_what_fits_and_nothing_more(self, storage: Storage) -> None:
        log = storage.create_log("l", b"", 5)
        log.append(b"123")
        with pytest.raises(ValueError, match="do not fit"):
            log.append(b"456")
        assert storage.read_log("l") == b"123\0\0"
        log.append(b"45")
        assert log.room == 0
        assert storage.read_log("l") == b"12345"

    def test_settling_leaves_the_bytes_as_they_are(self, storage: Storage) -> None:
        log = storage.create_log("l", b"head", 10)
        log.append(b"record")
        storage.settle("l", 4, b"record")
        storage.settle("l", 0, b"head")
        log.append(b"more")
        assert storage.read_log("l") == b"headrecordmore"

    def test_a_large_log_is_read_whole(self, storage: Storage) -> None:
        log = storage.create_log("l", b"head", 2_000_000)
        pieces = [noise(size, seed=size) for size in (1, 70_000, 0, 400_000, 513)]
        for piece in pieces:
            log.append(piece)
        found = storage.read_log("l")
        assert found == (b"head" + b"".join(pieces)).ljust(2_000_004, b"\0")

    # Several at once

    def test_an_object_is_seen_whole_or_not_at_all(self, storage: Storage) -> None:
        rounds, size = (3, 300_000) if self.slow else (20, 1_000_000)
        for number in range(rounds):
            key, data = f"atomic/{number}", bytes([number + 1]) * size
            looking, stop = threading.Event(), threading.Event()

            def look(key: str, looking: threading.Event, stop: threading.Event) -> bytes | None:
                while not stop.is_set():
                    try:
                        return storage.read(key)
                    except KeyMissing:
                        pass
                    finally:
                        looking.set()
                return None

            with ThreadPoolExecutor(1) as pool:
                looked = pool.submit(look, key, looking, stop)
                try:
                    looking.wait(timeout=10)
                    storage.create(key, data)
                finally:
                    stop.set()
                assert looked.result() in {data, None}

    @pytest.mark.parametrize("kind", ["log", "object"])
    def test_of_many_creators_one_wins(self, storage: Storage, kind: str) -> None:
        for number in range(3 if self.slow else 10):
            key, start = f"race/{number}", threading.Barrier(8)

            def create(mine: int, key: str, start: threading.Barrier) -> bool:
                start.wait()
                try:
                    if kind == "log":
                        storage.create_log(key, bytes([mine]) * 64, 100).close()
                    else:
                        storage.create(key, bytes([mine]) * 64)
                except KeyExists:
                    return False
                assert storage.has(key)
                return True

            with ThreadPoolExecutor(8) as pool:
                won = list(pool.map(create, range(8), [key] * 8, [start] * 8))
            assert won.count(True) == 1
            assert storage.read_range(key, 0, 64) == bytes([won.index(True)]) * 64
        assert len(storage.list("race")) == number + 1

    # What it says of itself

    def test_a_store_says_where_it_is_and_whom_it_trusts(self, storage: Storage) -> None:
        assert storage.url
        assert storage.trusted in {True, False}

    def test_a_store_may_say_how_much_room_it_has(self, storage: Storage) -> None:
        room = storage.room()
        assert room is None or room > 0

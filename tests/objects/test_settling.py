"""How a creation ends, answer by answer; what a log and a pack do when theirs does not come."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from tests.objects.sessions import small_parts

from headway.ledger.read import read_ledger
from headway.ledger.write import Ledger
from headway.model.errors import (
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from headway.ports import KeyExists, KeyMissing, PackWriter
from headway.storage.bucket import Found, Kind, Listed, Refusal
from headway.storage.object import Limits, ObjectStorage


class Script:
    """A bucket in memory that answers as it is told, and then as a good one does.

    Attributes:
        plan: for each `put` to come: a refusal, "lost" (it acts, and does not answer), or "good".
        asked: every request.
    """

    def __init__(self, *plan: Kind | str) -> None:
        self.plan = [*plan]
        self.blind: Kind | None = None  # what every `get` answers
        self.deaf = 0  # how many `get`s to come are not answered
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def put(self, path: str, data: bytes | bytearray | memoryview) -> None:
        with self.lock:
            self.asked.append(f"put {path}")
            answer = self.plan.pop(0) if self.plan else "good"
            if isinstance(answer, Kind):
                raise Refusal(answer, "planted")
            if path in self.objects:
                raise Refusal(Kind.TAKEN, "taken")
            self.objects[path] = bytes(data)
            if answer == "lost":
                raise Refusal(Kind.UNKNOWN, "no answer")

    def get(self, path: str, start: int, end: int) -> Found:
        self.asked.append(f"get {path}")
        if self.deaf:
            self.deaf -= 1
            raise Refusal(Kind.UNKNOWN, "planted")
        if self.blind is not None:
            raise Refusal(self.blind, "planted")
        if path not in self.objects:
            raise Refusal(Kind.MISSING, "nothing")
        data = self.objects[path]
        if start >= len(data):
            raise Refusal(Kind.BEYOND, "beyond")
        return Found(memoryview(data)[start:end], len(data))

    def below(self, prefix: str) -> Listed:
        paths = {
            path.removeprefix(f"{prefix}/") for path in self.objects if path.startswith(prefix)
        }
        directories = sorted({p.partition("/")[0] for p in paths if "/" in p})
        return Listed(directories, sorted(p for p in paths if "/" not in p))

    def all_below(self, prefix: str) -> list[tuple[str, int]]:
        start = f"{prefix}/"
        return sorted((p, len(data)) for p, data in self.objects.items() if p.startswith(start))

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            self.objects.pop(path, None)


def _storage(script: Any, patience: float = 5) -> ObjectStorage:
    return ObjectStorage(script, "s3://script", limits=Limits(patience=patience))


def test_an_undisturbed_creation_is_one_request() -> None:
    script = Script()
    _storage(script).create("a", b"x")
    assert script.asked == ["put a"]


def test_a_lost_answer_is_settled_by_what_is_there() -> None:
    script = Script("lost")
    _storage(script).create("a", b"ours")
    assert script.asked == ["put a", "put a", "get a"]
    assert script.objects == {"a": b"ours"}


def test_the_question_what_is_there_is_asked_again() -> None:
    script = Script("lost")
    script.deaf = 2
    _storage(script).create("a", b"ours")
    assert script.asked == ["put a", "put a", "get a", "put a", "get a", "put a", "get a"]
    script = Script(Kind.UNKNOWN)
    script.deaf = 1
    script.objects["a"] = b"them"
    with pytest.raises(KeyExists):
        _storage(script).create("a", b"ours")


@pytest.mark.parametrize("there", [b"them", b"our", b"ours!", b""])
def test_other_bytes_are_a_rivals(there: bytes) -> None:
    script = Script(Kind.UNKNOWN)
    script.objects["a"] = there
    with pytest.raises(KeyExists):
        _storage(script).create("a", b"ours")
    assert script.objects["a"] == there


def test_equal_bytes_without_a_lost_answer_are_somebody_elses() -> None:
    script = Script()
    script.objects["a"] = b"same"
    with pytest.raises(KeyExists):
        _storage(script).create("a", b"same")
    assert script.asked == ["put a"]


def test_a_lost_request_is_sent_again() -> None:
    script = Script(Kind.UNKNOWN, Kind.UNKNOWN)
    _storage(script).create("a", b"ours")
    assert script.asked == ["put a"] * 3


def test_a_conflict_with_something_in_flight_is_looked_into() -> None:
    script = Script(Kind.CONTENDED)
    _storage(script).create("a", b"ours")
    assert script.asked == ["put a", "get a", "put a"]
    script = Script(Kind.CONTENDED)
    script.objects["a"] = b"them"
    with pytest.raises(KeyExists):
        _storage(script).create("a", b"ours")


@pytest.mark.parametrize("blind", [Kind.UNKNOWN, Kind.DENIED, Kind.WRONG])
def test_what_cannot_be_read_settles_nothing(blind: Kind) -> None:
    script = Script("lost")
    script.blind = blind
    with pytest.raises(StorageError) as caught:
        _storage(script, 0.1).create("a", b"ours")
    assert not isinstance(caught.value, KeyExists)


def test_the_last_try_is_settled_too() -> None:
    script = Script("lost")
    _storage(script, patience=0).create("a", b"ours")
    assert script.asked == ["put a", "get a"]
    script = Script(Kind.UNKNOWN)
    with pytest.raises(StorageUnavailable, match=r"could not create a: planted.*headway resume"):
        _storage(script, patience=0).create("a", b"ours")


def test_an_empty_object_is_settled_too() -> None:
    script = Script("lost")
    _storage(script).create("a", b"")
    script = Script(Kind.UNKNOWN)
    script.objects["a"] = b"x"
    with pytest.raises(KeyExists):
        _storage(script).create("a", b"")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Kind.DENIED, StorageDenied),
        (Kind.FULL, StorageFull),
        (Kind.WRONG, StorageUnavailable),
        (Kind.MISSING, StorageUnavailable),
    ],
)
def test_a_verdict_ends_the_matter(kind: Kind, error: type[StorageError]) -> None:
    script = Script(kind)
    with pytest.raises(error, match="Earlier checkpoints are safe"):
        _storage(script).create("a", b"x")
    assert script.asked == ["put a"]


def test_after_an_append_without_a_verdict_nothing_is_appended() -> None:
    script = Script("good", "good", Kind.UNKNOWN)
    log = _storage(script, patience=0).create_log("l", b"head", 100)
    log.append(b"one")
    with pytest.raises(StorageUnavailable):
        log.append(b"two")
    with pytest.raises(StorageUnavailable, match="begin a new one"):
        log.append(b"three")
    assert sorted(script.objects) == ["l", "l.parts/000000000004"]


def test_somebody_elses_bytes_in_a_log_of_ours_are_no_success() -> None:
    script = Script()
    log = _storage(script).create_log("l", b"head", 100)
    script.objects["l.parts/000000000004"] = b"them"
    with pytest.raises(StorageError, match="somebody else wrote"):
        log.append(b"ours")


def test_a_gap_in_a_log_reads_as_zeros_and_is_damage() -> None:
    script = Script()
    storage = _storage(script)
    ledger = Ledger.open(storage, "l")
    for payload in (b"one", b"two", b"three"):
        ledger.append(payload)
    whole = storage.read_log("l/00000001")
    parts = sorted(path for path in script.objects if ".parts/" in path)
    for gone, records in ((0, []), (1, []), (2, [b"one"]), (3, [b"one", b"two"])):
        kept = script.objects.pop(parts[gone])
        at = int(parts[gone].rpartition("/")[2])
        log = storage.read_log("l/00000001")
        assert log == whole[:at] + bytes(len(kept)) + whole[at + len(kept) :]
        chain = read_ledger(storage, "l")
        found = [record.payload for record in chain.records]
        assert found[: len(records)] == records
        if gone < 3:  # the last one is like one that was never written
            assert [d for d in chain.damage if not d.tail] or not records
            assert len(found) < 3
        script.objects[parts[gone]] = kept


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored[:-1],
        lambda stored: stored[:-9] + b"\xff" + stored[-8:],
        lambda stored: stored + b"\0",
        lambda stored: b"",
    ],
)
def test_a_log_whose_head_is_damaged_is_found_out(change: Any) -> None:
    script = Script()
    storage = _storage(script)
    Ledger.open(storage, "l").append(b"one")
    script.objects["l/00000001"] = change(script.objects["l/00000001"])
    chain = read_ledger(storage, "l")
    assert chain.damage
    assert not all(damage.tail for damage in chain.damage)


def test_bytes_behind_the_end_of_a_log_are_found_out() -> None:
    script = Script()
    storage = _storage(script)
    Ledger.open(storage, "l").append(b"one")
    script.objects["l/00000001.parts/000000900000"] = b"more"
    script.objects["l/00000001.parts/999999999999"] = b"much more"
    script.objects["l/00000001.parts/not-a-number"] = b"what is this"
    chain = read_ledger(storage, "l")
    assert [record.payload for record in chain.records] == [b"one"]
    assert chain.damage


def test_a_pack_has_its_name_only_when_it_is_whole() -> None:
    script = Script()
    with small_parts():
        pack = _storage(script).create_pack("p")
        pack.write(bytes(500_000))
        assert "p" not in script.objects
        pack.commit()
    assert script.asked[-1] == "put p"
    assert sum(len(data) for data in script.objects.values()) == 500_000


def _filled(pack: PackWriter) -> None:
    for _ in range(5):
        pack.write(bytes(100_000))
    pack.commit()


@pytest.mark.parametrize("when", range(4))
def test_a_pack_that_lost_a_part_is_never_committed(when: int) -> None:
    script = Script(*["good"] * when, Kind.DENIED)
    storage = _storage(script)
    with small_parts():
        pack = storage.create_pack("p")
        with pytest.raises(StorageDenied):  # a thread tells, so it may be at any call from there on
            _filled(pack)
        with pytest.raises(StorageError):
            pack.commit()
        pack.abort()
    assert script.objects == {}
    with pytest.raises(KeyMissing):
        storage.read("p")


def test_a_pack_reads_the_same_across_its_parts() -> None:
    script = Script()
    storage = _storage(script)
    content = bytes(range(250)) * 3000
    with small_parts():
        pack = storage.create_pack("p")
        for start in range(0, len(content), 70_000):
            pack.write(content[start : start + 70_000])
        pack.commit()
        stored = storage.read("p")
        for start, length in ((0, 10), (131_070, 4), (100_000, 400_000), (700_000, 99_999)):
            assert storage.read_range("p", start, length) == stored[start : start + length]
            into = bytearray(length)
            count = storage.read_into("p", start, memoryview(into))
            assert bytes(into[:count]) == stored[start : start + length]
        assert storage.read_range("p", len(stored), 10) == b""
        # An object that was created whole and is larger than a part.
        storage.create("large", content)
        assert storage.read("large") == content
        assert storage.read_range("large", 131_000, 300_000) == content[131_000:431_000]

"""What `headway.testing` gives to users does what it says: each fault strikes, and is counted."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from tests.drawing import drawn

from headway.checkpoint.handle import Checkpoint
from headway.model.errors import StorageFull, StorageUnavailable
from headway.ports import Storage
from headway.storage.local import LocalStorage
from headway.testing.comparing import difference
from headway.testing.faults import (
    CALLS,
    Count,
    Delay,
    Fail,
    Freeze,
    Kill,
    Killed,
    Planned,
    Sometimes,
    Tear,
)
from headway.testing.memory import MemoryStorage
from headway.testing.playing import Look, Operation, Reopen, Write, play
from headway.testing.strategies import operations, plain_values, states
from headway.testing.wrapping import Call, Wrapper


def everything(storage: Storage) -> None:
    """Call whatever there is."""
    storage.create("o", b"object")
    storage.read("o")
    storage.read_range("o", 1, 2)
    storage.read_into("o", 0, memoryview(bytearray(3)))
    storage.has("o")
    storage.list("")
    storage.room()
    log = storage.create_log("l", b"head", 10)
    log.append(b"record")
    storage.settle("l", 4, b"record")
    storage.read_log("l")
    log.close()
    pack = storage.create_pack("p", size=4)
    pack.write(b"data")
    pack.commit()
    storage.create_pack("q").abort()
    storage.delete("o")


def test_every_call_is_counted() -> None:
    storage = Count(MemoryStorage())
    everything(storage)
    assert set(storage.totals) == CALLS
    assert storage.struck == len(storage.calls) == len(CALLS) + 1
    assert storage.totals["create_pack"] == 2
    assert [call.key for call in storage.calls if call.name == "append"] == ["l"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", sorted(CALLS))
def test_any_call_can_fail(name: str, after: bool) -> None:
    storage = Fail(MemoryStorage(), only=name, after=after, error=StorageFull)
    with pytest.raises(StorageFull, match="reply" if after else "request"):
        everything(storage)
    assert storage.struck == 1


@pytest.mark.parametrize("after", [False, True])
def test_a_lost_reply_has_its_effect_and_a_lost_request_has_none(after: bool) -> None:
    inner = MemoryStorage()
    storage = Fail(inner, 2, only="append", after=after)
    log = storage.create_log("l", b"", 6)
    log.append(b"one")
    with pytest.raises(StorageUnavailable):
        log.append(b"two")
    assert inner.read("l") == (b"onetwo" if after else b"one\0\0\0")


def test_a_fault_can_last_and_end() -> None:
    storage = Fail(MemoryStorage(), 2, only="read", lasting=True)
    storage.create("k", b"x")
    storage.read("k")
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            storage.read("k")
    storage.disarm()
    assert storage.read("k") == b"x"
    storage.arm(1)
    with pytest.raises(StorageUnavailable):
        storage.read("k")
    assert storage.struck == 4


def test_what_can_fail_may_be_said_by_a_function() -> None:
    storage = Fail(
        MemoryStorage(), only=lambda call: call.name == "create" and call.key.endswith("/b")
    )
    storage.create("x/a", b"")
    with pytest.raises(StorageUnavailable):
        storage.create("x/b", b"")
    with pytest.raises(ValueError, match="no calls of a storage"):
        Fail(MemoryStorage(), only="creat")


def test_failures_by_chance_come_again_from_the_same_seed() -> None:
    def failures(seed: int) -> list[int]:
        storage = Sometimes(MemoryStorage(), 0.2, seed=seed, only="list")
        found = []
        for number in range(200):
            try:
                storage.list("")
            except StorageUnavailable:
                found.append(number)
        assert storage.struck == len(found)
        return found

    assert failures(1) == failures(1) != failures(2)
    assert 20 < len(failures(1)) < 60


def test_a_torn_write_is_there_in_part() -> None:
    inner = MemoryStorage()
    storage = Tear(inner, None, share=0.5)
    log, pack = storage.create_log("l", b"head", 2000), storage.create_pack("p")
    pack.write(b"whole")
    data = b"x" * 1500
    storage.arm()
    with pytest.raises(StorageUnavailable, match="torn after 750 of 1500"):
        pack.write(data)
    storage.arm()
    with pytest.raises(StorageUnavailable, match="torn after 508 of 1500"):  # a whole sector
        log.append(data)
    assert inner.read("l") == b"head" + data[:508] + bytes(2000 - 508)
    assert inner.read("p") == b"whole" + data[:750]
    assert storage.struck == 2


def test_calls_wait() -> None:
    waited: list[float] = []
    storage = Delay(MemoryStorage(), 5.0, only="list", seed=1, sleep=waited.append)
    for _ in range(20):
        storage.list("")
    assert storage.struck == len(waited) == 20
    assert all(0 <= seconds <= 5 for seconds in waited)
    assert len(set(waited)) > 1
    Delay(MemoryStorage(), 0).list("")


@pytest.mark.parametrize("after", [False, True])
def test_a_frozen_call_stands_still_until_it_is_released(after: bool) -> None:
    inner = MemoryStorage()
    storage = Freeze(inner, only="create", after=after)
    with ThreadPoolExecutor(1) as pool:
        created = pool.submit(storage.create, "k", b"x")
        storage.frozen.wait()
        assert not created.done()
        assert inner.has("k") == after
        storage.create("other", b"goes on")
        storage.release()
        created.result()
    assert inner.has("k")
    assert storage.struck == 1


def test_faults_go_round_each_other() -> None:
    counted = Count(MemoryStorage())
    storage = Fail(Fail(counted, 2, only="list"), 3, only="list")
    storage.list("")
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            storage.list("")
    storage.list("")
    assert counted.struck == 2


def test_of_many_threads_one_is_struck() -> None:
    storage = Fail(MemoryStorage(), 50, only="list")
    failed: list[int] = []
    start = threading.Barrier(8)

    def call(number: int) -> None:
        start.wait()
        for _ in range(20):
            try:
                storage.list("")
            except StorageUnavailable:
                failed.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(8)))
    assert len(failed) == storage.struck == 1


def test_calls_go_as_planned() -> None:
    inner = MemoryStorage()
    storage = Planned(inner, only={"create", "append", "read"})
    log = storage.create_log("l", b"", 1024)
    storage.plan = ["", "before", "after", "torn", "torn"]
    storage.create("a", b"")
    for key in ("b", "c"):
        with pytest.raises(StorageUnavailable):
            storage.create(key, b"")
    with pytest.raises(StorageUnavailable):
        storage.read("a")
    with pytest.raises(StorageUnavailable):
        log.append(b"x" * 1024)
    assert inner.list("") == ["a", "c", "l"]
    assert inner.read("l") == b"x" * 512 + bytes(512)
    storage.read("a")
    assert storage.struck == 4


@pytest.mark.parametrize(
    ("how", "left"), [({}, b""), ({"after": True}, b"12345678"), ({"torn": True}, b"1234")]
)
def test_after_a_kill_nothing_has_an_effect(how: dict[str, Any], left: bytes) -> None:
    inner = MemoryStorage()
    storage = Kill(inner, only="write", **how)
    log, pack = storage.create_log("l", b"", 8), storage.create_pack("p")
    with pytest.raises(Killed):
        pack.write(b"12345678")
    assert storage.dead
    pack.abort()
    with pytest.raises(Killed):
        log.append(b"x")
    with pytest.raises(Killed):
        storage.create("k", b"")
    with pytest.raises(Killed):
        pack.commit()
    log.close()
    assert {key: bytes(data) for key, data in inner.objects.items()} == {"l": bytes(8), "p": left}


def test_a_save_that_is_killed_anywhere_leaves_the_one_before() -> None:
    calls = Count(MemoryStorage())
    checkpoint = Checkpoint(calls, "n")
    checkpoint.write(b"one")
    before = calls.struck
    checkpoint.write(bytes(100_000))
    for at in range(1, calls.struck - before + 1):
        for after in (False, True):
            home = MemoryStorage()
            storage = Kill(home, None, after=after)
            checkpoint = Checkpoint(storage, "n")
            checkpoint.write(b"one")
            storage.arm(at)
            with pytest.raises(Killed):
                checkpoint.write(bytes(100_000))
            assert Checkpoint(home, "n", attempt=1).read() in {b"one", bytes(100_000)}


@pytest.mark.parametrize(
    ("found", "saved", "told"),
    [
        ({"a": [1]}, {"a": [True]}, r"state\['a'\]\[0\] is a int, and was a bool"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "has the keys"),
        ({1: 0}, {True: 0}, "has the keys"),
        ([0.0], [-0.0], r"is 0.0, and was -0.0"),
        ([1, 2], [1], "has 2 items"),
        (np.zeros(2), np.zeros(2, ">f8"), "dtype"),
        (np.zeros((2, 1)), np.zeros(2), "shape"),
        (np.array([np.nan]), np.array([-np.nan]), "other values"),
        (b"a", bytearray(b"a"), "was a bytearray"),
    ],
)
def test_a_difference_is_said_in_words(found: Any, saved: Any, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(difference(found, saved))
    assert difference(saved, saved) == ""


@drawn(40)
@given(plain_values())
def test_a_value_is_the_same_as_itself(value: Any) -> None:
    assert difference(value, value) == ""


@drawn(60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(states(large=True))
def test_any_state_comes_back(state: dict[str, Any]) -> None:
    storage = MemoryStorage()
    with_checkpoint = Checkpoint(storage, "n")
    with_checkpoint.save(state)
    assert difference(Checkpoint(storage, "n", attempt=1).load(), state) == ""


@drawn(40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(operations())
def test_whatever_attempts_do_one_after_the_other_the_newest_is_found(
    done: list[Operation],
) -> None:
    assert play(MemoryStorage(), done) == len(done) + 2


@drawn(8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(done=operations())
def test_on_a_disk_too(tmp_path_factory: pytest.TempPathFactory, done: list[Operation]) -> None:
    play(LocalStorage(tmp_path_factory.mktemp("home")), done)


def test_a_storage_that_forgets_is_found_out() -> None:
    class Forgetful(Wrapper):
        def around(self, call: Call, act: Callable[[], Any]) -> Any:
            return None if call.name == "append" else act()

    done: list[Operation] = [Write(b"1"), Reopen(killed=True), Look()]
    assert play(MemoryStorage(), done) == len(done) + 2
    with pytest.raises(AssertionError):
        play(Forgetful(MemoryStorage()), done)


SUITES = {
    "storage": (
        "from headway.testing.storage import StorageContract as Contract\n",
        {
            "a create that replaces": "def create(self, key, data):\n"
            "        self.objects.pop(key, None)\n        super().create(key, data)\n",
            "a list without order": "def list(self, prefix):\n"
            "        return super().list(prefix)[::-1]\n",
            "absence as emptiness": "def read(self, key):\n"
            "        return bytes(self.objects.get(key, b''))\n",
        },
    ),
    "ledger": (
        "from headway.testing.ledger import LedgerContract as Contract\n",
        {
            "claims that are seen late": "def has(self, key):\n        return False\n",
            "claims that replace": "def create_log(self, key, head, room):\n"
            "        self.objects.pop(key, None)\n"
            "        return super().create_log(key, head, room)\n",
        },
    ),
}


@pytest.mark.parametrize(
    ("suite", "bad"),
    [(suite, bad) for suite, (_, bads) in SUITES.items() for bad in ["", *bads]],
)
def test_a_suite_finds_what_is_wrong_with_a_storage(tmp_path: Path, suite: str, bad: str) -> None:
    contract, bads = SUITES[suite]
    (tmp_path / "test_it.py").write_text(
        "import pytest\nfrom headway.testing.memory import MemoryStorage\n"
        f"{contract}\n\nclass Mine(MemoryStorage):\n    {bads.get(bad, 'pass')}\n\n"
        "class TestMine(Contract):\n    @pytest.fixture\n    def storage(self):\n"
        "        return Mine()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == bool(bad), done.stdout
    assert (" failed" in done.stdout) == bool(bad)
    assert " passed" in done.stdout

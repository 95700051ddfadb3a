"""Requests and replies that are lost, late or spoiled: no false conflict, and no false success (R10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from tests.counting import count
from tests.crash.mutants import Code, Edit, Mutant, planted
from tests.objects import proxy as proxies
from tests.objects import servers
from tests.objects.proxy import Fault, Request
from tests.objects.sessions import (
    LEDGER,
    Told,
    home,
    judge,
    new_prefix,
    session,
    small_parts,
    until_unreachable,
)

from headway.checkpoint.handle import Checkpoint
from headway.ledger.read import read_ledger
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointFenced, HeadwayError, StorageUnavailable
from headway.ports import KeyExists

pytestmark = [
    pytest.mark.objects,
    pytest.mark.reliability("R10"),
    pytest.mark.timeout(600),
]

QUICK = [Fault.LOSE_REQUEST, Fault.LOSE_REPLY, Fault.HELD]
SUDDEN = [*QUICK, Fault.CUT_REQUEST, Fault.CUT_REPLY, Fault.REFUSE, Fault.SPOIL, Fault.DELAY]
WAITING = [Fault.SLOW_REQUEST, Fault.SLOW_REPLY, Fault.FREEZE]


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_parts():
        yield


def _once(fault: Fault, index: int) -> Callable[[Request], Fault]:
    return lambda request: fault if request.index == index else Fault.NONE


def _from(fault: Fault, index: int) -> Callable[[Request], Fault]:
    return lambda request: fault if request.index >= index else Fault.NONE


def _length(endpoint: str) -> int:
    """How many requests a session has that nothing happens to."""
    told = Told()
    with proxies.faults(endpoint) as proxy:
        prefix = new_prefix()
        session(home(proxy.endpoint, prefix), told)
    judge(home(endpoint, prefix), told)
    assert told.done
    assert not proxy.happened
    return len(proxy.requests)


def _sweep_once(endpoint: str, fault: Fault, indices: range) -> int:
    """One fault at each index in turn: the session must not even notice. How many faults happened."""
    struck = 0
    for index in indices:
        told, prefix = Told(), new_prefix()
        timeout = 1 if fault in WAITING else 5
        with proxies.faults(endpoint, _once(fault, index)) as proxy:
            session(home(proxy.endpoint, prefix, timeout=timeout), told)
            proxy.release()
        assert told.done
        assert proxy.happened[fault] == 1, f"{fault} did not happen at {index}"
        judge(home(endpoint, prefix), told)
        struck += 1
    count("R10", "faults at one request each", struck)
    return struck


def _sweep_twice(endpoint: str, indices: range) -> None:
    """A reply is lost, and then that of the second request after it: the one that settles the first."""
    for index in indices:
        told, prefix = Told(), new_prefix()
        with proxies.faults(endpoint, partial(_at, {index, index + 2})) as proxy:
            session(home(proxy.endpoint, prefix), told)
        assert told.done
        assert proxy.happened[Fault.LOSE_REPLY] == 2
        judge(home(endpoint, prefix), told)
        count("R10", "pairs of faults")


def _at(indices: set[int], request: Request) -> Fault:
    return Fault.LOSE_REPLY if request.index in indices else Fault.NONE


def _sweep_for_good(endpoint: str, fault: Fault, indices: range) -> Counter[str]:
    """The same fault for every request from each index on: it ends as unreachable, and loses nothing."""
    ends: Counter[str] = Counter()
    for index in indices:
        told, prefix = Told(), new_prefix()
        with proxies.faults(endpoint, _from(fault, index)) as proxy:
            until_unreachable(home(proxy.endpoint, prefix, patience=0.15), told)
            assert proxy.happened[fault] > 0
            ends["done" if told.done else "unreachable"] += 1
            proxy.release()
        direct = home(endpoint, prefix, marker=False)
        judge(direct, told)
    count("R10", "stores lost for good", ends["unreachable"])
    return ends


@pytest.mark.parametrize("fault", QUICK, ids=repr)
def test_one_fault_at_any_request_goes_unnoticed(seaweed: Any, fault: Fault) -> None:
    length = _length(seaweed.endpoint)
    struck = _sweep_once(seaweed.endpoint, fault, range(length))
    assert struck == length > 30
    print(f"{fault}: {struck} faults, no false conflict, no false success")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", [f for f in Fault if f not in {*QUICK, Fault.NONE}], ids=repr)
def test_one_fault_of_any_kind_goes_unnoticed(seaweed: Any, fault: Fault) -> None:
    length = _length(seaweed.endpoint)
    struck = _sweep_once(seaweed.endpoint, fault, range(length))
    assert struck == length
    print(f"{fault}: {struck} faults, no false conflict, no false success")


@pytest.mark.parametrize("fault", [f for f in Fault if f not in {*QUICK, Fault.NONE}], ids=repr)
def test_a_fault_of_another_kind_here_and_there(seaweed: Any, fault: Fault) -> None:
    step = 14 if fault in WAITING else 5
    first = [*Fault].index(fault) % step
    assert _sweep_once(seaweed.endpoint, fault, range(first, _length(seaweed.endpoint), step))


def test_the_answer_that_settles_a_lost_one_may_be_lost_as_well(seaweed: Any) -> None:
    _sweep_twice(seaweed.endpoint, range(0, _length(seaweed.endpoint) - 1, 2))


@pytest.mark.slow
def test_it_may_be_lost_at_any_request(seaweed: Any) -> None:
    _sweep_twice(seaweed.endpoint, range(_length(seaweed.endpoint) - 1))


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.HELD, Fault.REFUSE], ids=repr)
def test_a_store_that_goes_away_takes_nothing_along(seaweed: Any, fault: Fault) -> None:
    ends = _sweep_for_good(seaweed.endpoint, fault, range(0, _length(seaweed.endpoint), 4))
    assert ends["unreachable"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", SUDDEN, ids=repr)
def test_a_store_that_goes_away_at_any_request_takes_nothing_along(
    seaweed: Any, fault: Fault
) -> None:
    length = _length(seaweed.endpoint)
    ends = _sweep_for_good(seaweed.endpoint, fault, range(length))
    assert ends.total() == length
    print(f"{fault} from each of {length} requests on: {dict(ends)}")


def test_a_record_that_arrives_after_its_writer_went_on_stays_outside(seaweed: Any) -> None:
    prefix = new_prefix()
    with proxies.faults(seaweed.endpoint) as proxy:
        storage = home(proxy.endpoint, prefix, patience=0.3, marker=False)
        ledger = Ledger.open(storage, LEDGER)
        ledger.append(b"one")
        place = f"{LEDGER}/00000001.parts/"
        proxy.choose = lambda request: (
            Fault.HELD if request.method == "PUT" and place in request.path else Fault.NONE
        )
        with pytest.raises(StorageUnavailable):
            ledger.append(b"failed")
        ledger.append(b"two")
        assert proxy.release() == proxy.happened[Fault.HELD] > 0
        ledger.append(b"three")
    direct = home(seaweed.endpoint, prefix, marker=False)
    stored = direct.read_log(f"{LEDGER}/00000001")
    assert b"failed" in stored  # it did arrive
    chain = read_ledger(direct, LEDGER)
    assert [record.payload for record in chain.records] == [b"one", b"two", b"three"]
    assert chain.damage == ()


def test_a_claim_that_arrives_late_fences_nobody_who_came_first(seaweed: Any) -> None:
    prefix = new_prefix()
    direct = home(seaweed.endpoint, prefix, marker=False)
    Ledger.open(direct, LEDGER).append(b"one")
    with proxies.faults(seaweed.endpoint) as proxy:
        proxy.choose = lambda request: Fault.HELD if request.method == "PUT" else Fault.NONE
        with pytest.raises(StorageUnavailable):
            Ledger.open(home(proxy.endpoint, prefix, patience=0.3, marker=False), LEDGER)
        holder = Ledger.open(direct, LEDGER)
        assert proxy.release() > 0
        holder.append(b"two")
        holder.append(b"three")
    chain = read_ledger(direct, LEDGER)
    assert [record.payload for record in chain.records] == [b"one", b"two", b"three"]


@pytest.mark.parametrize("fault", SUDDEN, ids=repr)
def test_of_two_writers_the_older_one_is_told_whatever_is_lost(seaweed: Any, fault: Fault) -> None:
    """Each request of the older writer's last append in turn: it never believes that it is in."""
    for index in range(4):
        prefix = new_prefix()
        direct = home(seaweed.endpoint, prefix, marker=False)
        with proxies.faults(seaweed.endpoint) as proxy:
            older = Ledger.open(home(proxy.endpoint, prefix, marker=False), LEDGER)
            older.append(b"one")
            newer = Ledger.open(direct, LEDGER)
            start = len(proxy.requests)
            proxy.choose = _once(fault, start + index)
            with pytest.raises(CheckpointFenced):
                older.append(b"zombie")
            proxy.release()
            happened = proxy.happened[fault]
            assert happened == (len(proxy.requests) > start + index)
        assert happened or index > 1
        newer.append(b"two")
        chain = read_ledger(direct, LEDGER)
        assert [record.payload for record in chain.records] == [b"one", b"two"]


UNSURE = "                    unsure = True\n"
MUTANTS = [
    (
        Mutant(
            "a lost answer is forgotten", (Edit("object", UNSURE, "                    pass\n"),)
        ),
        Fault.LOSE_REPLY,
    ),
    (
        Mutant("no answer is good news", (Edit("object", UNSURE, "                    return\n"),)),
        Fault.LOSE_REQUEST,
    ),
    (
        Mutant(
            "a lost answer is an error at once",
            (Edit("object", "if last or refusal.kind is not Kind.UNKNOWN:", "if True:"),),
        ),
        Fault.LOSE_REPLY,
    ),
    (
        Mutant(
            "what is there after a lost answer is a rival's",
            (
                Edit(
                    "object",
                    'return bool(found.data == memoryview(data).cast("B"))',
                    "return False",
                ),
            ),
        ),
        Fault.SPOIL,
    ),
]


@pytest.mark.parametrize(("mutant", "fault"), MUTANTS, ids=[str(m) for m, _ in MUTANTS])
def test_each_rule_is_needed(seaweed: Any, mutant: Mutant, fault: Fault) -> None:
    length = _length(seaweed.endpoint)
    with planted(mutant) as code:
        assert any(_goes_wrong(seaweed.endpoint, code, fault, index) for index in range(length))
    count("R10", "mutants caught")


def _goes_wrong(endpoint: str, code: Code, fault: Fault, index: int) -> bool:
    told, prefix = Told(), new_prefix()
    with proxies.faults(endpoint, _once(fault, index)) as proxy:
        try:
            session(home(proxy.endpoint, prefix, storage=code.object.ObjectStorage), told)
            judge(home(endpoint, prefix), told)
        except (AssertionError, HeadwayError):
            return proxy.happened[fault] == 1
    return False


def test_a_client_that_tries_again_by_itself_takes_itself_for_a_rival(seaweed: Any) -> None:
    """Why the client's own retries are off."""
    with proxies.faults(seaweed.endpoint, _once(Fault.SPOIL, 0)) as proxy:
        storage = home(proxy.endpoint, new_prefix(), marker=False)
        storage._bucket = servers.s3(proxy.endpoint, new_prefix(), retries=2)
        with pytest.raises(KeyExists):
            storage.create("a", b"ours")
    assert proxy.happened[Fault.SPOIL] == 1
    with proxies.faults(seaweed.endpoint, _once(Fault.SPOIL, 0)) as proxy:
        home(proxy.endpoint, new_prefix(), marker=False).create("a", b"ours")
    assert proxy.happened[Fault.SPOIL] == 1


def test_a_small_commit_is_two_requests(seaweed: Any) -> None:
    with proxies.faults(seaweed.endpoint) as proxy:
        checkpoint = Checkpoint(home(proxy.endpoint, new_prefix(), marker=False), "lineages/l")
        checkpoint.write(b"first")
        before = len(proxy.requests)
        for _ in range(5):
            checkpoint.write(bytes(1024))
        checkpoint.close()
    assert [request.method for request in proxy.requests[before:]] == ["PUT", "GET"] * 5


def test_an_answer_that_stays_away_is_waited_for_no_longer_than_said(seaweed: Any) -> None:
    with proxies.faults(seaweed.endpoint, lambda _: Fault.FREEZE) as proxy:
        storage = home(proxy.endpoint, new_prefix(), timeout=0.2, patience=0.5, marker=False)
        with pytest.raises(StorageUnavailable, match="did not answer in time"):
            storage.create("a", b"x")
        with pytest.raises(StorageUnavailable, match="headway resume"):
            storage.has("a")
    assert 2 < len(proxy.requests) < 20

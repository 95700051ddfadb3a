"""What a ledger does for its callers on every storage: a suite for yours.

    from headway.testing.ledger import LedgerContract

    class TestLedgerOnMyStorage(LedgerContract):
        @pytest.fixture
        def storage(self, tmp_path):
            return MyStorage(tmp_path)

It shows what a storage must do for a ledger to keep its promises: that a claim is exclusive and seen, that
what was appended is read back, and that a lost reply is neither a conflict nor a success.
"""

from __future__ import annotations

import threading

import pytest

from headway.ledger.read import Chain, Record, read_ledger, term_key
from headway.ledger.write import FIRST_ROOM, MOST_ROOM, Ledger
from headway.model.errors import CheckpointFenced, StorageError, StorageUnavailable
from headway.ports import Storage
from headway.testing.faults import READS, Count, Fail, Tear

KEY = "runs/r/ledger"


class _Refused(Exception):
    """What an inspection raises that does not want what it sees."""


def _refuse(_: Chain) -> None:
    raise _Refused


def payloads(storage: Storage) -> list[bytes]:
    """What a reader finds; a healthy ledger is expected."""
    chain = read_ledger(storage, KEY)
    assert chain.damage == ()
    return [record.payload for record in chain.records]


def _read(storage: Storage) -> list[bytes]:
    """What a reader finds, whatever claims failed writers left."""
    return [record.payload for record in read_ledger(storage, KEY).records]


class LedgerContract:
    """Inherit from it, and give it a fixture `storage`."""

    @pytest.fixture
    def storage(self) -> Storage:
        """A storage of the kind that is tested, empty."""
        raise NotImplementedError("override the fixture `storage` in your subclass")

    def test_a_ledger_that_nobody_made_is_empty(self, storage: Storage) -> None:
        chain = read_ledger(storage, KEY)
        assert chain.records == ()
        assert chain.damage == ()
        assert chain.newest == 0
        assert storage.list("") == []

    def test_what_is_appended_is_read_in_order(self, storage: Storage) -> None:
        ledger = Ledger.open(storage, KEY)
        assert ledger.chain.records == ()
        assert ledger.prefix == KEY
        ledger.append(b"one")
        ledger.append(b"two", b"", b"three")
        ledger.append()
        assert read_ledger(storage, KEY).records == (
            Record(1, 1, b"one"),
            Record(1, 2, b"two"),
            Record(1, 2, b""),
            Record(1, 2, b"three"),
        )

    def test_the_next_writer_goes_on_where_the_last_one_stopped(self, storage: Storage) -> None:
        for turn in range(5):
            ledger = Ledger.open(storage, KEY)
            assert ledger.term == turn + 1
            assert [record.payload for record in ledger.chain.records] == [
                b"%d" % n for n in range(turn)
            ]
            ledger.append(b"%d" % turn)
            ledger.close()
        assert payloads(storage) == [b"0", b"1", b"2", b"3", b"4"]

    def test_a_fenced_writer_is_told_and_not_seen(self, storage: Storage) -> None:
        old = Ledger.open(storage, KEY)
        old.append(b"mine")
        new = Ledger.open(storage, KEY)
        for _ in range(2):
            with pytest.raises(CheckpointFenced, match="headway show"):
                old.append(b"zombie")
            with pytest.raises(CheckpointFenced):
                old.check()
        new.check()
        new.append(b"new")
        assert payloads(storage) == [b"mine", b"new"]

    def test_a_writer_whose_log_is_full_finds_the_newer_one_in_its_place(
        self, storage: Storage
    ) -> None:
        old = Ledger.open(storage, KEY)
        new = Ledger.open(storage, KEY)
        with pytest.raises(CheckpointFenced):
            old.append(b"x" * 50_000)
        new.append(b"new")
        assert payloads(storage) == [b"new"]

    def test_a_claim_that_cannot_be_read_fences_too(self, storage: Storage) -> None:
        ledger = Ledger.open(storage, KEY, rank=5)
        storage.create(term_key(KEY, 2), b"who knows whose this was")
        with pytest.raises(CheckpointFenced):
            ledger.append(b"one")

    def test_a_check_finds_a_newer_writer_before_anything_is_written(
        self, storage: Storage
    ) -> None:
        old = Ledger.open(storage, KEY)
        old.check()
        Ledger.open(storage, KEY)
        before = storage.read_log(term_key(KEY, 1))
        with pytest.raises(CheckpointFenced):
            old.check()
        with pytest.raises(CheckpointFenced):
            old.append(b"zombie")
        assert storage.read_log(term_key(KEY, 1)) == before

    def test_one_who_comes_late_yields_and_disturbs_nobody(self, storage: Storage) -> None:
        first = Ledger.open(storage, KEY, rank=3)
        first.append(b"one")
        with pytest.raises(CheckpointFenced):
            Ledger.open(storage, KEY, rank=2)
        first.append(b"two")
        first.check()
        second = Ledger.open(storage, KEY, rank=4)
        with pytest.raises(CheckpointFenced):
            first.append(b"zombie")
        second.append(b"three")
        assert payloads(storage) == [b"one", b"two", b"three"]

    def test_late_claims_are_passed_over_when_the_log_is_full(self, storage: Storage) -> None:
        ledger = Ledger.open(storage, KEY, rank=2)
        for _ in range(3):
            with pytest.raises(CheckpointFenced):
                Ledger.open(storage, KEY, rank=1)
        ledger.append(b"x" * 50_000)
        assert ledger.term == 5
        ledger.append(b"y")
        assert payloads(storage) == [b"x" * 50_000, b"y"]

    def test_a_full_log_is_followed_by_a_larger_one(self, storage: Storage) -> None:
        ledger = Ledger.open(storage, KEY)
        sent = [bytes([number % 251]) * 3000 for number in range(60)]
        for payload in sent:
            ledger.append(payload)
        assert ledger.term > 2
        sizes = [len(storage.read_log(f"{KEY}/{name}")) for name in storage.list(KEY)]
        assert sizes == sorted(sizes)
        assert sizes[0] == FIRST_ROOM + 4096
        assert payloads(storage) == sent
        # The next writer's first log is made before it has read anything; the one after it has learned.
        later = Ledger.open(storage, KEY)
        later.append(b"z" * 2 * FIRST_ROOM)
        assert len(storage.read_log(term_key(KEY, later.term))) >= sizes[-1]

    @pytest.mark.parametrize("size", [FIRST_ROOM, MOST_ROOM - 1, MOST_ROOM + 12345])
    def test_a_record_of_any_size_finds_room(self, storage: Storage, size: int) -> None:
        ledger = Ledger.open(storage, KEY)
        ledger.append(b"s" * size)
        ledger.append(b"after")
        assert payloads(storage) == [b"s" * size, b"after"]

    def test_one_who_looks_first_can_refuse(self, storage: Storage) -> None:
        Ledger.open(storage, KEY).append(b"one")

        seen: list[Chain] = []

        def look(chain: Chain) -> None:
            seen.append(chain)
            _refuse(chain)

        with pytest.raises(_Refused):
            Ledger.open(storage, KEY, inspect=look)
        assert [chain.records for chain in seen] == [Ledger.open(storage, KEY).chain.records]
        assert payloads(storage) == [b"one"]

    def test_closing_ends_nothing(self, storage: Storage) -> None:
        ledger = Ledger.open(storage, KEY)
        ledger.append(b"one")
        ledger.close()
        ledger.close()
        ledger.append(b"two")
        assert ledger.term == 2
        assert payloads(storage) == [b"one", b"two"]

    def test_threads_share_a_ledger(self, storage: Storage) -> None:
        ledger = Ledger.open(storage, KEY)

        def append(number: int) -> None:
            for index in range(20):
                ledger.append(b"%d.%d" % (number, index), b"pair")

        threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = payloads(storage)
        assert found[1::2] == [b"pair"] * 80
        for number in range(4):
            mine = [payload for payload in found if payload.startswith(b"%d." % number)]
            assert mine == [b"%d.%d" % (number, index) for index in range(20)]

    def test_of_many_openers_each_gets_a_term_and_the_last_one_stays(
        self, storage: Storage
    ) -> None:
        opened: list[Ledger] = []
        start = threading.Barrier(6)

        def claim() -> None:
            start.wait()
            try:
                opened.append(Ledger.open(storage, KEY))
            except CheckpointFenced:
                pass

        threads = [threading.Thread(target=claim) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({ledger.term for ledger in opened}) == len(opened)
        assert len(storage.list(KEY)) == 6
        holders = 0
        for ledger in opened:
            try:
                ledger.append(b"mine")
                holders += 1
            except CheckpointFenced:
                pass
        assert holders == 1
        assert payloads(storage) == [b"mine"]

    def test_a_log_that_goes_away_while_it_is_read_is_damage(self, storage: Storage) -> None:
        for number in range(3):
            Ledger.open(storage, KEY).append(b"%d" % number)
        storage.delete(term_key(KEY, 2))
        chain = read_ledger(storage, KEY)
        assert [record.payload for record in chain.records] == [b"2"]
        assert [(damage.term, damage.reason, damage.tail) for damage in chain.damage] == [
            (2, "its log is missing", False)
        ]

    def test_a_claim_that_vanished_below_one_that_nobody_sealed_may_never_have_been(
        self, storage: Storage
    ) -> None:
        Ledger.open(storage, KEY).append(b"one")
        for _ in range(2):
            with pytest.raises(_Refused):
                Ledger.open(storage, KEY, inspect=_refuse)
        storage.delete(term_key(KEY, 2))
        chain = read_ledger(storage, KEY)
        assert [record.payload for record in chain.records] == [b"one"]
        assert [(damage.term, damage.tail) for damage in chain.damage] == [(2, True)]
        assert Ledger.open(storage, KEY).term == 4
        assert payloads(storage) == [b"one"]

    def test_the_tip_says_where_the_chain_goes_on(self, storage: Storage) -> None:
        Ledger.open(storage, KEY).append(b"one")
        chain = read_ledger(storage, KEY)
        assert (chain.tip.term, chain.tip.count) == (1, 2)
        assert chain.last is not None
        assert chain.tip.link == chain.last.link
        raw, start = chain.last.raw, chain.last.start
        assert storage.read_log(term_key(KEY, 1))[start : start + len(raw)] == raw

    # Faults

    @pytest.mark.parametrize("after", [False, True], ids=["lost request", "lost reply"])
    @pytest.mark.parametrize("call", ["append", "has"])
    def test_a_record_that_failed_is_left_out_and_the_ledger_goes_on(
        self, storage: Storage, call: str, after: bool
    ) -> None:
        faulty = Fail(storage, None, only=call, after=after, lasting=True)
        ledger = Ledger.open(faulty, KEY)
        ledger.append(b"one")
        faulty.arm()
        for _ in range(3):
            with pytest.raises(StorageUnavailable):
                ledger.append(b"failed")
        faulty.disarm()
        assert faulty.struck >= 3
        ledger.append(b"two")
        assert payloads(storage) == [b"one", b"two"]
        ledger.check()

    def test_a_torn_record_is_left_out_and_the_ledger_goes_on(self, storage: Storage) -> None:
        faulty = Tear(storage, None, share=0.6)
        ledger = Ledger.open(faulty, KEY)
        ledger.append(b"one")
        for _ in range(3):
            faulty.arm()
            with pytest.raises(StorageUnavailable):
                ledger.append(b"torn" * 500)
        assert faulty.struck == 3
        ledger.append(b"two")
        assert payloads(storage) == [b"one", b"two"]

    def test_a_torn_end_is_told_and_not_taken_for_a_record(self, storage: Storage) -> None:
        faulty = Tear(storage, None, share=0.6)
        ledger = Ledger.open(faulty, KEY)
        ledger.append(b"one")
        off = Fail(faulty, None, lasting=True, only={"create_log"})  # it cannot go on either
        ledger = Ledger.open(off, KEY)
        off.arm()
        faulty.arm()
        with pytest.raises(StorageUnavailable):
            ledger.append(b"torn" * 500)
        assert faulty.struck == off.struck == 1
        chain = read_ledger(storage, KEY)
        assert [record.payload for record in chain.records] == [b"one"]
        assert [damage.tail for damage in chain.damage] == [True]
        Ledger.open(storage, KEY).append(b"two")
        assert payloads(storage) == [b"one", b"two"]

    def test_a_claim_whose_reply_was_lost_is_no_rival(self, storage: Storage) -> None:
        claims = Fail(storage, None, only="create_log", after=True, lasting=True)
        faulty = Fail(claims, None, only="append", lasting=True)
        ledger = Ledger.open(faulty, KEY)
        ledger.append(b"one")
        claims.arm()
        faulty.arm()
        for _ in range(3):
            with pytest.raises(StorageUnavailable):
                ledger.append(b"failed")
        assert claims.struck
        assert faulty.struck
        assert len(storage.list(KEY)) > 2
        claims.disarm()
        faulty.disarm()
        ledger.check()
        ledger.append(b"two")
        assert payloads(storage) == [b"one", b"two"]

    @pytest.mark.parametrize("after", [False, True], ids=["lost request", "lost reply"])
    def test_an_opening_that_failed_at_any_call_loses_nothing(
        self, storage: Storage, after: bool
    ) -> None:
        Ledger.open(storage, KEY).append(b"one")
        counted = Count(storage)
        Ledger.open(counted, KEY)
        assert {"list", "create_log", "settle", "append", "has"} <= set(counted.totals)
        struck = 0
        for at in range(1, counted.struck + 1):
            faulty = Fail(storage, at, after=after)
            try:
                Ledger.open(faulty, KEY)
            except StorageUnavailable:
                struck += 1
            else:  # more to read than there was: claims of those that failed
                assert not faulty.struck
            assert _read(storage) == [b"one"]
        assert struck == counted.struck
        Ledger.open(storage, KEY).append(b"two")
        assert payloads(storage) == [b"one", b"two"]

    def test_a_fault_while_reading_is_never_an_empty_chain(self, storage: Storage) -> None:
        for number in range(3):
            Ledger.open(storage, KEY).append(b"%d" % number)
        counted = Count(storage, only=READS)
        whole = read_ledger(counted, KEY)
        assert counted.struck > 1
        for at in range(1, counted.struck + 1):
            faulty = Fail(storage, at, only=READS)
            with pytest.raises(StorageError, match="the request was lost"):
                read_ledger(faulty, KEY)
            assert faulty.struck == 1
        assert read_ledger(storage, KEY) == whole

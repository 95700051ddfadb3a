"""Signed ledgers: who has not got the key can take records away and put older ones back, and no more."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.crash.mutants import Edit, Mutant, planted

from headway.checkpoint.handle import Checkpoint
from headway.ledger.read import Chain, read_ledger, term_key
from headway.ledger.record import (
    CLAIM_SIZE,
    Claim,
    Frame,
    Kind,
    Seal,
    Term,
    encode_frame,
    ledger_name,
    read_term,
)
from headway.ledger.signing import Key, Signing
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt, CheckpointFenced, UntrustedState
from headway.ports import KeyMissing
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.reliability("R11")

PREFIX = "runs/r/ledger"
OTHER = "runs/other/ledger"
KEY = secrets.token_hex(32)


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_KEY_FILE", raising=False)
    monkeypatch.setenv("HEADWAY_KEY", KEY)


def bucket() -> MemoryStorage:
    """A home that others can write to."""
    return MemoryStorage("memory:bucket", trusted=False)


def payloads(chain: Chain) -> list[bytes]:
    return [record.payload for record in chain.records]


def signed_ledger(prefix: str = PREFIX) -> tuple[MemoryStorage, list[bytes]]:
    """Three terms, with a zombie's record, a turn-over and batches."""
    storage = bucket()
    first = Ledger.open(storage, prefix)
    first.append(b"one")
    first.append(b"two", b"three")
    second = Ledger.open(storage, prefix)
    with pytest.raises(CheckpointFenced):
        first.append(b"a zombie's")
    second.append(b"four" * 8000)
    second.append(b"five")
    third = Ledger.open(storage, prefix)
    third.append(b"six")
    third.append(b"seven")
    return storage, [b"one", b"two", b"three", b"four" * 8000, b"five", b"six", b"seven"]


def test_a_signed_ledger_reads_back_with_its_key_and_goes_on() -> None:
    storage, good = signed_ledger()
    chain = read_ledger(storage, PREFIX)
    assert payloads(chain) == good
    assert chain.damage == ()
    assert chain.signed
    Ledger.open(storage, PREFIX).append(b"eight")
    assert payloads(read_ledger(storage, PREFIX)) == [*good, b"eight"]


def test_every_frame_is_signed() -> None:
    storage, _ = signed_ledger()
    for term in terms(storage):
        assert all(len(frame.signature) == 32 for frame in term.frames)


def test_without_the_key_it_can_be_read_and_not_be_added_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage, good = signed_ledger()
    monkeypatch.delenv("HEADWAY_KEY")
    assert payloads(read_ledger(storage, PREFIX)) == good
    with pytest.raises(
        UntrustedState, match="is signed, and what this process would add"
    ) as caught:
        Ledger.open(storage, PREFIX)
    assert "HEADWAY_KEY" in str(caught.value)
    monkeypatch.setenv("HEADWAY_KEY", KEY)
    Ledger.open(storage, PREFIX).append(b"eight")  # the attempt did no harm
    assert payloads(read_ledger(storage, PREFIX)) == [*good, b"eight"]


def test_with_another_key_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for storage in (signed_ledger()[0], MemoryStorage(trusted=True)):
        storage.objects = signed_ledger()[0].objects
        monkeypatch.setenv("HEADWAY_KEY", secrets.token_hex(32))
        for reading in (read_ledger, Ledger.open):
            with pytest.raises(UntrustedState, match="not signed with this key") as caught:
                reading(storage, PREFIX)
            assert KEY not in str(caught.value)
        monkeypatch.setenv("HEADWAY_KEY", KEY)


def test_an_unsigned_ledger_is_refused_where_others_can_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = bucket()
    monkeypatch.delenv("HEADWAY_KEY")
    Ledger.open(storage, PREFIX).append(b"anybody's")
    monkeypatch.setenv("HEADWAY_KEY", KEY)
    for reading in (read_ledger, Ledger.open):
        with pytest.raises(UntrustedState, match="is not signed, and there is a key"):
            reading(storage, PREFIX)
    checkpoint = Checkpoint(storage, "runs/r")
    for asked in (checkpoint.prev_exists, checkpoint.read, checkpoint.load, checkpoint.restore):
        with pytest.raises(UntrustedState):  # and never "no checkpoint"
            asked()


def test_a_home_of_ones_own_can_go_on_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage(trusted=True)
    monkeypatch.delenv("HEADWAY_KEY")
    Ledger.open(storage, PREFIX).append(b"before")
    monkeypatch.setenv("HEADWAY_KEY", KEY)
    Ledger.open(storage, PREFIX).append(b"since")
    assert payloads(read_ledger(storage, PREFIX)) == [b"before", b"since"]
    storage.trusted = False  # copied to where others can write: its beginning proves nothing there
    with pytest.raises(UntrustedState, match=r"record 1\.0"):
        read_ledger(storage, PREFIX)
    monkeypatch.delenv("HEADWAY_KEY")
    with pytest.raises(UntrustedState, match="is signed"):
        Ledger.open(storage, PREFIX)


# What an attacker without the key may try. Each takes the logs of a signed ledger, and changes them.


Logs = dict[str, bytearray]


def terms(storage: MemoryStorage, prefix: str = PREFIX) -> list[Term]:
    found = []
    for number in range(1, 10):
        data = storage.objects.get(term_key(prefix, number))
        if data is not None:
            term = read_term(bytes(data), number, ledger_name(prefix))
            assert isinstance(term, Term)
            found.append(term)
    return found


def rewritten(term: Term, frames: list[tuple[int, bytes]], claim: Claim | None = None) -> bytearray:
    """A log with other frames, every checksum right."""
    claim = claim or term.claim
    data, link = claim.encode(), claim.link
    for seq, (kind, payload) in enumerate(frames):
        frame, link = encode_frame(claim, kind, seq, link, payload)  # type: ignore[arg-type]
        data += frame
    return bytearray(data.ljust(CLAIM_SIZE + claim.room, b"\0"))


def as_written(frame: Frame) -> tuple[int, bytes]:
    """Kind and whole payload, signature included: what `rewritten` puts back as it was."""
    return int.from_bytes(frame.raw[6:8], "little"), frame.signature + frame.payload


def new_payload(logs: Logs, all_terms: list[Term]) -> None:
    term = all_terms[-1]
    frames = [as_written(frame) for frame in term.frames]
    kind, payload = frames[1]
    frames[1] = kind, payload[:32] + msgspec.msgpack.encode([b"forged"])
    logs[term_key(PREFIX, term.claim.term)] = rewritten(term, frames)


def new_last_payload(logs: Logs, all_terms: list[Term]) -> None:
    term = all_terms[-1]
    frames = [as_written(frame) for frame in term.frames]
    kind, payload = frames[-1]
    frames[-1] = kind, payload[:32] + msgspec.msgpack.encode([b"forged"])
    logs[term_key(PREFIX, term.claim.term)] = rewritten(term, frames)


def unsigned_record(logs: Logs, all_terms: list[Term]) -> None:
    term = all_terms[-1]
    frames = [as_written(frame) for frame in term.frames]
    frames.append((Kind.DATA, msgspec.msgpack.encode([b"forged"])))
    logs[term_key(PREFIX, term.claim.term)] = rewritten(term, frames)


def swapped(logs: Logs, all_terms: list[Term]) -> None:
    term = all_terms[-1]
    frames = [as_written(frame) for frame in term.frames]
    frames[1], frames[2] = frames[2], frames[1]
    logs[term_key(PREFIX, term.claim.term)] = rewritten(term, frames)


def repeated(logs: Logs, all_terms: list[Term]) -> None:
    term = all_terms[-1]
    frames = [as_written(frame) for frame in term.frames]
    logs[term_key(PREFIX, term.claim.term)] = rewritten(term, [*frames, frames[1]])


def cut_out(logs: Logs, all_terms: list[Term]) -> None:
    term = all_terms[-1]
    frames = [as_written(frame) for frame in term.frames]
    del frames[1]
    logs[term_key(PREFIX, term.claim.term)] = rewritten(term, frames)


def a_record_as_a_seal(logs: Logs, all_terms: list[Term]) -> None:
    term = all_terms[-1]
    frames = [as_written(frame) for frame in term.frames]
    logs[term_key(PREFIX, term.claim.term)] = rewritten(
        term, [(Kind.SIGNED_SEAL, frames[1][1]), frames[1]]
    )


def another_seal(logs: Logs, all_terms: list[Term]) -> None:
    term = all_terms[-1]
    seal = msgspec.msgpack.encode(Seal(1, 2, all_terms[0].frames[1].link))
    logs[term_key(PREFIX, term.claim.term)] = rewritten(term, [(Kind.SEAL, seal)])


def a_new_term(logs: Logs, all_terms: list[Term]) -> None:
    number = all_terms[-1].claim.term + 1
    claim = Claim(number, ledger_name(PREFIX), b"A" * 16, 1000)
    frames: list[tuple[int, bytes]] = [
        (Kind.SEAL, msgspec.msgpack.encode(Seal())),
        (Kind.DATA, b"\x91\xc4\x01x"),
    ]
    logs[term_key(PREFIX, number)] = rewritten(all_terms[0], frames, claim)


def an_old_term_as_a_new_one(logs: Logs, all_terms: list[Term]) -> None:
    old, number = all_terms[0], all_terms[-1].claim.term + 1
    claim = Claim(number, ledger_name(PREFIX), old.claim.writer, old.claim.room)
    logs[term_key(PREFIX, number)] = rewritten(old, [as_written(f) for f in old.frames], claim)


def another_writers_record(logs: Logs, all_terms: list[Term]) -> None:
    term, older = all_terms[-1], all_terms[0]
    frames = [as_written(frame) for frame in term.frames]
    frames[1] = as_written(older.frames[1])
    logs[term_key(PREFIX, term.claim.term)] = rewritten(term, frames)


def another_ledgers_record(logs: Logs, all_terms: list[Term]) -> None:
    foreign = terms(signed_ledger(OTHER)[0], OTHER)[-1]
    claim = Claim(foreign.claim.term, ledger_name(PREFIX), foreign.claim.writer, foreign.claim.room)
    frames = [as_written(frame) for frame in foreign.frames]
    logs[term_key(PREFIX, claim.term)] = rewritten(foreign, frames, claim)


def a_higher_rank(logs: Logs, all_terms: list[Term]) -> None:
    term = all_terms[-1]
    claim = Claim(term.claim.term, term.claim.name, term.claim.writer, term.claim.room, rank=7)
    frames = [as_written(frame) for frame in term.frames]
    logs[term_key(PREFIX, term.claim.term)] = rewritten(term, frames, claim)


FORGERIES: list[Callable[[Logs, list[Term]], None]] = [
    new_payload,
    new_last_payload,
    unsigned_record,
    swapped,
    repeated,
    cut_out,
    a_record_as_a_seal,
    another_seal,
    a_new_term,
    an_old_term_as_a_new_one,
    another_writers_record,
    another_ledgers_record,
    a_higher_rank,
]


@pytest.mark.parametrize("forge", FORGERIES, ids=[f.__name__ for f in FORGERIES])
def test_a_forgery_is_refused(forge: Callable[[Logs, list[Term]], None]) -> None:
    storage, good = signed_ledger()
    forge(storage.objects, terms(storage))
    for reading in (read_ledger, Ledger.open):
        with pytest.raises(UntrustedState):
            reading(storage, PREFIX)
    assert good


@pytest.mark.parametrize("forge", FORGERIES, ids=[f.__name__ for f in FORGERIES])
def test_the_same_forgery_is_believed_without_a_key(
    forge: Callable[[Logs, list[Term]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the test above would show the checksums at work, and not the signatures."""
    storage, good = signed_ledger()
    forge(storage.objects, terms(storage))
    monkeypatch.delenv("HEADWAY_KEY")
    chain = read_ledger(storage, PREFIX)
    if forge not in {a_record_as_a_seal, a_higher_rank}:
        assert payloads(chain) != good
    assert not [damage for damage in chain.damage if "checksum" in damage.reason]


def test_what_can_be_done_without_the_key_is_to_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit, kept as a test: docs/design/trust.md says so."""
    storage, good = signed_ledger()
    del storage.objects[term_key(PREFIX, terms(storage)[-1].claim.term)]
    assert payloads(read_ledger(storage, PREFIX)) == good[:-2]


@pytest.mark.parametrize("kind", [Kind.SIGNED_SEAL, Kind.SIGNED_DATA])
@pytest.mark.parametrize("payload", [b"", b"short", bytes(32), bytes(33)])
def test_a_signed_frame_without_room_for_its_signature_is_nothing(
    kind: Kind, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Claim(1, ledger_name(PREFIX), b"W" * 16, 1000)
    first = (Kind.SIGNED_SEAL, payload)
    if kind is Kind.SIGNED_DATA:
        first = (Kind.SEAL, msgspec.msgpack.encode(Seal()))
    empty = Term(claim, (), (), None)
    storage = bucket()
    storage.objects[term_key(PREFIX, 1)] = rewritten(empty, [first, (Kind.SIGNED_DATA, payload)])
    with pytest.raises(UntrustedState):
        read_ledger(storage, PREFIX)
    monkeypatch.delenv("HEADWAY_KEY")
    chain = read_ledger(storage, PREFIX)
    assert payloads(chain) == []
    assert any(not damage.tail for damage in chain.damage)


def test_a_claim_of_the_last_term_is_an_error_and_not_a_traceback() -> None:
    storage = bucket()
    claim = Claim(2**32 - 1, ledger_name(PREFIX), b"A" * 16, 100)
    storage.create(term_key(PREFIX, claim.term), claim.encode() + bytes(100))
    with pytest.raises(CheckpointCorrupt, match="the last one there can be"):
        Ledger.open(storage, PREFIX)


def test_a_name_is_bound_even_where_two_names_have_one_hash() -> None:
    signing, other = (Signing(Key(bytes(32)), name) for name in (PREFIX, OTHER))
    assert signing.sign(b"claim", b"place", b"x") != other.sign(b"claim", b"place", b"x")


def _some(names: set[str]) -> Callable[[pytest.MonkeyPatch, Any], None]:
    def check(monkeypatch: pytest.MonkeyPatch, code: Any) -> None:
        for forge in FORGERIES:
            if forge.__name__ in names:
                storage, _ = signed_ledger()
                forge(storage.objects, terms(storage))
                with pytest.raises(UntrustedState):
                    code.read.read_ledger(storage, PREFIX)

    return check


MUTANTS = [
    (
        Mutant(
            "records are not compared",
            (Edit("read", "            self.believe(term, frame)\n", ""),),
        ),
        {"new_payload"},
    ),
    (
        Mutant(
            "what is not signed is believed anywhere",
            (Edit("read", "if not frame.signature and not self._storage.trusted:", "if False:"),),
        ),
        {"unsigned_record"},
    ),
    (
        Mutant(
            "a signature is not compared",
            (
                Edit(
                    "read",
                    "if frame.signature and not frame.signed(term.claim, self._signing):",
                    "if False:",
                ),
            ),
        ),
        {"new_payload"},
    ),
]


@pytest.mark.parametrize(("mutant", "names"), MUTANTS, ids=[str(mutant) for mutant, _ in MUTANTS])
def test_each_comparison_is_needed(
    mutant: Mutant, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with planted(mutant) as code, pytest.raises(BaseException, match=r"DID NOT RAISE"):
        _some(names)(monkeypatch, code)


@pytest.mark.parametrize("left_out", ["claim", "place", "payload", "head"])
def test_all_that_a_signature_covers_is_needed(
    left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a part left out of what is signed, one of the forgeries gets through. Not so the names of the
    ledger and the claim: the link of a term's first frame is a hash of both already. They are there
    because that hash is no cryptographic one."""

    def sign(self: Signing, claim: bytes, place: bytes, payload: bytes) -> bytes:
        parts = {"head": self._head, "claim": claim, "place": place, "payload": payload}
        del parts[left_out]
        return self._key.sign(*parts.values())

    def signed(self: Signing, signature: bytes, claim: bytes, place: bytes, payload: bytes) -> bool:
        return sign(self, claim, place, payload) == signature

    monkeypatch.setattr(Signing, "sign", sign)
    monkeypatch.setattr(Signing, "signed", signed)
    through = []
    for forge in FORGERIES:
        storage, _ = signed_ledger()
        forge(storage.objects, terms(storage))
        try:
            read_ledger(storage, PREFIX)
        except (UntrustedState, KeyMissing):
            continue
        through.append(forge.__name__)
    assert bool(through) == (left_out in {"place", "payload"})

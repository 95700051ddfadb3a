"""Logs whose checksums are right and whose content is not: what a bug, not a disk, would make."""

from __future__ import annotations

import msgspec
import pytest
from tests.crash.damaged import PREFIX, Logs, go_on, look, stored
from tests.crash.mutants import Edit, Mutant, planted

from headway.ledger.read import read_ledger, term_key
from headway.ledger.record import CLAIM_SIZE, Claim, Kind, Seal, encode_frame, ledger_name

pytestmark = pytest.mark.reliability("R6")


class Forger:
    """Builds logs, a term at a time."""

    def __init__(self) -> None:
        self.logs: Logs = {}

    def term(self, number: int, *frames: tuple[int, bytes], room: int = 600) -> Forger:
        claim = Claim(number, ledger_name(PREFIX), bytes([number]) * 16, room)
        data, link = claim.encode(), claim.link
        for seq, (kind, payload) in enumerate(frames):
            frame, link = encode_frame(claim, kind, seq, link, payload)  # type: ignore[arg-type]
            data += frame
        size = CLAIM_SIZE + min(room, 1 << 16)  # a claim can say more than anybody has memory for
        self.logs[term_key(PREFIX, number)] = data.ljust(size, b"\0")
        return self


def _seal(term: int, count: int, link: bytes = b"") -> tuple[int, bytes]:
    return Kind.SEAL, msgspec.msgpack.encode(Seal(term, count, link))


DATA = (Kind.DATA, msgspec.msgpack.encode([b"data"]))


FORGED = [
    (Forger().term(1, _seal(1, 1)), "not older"),
    (Forger().term(1, _seal(0, 0)).term(2, _seal(7, 1)), "not older"),
    (Forger().term(1, _seal(2, 1)).term(2, _seal(1, 2)), "not older"),
    (Forger().term(2, _seal(1, 1)), "log is missing"),
    (Forger().term(1, _seal(0, 0)).term(2, _seal(1, 2**60)), "to 1152921504606846975 was"),
    (Forger().term(1, _seal(0, 0)).term(2, _seal(1, 2)), "record 1 was acknowledged"),
    (
        Forger().term(1, _seal(0, 0), DATA).term(2, _seal(1, 2)),
        "not the record that was sealed",
    ),
    (Forger().term(1, _seal(0, 0), (Kind.DATA, b"\xc1")), "list of payloads"),
    (Forger().term(1, _seal(0, 0), (Kind.DATA, b"\x93\x01\x02\x03")), "list of payloads"),
    (Forger().term(1, _seal(0, 0), (7, b"new")), "does not know"),
    (Forger().term(1, (Kind.SEAL, b"\x91\xa1x")), "its seal says nothing"),
    (Forger().term(1, _seal(0, 0), room=2**32 - 1), "was made with"),
]


@pytest.mark.parametrize(("logs", "reason"), FORGED, ids=[reason for _, reason in FORGED])
def test_a_forged_ledger_is_damage_and_not_a_traceback(logs: Forger, reason: str) -> None:
    chain = read_ledger(stored(logs.logs), PREFIX)
    assert any(reason in damage.reason and not damage.tail for damage in chain.damage), chain
    go_on(logs.logs, chain)


def test_a_record_in_the_place_of_the_one_sealed_in_is_found() -> None:
    forger = Forger().term(1, _seal(0, 0), DATA).term(2, _seal(1, 2, b"L" * 16))
    chain = look(forger.logs, [])
    assert [(damage.term, damage.seq, damage.tail) for damage in chain.damage] == [(1, 1, False)]


def test_comparing_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = Mutant(
        "the record that was sealed in is not compared",
        (Edit("read", "if last is not None and last.link != seal.link:", "if False:"),),
    )
    with planted(mutant) as code:
        monkeypatch.setattr("tests.crash.damaged.read_ledger", code.read.read_ledger)
        with pytest.raises(AssertionError):
            test_a_record_in_the_place_of_the_one_sealed_in_is_found()

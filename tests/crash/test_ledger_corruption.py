"""Damage to a ledger is found or harmless: never a wrong record, never a missing one in silence, never
another error than the ones that are promised (P5)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.counting import count
from tests.crash.damaged import (
    PREFIX,
    ZOMBIE,
    Logs,
    foreign_ledger,
    go_on,
    look,
    small_ledger,
    stored,
)
from tests.crash.mutants import Edit, Mutant, planted
from tests.drawing import drawn
from xxhash import xxh3_64_digest

from headway.ledger.read import read_ledger, term_key
from headway.ledger.write import Ledger
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.reliability("R5", "R6")

LOGS, GOOD = small_ledger()
FOREIGN = foreign_ledger()
KEYS = sorted(LOGS)


def test_the_ledger_that_is_damaged_here_has_everything_in_it() -> None:
    chain = read_ledger(stored(LOGS), PREFIX)
    assert chain.damage == ()
    assert [len(payload) for payload in GOOD] == [3, 3, 45, 240, 360, 0, 600, 5, 5]
    assert len({record.term for record in chain.records}) == 4
    assert ZOMBIE not in GOOD
    assert ZOMBIE in LOGS[KEYS[0]]
    assert chain.newest == 5


def _flip(every: int) -> Counter[str]:
    """Flip each bit, or one in so many, and count what came of it."""
    seen: Counter[str] = Counter()
    for key in KEYS:
        for index in range(0, 8 * len(LOGS[key]), every):
            data = bytearray(LOGS[key])
            data[index // 8] ^= 1 << index % 8
            logs = {**LOGS, key: bytes(data)}
            chain = look(logs, GOOD)
            missing = len(chain.records) < len(GOOD)
            worst = "damage" if any(not d.tail for d in chain.damage) else "tail"
            seen[f"{worst if chain.damage else 'harmless'}{', missing' * missing}"] += 1
            if index % 97 == 0:
                go_on(logs, chain)
    # A record that was whole once is never taken for one that was not finished.
    assert seen["tail, missing"] == 0
    return seen


def test_every_flipped_bit_is_found_or_harmless() -> None:
    seen = _flip(1)
    count("R5", "flipped bits of a ledger", seen.total())
    assert sum(seen.values()) == 8 * sum(map(len, LOGS.values()))
    assert seen["damage, missing"] > 10_000


def test_every_truncation_is_found() -> None:
    for key in KEYS:
        for length in range(len(LOGS[key])):
            logs = {**LOGS, key: LOGS[key][:length]}
            chain = look(logs, GOOD)
            if key != KEYS[3]:  # the claim that nobody sealed: nothing depends on it
                assert any(not damage.tail for damage in chain.damage), (key, length)
            if length % 31 == 0:
                go_on(logs, chain)
        count("R5", "truncations of a ledger", len(LOGS[key]))


def test_every_extension_is_found() -> None:
    for key in KEYS:
        for extra in (b"\0", b"x", bytes(512), LOGS[key]):
            chain = look({**LOGS, key: LOGS[key] + extra}, GOOD)
            assert [record.payload for record in chain.records] == GOOD
            if key == KEYS[-1]:
                assert chain.damage


def test_a_log_that_is_gone_is_found_when_a_later_one_builds_on_it() -> None:
    for key in KEYS:
        logs = {other: data for other, data in LOGS.items() if other != key}
        # The newest one leaves no trace: nothing below the ledger says that it ever was.
        look(logs, GOOD, complete=key != KEYS[-1])


def test_logs_in_each_others_place_are_found() -> None:
    for one in KEYS:
        for other in KEYS:
            if one != other:
                swapped = {**LOGS, one: LOGS[other], other: LOGS[one]}
                chain = look(swapped, GOOD)
                assert any("copied or renamed" in damage.reason for damage in chain.damage)
                copied = look({**LOGS, one: LOGS[other]}, GOOD)
                assert any("copied or renamed" in d.reason for d in copied.damage) or (
                    len(copied.records) == len(GOOD)
                )


def test_logs_of_another_ledger_are_found() -> None:
    for key in FOREIGN:
        chain = look({**LOGS, key: FOREIGN[key]}, GOOD)
        assert any("another ledger" in damage.reason for damage in chain.damage)
    beyond = term_key(PREFIX, len(LOGS) + 1)
    chain = look({**LOGS, beyond: FOREIGN[term_key(PREFIX, 1)]}, GOOD)
    assert [record.payload for record in chain.records] == GOOD
    assert [(d.term, d.seq, d.tail) for d in chain.damage] == [(len(LOGS) + 1, -1, False)]


def _frames(data: bytes) -> list[tuple[int, int]]:
    starts = []
    at = data.find(b"HWf\n")
    while at >= 0:
        starts.append(at)
        at = data.find(b"HWf\n", at + 1)
    return list(zip(starts, [*starts[1:], len(data.rstrip(b"\0"))], strict=False))


def test_frames_that_are_repeated_swapped_or_foreign_are_never_read() -> None:
    pieces = [(key, LOGS[key][start:end]) for key in KEYS for start, end in _frames(LOGS[key])] + [
        ("", FOREIGN[key][start:end]) for key in FOREIGN for start, end in _frames(FOREIGN[key])
    ]
    tried = 0
    for key in KEYS:
        spots = [start for start, _ in _frames(LOGS[key])] + [len(LOGS[key].rstrip(b"\0")) + 7 & ~7]
        for spot in spots:
            for _, piece in pieces:
                data = bytearray(LOGS[key])
                data[spot : spot + len(piece)] = piece
                look({**LOGS, key: bytes(data[: len(LOGS[key])])}, GOOD)
                tried += 1
    assert tried > 200


@pytest.mark.parametrize(
    "name",
    ["README", "00000002.bak", "1", "٠٠٠٠٠٠٠٧", "00000000", "9" * 12, "-0000001", "0x000001"],
)
def test_files_that_are_no_logs_are_passed_by(name: str) -> None:
    logs = {**LOGS, f"{PREFIX}/{name}": b"whatever"}
    chain = look(logs, GOOD)
    assert [record.payload for record in chain.records] == GOOD
    assert chain.damage == ()
    go_on(logs, chain)


def test_an_empty_file_in_a_logs_place_is_damage() -> None:
    for key in KEYS[:3] + KEYS[4:]:  # the fourth is a claim that nobody sealed
        chain = look({**LOGS, key: b""}, GOOD)
        assert any(not damage.tail for damage in chain.damage)


def test_a_flaw_is_believed_only_when_two_readings_agree() -> None:
    """A reader beside a writer can get any part of a write that is in progress."""

    class Slow(MemoryStorage):
        reads = 0

        def read_log(self, key: str) -> bytes:
            self.reads += 1
            data = bytearray(super().read_log(key))
            if self.reads == 1:  # half of the last record is there, and the rest is not yet
                end = len(bytes(data).rstrip(b"\0"))
                data[end - 12 :] = bytes(len(data) - end + 12)
            return bytes(data)

    storage = Slow()
    storage.objects = {key: bytearray(data) for key, data in LOGS.items()}
    chain = read_ledger(storage, PREFIX)
    assert storage.reads == 1 + len({record.term for record in chain.records})
    assert [record.payload for record in chain.records] == GOOD
    assert chain.damage == ()


def _battered(draw: random.Random, logs: Logs) -> Logs:
    """`logs` after some of what can happen to files."""
    after = dict(logs)
    for _ in range(draw.randrange(1, 4)):
        key = draw.choice(sorted(after))
        data = bytearray(after[key])
        start, size = draw.randrange(len(data) + 1), draw.choice([1, 2, 8, 64, 72, 512])
        kind = draw.randrange(7)
        if kind == 0:
            data[start : start + size] = draw.randbytes(len(data[start : start + size]))
        elif kind == 1:
            del data[start : start + size]
        elif kind == 2:
            data[start:start] = draw.randbytes(size)
        elif kind == 3:  # a piece of this or another log
            source = draw.choice([*after.values(), *FOREIGN.values()])
            at = draw.randrange(len(source) + 1)
            piece = source[at : at + draw.choice([8, 80, 300, 1000])]
            data[start : start + len(piece)] = piece[: len(data[start : start + len(piece)])]
        elif kind == 4:
            data[start : start + size] = b"\xff" * len(data[start : start + size])
        elif kind == 5:
            other = draw.choice(sorted(after))
            after[other], data = bytes(data), bytearray(after[other])
        else:
            frames = _frames(bytes(data))
            if frames:
                begin, end = draw.choice(frames)
                to = draw.choice(frames)[0]
                piece = bytes(data[begin:end])
                data[to : to + len(piece)] = piece[: len(data[to : to + len(piece)])]
        after[key] = bytes(data)
    return after


def test_a_fenced_record_shows_up_only_with_the_news_that_newer_terms_are_damaged() -> None:
    logs = {key: LOGS[key] for key in KEYS[:2]}
    logs[KEYS[1]] = b"X" + logs[KEYS[1]][1:]
    chain = look(logs, GOOD, complete=False)
    assert [record.payload for record in chain.records] == [*GOOD[:3], ZOMBIE]
    assert [(damage.term, damage.tail) for damage in chain.damage] == [(2, False)]


@given(st.randoms(use_true_random=False))
@drawn(400, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_to_the_files_no_wrong_record_is_read(draw: random.Random) -> None:
    logs = _battered(draw, LOGS)
    go_on(logs, look(logs, GOOD, complete=False))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whatever_happens_to_the_files_a_hundred_thousand_times() -> None:
    draw = random.Random(7)
    for _ in range(100_000):
        logs = _battered(draw, LOGS)
        look(logs, GOOD, complete=False)
    count("R6", "battered ledgers", 100_000)


@given(st.binary(max_size=2000), st.integers(0, 5))
@drawn(300)
def test_garbage_in_a_logs_place_is_never_read(data: bytes, which: int) -> None:
    key = term_key(PREFIX, which + 1)
    look({**LOGS, key: data}, GOOD)


def test_records_behind_damage_are_still_read() -> None:
    key = KEYS[-1]
    for start, _ in _frames(LOGS[key])[1:-1]:
        data = bytearray(LOGS[key])
        data[start + 33] ^= 1
        chain = look({**LOGS, key: bytes(data)}, GOOD)
        assert chain.records[-1].payload == GOOD[-1]


def _flip_some() -> None:
    _flip(13)


CHECKS = [
    (
        Mutant(
            "a payload is not checked",
            (Edit("record", " and xxh3_128_digest(payload) == header.hash\n", "\n"),),
        ),
        _flip_some,
    ),
    (
        Mutant(
            "a size that is not the one it was made with is accepted",
            (Edit("record", "if len(data) != CLAIM_SIZE + claim.room:", "if False:"),),
        ),
        test_every_truncation_is_found,
    ),
    (
        Mutant(
            "a log of another place is accepted",
            (Edit("record", "if claim.term != term or claim.name != name:", "if False:"),),
        ),
        test_logs_in_each_others_place_are_found,
    ),
    (
        Mutant(
            "every flaw is taken for an unfinished write",
            (
                Edit(
                    "record",
                    "        if data.count(0, start, stop) == stop - start:\n",
                    "        if True:\n",
                ),
            ),
        ),
        _flip_some,
    ),
    (
        Mutant(
            "a damaged header hides what is behind it",
            (
                Edit(
                    "record",
                    "        found = _resume(data, pos, claim, seq)\n",
                    "        found = None\n",
                ),
            ),
        ),
        test_records_behind_damage_are_still_read,
    ),
    (
        Mutant(
            "flaws inside are not reported",
            (
                Edit(
                    "read",
                    "                if flaw.seq < seal.count:\n",
                    "                if False:\n",
                ),
            ),
        ),
        _flip_some,
    ),
]


@pytest.mark.parametrize(("mutant", "sweep"), CHECKS, ids=[str(m) for m, _ in CHECKS])
def test_each_check_is_needed(
    mutant: Mutant, sweep: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with planted(mutant) as code:
        monkeypatch.setattr("tests.crash.damaged.read_ledger", code.read.read_ledger)
        with pytest.raises(AssertionError):
            sweep()
    count("R5", "mutants caught")


def test_a_forged_header_checksum_is_what_it_takes_to_be_read() -> None:
    """The sweeps above would find nothing if the reader read nothing."""
    key = KEYS[0]
    start = _frames(LOGS[key])[1][0]
    data = bytearray(LOGS[key])
    data[start + 6] = 9
    data[start + 64 : start + 72] = xxh3_64_digest(bytes(data[start : start + 64]))
    chain = look({**LOGS, key: bytes(data)}, GOOD)
    assert any("does not know" in damage.reason for damage in chain.damage)
    assert Ledger.open(stored(LOGS), PREFIX).chain.records

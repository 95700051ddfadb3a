"""The bytes of a ledger: what stands where, and how good, torn and damaged are told apart."""

from __future__ import annotations

import msgspec
import pytest
from xxhash import xxh3_64_digest, xxh3_128_digest

from headway.ledger.record import (
    CLAIM_SIZE,
    HEADER_SIZE,
    SECTOR,
    Claim,
    Flaw,
    Frame,
    Kind,
    Seal,
    Term,
    encode_frame,
    frame_size,
    ledger_name,
    read_term,
)

KEY = "runs/r/ledger"
NAME = ledger_name(KEY)
WRITER = bytes(range(16))
CLAIM = Claim(3, NAME, WRITER, 8192 - CLAIM_SIZE)


def noise(size: int) -> bytes:
    return (b"0123456789abcde" * (size // 15 + 1))[:size]


class Log:
    """A term's log, built frame by frame."""

    def __init__(self, claim: Claim = CLAIM) -> None:
        self.claim = claim
        self.data = bytearray(claim.encode() + bytes(claim.room))
        self.end = CLAIM_SIZE
        self.link = claim.link
        self.seq = 0
        self.starts: list[int] = []
        self.add(Kind.SEAL, msgspec.msgpack.encode(Seal()))

    def add(self, kind: int, payload: bytes) -> None:
        frame, self.link = encode_frame(self.claim, kind, self.seq, self.link, payload)  # type: ignore[arg-type]
        self.data[self.end : self.end + len(frame)] = frame
        self.starts.append(self.end)
        self.end += len(frame)
        self.seq += 1

    def record(self, payload: bytes) -> None:
        self.add(Kind.DATA, msgspec.msgpack.encode([payload]))

    def read(self) -> Term:
        term = read_term(bytes(self.data), self.claim.term, self.claim.name)
        assert isinstance(term, Term)
        return term


def test_a_claim_has_its_fields_where_the_format_says() -> None:
    data = Claim(0x01020304, NAME, WRITER, 0x0A0B0C0D, 0x05060708).encode()
    assert len(data) == CLAIM_SIZE == 64
    assert data[:8] == b"HWCLAIM\n"
    assert data[8:12] == b"\x01\0\0\0"  # version, reserved
    assert data[12:16] == b"\x04\x03\x02\x01"
    assert data[16:32] == NAME == xxh3_128_digest(KEY.encode())
    assert data[32:48] == WRITER
    assert data[48:52] == b"\x0d\x0c\x0b\x0a"
    assert data[52:56] == b"\x08\x07\x06\x05"
    assert data[56:] == xxh3_64_digest(data[:56])
    assert Claim.decode(data + b"more") == Claim(0x01020304, NAME, WRITER, 0x0A0B0C0D, 0x05060708)


def test_a_frame_has_its_fields_where_the_format_says() -> None:
    frame, link = encode_frame(CLAIM, Kind.DATA, 7, b"L" * 16, b"payload")
    assert HEADER_SIZE == 72
    assert len(frame) == frame_size(7) == 80
    assert frame[:4] == b"HWf\n"
    assert frame[4:8] == b"\x01\0\x01\0"  # version, kind
    assert frame[8:16] == b"\x03\0\0\0\x07\0\0\0"
    assert frame[16:24] == b"\x07\0\0\0\0\0\0\0"
    assert frame[24:40] == xxh3_128_digest(b"payload")
    assert frame[40:56] == b"L" * 16
    assert frame[56:64] == WRITER[:8]
    assert frame[64:72] == xxh3_64_digest(frame[:64])
    assert frame[72:] == b"payload\0"
    assert link == xxh3_128_digest(frame[:72])


@pytest.mark.parametrize("length", [0, 1, 8, 9, 439, 440, 441, 5000])
def test_a_frame_takes_its_header_and_payload_rounded_up_to_eight(length: int) -> None:
    assert frame_size(length) % 8 == 0
    assert 0 <= frame_size(length) - HEADER_SIZE - length < 8
    assert len(encode_frame(CLAIM, Kind.DATA, 1, b"", noise(length))[0]) == frame_size(length)


def test_what_was_written_is_read() -> None:
    log = Log()
    for size in (0, 5, 700, 3000):
        log.record(noise(size))
    term = log.read()
    assert term.flaws == ()
    assert term.seal == Seal()
    assert [frame.seq for frame in term.frames] == [0, 1, 2, 3, 4]
    assert [msgspec.msgpack.decode(f.payload)[0] for f in term.frames[1:]] == [
        noise(size) for size in (0, 5, 700, 3000)
    ]
    for frame, start in zip(term.frames, log.starts, strict=True):
        assert frame.start == start
        assert bytes(log.data[start : start + len(frame.raw)]) == frame.raw


def test_an_empty_log_is_a_term_that_nobody_sealed() -> None:
    term = read_term(CLAIM.encode() + bytes(CLAIM.room), 3, NAME)
    assert term == Term(CLAIM, (), (), None)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "checksum"),
        (CLAIM.encode()[:-1], "checksum"),
        (bytes(CLAIM_SIZE), "checksum"),
        (b"X" + CLAIM.encode()[1:], "checksum"),
        (Claim(4, NAME, WRITER, 0).encode(), "copied or renamed"),
        (Claim(3, ledger_name("elsewhere"), WRITER, 0).encode(), "copied or renamed"),
    ],
)
def test_a_claim_that_is_not_this_terms_is_refused(data: bytes, why: str) -> None:
    found = read_term(data, 3, NAME)
    assert isinstance(found, str)
    assert why in found


def test_a_claim_of_a_later_format_is_refused() -> None:
    later = bytearray(CLAIM.encode())
    later[8] = 2
    later[56:] = xxh3_64_digest(bytes(later[:56]))
    assert Claim.decode(bytes(later)) is None


@pytest.mark.parametrize("keep", range(8))
def test_a_record_whose_every_sector_but_some_was_written_is_torn(keep: int) -> None:
    log = Log()
    log.record(noise(100))
    before = bytes(log.data)
    log.record(noise(3000))
    start, sectors = log.starts[-1], 7
    first = start // SECTOR
    for index in range(sectors):
        if keep >> (index % 3) & 1:  # some subset of the sectors reached the disk
            continue
        at = max(start, (first + index) * SECTOR)
        stop = (first + index + 1) * SECTOR
        log.data[at:stop] = before[at:stop]
    term = log.read()
    if keep == 7:
        assert term.flaws == ()
        assert len(term.frames) == 3
    elif keep == 0:
        assert len(term.frames) == 2
        assert all(flaw.torn for flaw in term.flaws)
    else:
        assert len(term.frames) == 2
        assert [flaw.torn for flaw in term.flaws] == [True]


def test_the_same_record_with_a_flipped_bit_is_damaged() -> None:
    log = Log()
    log.record(noise(3000))
    log.data[log.starts[-1] + 900] ^= 1
    (flaw,) = log.read().flaws
    assert flaw == Flaw(1, "its payload fails its checksum", torn=False)


def test_a_bad_header_at_the_end_is_torn_when_a_part_of_it_is_missing() -> None:
    log = Log()
    while log.end % SECTOR < SECTOR - 40 or log.end % SECTOR > SECTOR - 16:
        log.record(b"")
    start = log.end
    log.record(noise(30))
    for lost in (slice(start, start // SECTOR * SECTOR + SECTOR), slice(None)):
        torn = bytearray(log.data)
        stop = log.end if lost.stop is None else lost.stop
        begin = start // SECTOR * SECTOR + SECTOR if lost.start is None else lost.start
        torn[begin:stop] = bytes(stop - begin)
        term = read_term(bytes(torn), 3, NAME)
        assert isinstance(term, Term)
        assert [flaw.torn for flaw in term.flaws] == [True]
    log.data[start + 20] ^= 1
    assert [flaw.torn for flaw in log.read().flaws] == [False]


def test_records_behind_a_damaged_header_are_still_found() -> None:
    log = Log()
    for text in (b"one", b"two", b"three"):
        log.record(text)
    log.data[log.starts[2] + 70] ^= 128
    term = log.read()
    assert [frame.seq for frame in term.frames] == [0, 1, 3]
    assert term.flaws == (Flaw(2, "its header fails its checks", torn=False),)


def test_records_behind_a_damaged_payload_are_still_found() -> None:
    log = Log()
    for text in (b"one", b"two", b"three"):
        log.record(text)
    log.data[log.starts[2] + HEADER_SIZE + 1] ^= 1
    term = log.read()
    assert [frame.seq for frame in term.frames] == [0, 1, 3]
    assert term.flaws == (Flaw(2, "its payload fails its checksum", torn=False),)


def test_a_frame_of_another_writer_or_place_is_refused() -> None:
    other = Log(Claim(3, NAME, b"W" * 16, CLAIM.room))
    other.record(b"foreign")
    log = Log()
    frame = other.data[other.starts[1] : other.end]
    log.data[log.end : log.end + len(frame)] = frame
    assert [frame.seq for frame in log.read().frames] == [0]
    assert [flaw.torn for flaw in log.read().flaws] == [False]


def test_a_frame_that_stands_twice_counts_once() -> None:
    log = Log()
    log.record(b"one")
    frame = log.data[log.starts[1] : log.end]
    log.data[log.end : log.end + len(frame)] = frame
    term = log.read()
    assert [frame.seq for frame in term.frames] == [0, 1]
    assert [flaw.torn for flaw in term.flaws] == [False]


def test_frames_that_changed_places_are_refused() -> None:
    log = Log()
    for text in (b"one", b"two"):
        log.record(text)
    one, two = (bytes(log.data[start : start + 80]) for start in log.starts[1:])
    assert len(one) == len(two) == frame_size(5)
    log.data[log.starts[1] : log.starts[1] + 160] = two + one
    term = log.read()
    assert [frame.payload for frame in term.frames[1:]] != [one, two]
    assert any(not flaw.torn for flaw in term.flaws)


def test_a_data_frame_in_place_of_the_seal_does_not_make_a_sealed_term() -> None:
    claim = CLAIM
    frame, _ = encode_frame(claim, Kind.DATA, 0, claim.link, b"\x90")
    term = read_term(claim.encode() + frame.ljust(claim.room, b"\0"), 3, NAME)
    assert isinstance(term, Term)
    assert term.seal is None
    assert term.frames == ()


def test_a_seal_that_says_nothing_known_is_damage() -> None:
    claim = CLAIM
    frame, _ = encode_frame(claim, Kind.SEAL, 0, claim.link, b"\xc1")
    term = read_term(claim.encode() + frame.ljust(claim.room, b"\0"), 3, NAME)
    assert isinstance(term, Term)
    assert term.seal is None
    assert [flaw.torn for flaw in term.flaws] == [False]


def test_a_kind_that_is_not_known_is_damage_and_hides_nothing() -> None:
    log = Log()
    log.add(9, b"from the future")
    log.record(b"known")
    term = log.read()
    assert [frame.seq for frame in term.frames] == [0, 2]
    assert term.flaws == (Flaw(1, "it is of a kind that this headway does not know", torn=False),)


@pytest.mark.parametrize("length", [10**6, 2**40, 2**64 - 1])
def test_a_length_beyond_the_log_is_damage(length: int) -> None:
    log = Log()
    log.record(b"one")
    start = log.starts[1]
    log.data[start + 16 : start + 24] = length.to_bytes(8, "little")
    log.data[start + 64 : start + 72] = xxh3_64_digest(bytes(log.data[start : start + 64]))
    term = log.read()
    assert [frame.seq for frame in term.frames] == [0]
    assert [flaw.torn for flaw in term.flaws] == [False]


@pytest.mark.parametrize("change", [-1, 1, -4000, 512])
def test_a_log_of_another_size_than_it_was_made_with_is_damaged(change: int) -> None:
    log = Log()
    log.record(b"one")
    data = bytes(log.data)
    data = data[:change] if change < 0 else data + bytes(change)
    term = read_term(data, 3, NAME)
    assert isinstance(term, Term)
    assert [(flaw.seq, flaw.torn) for flaw in term.flaws] == [(-1, False)]
    assert len(term.frames) == 2


def test_a_full_log_is_read_to_its_last_byte() -> None:
    room = frame_size(len(msgspec.msgpack.encode(Seal()))) + frame_size(3 + 1 + 1 + 1)
    log = Log(Claim(3, NAME, WRITER, room))
    log.add(Kind.DATA, b"\x91\xc4\x03abc")
    assert log.end == len(log.data)
    assert log.read().flaws == ()
    assert isinstance(log.read().frames[-1], Frame)

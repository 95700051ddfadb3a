"""The bytes of a ledger: claims, frames, and how a term's file is told good from torn from damaged.

A term is one log: a *claim* (64 bytes, there from the first instant the log is visible), then
*frames*. A frame is a 72-byte header and a payload, padded to 8 bytes. Everything after the last
frame is zero, because the log was zero-filled when it was made. `docs/design/format.md` has the
tables; this module is the only one that knows them.

What a frame proves. Its header has a checksum of its own, carries the payload's length and hash, the
term, its place in the term, eight bytes of the writer's random id, and the hash of the header before
it. So a torn, flipped, reordered, repeated or foreign frame is never taken for a good one, and a
damaged payload does not hide the frames behind it. All that against accidents: of a signed frame the
payload begins with a signature, which `ledger.read` checks where there is a key.

Torn or damaged? An append is one write into zeros, made durable before the next one begins. If it did
not finish, then some 512-byte sector of the frame still holds the zeros from before (the unit that a
disk writes whole, and a killed `pwrite` stops at a page, which is coarser). A bad frame with no such
sector, or with a good frame behind it, was once whole: that is damage, and is never taken for an
unfinished write.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from xxhash import xxh3_64_digest, xxh3_128_digest

from headway.ledger.signing import SIGNATURE, Signing

VERSION = 1
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What MessagePack that nobody encoded comes to."""
SECTOR = 512
_CLAIM = struct.Struct("<8sHHI16s16sII8s")  # magic version 0 term name writer room rank check
_FRAME = struct.Struct(
    "<4sHHIIQ16s16s8s8s"
)  # magic version kind term seq length hash link writer check
_CLAIM_MAGIC = b"HWCLAIM\n"
_FRAME_MAGIC = b"HWf\n"
CLAIM_SIZE = _CLAIM.size
HEADER_SIZE = _FRAME.size
_CHECK = 8
_ZEROS = bytes(1024)


class Kind(enum.IntEnum):
    """What a frame holds."""

    SEAL = 0
    DATA = 1
    SIGNED_SEAL = 2
    SIGNED_DATA = 3


_KINDS = {int(kind): kind for kind in Kind}
_SEALS = frozenset({Kind.SEAL, Kind.SIGNED_SEAL})
_SIGNED = {Kind.SEAL: Kind.SIGNED_SEAL, Kind.DATA: Kind.SIGNED_DATA}
_PLAIN = {signed: plain for plain, signed in _SIGNED.items()}
_PLACE = struct.Struct("<HII16s")  # kind term seq link: what of a header a signature covers


class Seal(msgspec.Struct, frozen=True, array_like=True):
    """First frame of a term: which part of which older term the chain goes on from.

    Attributes:
        term: the older term, 0 when there is none.
        count: how many of its frames belong to the chain, its own seal included.
        link: hash of the last of those headers, b"" when `term` is 0.
    """

    term: int = 0
    count: int = 0
    link: bytes = b""


@dataclass(frozen=True, slots=True)
class Claim:
    """Head of a term's log."""

    term: int
    name: bytes  # 16-byte hash of the ledger's key: a log copied elsewhere is foreign there
    writer: bytes  # 16 random bytes
    room: int  # bytes of the log after the claim; it never changes
    rank: int = 0  # of its writer; one of a lower rank than another's is late, and yields

    def encode(self) -> bytes:
        """The 64 bytes."""
        body = _CLAIM.pack(
            _CLAIM_MAGIC,
            VERSION,
            0,
            self.term,
            self.name,
            self.writer,
            self.room,
            self.rank,
            bytes(_CHECK),
        )[:-_CHECK]
        return body + xxh3_64_digest(body)

    @property
    def link(self) -> bytes:
        """What the first frame links back to."""
        return xxh3_128_digest(self.encode())

    @classmethod
    def decode(cls, data: bytes) -> Claim | None:
        """The claim at the front of `data`, or None when it fails its checks."""
        if len(data) < CLAIM_SIZE:
            return None
        head = data[:CLAIM_SIZE]
        magic, version, _, term, name, writer, room, rank, check = _CLAIM.unpack(head)
        if magic != _CLAIM_MAGIC or version != VERSION or check != xxh3_64_digest(head[:-_CHECK]):
            return None
        return cls(term, name, writer, room, rank)


def ledger_name(key: str) -> bytes:
    """16 bytes that stand for the ledger under `key`."""
    return xxh3_128_digest(key.encode())


def frame_size(length: int) -> int:
    """Bytes that a payload of `length` bytes takes in a log."""
    return -(-(HEADER_SIZE + length) // 8) * 8


def encode_frame(
    claim: Claim,
    kind: Kind,
    seq: int,
    link: bytes,
    payload: bytes,
    signing: Signing | None = None,
) -> tuple[bytes, bytes]:
    """(frame, link for the next frame), signed when there is something to sign with."""
    if signing is not None:
        kind = _SIGNED[kind]
        place = _PLACE.pack(kind, claim.term, seq, link)
        payload = signing.sign(claim.encode(), place, payload) + payload
    body = _FRAME.pack(
        _FRAME_MAGIC,
        VERSION,
        kind,
        claim.term,
        seq,
        len(payload),
        xxh3_128_digest(payload),
        link,
        claim.writer[:8],
        bytes(_CHECK),
    )[:-_CHECK]
    header = body + xxh3_64_digest(body)
    padding = bytes(frame_size(len(payload)) - HEADER_SIZE - len(payload))
    return header + payload + padding, xxh3_128_digest(header)


@dataclass(frozen=True, slots=True)
class _Header:
    kind: int
    term: int
    seq: int
    length: int
    hash: bytes
    link: bytes
    writer: bytes
    next_link: bytes


def _header_at(data: bytes, pos: int) -> _Header | None:
    raw = data[pos : pos + HEADER_SIZE]
    if len(raw) < HEADER_SIZE:
        return None
    magic, version, kind, term, seq, length, digest, link, writer, check = _FRAME.unpack(raw)
    if magic != _FRAME_MAGIC or version != VERSION or check != xxh3_64_digest(raw[:-_CHECK]):
        return None
    return _Header(kind, term, seq, length, digest, link, writer, xxh3_128_digest(raw))


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that passed every check: `raw` is all of it, padding included, from offset `start`.

    `kind` is `SEAL` or `DATA`. `signature` is b"" when it has none; nobody has compared it yet.
    """

    kind: Kind
    seq: int
    link: bytes
    payload: bytes
    start: int
    raw: bytes
    signature: bytes = b""

    def signed(self, claim: Claim, signing: Signing) -> bool:
        """Whether the signature is right, for this very place in the log of `claim`."""
        place = self.raw[6:16] + self.raw[40:56]
        return signing.signed(self.signature, claim.encode(), place, self.payload)


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something in a term that is not a good frame.

    `torn`: it can be what an unfinished append left. Otherwise it is damage.
    """

    seq: int
    reason: str
    torn: bool


@dataclass(frozen=True, slots=True)
class Term:
    """A term's log, read: its good frames in order, and its flaws."""

    claim: Claim
    frames: tuple[Frame, ...]
    flaws: tuple[Flaw, ...]
    seal: Seal | None  # None: its writer died before it sealed, or the seal is bad


def read_term(data: bytes, term: int, name: bytes) -> Term | str:
    """Read a term's log, or say why its claim is not to be trusted.

    Args:
        data: the whole log.
        term: the number that its key says.
        name: `ledger_name` of the ledger that it should belong to.
    """
    claim = Claim.decode(data)
    if claim is None:
        return "its claim fails its checksum"
    if claim.term != term or claim.name != name:
        return "its claim names another ledger or term: the file was copied or renamed"
    frames: list[Frame] = []
    flaws: list[Flaw] = []
    if len(data) != CLAIM_SIZE + claim.room:
        size = CLAIM_SIZE + claim.room
        flaws.append(Flaw(-1, f"it has {len(data)} bytes and was made with {size}", torn=False))
    for found in _scan(data, claim):
        if isinstance(found, Frame):
            frames.append(found)
        else:
            flaws.append(found)
    seal = None
    if frames and frames[0].kind is Kind.SEAL:
        try:
            seal = msgspec.msgpack.decode(frames[0].payload, type=Seal)
        except UNREADABLE:
            flaws.append(Flaw(0, "its seal says nothing that this headway knows", torn=False))
    return Term(claim, tuple(frames), tuple(flaws), seal)


def _scan(data: bytes, claim: Claim) -> Iterator[Frame | Flaw]:
    pos, seq = CLAIM_SIZE, 0
    used = _used(data)
    link: bytes | None = claim.link
    while pos < used:
        header = _header_at(data, pos)
        if header is not None and _belongs(header, claim, seq, link):
            end = pos + frame_size(header.length)
            payload = data[pos + HEADER_SIZE : pos + HEADER_SIZE + header.length]
            whole = len(payload) == header.length and xxh3_128_digest(payload) == header.hash
            if whole and header.kind not in _KINDS:
                yield Flaw(seq, "it is of a kind that this headway does not know", torn=False)
            elif whole:
                yield _frame(header, payload, pos, data[pos:end])
            else:
                torn = end >= used and len(payload) == header.length and _has_hole(data, pos, end)
                yield Flaw(seq, "its payload fails its checksum", torn=torn)
            pos, seq, link = end, seq + 1, header.next_link
            continue
        found = _resume(data, pos, claim, seq)
        if found is None:
            torn = _has_hole(data, pos, min(pos + HEADER_SIZE, len(data)))
            yield Flaw(seq, "its header fails its checks", torn=torn)
            return
        yield Flaw(seq, "its header fails its checks", torn=False)
        pos, seq = found
        link = None  # the frame before is unknown: its own checks must do


def _frame(header: _Header, payload: bytes, pos: int, raw: bytes) -> Frame:
    kind = _KINDS[header.kind]
    signature = b""
    if kind in _PLAIN:
        kind, signature, payload = _PLAIN[kind], payload[:SIGNATURE], payload[SIGNATURE:]
    return Frame(kind, header.seq, header.next_link, payload, pos, raw, signature)


def _used(data: bytes) -> int:
    """Length of `data` without the zeros at its end: most of a log, so whole pages are compared."""
    end = len(data)
    while end >= len(_ZEROS) and data[end - len(_ZEROS) : end] == _ZEROS:
        end -= len(_ZEROS)
    start = max(0, end - len(_ZEROS))
    return start + len(data[start:end].rstrip(b"\0"))


def _belongs(header: _Header, claim: Claim, seq: int, link: bytes | None) -> bool:
    return (
        header.term == claim.term
        and header.writer == claim.writer[:8]
        and header.seq == seq
        and (link is None or header.link == link)
        and (header.kind in _SEALS) == (seq == 0)
    )


def _resume(data: bytes, pos: int, claim: Claim, seq: int) -> tuple[int, int] | None:
    """The next good header behind `pos`: (offset, its seq)."""
    while (pos := data.find(_FRAME_MAGIC, pos + 1)) >= 0:
        header = _header_at(data, pos)
        if header is not None and header.seq >= seq and _belongs(header, claim, header.seq, None):
            return pos, header.seq
    return None


def _has_hole(data: bytes, start: int, end: int) -> bool:
    """Whether some sector's part of [start, end) is all zero."""
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if data.count(0, start, stop) == stop - start:
            return True
        start = stop
    return False

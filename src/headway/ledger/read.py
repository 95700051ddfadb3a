"""Reading a ledger: the chain of records that its newest sealed term stands for.

READ ORDER. Newest claim first. A term without a good seal contributes nothing: its writer never got
as far as acknowledging anything. From the newest sealed term, all its good frames; from every older
term that a seal names, exactly the frames that the seal counts. Frames behind that count were never
acknowledged, or were written by a writer that had been fenced: they are outside the chain for ever.

Where there is a key, no frame is built upon before its signature was compared. One that is not signed,
or not by that key, is no accident that older records could stand in for: it stops the reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from headway.ledger import available
from headway.ledger.record import UNREADABLE, Frame, Kind, Seal, Term, ledger_name, read_term
from headway.ledger.signing import FILE_VARIABLE, VARIABLE, signing_of
from headway.model.errors import UntrustedState
from headway.ports import KeyMissing, Storage

_SWELLS = 3  # a log is in memory as it was read, as its frames, and as their payloads
MOST_TERMS = 2**32  # a claim has 32 bits for its number


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the chain: a payload and where it stands."""

    term: int
    seq: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in the ledger that is not a good record.

    Attributes:
        term, seq: where; `seq` -1 is the whole term.
        reason: for people.
        tail: it can be an append that never finished at the end of the newest term: nothing
            acknowledged is missing. False: bytes that were once good are not any more.
    """

    term: int
    seq: int
    reason: str
    tail: bool


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of a chain: what the next seal names. `term` 0: the chain is empty."""

    term: int = 0
    count: int = 0
    link: bytes = b""


@dataclass(frozen=True, slots=True)
class Chain:
    """What a ledger holds.

    Attributes:
        records: oldest first.
        damage: oldest first; empty for a healthy ledger.
        newest: number of the newest claim, sealed or not; 0 for none.
        tip: what a new term seals in.
        last: last frame of the tip's term, for `Storage.settle`.
        room: room of the newest sealed term's log, bytes.
        rank: highest rank of a claim that was read.
        signed: some of it is signed.
    """

    records: tuple[Record, ...] = ()
    damage: tuple[Damage, ...] = ()
    newest: int = 0
    tip: Tip = Tip()
    last: Frame | None = None
    room: int = 0
    rank: int = 0
    signed: bool = False


def term_key(prefix: str, term: int) -> str:
    """Key of a term's log."""
    return f"{prefix}/{term:08d}"


def terms_in(names: Iterable[str]) -> list[int]:
    """The terms that have a claim, newest first, among the names below a ledger's key."""
    plain = (name for name in names if name.isascii() and name.isdecimal())
    numbers = [int(name) for name in plain if name == f"{int(name):08d}"]
    return sorted((n for n in numbers if 0 < n < MOST_TERMS), reverse=True)


def read_ledger(storage: Storage, prefix: str) -> Chain:
    """Read the ledger under `prefix` without claiming it.

    Raises:
        StorageError: the store could not be read; that is never an empty chain.
        UntrustedState: there is a key, and a record is signed with another one; or with none, in a
            home that others can write to.
    """
    return read_terms(storage, prefix, terms_in(storage.list(prefix)))


def read_terms(storage: Storage, prefix: str, terms: Sequence[int]) -> Chain:
    """Read `terms` of the ledger under `prefix`, newest first; see `read_ledger`."""
    if not terms:
        return Chain()
    reader = _Reader(storage, prefix)
    newest = terms[0]
    for number, older in zip(terms, [*terms[1:], 0], strict=True):
        term = reader.open(number)
        if term is not None:
            for flaw in term.flaws:
                reader.note(number, flaw.seq, flaw.reason, tail=flaw.torn)
            if term.seal is not None:
                reader.take(term, term.frames)
                reader.follow(number, term.seal)
                last = term.frames[-1]
                tip = Tip(number, last.seq + 1, last.link)
                return reader.chain(newest, tip, last, term.claim.room)
        if number > older + 1:
            # A claim that was never durable can vanish in a power loss while a later one stays: its
            # writer never got to use it. Below a sealed term only what the seals name counts.
            reader.note(number - 1, -1, "no claim has this number", tail=True)
    return reader.chain(newest, Tip(), None, 0)


class _Reader:
    """Collects records and damage, newest term first."""

    def __init__(self, storage: Storage, prefix: str) -> None:
        self._storage = storage
        self._prefix = prefix
        self._name = ledger_name(prefix)
        self._records: list[list[Record]] = []
        self._damage: list[Damage] = []
        self._rank = 0
        self._read = 0  # bytes of logs so far
        self._signing = signing_of(prefix)
        self._signed = False

    def note(self, term: int, seq: int, reason: str, *, tail: bool = False) -> None:
        self._damage.append(Damage(term, seq, reason, tail))

    def open(self, number: int) -> Term | None:
        """Read a term. Its writer may be in the middle of a write, and a reader that runs beside it
        can get any part of that: so a flaw is believed when two readings agree."""
        before: bytes | None = None
        while True:
            try:
                data = self._storage.read_log(term_key(self._prefix, number))
            except KeyMissing:
                self.note(number, -1, "its log is missing")
                return None
            available.require((self._read + len(data)) * _SWELLS, f"the ledger {self._prefix}")
            term = read_term(data, number, self._name)
            if data == before or (isinstance(term, Term) and not term.flaws):
                break
            before = data
        self._read += len(data)
        if isinstance(term, str):
            self.note(number, -1, term)
            return None
        self._rank = max(self._rank, term.claim.rank)
        if term.frames and term.frames[0].kind is Kind.SEAL:
            self.believe(term, term.frames[0])
        return term

    def believe(self, term: Term, frame: Frame) -> None:
        """Refuse a frame that a forger may have made. Without a key its checksum has to do, and what
        is read is data all the same."""
        self._signed = self._signed or bool(frame.signature)
        if self._signing is None:
            return
        if not frame.signature and not self._storage.trusted:
            raise UntrustedState(
                f"record {term.claim.term}.{frame.seq} of {self._prefix} in {self._storage.url} is not "
                f"signed, and there is a key ({VARIABLE}): whoever can write to the home may have put "
                "it there. Was it written without the key? Then begin a new one with the key, or "
                f"unset {VARIABLE} to read this one as it is. Else put the home back from a copy."
            )
        if frame.signature and not frame.signed(term.claim, self._signing):
            raise UntrustedState(
                f"record {term.claim.term}.{frame.seq} of {self._prefix} in {self._storage.url} is not "
                f"signed with this key. Set {VARIABLE} (or {FILE_VARIABLE}) to the key that it was "
                "written with. If that is the one you have, somebody has changed the home or moved "
                "parts of it: put it back from a copy."
            )

    def take(self, term: Term, frames: Iterable[Frame]) -> None:
        """Add the records of `frames`, which are older than all taken before."""
        records = []
        for frame in frames:
            self.believe(term, frame)
            if frame.kind is Kind.DATA:
                try:
                    payloads = msgspec.msgpack.decode(frame.payload, type=list[bytes])
                except UNREADABLE:
                    self.note(term.claim.term, frame.seq, "it does not hold a list of payloads")
                    continue
                records += [Record(term.claim.term, frame.seq, payload) for payload in payloads]
        self._records.append(records)

    def follow(self, number: int, seal: Seal | None) -> None:
        """Add the part of each older term that the seals name, from the seal of term `number` on."""
        while seal is not None and seal.term:
            if seal.term >= number:
                self.note(number, 0, "its seal names a term that is not older")
                return
            number = seal.term
            term = self.open(number)
            if term is None:
                return
            for flaw in term.flaws:
                if flaw.seq < seal.count:
                    self.note(number, flaw.seq, flaw.reason)
            sealed = {frame.seq: frame for frame in term.frames if frame.seq < seal.count}
            known = sealed.keys() | {flaw.seq for flaw in term.flaws}
            end = min(seal.count, max(known, default=-1) + 1)
            for seq in set(range(end)) - known:
                self.note(number, seq, "it was acknowledged, and is missing")
            if end < seal.count:
                more = f" to {seal.count - 1}" if end < seal.count - 1 else ""
                self.note(number, end, f"record {end}{more} was acknowledged, and is missing")
            last = sealed.get(seal.count - 1)
            if last is not None and last.link != seal.link:
                self.note(number, last.seq, "it is not the record that was sealed in")
                del sealed[last.seq]
            self.take(term, sealed.values())
            seal = term.seal

    def chain(self, newest: int, tip: Tip, last: Frame | None, room: int) -> Chain:
        records = tuple(record for part in reversed(self._records) for record in part)
        damage = tuple(sorted(self._damage, key=lambda d: (d.term, d.seq)))
        return Chain(records, damage, newest, tip, last, room, self._rank, self._signed)

"""Writing a ledger: open a term, append records, know at once when a newer term exists.

WRITE ORDER, and what each step is for. `docs/design/ordering.md` has the argument.

W1  The claim k+1 is created exclusively and is durable before anything else happens: of two claimants
    of one number, one loses.
W2  Only then are the older terms read. So a record that was acknowledged before the claim is seen, and
    one that is made durable after the reading finds the claim (W6).
W3  The last frame read is made durable (`settle`) before it is built upon: its writer may have died
    between its write and its fsync.
W4  Only then is the seal appended. It names the term that the chain goes on from, and how many of its
    frames belong.
W5  A record is made durable ...
W6  ... then a newer claim is looked for, and the record is acknowledged only if there is none.
W7  After a failed or interrupted append nothing is written to that log again, and the fsync is not
    tried again: the term is over. The same writer goes on in a new term (W1), whose seal counts only
    what was acknowledged, so the failed record is outside the chain for ever.
W8  A log never grows. A full one is followed by a new term of the same writer, like in W7.
W9  A claim whose reply was lost may stand all the same. It carries this writer's id, so it is told from
    a newer writer's and passed over: nobody will ever append to its log.
W10 A claim carries its writer's rank. A writer that reads the claim of a higher rank than its own (W2)
    came late: it leaves without a seal. So whoever finds a newer claim of a lower rank passes it over
    (W6): nobody will ever append to its log either. Of two writers the one that reads second yields,
    or is fenced, and among equals the newest claim counts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import msgspec

from headway.ledger.read import MOST_TERMS, Chain, Tip, read_terms, term_key, terms_in
from headway.ledger.record import (
    CLAIM_SIZE,
    Claim,
    Kind,
    Seal,
    encode_frame,
    frame_size,
    ledger_name,
)
from headway.ledger.signing import FILE_VARIABLE, SIGNATURE, VARIABLE, signing_of
from headway.model.errors import (
    CheckpointCorrupt,
    CheckpointFenced,
    InputError,
    StorageError,
    UntrustedState,
)
from headway.ports import LARGEST_LOG, KeyExists, LogWriter, Storage

FIRST_ROOM = 16 * 1024
MOST_ROOM = 4 * 1024 * 1024
_PAGE = 4096
_RECORDS = 16  # as large as the one that did not fit, that a log has room for


class Ledger:
    """One writer's turn on a ledger. Appends from several threads are serialised.

    Attributes:
        chain: everything acknowledged before this writer's turn, as read when it was opened.
    """

    chain: Chain

    def __init__(
        self, storage: Storage, prefix: str, *, room: int, rank: int, writer: bytes
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._room = room
        self._rank = rank
        self._writer = writer
        self._name = ledger_name(prefix)
        self._signing = signing_of(prefix)
        self._lock = threading.Lock()
        self._claim: Claim | None = None
        self._log: LogWriter | None = None
        self._fenced_by = 0
        self._number = 0  # newest claim that is ours
        self._seq = 0
        self._link = b""
        self._tip = Tip()  # end of the acknowledged chain
        self.chain = Chain()

    @classmethod
    def open(
        cls,
        storage: Storage,
        prefix: str,
        *,
        room: int = FIRST_ROOM,
        rank: int = 0,
        new: bool = False,
        inspect: Callable[[Chain], None] | None = None,
        new_writer: Callable[[], bytes] = lambda: os.urandom(16),
    ) -> Ledger:
        """Claim the next term, which fences every older writer, and seal the chain in.

        Args:
            storage: where.
            prefix: key of the ledger.
            room: bytes of the first log of a new ledger; later ones grow up to 4 MiB.
            rank: who is newer, when writers may come late: one that was stopped before it opened the
                ledger must not take it from its successor. 0 to 2**32 - 1.
            new: claim the first term, or none: the ledger must not exist yet.
            inspect: is shown the chain before it is sealed in; what it raises leaves the older
                terms as they were. Sealing makes damage at the end of the newest term invisible to
                later readers, so whoever cannot do without those records must refuse here.
            new_writer: makes the 16 random bytes that tell this writer's claims from all others.

        Raises:
            KeyExists: `new`, and there is a ledger.
            CheckpointFenced: another writer claimed a newer term meanwhile, or one of a higher rank
                was here before.
            StorageError: the store failed; nothing that was acknowledged is touched.
            UntrustedState: there is a key, and a record is not signed with it (`read_ledger`); or
                there is none, and the ledger is signed: those with the key would refuse it from here.
            CheckpointCorrupt: its last possible term is taken, which no headway can have done.
        """
        ledger = cls(storage, prefix, room=room, rank=rank, writer=new_writer())
        older = [] if new else terms_in(storage.list(prefix))
        while True:
            number = older[0] + 1 if older else 1
            if number >= MOST_TERMS:
                raise CheckpointCorrupt(
                    f"{prefix} in {storage.url} has a claim of term {older[0]}, the last one there can "
                    "be. Nobody has opened it that often: remove that file, or put the home back."
                )
            try:
                log = ledger._claim_next(number, room)  # W1
                break
            except KeyExists:
                if new:
                    raise
                older.insert(0, number)
        try:
            chain = read_terms(storage, prefix, older)  # W2
            if chain.rank > rank:  # W10
                ledger._fenced_by = chain.newest
                raise ledger._fenced()
            if chain.signed and ledger._signing is None:
                raise UntrustedState(
                    f"{prefix} in {storage.url} is signed, and what this process would add to it is "
                    f"not. Set {VARIABLE} or {FILE_VARIABLE} to the key that it was written with."
                )
            if inspect is not None:
                inspect(chain)
            if chain.last is not None:
                key = term_key(prefix, chain.tip.term)
                storage.settle(key, chain.last.start, chain.last.raw)  # W3
            ledger.chain = chain
            ledger._tip = chain.tip
            ledger._room = min(MOST_ROOM, max(room, chain.room))
            ledger._seal(log)  # W4
        except BaseException:
            log.close()
            raise
        return ledger

    @property
    def term(self) -> int:
        """Number of the newest term that this writer claimed."""
        return self._number

    @property
    def prefix(self) -> str:
        """Key of the ledger."""
        return self._prefix

    def append(self, *payloads: bytes) -> None:
        """Add records, all or none; on return they are durable and in the chain for good.

        Raises:
            InputError: they are larger than `LARGEST_LOG`; nothing was written.
            CheckpointFenced: a newer term exists. Nobody will build on these records.
            StorageError: they could not be made durable. The ledger can be used again once the store
                works, and then they are outside the chain; until then a newer writer that takes
                over may find them whole and keep them.
        """
        body = msgspec.msgpack.encode(payloads)
        size = len(body) + (0 if self._signing is None else SIGNATURE)
        if CLAIM_SIZE + frame_size(size) + 3 * _PAGE > LARGEST_LOG:
            raise InputError(
                f"a record of {size} bytes is more than a ledger takes ({LARGEST_LOG} bytes with what "
                "goes around it). Does the state have millions of parts? Put them together into arrays, "
                "or save files."
            )
        with self._lock:
            if self._fenced_by:
                raise self._fenced()
            log = self._log
            if log is None:
                log = self._turn_over(size)
            elif frame_size(size) > log.room:
                self._room = min(MOST_ROOM, max(2 * self._room, _RECORDS * frame_size(len(body))))
                log = self._turn_over(size)
            self._put(log, Kind.DATA, body)

    def check(self) -> None:
        """Raise `CheckpointFenced` when a newer term exists."""
        with self._lock:
            self._look_for_newer()

    def close(self) -> None:
        """Release the log. The term stays ours until somebody claims a newer one."""
        log, self._log = self._log, None
        if log is not None:
            log.close()

    # Everything below runs with the lock held, or before the ledger is shared.

    # `_log` is set only between appends that went well: wherever an exception strikes, a signal
    # handler's between two instructions included, the next append begins a new term (W7).

    def _claim_next(self, number: int, need: int) -> LogWriter:
        """Create the claim of `number` and the log that goes with it (W1)."""
        size = -(-(CLAIM_SIZE + max(self._room, need)) // _PAGE) * _PAGE
        claim = Claim(number, self._name, self._writer, size - CLAIM_SIZE, self._rank)
        log = self._storage.create_log(term_key(self._prefix, number), claim.encode(), claim.room)
        self._claim, self._number, self._seq, self._link = claim, number, 0, claim.link
        return log

    def _turn_over(self, need: int) -> LogWriter:
        """Go on in a new term of our own (W7, W8), with room for a frame of `need` bytes."""
        self.close()
        number = self._number + 1
        while True:
            try:
                log = self._claim_next(number, 2 * _PAGE + frame_size(need))
                break
            except KeyExists:
                if not self._passed_over(number):
                    self._fenced_by = number
                    raise self._fenced() from None
                number += 1
        self._seal(log)
        return log

    def _passed_over(self, number: int) -> bool:
        """Whether a claim is ours after all, its creation interrupted or its reply lost (W9), or that
        of a writer which came late (W10)."""
        head = self._storage.read_range(term_key(self._prefix, number), 0, CLAIM_SIZE)
        claim = Claim.decode(head)
        if claim is None or claim.name != self._name or claim.term != number:
            return False
        return claim.writer == self._writer or claim.rank < self._rank

    def _seal(self, log: LogWriter) -> None:
        tip = self._tip
        self._put(log, Kind.SEAL, msgspec.msgpack.encode(Seal(tip.term, tip.count, tip.link)))

    def _put(self, log: LogWriter, kind: Kind, payload: bytes) -> None:
        assert self._claim is not None
        self._log = None  # until we know how it ended, the term is over (W7)
        try:
            frame, link = encode_frame(
                self._claim, kind, self._seq, self._link, payload, self._signing
            )
            log.append(frame)  # W5
            self._look_for_newer()  # W6
            tip = Tip(self._number, self._seq + 1, link)
            self._seq, self._link, self._tip = tip.count, link, tip
            self._log = log
        except BaseException as error:
            self._log = None
            log.close()
            if kind is Kind.DATA and isinstance(error, StorageError):
                self._leave_out()
            raise

    def _leave_out(self) -> None:
        """Put a failed record outside the chain at once, if the store still lets us (W7)."""
        try:
            self._turn_over(0)
        except (StorageError, CheckpointFenced):
            pass  # the next append tries again; a claimant in between may find the record whole

    def _look_for_newer(self) -> None:
        number = self._number + 1
        while not self._fenced_by and self._storage.has(term_key(self._prefix, number)):
            if not self._passed_over(number):
                self._fenced_by = number
            number += 1
        if self._fenced_by:
            raise self._fenced()

    def _fenced(self) -> CheckpointFenced:
        return CheckpointFenced(
            f"a newer writer took {self._prefix} over (term {self._fenced_by}; this one claimed "
            f"{self._number}). What this process saves from now on is not seen by anyone: it "
            "should end. Look at the newer attempt with `headway show`."
        )

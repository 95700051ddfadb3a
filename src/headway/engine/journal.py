"""A run's journal: its events in the run's ledger, `runs/<run>/ledger`.

Opening one claims a term, and so fences a driver that still lives somewhere: its next append raises
`CheckpointFenced`. What a torn last append leaves was never acknowledged, so it is only noted; damage
anywhere else may hide a committed result, so the run is refused rather than guessed at, and the
ledger is left as it was found.
"""

from __future__ import annotations

import msgspec

from headway.engine.keys import ledger_prefix
from headway.ledger.read import Chain, read_ledger, term_key
from headway.ledger.record import UNREADABLE
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt
from headway.model.events import Event, RunCreated
from headway.ports import Storage

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


class Journal:
    """A driver's turn on a run's journal.

    Attributes:
        events: what the run's earlier drivers recorded.
        notes: remarks about what was read, for people.
    """

    def __init__(self, ledger: Ledger, events: list[Event], notes: list[str]) -> None:
        self._ledger = ledger
        self.events = events
        self.notes = notes

    @classmethod
    def open(cls, storage: Storage, run: str, *, new: bool = False) -> Journal:
        """Claim the next term of the run's journal.

        Args:
            storage: the home.
            run: which run.
            new: the first term, or none: the run must not exist yet.

        Raises:
            KeyExists: `new`, and somebody else began a run of that id.
            CheckpointCorrupt: an event that was acknowledged cannot be read any more.
            StorageError: the home could not be read or written.
        """
        read: list[tuple[list[Event], list[str]]] = []
        ledger = Ledger.open(
            storage,
            ledger_prefix(run),
            new=new,
            inspect=lambda chain: read.append(_decode(chain, run)),
        )
        return cls(ledger, *read[-1])

    def append(self, *events: Event) -> None:
        """Add events, all or none; durable on return.

        Raises:
            CheckpointFenced: another driver took the run over.
            StorageError: they are not in the journal.
        """
        self._ledger.append(*map(_ENCODER.encode, events))

    def check(self) -> None:
        """Raise `CheckpointFenced` when another driver took the run over."""
        self._ledger.check()

    def close(self) -> None:
        """Release the ledger."""
        self._ledger.close()


def read_journal(storage: Storage, run: str) -> tuple[list[Event], list[str]]:
    """The events of a run, and remarks about what was read, without claiming its journal.

    Raises:
        CheckpointCorrupt: an event that was acknowledged cannot be read any more.
        StorageError: the home could not be read.
    """
    return _decode(read_ledger(storage, ledger_prefix(run)), run)


def settle_journal(storage: Storage, run: str) -> None:
    """Make what `read_journal` gives durable, for whoever is about to build on it without a claim.

    A driver that was killed between a write and its fsync leaves a record that every reader sees, and
    that a power cut would still take away.

    Raises:
        StorageError: the home could not be read or written.
    """
    prefix = ledger_prefix(run)
    chain = read_ledger(storage, prefix)
    if chain.last is not None:
        storage.settle(term_key(prefix, chain.tip.term), chain.last.start, chain.last.raw)


def _decode(chain: Chain, run: str) -> tuple[list[Event], list[str]]:
    lost = [damage for damage in chain.damage if not damage.tail]
    if lost:
        first = lost[0]
        where = f"term {first.term}" + (f", record {first.seq}" if first.seq >= 0 else "")
        raise CheckpointCorrupt(
            f"the journal of run {run} is damaged ({where}: {first.reason}), so what the run has "
            "finished cannot be told for sure. Its checkpoints are kept apart and may be whole. "
            f"Restore runs/{run} from a copy of the home, or give the run up with "
            f"`headway delete {run}`."
        )
    try:
        events = [_DECODER.decode(record.payload) for record in chain.records]
    except UNREADABLE as error:
        raise CheckpointCorrupt(
            f"the journal of run {run} holds an event that this headway does not know ({error}): "
            f"a newer headway wrote it. Update headway (`pip install -U headway`) and try again."
        ) from error
    for event in events:
        if (
            isinstance(event, RunCreated) and event.run != run
        ):  # its name leads to places on this machine
            raise CheckpointCorrupt(
                f"the journal of run {run} is that of another run, {event.run[:40]!r}. Restore runs/{run} "
                f"from a copy of the home, or give the run up with `headway delete {run}`."
            )
    return events, [f"the end of the journal was ignored: {d.reason}" for d in chain.damage]

"""A small ledger with everything in it, kept short so that every bit of it can be flipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.crash.actors import Violation
from tests.crash.mutants import Edit, Mutant, planted

from headway.ledger.read import Chain, read_ledger
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointFenced, StorageError
from headway.ports import KeyMissing
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/ledger"
ZOMBIE = b"a zombie's"
Logs = dict[str, bytes]


def stored(logs: Logs) -> MemoryStorage:
    """A home that holds `logs`."""
    storage = MemoryStorage()
    storage.objects = {key: bytearray(data) for key, data in logs.items()}
    return storage


class Shelf:
    """As much of a storage as a reader needs, and fast."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def list(self, prefix: str) -> list[str]:
        return [key.removeprefix(f"{prefix}/") for key in self._logs]

    def read_log(self, key: str) -> bytes:
        try:
            return self._logs[key]
        except KeyError:
            raise KeyMissing(key) from None


def small_ledger() -> tuple[Logs, list[bytes]]:
    """(logs, the chain): a writer, a zombie's record behind the seal's count, a claim that nobody
    sealed, a turn-over, records of one sector and of several, batches."""
    storage = MemoryStorage()
    # Logs are made in pages; small ones keep the sweep short, and the bytes are the same.
    with planted(Mutant("small pages", (Edit("write", "_PAGE = 4096", "_PAGE = 16"),))) as code:
        open_ledger = code.write.Ledger.open
        first = open_ledger(storage, PREFIX, room=450)
        first.append(b"one")
        first.append(b"two", b"three" * 9)
        second = open_ledger(storage, PREFIX, room=500)
        try:
            first.append(ZOMBIE)
        except CheckpointFenced:
            pass
        second.append(b"four" * 60)
        second.append(b"five" * 90)  # does not fit: a turn-over
        second.append(b"")
        try:
            open_ledger(storage, PREFIX, room=64, inspect=_refuse)
        except ZeroDivisionError:
            pass
        third = open_ledger(storage, PREFIX, room=1000)
        third.append(b"six" * 200)
        third.append(b"seven", b"eight")
    chain = [record.payload for record in read_ledger(storage, PREFIX).records]
    return {key: bytes(data) for key, data in storage.objects.items()}, chain


def _refuse(chain: object) -> None:
    raise ZeroDivisionError


def foreign_ledger() -> Logs:
    """The like, of another run."""
    storage = MemoryStorage()
    with planted(Mutant("small pages", (Edit("write", "_PAGE = 4096", "_PAGE = 16"),))) as code:
        ledger = code.write.Ledger.open(storage, "runs/other/ledger", room=700)
        ledger.append(b"foreign")
        code.write.Ledger.open(storage, "runs/other/ledger", room=700).append(b"foreign too")
    return {key.replace("other", "r"): bytes(data) for key, data in storage.objects.items()}


def look(logs: Logs, good: list[bytes], *, complete: bool = True) -> Chain:
    """Read damaged logs.

    Args:
        complete: at most one file is damaged, and what is missing must be reported. Else it may go
            unseen (whole records blanked look as if they had never been), and where newer terms are
            damaged, the record of the zombie may show up together with that damage.

    Raises:
        Violation: a record that never was, one twice, in another order, or missing in silence.
    """
    try:
        shelf: Any = Shelf(logs)
        chain = read_ledger(shelf, PREFIX)
    except StorageError as error:
        raise Violation(f"the store is not at fault: {error}") from error
    found = [record.payload for record in chain.records]
    if ZOMBIE in found and not complete and any(not damage.tail for damage in chain.damage):
        found.remove(ZOMBIE)
    if not _is_part(found, good):
        raise Violation(f"read {found}, and it was {good}")
    if complete and len(found) < len(good) and not chain.damage:
        raise Violation(f"{len(good) - len(found)} records are missing, and nothing is said")
    return chain


def go_on(logs: Logs, chain: Chain) -> None:
    """Open damaged logs and append: what could be read stays, and the end is healthy."""
    storage = stored(logs)
    ledger = Ledger.open(storage, PREFIX)
    ledger.append(b"after")
    found = [record.payload for record in read_ledger(storage, PREFIX).records]
    if found != [*(record.payload for record in chain.records), b"after"]:
        raise Violation(f"after going on it reads {found}")


def _is_part(found: list[bytes], good: list[bytes]) -> bool:
    """Whether `found` is `good` with some left out."""
    rest: Iterator[bytes] = iter(good)
    return all(any(payload == other for other in rest) for payload in found)

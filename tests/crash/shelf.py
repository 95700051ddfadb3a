"""The simulated store under the protocol search: logs of which a reader sees one thing and a power loss
leaves another, and what each storage operation can do to them in one atomic step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.crash.actors import Op


class File(NamedTuple):
    """A log, without the zeros at its end.

    Attributes:
        owner: number of the actor that created it.
        size: bytes, zeros included.
        seen: what a reader gets.
        kept: what a power loss leaves at least.
        named: its name is durable.
        lost: a flush failed, so the pages are clean in the kernel's eyes and can be evicted.
    """

    owner: int
    size: int
    seen: bytes
    kept: bytes
    named: bool = False
    lost: bool = False

    @property
    def content(self) -> bytes:
        return self.seen.ljust(self.size, b"\0")


Store = tuple[File | None, ...]  # by term - 1; None: a power loss took its name
HALF = object()  # instead of an answer: the operation goes on


class Outcome(NamedTuple):
    """One step of an operation: the store after it, what the caller is answered, faults it used up."""

    label: str
    store: Store
    answer: Any
    cost: int = 0


class StoreView:
    """A store as a reader finds it when nobody moves."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, prefix: str) -> list[str]:
        return [f"{number:08d}" for number in names(self._store)]

    def read_log(self, key: str) -> bytes:
        file = self._store[int(key.rpartition("/")[2]) - 1]
        assert file is not None
        return file.content


def names(store: Store) -> tuple[int, ...]:
    """The terms whose logs are there."""
    return tuple(number for number, file in enumerate(store, 1) if file is not None)


def written(old: bytes, offset: int, data: bytes) -> bytes:
    """`old` with `data` at `offset`."""
    return old.ljust(offset, b"\0")[:offset] + data + old[offset + len(data) :]


def _with(store: Store, index: int, file: File | None) -> Store:
    return (*store[:index], file, *store[index + 1 :])


def file_of(store: Store, op: Op) -> File | None:
    """The log that an operation is about."""
    return store[op.term - 1] if 0 < op.term <= len(store) else None


def steps_of(
    store: Store, number: int, op: Op, half: bool, *, halves: bool, exclusive: bool
) -> Iterator[Outcome]:
    """What actor `number`'s operation can do next. Those with a cost need a fault to be left."""
    file = file_of(store, op)
    if not half:
        yield Outcome("fails", store, "fault", 1)
    if op.name == "list":
        yield Outcome("", store, names(store))
    elif op.name == "has":
        yield Outcome(f"says {file is not None}", store, file is not None)
    elif op.name == "create":
        yield from _create(store, number, op, half, exclusive)
    elif file is None:
        yield Outcome("finds nothing", store, "missing")
    elif op.name == "read":
        yield Outcome("", store, file.content)
    elif op.name == "range":
        yield Outcome("", store, file.content[op.offset : op.offset + op.room])
    elif op.name == "settle":
        settled = file._replace(
            seen=written(file.seen, op.offset, op.data), kept=written(file.kept, op.offset, op.data)
        )
        yield Outcome("", _with(store, op.term - 1, settled), None)
    else:
        assert op.name == "append"
        yield from _append(store, op, file, half, halves)


def _create(store: Store, number: int, op: Op, half: bool, exclusive: bool) -> Iterator[Outcome]:
    if not half:
        if file_of(store, op) is not None and exclusive:
            yield Outcome("finds it there", store, "exists")
            return
        born = File(number, len(op.data) + op.room, op.data, op.data)
        padded = store + (None,) * (op.term - len(store))
        yield Outcome("is visible", _with(padded, op.term - 1, born), HALF)
        return
    # The directory's flush makes every name in it durable, whoever made it.
    durable = tuple(file and file._replace(named=True) for file in store)
    yield Outcome("is durable", durable, None)
    yield Outcome("is there, but the reply is an error", store, "fault", 1)


def _append(store: Store, op: Op, file: File, half: bool, halves: bool) -> Iterator[Outcome]:
    index = op.term - 1
    if half:
        kept = file._replace(kept=written(file.kept, op.offset, op.data))
        yield Outcome("is durable", _with(store, index, kept), None)
        lost = file._replace(lost=True)
        yield Outcome("is visible, but its flush fails", _with(store, index, lost), "fault", 1)
        return
    part = written(file.seen, op.offset, op.data[: len(op.data) // 2])
    if halves and file.seen[: len(part)] != part:
        yield Outcome("is half visible", _with(store, index, file._replace(seen=part)), None, -1)
    whole = file._replace(seen=written(file.seen, op.offset, op.data))
    yield Outcome("is visible", _with(store, index, whole), HALF)


def evictions(store: Store) -> Iterator[tuple[str, Store]]:
    """Each log whose flush failed, read from the disk again."""
    for index, file in enumerate(store):
        if file is not None and file.lost and file.seen != file.kept:
            yield (
                f"the pages of {index + 1} that could not be flushed are evicted",
                _with(store, index, file._replace(seen=file.kept)),
            )


def power_losses(store: Store) -> Iterator[tuple[str, Store]]:
    """Every store that a power loss can leave: each thing not durable is kept or dropped."""
    left: list[Store] = [()]
    for file in store:
        choices: list[File | None] = [None]
        if file is not None:
            choices = [file._replace(kept=file.seen, named=True, lost=False)]
            if file.seen != file.kept:
                choices.append(file._replace(seen=file.kept, named=True, lost=False))
            if not file.named:
                choices.append(None)
        left = [(*before, choice) for before in left for choice in choices]
    for after in left:
        stripped = after
        while stripped and stripped[-1] is None:
            stripped = stripped[:-1]
        yield f"the power fails and leaves {names(stripped)}", stripped

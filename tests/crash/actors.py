"""Actors: real ledger code, run as far as its history of storage answers reaches.

An actor opens a `Ledger` and appends. Its storage is a `Replay`: it answers the calls that the history
holds, and stops the actor at the first call beyond it. So "which storage operation comes next, and what
has the actor said so far" is a function of the history alone. It is computed once per history, by
running the real code from the start, and kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.crash.mutants import Code

from headway.model.errors import CheckpointFenced, StorageError, StorageUnavailable
from headway.ports import KeyExists, KeyMissing

PREFIX = "l"


class Violation(AssertionError):
    """Something that must not be."""


class Op(NamedTuple):
    """A storage call: `term` is the log it is about, 0 for the directory."""

    name: str
    term: int = 0
    offset: int = 0
    data: bytes = b""
    room: int = 0


class Pause(BaseException):
    """The actor's next storage operation is beyond its history."""

    def __init__(self, op: Op) -> None:
        self.op = op


class Said(NamedTuple):
    """What an actor told its caller so far."""

    opened: tuple[bytes, ...] | None = None
    acked: tuple[bytes, ...] = ()
    failed: tuple[bytes, ...] = ()
    left_out: tuple[bytes, ...] = ()  # failed, and then something else was acknowledged
    fenced: bool = False


class Moment(NamedTuple):
    """An actor at the end of a history: the operation it waits for (None: it has ended)."""

    op: Op | None
    said: Said


class Replay:
    """A storage that answers from a history."""

    url = "replay:"
    trusted = True

    def __init__(self, history: list[Any]) -> None:
        self._history = history
        self._next = 0
        self._newest = 0
        self._spoiled = 0

    def call(self, op: Op) -> Any:
        if op.name == "create":
            self._newest = op.term
        elif op.name == "append" and op.term != self._newest:
            raise Violation(f"a write to log {op.term}, after log {self._newest} was begun")
        elif op.name == "append" and op.term == self._spoiled:
            raise Violation(f"a write to log {op.term}, after a write to it failed")
        if self._next == len(self._history):
            raise Pause(op)
        answer = self._history[self._next]
        self._next += 1
        if answer == "exists":
            raise KeyExists("exists")
        if answer == "missing":
            raise KeyMissing("missing")
        if answer == "fault":
            self._spoiled = self._newest if op.name == "append" else self._spoiled
            raise StorageUnavailable("a planted fault")
        return answer

    def list(self, prefix: str) -> Any:
        return [f"{number:08d}" for number in self.call(Op("list"))]

    def read_log(self, key: str) -> Any:
        return self.call(Op("read", _term(key)))

    def read_range(self, key: str, offset: int, length: int) -> Any:
        return self.call(Op("range", _term(key), offset, room=length))

    def has(self, key: str) -> Any:
        return self.call(Op("has", _term(key)))

    def settle(self, key: str, offset: int, data: bytes) -> None:
        self.call(Op("settle", _term(key), offset, data))

    def create_log(self, key: str, head: bytes, room: int) -> Any:
        self.call(Op("create", _term(key), 0, head, room))
        return _ReplayLog(self, _term(key), len(head), room)


class _ReplayLog:
    def __init__(self, replay: Replay, term: int, position: int, room: int) -> None:
        self._replay = replay
        self._term = term
        self._position = position
        self.room = room

    def append(self, data: bytes) -> None:
        assert len(data) <= self.room
        self._replay.call(Op("append", self._term, self._position, data))
        self._position += len(data)
        self.room -= len(data)

    def close(self) -> None:
        """Nothing to release."""


def _term(key: str) -> int:
    return int(key.rpartition("/")[2])


class Actor:
    """One actor's histories, as a tree of numbers: 0 is the empty one.

    Args:
        code: the build whose `Ledger` it uses.
        number: which actor it is.
        payloads: what it appends, one after the other; () only opens.
        rank: whom it yields to.
    """

    def __init__(self, code: Code, number: int, payloads: tuple[bytes, ...], rank: int = 0) -> None:
        self._code = code
        self._rank = rank
        self._writer = bytes([number + 1]) * 16
        self._payloads = payloads
        self._answers: list[tuple[int, Any]] = [(0, None)]
        self._children: dict[tuple[int, Any], int] = {}
        self._moments: dict[int, Moment] = {}

    @property
    def runs(self) -> int:
        """How often the code was run."""
        return len(self._moments)

    def after(self, history: int, answer: Any) -> int:
        """The history that `answer` makes of `history`."""
        key = (history, answer)
        child = self._children.get(key)
        if child is None:
            child = self._grow(self._same(history, answer), answer)
            self._children[key] = child
        return child

    def _grow(self, history: int, answer: Any) -> int:
        key = (history, answer)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = len(self._answers)
            self._answers.append(key)
        return child

    def _same(self, history: int, answer: Any) -> int:
        """One history for all that end with this claim, however many races were lost before it: the
        opener knows of the same terms. Only for histories of nothing else."""
        answers = self._history(history)
        op = self.moment(history).op
        if op is None or op.name != "create" or answer is not None or not answers:
            return history
        older, lost = answers[0], answers[1:]
        if not isinstance(older, tuple) or set(lost) - {"exists"}:
            return history
        other = self._grow(0, tuple(sorted({*older, *range(op.term - len(lost), op.term)})))
        return other if self.moment(other).op == op else history

    def moment(self, history: int) -> Moment:
        """Where the actor stands at the end of `history`."""
        found = self._moments.get(history)
        if found is None:
            found = self._moments[history] = self._run(history)
        return found

    def _history(self, history: int) -> list[Any]:
        answers = []
        while history:
            history, answer = self._answers[history]
            answers.append(answer)
        return answers[::-1]

    def _storage(self, history: list[Any]) -> Any:
        return Replay(history)

    def _run(self, history: int) -> Moment:
        said = Said()
        storage = self._storage(self._history(history))
        try:
            try:
                ledger = self._code.write.Ledger.open(
                    storage, PREFIX, rank=self._rank, new_writer=lambda: self._writer
                )
            except CheckpointFenced:
                return Moment(None, said._replace(fenced=True))
            except StorageError:
                return Moment(None, said)
            said = said._replace(opened=tuple(r.payload for r in ledger.chain.records))
            for payload in self._payloads:
                try:
                    ledger.append(payload)
                    said = said._replace(acked=(*said.acked, payload), left_out=said.failed)
                except CheckpointFenced:
                    return Moment(None, said._replace(fenced=True))
                except StorageError:
                    said = said._replace(failed=(*said.failed, payload))
        except Pause as pause:
            return Moment(pause.op, said)
        return Moment(None, said)

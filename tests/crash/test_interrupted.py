"""Ctrl-C and SIGTERM: an exception out of nowhere, anywhere in the ledger.

A signal handler runs between two instructions of whatever the process is doing, and raises: CPython
looks for signals when a call has returned, when a function begins and when a loop goes round. Each
test here raises at every single one of these points in turn, then goes on with the same ledger object,
as a body that catches `Preempted` to save once more does.
"""

from __future__ import annotations

import dis
import functools
import itertools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from tests.crash.mutants import Edit, Mutant, planted

from headway.checkpoint.staging import Layout, Staging
from headway.checkpoint.state import Part
from headway.ledger.read import read_ledger
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointFenced, Preempted, StorageUnavailable
from headway.ports import LogWriter
from headway.testing.memory import MemoryStorage

KEY = "l"


class _At:
    """Raises `Preempted` at one point of the functions in `files`, counted from 0."""

    def __init__(self, number: int, *files: str) -> None:
        self.left = number
        self.struck = ""
        self._files = files
        self._before: dict[FrameType, int] = {}  # offset of the instruction that a frame came from

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(self._files):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "exception":
            self._before[frame] = -1  # on the way out nobody looks for signals
        elif event == "opcode":
            before = self._before.get(frame, -1)
            self._before[frame] = frame.f_lasti
            if before < 0 or not dis.opname[frame.f_code.co_code[before]].startswith(POINTS):
                return self
            self.left -= 1
            if self.left == -1:
                self.struck = f"{frame.f_code.co_name}:{frame.f_lineno}"
                raise Preempted
        return self

    def run(self, act: Callable[[], object]) -> bool:
        """Whether `act` was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            act()
        except Preempted:
            pass
        finally:
            sys.settrace(before)
        return bool(self.struck)


POINTS = ("CALL", "RESUME", "JUMP_BACKWARD")
FILES = ("ledger/write.py", ": write>", "testing/memory.py")


class _Failing(MemoryStorage):
    """Appends fail after their effect, so many times."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0

    def create_log(self, key: str, head: bytes, room: int) -> LogWriter:
        log = super().create_log(key, head, room)
        append = log.append

        def failing(data: bytes) -> None:
            append(data)
            if self.failures:
                self.failures -= 1
                raise StorageUnavailable("failed")

        setattr(log, "append", failing)  # noqa: B010
        return log


def _append(ledger: Any) -> None:
    ledger.append(b"maybe")


def _append_much(ledger: Any) -> None:
    ledger.append(b"maybe" * 8000)


def _append_failing(ledger: Any) -> None:
    ledger._storage.failures = 1
    with pytest.raises(StorageUnavailable):
        ledger.append(b"maybe")


@pytest.mark.parametrize("act", [_append, _append_much, _append_failing, Ledger.check])
def test_an_append_that_is_interrupted_anywhere_leaves_a_ledger_that_works(
    act: Callable[[Any], None],
) -> None:
    struck = _sweep(Ledger, act)
    print(f"{struck} instructions")
    assert struck >= 10


def _sweep(ledger_class: Any, act: Callable[[Any], None]) -> int:
    number = 0
    while True:
        storage = _Failing()
        ledger = ledger_class.open(storage, KEY)
        ledger.append(b"before")
        at = _At(number, *FILES)
        if not at.run(functools.partial(act, ledger)):
            return number
        storage.failures = 0
        ledger.append(b"after")
        ledger.append(b"last")
        chain = read_ledger(storage, KEY)
        found = [record.payload for record in chain.records]
        assert chain.damage == (), at.struck
        assert [p for p in found if not p.startswith(b"maybe")] == [b"before", b"after", b"last"], (
            at.struck
        )
        # Interrupted before it was acknowledged, or after; but once at the most, and in its place.
        assert found.index(b"after") in {1, 2}, at.struck
        ledger.check()
        Ledger.open(storage, KEY)
        number += 1


def test_an_opening_that_is_interrupted_anywhere_loses_nothing() -> None:
    number = 0
    while True:
        storage = _Failing()
        Ledger.open(storage, KEY).append(b"one")
        at = _At(number, *FILES, "ledger/read.py")
        interrupted = at.run(functools.partial(Ledger.open, storage, KEY))
        ledger = Ledger.open(storage, KEY)
        ledger.append(b"two")
        chain = read_ledger(storage, KEY)
        assert [record.payload for record in chain.records] == [b"one", b"two"], at.struck
        assert all(damage.tail for damage in chain.damage), at.struck
        if not interrupted:
            break
        number += 1
    assert number > 100


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant(
            "the log can be used before it is sealed",
            (
                Edit(
                    "write",
                    "        self._claim, self._number, self._seq, self._link = "
                    "claim, number, 0, claim.link\n",
                    "        self._claim, self._number, self._seq, self._link = "
                    "claim, number, 0, claim.link\n        self._log = log\n",
                ),
            ),
        ),
        Mutant(
            "the log can be used while an append is under way",
            (
                Edit(
                    "write",
                    "        self._log = None  # until we know how it ended, the term is over (W7)\n",
                    "",
                ),
                Edit(
                    "write",
                    "            self._log = None\n            log.close()\n            if kind",
                    "            if kind",
                ),
            ),
        ),
        Mutant(
            "the id of an interrupted claim is forgotten",
            (Edit("write", "return claim.writer == self._writer or", "return"),),
        ),
    ],
    ids=str,
)
def test_the_sweep_finds_what_an_interruption_breaks(mutant: Mutant) -> None:
    def sweep(ledger_class: Any) -> None:
        for act in (_append, _append_much, _append_failing):
            _sweep(ledger_class, act)

    with planted(mutant) as code, pytest.raises((AssertionError, CheckpointFenced)):
        sweep(code.write.Ledger)


# A state's copy


def test_making_memory_ready_may_be_interrupted_anywhere() -> None:
    memory = [bytearray(b"%d" % n * 3000) for n in range(5)]
    parts = [Part(f"p{n}", memoryview(each)) for n, each in enumerate(memory)]
    layout = Layout.of(parts)
    for number in itertools.count():
        copy = Staging()
        struck = _At(number, "checkpoint/staging.py", "checkpoint/background.py")
        interrupted = struck.run(lambda: copy.prepare(layout))  # noqa: B023  # called in this turn
        captured = copy.capture(parts)
        starts = captured.layout.starts
        for start, each in zip(starts, memory, strict=True):
            assert captured.memory[start : start + len(each)] == each, struck.struck
        copy.prepare(layout)
        copy.close()
        if not interrupted:
            break
    assert number > 20

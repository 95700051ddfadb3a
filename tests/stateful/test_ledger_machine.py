"""A ledger under random use: writers of several ranks, batches, full logs, faults, closed handles.

The model is a list: what was acknowledged. What failed may show up only as long as its writer has not
gone on, and what somebody was given when he opened is the beginning of all that is read later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.drawing import drawn

from headway.ledger.read import read_ledger
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointFenced, StorageUnavailable
from headway.testing.faults import Planned
from headway.testing.memory import MemoryStorage

KEY = "runs/r/ledger"


FAILING = {"create_log", "has", "read_range", "append"}


@dataclass
class Writer:
    """A writer, and what it knows."""

    ledger: Ledger
    rank: int
    known: list[bytes]
    failed: set[bytes] = field(default_factory=set)
    fenced: bool = False


class LedgerMachine(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.home = MemoryStorage()
        self.storage = Planned(self.home, only=FAILING)
        self.writers: list[Writer] = []
        self.acked: list[bytes] = []
        self.gone: set[bytes] = set()  # failed, and its writer went on
        self.highest = 0  # rank of all claims that stand for certain ...
        self.perhaps = 0  # ... and of those that failed, which may stand all the same
        self.count = 0

    def _payload(self, size: int) -> bytes:
        self.count += 1
        return b"%d." % self.count + b"x" * size

    @rule(rank=st.integers(0, 2))
    def open(self, rank: int) -> None:
        try:
            ledger = Ledger.open(self.storage, KEY, rank=rank)
        except CheckpointFenced:
            assert rank < self.perhaps
            return
        except StorageUnavailable:
            # Its claim may stand all the same, and fence those of lower and equal rank.
            self.perhaps = max(self.perhaps, rank)
            for writer in self.writers:
                writer.fenced |= writer.rank <= rank and bool(self.storage.struck)
            return
        assert rank >= self.highest
        self.highest = max(self.highest, rank)
        self.perhaps = max(self.perhaps, rank)
        known = [record.payload for record in ledger.chain.records]
        assert [payload for payload in known if payload in self.acked] == self.acked
        assert not self.gone & set(known)
        self.writers.append(Writer(ledger, rank, known))

    @precondition(lambda self: self.writers)
    @rule(
        which=st.integers(0, 9),
        sizes=st.lists(st.sampled_from([0, 1, 400, 9000]), max_size=3),
    )
    def append(self, which: int, sizes: list[int]) -> None:
        writer = self.writers[-1 - which % min(3, len(self.writers))]
        payloads = [self._payload(size) for size in sizes]
        try:
            writer.ledger.append(*payloads)
        except CheckpointFenced:
            assert writer.fenced or writer is not self.writers[-1]
            writer.fenced = True
            return
        except StorageUnavailable:
            writer.failed |= set(payloads)
            return
        assert writer is self.writers[-1]
        self.acked += payloads
        writer.known += payloads
        self.gone |= writer.failed

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 9))
    def check(self, which: int) -> None:
        writer = self.writers[-1 - which % min(3, len(self.writers))]
        try:
            writer.ledger.check()
        except CheckpointFenced:
            assert writer.fenced or writer is not self.writers[-1]
        except StorageUnavailable:
            pass
        else:
            assert writer is self.writers[-1]

    @precondition(lambda self: self.writers)
    @rule()
    def close(self) -> None:
        self.writers[-1].ledger.close()

    @rule(plan=st.lists(st.sampled_from(["", "before", "after"]), min_size=1, max_size=6))
    def fail(self, plan: list[str]) -> None:
        self.storage.plan = plan

    @invariant()
    def what_was_acknowledged_is_there(self) -> None:
        chain = read_ledger(self.home, KEY)
        assert all(damage.tail for damage in chain.damage)
        found = [record.payload for record in chain.records]
        assert len(set(found)) == len(found)
        assert [payload for payload in found if payload in set(self.acked)] == self.acked
        assert not self.gone & set(found)
        if self.writers:
            known = self.writers[-1].known
            assert found[: len(known)] == known


pytestmark = pytest.mark.hypothesis

LedgerMachine.TestCase.settings = drawn(80, stateful_step_count=40)
TestLedger = LedgerMachine.TestCase

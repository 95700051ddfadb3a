"""The claim, seal and append protocol: every interleaving, and what each of its steps is there for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.counting import count
from tests.crash.actors import Violation
from tests.crash.mutants import Edit, Mutant, planted, real
from tests.crash.protocol import Scope, Search

pytestmark = pytest.mark.reliability("R8")

A = (b"a1", b"a2")
B = (b"b1", b"b2")
C = (b"c1", b"c2")
CLAIMANT = ()

WHOLE = {
    "three writers, two records each": Scope((A, B, C)),
    "two writers and a claimant": Scope((A, B, CLAIMANT)),
    "two writers and two claimants": Scope((A[:1], B[:1], CLAIMANT, CLAIMANT)),
    "a write that is read halfway": Scope((A, B), halves=True),
    "two writers, two faults": Scope((A, B), faults=2),
    "two writers, a fault, a power loss": Scope((A, B), faults=1, losses=1, evictions=1),
    "a writer and two claimants, a power loss": Scope((A, CLAIMANT, CLAIMANT), losses=1),
    "a writer of a lower rank": Scope((A, B), ranks=(0, 1)),
    "a writer of a lower rank, a fault": Scope((A, B), ranks=(0, 1), faults=1),
    "a writer of a lower rank, a power loss": Scope((A, B), ranks=(0, 1), losses=1),
    "three writers of three ranks": Scope((A[:1], B[:1], C[:1]), ranks=(0, 1, 2)),
    "two of a lower rank": Scope((A[:1], B, C[:1]), ranks=(0, 1, 0)),
}
LARGER = {
    "two writers of two records and two claimants": Scope((A, B, CLAIMANT, CLAIMANT)),
    "a writer and three claimants": Scope((A, CLAIMANT, CLAIMANT, CLAIMANT)),
    "two writers, two faults, a power loss": Scope((A, B), faults=2, losses=1, evictions=1),
    "a writer and two claimants, two faults": Scope((A, CLAIMANT, CLAIMANT), faults=2),
    "two writers, two power losses": Scope((A, B, CLAIMANT), losses=2),
    "three faults": Scope((A, B), faults=3),
    "three writers, reads halfway": Scope((A, B, CLAIMANT), halves=True),
    "three writers of three ranks": Scope((A, B, C), ranks=(0, 1, 2)),
    "one rank and two above": Scope((A, B, C), ranks=(0, 1, 1)),
    "three ranks, a fault": Scope((A[:1], B[:1], C[:1]), ranks=(0, 1, 2), faults=1),
    "two ranks, two faults": Scope((A, B), ranks=(0, 1), faults=2),
    "two ranks, a fault, a power loss": Scope((A, B), ranks=(0, 1), faults=1, losses=1),
}

CHECK = """            log.append(frame)  # W5
            self._look_for_newer()  # W6
"""
TWO = Scope((A, B))
FAULTY = Scope((A, B), faults=1)
POWER = Scope((A, B), losses=1)
MUTANTS = [
    (
        Mutant(
            "one that came late takes over",
            (Edit("write", "if chain.rank > rank:  # W10", "if False:"),),
        ),
        Scope((A, B), ranks=(0, 1)),
    ),
    (
        Mutant(
            "the rank of a claim that nobody sealed does not count",
            (
                Edit(
                    "read",
                    "        self._rank = max(self._rank, term.claim.rank)\n",
                    "        if term.seal is not None:\n"
                    "            self._rank = max(self._rank, term.claim.rank)\n",
                ),
            ),
        ),
        Scope((A, B), ranks=(0, 1)),
    ),
    (
        Mutant(
            "one that came late fences all the same",
            (
                Edit(
                    "write",
                    "return claim.writer == self._writer or claim.rank < self._rank",
                    "return claim.writer == self._writer",
                ),
            ),
        ),
        Scope((A, B), ranks=(0, 1)),
    ),
    (
        Mutant(
            "an equal rank is passed over",
            (
                Edit(
                    "write",
                    "return claim.writer == self._writer or claim.rank < self._rank",
                    "return claim.writer == self._writer or claim.rank <= self._rank",
                ),
            ),
        ),
        TWO,
    ),
    (
        Mutant(
            "the check comes before the append",
            (
                Edit(
                    "write",
                    CHECK,
                    "            self._look_for_newer()\n            log.append(frame)\n",
                ),
            ),
        ),
        TWO,
    ),
    (
        Mutant(
            "no check after the seal",
            (
                Edit(
                    "write",
                    CHECK,
                    "            log.append(frame)\n"
                    "            if kind is Kind.DATA:\n"
                    "                self._look_for_newer()\n",
                ),
            ),
        ),
        Scope((A, B, CLAIMANT)),
    ),
    (
        Mutant("no check at all", (Edit("write", CHECK, "            log.append(frame)\n"),)),
        TWO,
    ),
    (
        Mutant(
            "reading comes before the claim",
            (
                Edit(
                    "write",
                    "        older = [] if new else terms_in(storage.list(prefix))\n",
                    "        older = [] if new else terms_in(storage.list(prefix))\n"
                    "        early = read_terms(storage, prefix, older)\n",
                ),
                Edit("write", "chain = read_terms(storage, prefix, older)  # W2", "chain = early"),
            ),
        ),
        TWO,
    ),
    (
        Mutant(
            "an unsealed term is built upon",
            (
                Edit(
                    "read",
                    "        if number > older + 1:\n",
                    "        if term is not None:\n"
                    "            return reader.chain(newest, Tip(number, 0), None, 0)\n"
                    "        if number > older + 1:\n",
                ),
            ),
        ),
        TWO,
    ),
    (
        Mutant(
            "the seal does not count",
            (
                Edit(
                    "read",
                    "for frame in term.frames if frame.seq < seal.count}",
                    "for frame in term.frames}",
                ),
            ),
        ),
        TWO,
    ),
    (
        Mutant(
            "the oldest term is taken for the newest",
            (Edit("read", "if 0 < n < MOST_TERMS), reverse=True)", "if 0 < n < MOST_TERMS))"),),
        ),
        TWO,
    ),
    (
        Mutant(
            "what was read is not settled",
            (Edit("write", "storage.settle(key, chain.last.start, chain.last.raw)", "pass"),),
        ),
        POWER,
    ),
    (
        Mutant(
            "the log is used again after a failed append",
            (
                Edit(
                    "write",
                    "            self._log = None\n            log.close()\n"
                    "            if kind is Kind.DATA and isinstance(error, StorageError):\n"
                    "                self._leave_out()\n",
                    "            self._log = log\n",
                ),
            ),
        ),
        FAULTY,
    ),
    (
        Mutant(
            "a failed append is tried again",
            (
                Edit(
                    "write",
                    "            log.append(frame)  # W5\n",
                    "            try:\n"
                    "                log.append(frame)\n"
                    "            except StorageError:\n"
                    "                log.append(frame)\n",
                ),
            ),
        ),
        FAULTY,
    ),
    (
        Mutant(
            "the next seal counts a record that failed",
            (
                Edit(
                    "write",
                    CHECK,
                    "            self._tip = Tip(self._number, self._seq + 1, link)\n" + CHECK,
                ),
            ),
        ),
        FAULTY,
    ),
    (
        Mutant(
            "a turn-over forgets the seal",
            (
                Edit(
                    "write", "        self._seal(log)\n        return log\n", "        return log\n"
                ),
            ),
        ),
        FAULTY,
    ),
    (
        Mutant(
            "a claim of our own is taken for a rival's",
            (
                Edit(
                    "write",
                    "return claim.writer == self._writer or claim.rank < self._rank",
                    "return claim.rank < self._rank",
                ),
            ),
        ),
        Scope((A, B), faults=2),
    ),
    (
        Mutant(
            "a rival's claim is taken for our own",
            (
                Edit(
                    "write",
                    "return claim.writer == self._writer or claim.rank < self._rank",
                    "return True",
                ),
            ),
        ),
        TWO,
    ),
    (
        Mutant(
            "a failed record's writer acknowledges it all the same",
            (
                Edit(
                    "write",
                    "                self._leave_out()\n            raise\n",
                    "                return\n            raise\n",
                ),
            ),
        ),
        POWER_AND_FAULT := Scope((A, B), faults=1, losses=1, evictions=1),
    ),
    (
        Mutant(
            "settling reads what it writes back from the store",
            (
                Edit(
                    "write",
                    "storage.settle(key, chain.last.start, chain.last.raw)",
                    "storage.settle(key, chain.last.start, storage.read_range("
                    "key, chain.last.start, len(chain.last.raw)))",
                ),
            ),
        ),
        POWER_AND_FAULT,
    ),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scope", WHOLE.values(), ids=WHOLE.keys())
def test_no_schedule_loses_what_was_acknowledged(
    scope: Scope, record_property: Callable[[str, object], None]
) -> None:
    _search(scope, record_property)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scope", LARGER.values(), ids=LARGER.keys())
def test_no_schedule_of_a_larger_scope_does(
    scope: Scope, record_property: Callable[[str, object], None]
) -> None:
    _search(scope, record_property)


def _search(scope: Scope, record_property: Callable[[str, object], None]) -> None:
    search = Search(real(), scope)
    search.run()
    assert search.terminal > 1
    record_property("states", search.states)
    count("R8", "states of the ledger's protocol", search.states)


@pytest.mark.parametrize(("mutant", "scope"), MUTANTS, ids=[str(m) for m, _ in MUTANTS])
def test_each_step_is_needed(mutant: Mutant, scope: Scope) -> None:
    with planted(mutant) as code, pytest.raises(Violation):
        Search(code, scope).run(limit=200_000)
    count("R8", "mutants caught")


def test_a_store_that_lets_two_create_the_same_log_is_found_out() -> None:
    with pytest.raises(Violation):
        Search(real(), Scope((A, B), exclusive=False)).run()


@pytest.mark.parametrize(
    "scope",
    [
        Scope((A[:1], B[:1])),
        Scope((A[:1], CLAIMANT), faults=1, losses=1, evictions=1),
        Scope((A[:1], B[:1]), halves=True),
    ],
    ids=str,
)
def test_the_orders_that_are_not_tried_lead_nowhere_else(scope: Scope) -> None:
    reduced, full = Search(real(), scope), Search(real(), scope.unreduced())
    reduced.run()
    full.run()
    assert reduced.ends() == full.ends()
    assert reduced.states < full.states

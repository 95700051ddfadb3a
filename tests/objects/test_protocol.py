"""The ledger protocol on an object store: every interleaving of requests, answers that are lost, writes
that arrive late; and what each rule of the storage is there for."""

from __future__ import annotations

import pytest
from tests.counting import count
from tests.crash.actors import Violation
from tests.crash.mutants import Edit, Mutant, planted, real
from tests.crash.protocol import Scope
from tests.objects.model import ObjectSearch, search

pytestmark = pytest.mark.reliability("R8", "R10")

A = (b"a1", b"a2")
B = (b"b1", b"b2")
C = (b"c1", b"c2")
CLAIMANT = ()

WHOLE = {
    "two writers": Scope((A, B)),
    "two writers and a claimant": Scope((A[:1], B[:1], CLAIMANT)),
    "two writers, an answer lost, a write late": Scope((A, B[:1]), faults=1, losses=1),
    "a writer, three answers lost, three writes late": Scope((A,), faults=3, losses=3),
    "two ranks, an answer lost, a write late": Scope(
        (A[:1], B[:1]), ranks=(0, 1), faults=1, losses=1
    ),
}
LARGER = {
    "three writers": Scope((A, B, C)),
    "a writer and a claimant, two answers lost": Scope((A[:1], CLAIMANT), faults=2, losses=2),
    "a writer and two claimants, an answer lost": Scope(
        (A[:1], CLAIMANT, CLAIMANT), faults=1, losses=1
    ),
    "two writers, two answers lost": Scope((A[:1], B[:1]), faults=2, losses=2),
    "two writers of two records, an answer lost": Scope((A, B), faults=1, losses=1),
    "two ranks, two answers lost": Scope((A[:1], B[:1]), ranks=(0, 1), faults=2, losses=2),
}

TWO = Scope((A, B))
LOST = Scope((A, B[:1]), faults=1, losses=1)
LOST_TWICE = Scope((A,), faults=2, losses=2)
SETTLED = '        return bool(found.data == memoryview(data).cast("B"))\n'
TAKEN = "                if refusal.kind is Kind.TAKEN and not unsure:\n"
UNANSWERED = "                if refusal.kind is Kind.UNKNOWN:\n                    unsure = True\n"
MUTANTS = [
    (
        Mutant(
            "what is there after a lost answer is taken for ours",
            (Edit("object", SETTLED, "        return True\n"),),
        ),
        LOST,
    ),
    (
        Mutant(
            "a claim is told from another by its size",
            (Edit("object", SETTLED, "        return len(found.data) == len(data)\n"),),
        ),
        LOST,
    ),
    (
        Mutant(
            "only the first bytes are compared, which no writer's id is in",
            (Edit("object", SETTLED, "        return bool(found.data[:32] == data[:32])\n"),),
        ),
        LOST,
    ),
    (
        Mutant(
            "no answer is good news",
            (Edit("object", UNANSWERED, UNANSWERED.replace("unsure = True", "return")),),
        ),
        LOST,
    ),
    (
        Mutant(
            "no answer is absence",
            (
                Edit(
                    "object",
                    "            if refusal.kind is Kind.MISSING:\n                return None\n"
                    "            if refusal.kind is Kind.BEYOND:\n                return memoryview",
                    "            if refusal.kind in {Kind.MISSING, Kind.UNKNOWN}:\n"
                    "                return None\n"
                    "            if refusal.kind is Kind.BEYOND:\n                return memoryview",
                ),
            ),
        ),
        Scope((A[:1], CLAIMANT), faults=2),
    ),
    (
        Mutant(
            "what is taken is a success",
            (Edit("object", TAKEN, TAKEN + "                    return\n"),),
        ),
        TWO,
    ),
    (
        Mutant(
            "a log goes on after an append that failed, and the ledger, too",
            (
                Edit(
                    "parts",
                    "        self._usable = False  # until we know how it ended, nothing follows (O5)\n",
                    "",
                ),
                Edit(
                    "parts",
                    '        """See `LogWriter.close`."""\n        self._usable = False\n',
                    '        """See `LogWriter.close`."""\n',
                ),
                Edit(
                    "write",
                    "            self._log = None\n            log.close()\n"
                    "            if kind is Kind.DATA and isinstance(error, StorageError):\n"
                    "                self._leave_out()\n",
                    "            self._log = log\n",
                ),
            ),
        ),
        LOST_TWICE,
    ),
    (
        Mutant(
            "the next seal counts a record whose answer was lost",
            (
                Edit(
                    "write",
                    "            log.append(frame)  # W5\n",
                    "            self._tip = Tip(self._number, self._seq + 1, link)\n"
                    "            log.append(frame)  # W5\n",
                ),
            ),
        ),
        LOST_TWICE,
    ),
    (
        Mutant(
            "the check comes before the append",
            (
                Edit(
                    "write",
                    "            log.append(frame)  # W5\n            self._look_for_newer()  # W6\n",
                    "            self._look_for_newer()\n            log.append(frame)\n",
                ),
            ),
        ),
        TWO,
    ),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scope", WHOLE.values(), ids=WHOLE.keys())
def test_no_order_of_requests_loses_what_was_acknowledged(scope: Scope) -> None:
    _search(scope)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scope", LARGER.values(), ids=LARGER.keys())
def test_no_order_of_requests_in_a_larger_scope_does(scope: Scope) -> None:
    _search(scope)


def _search(scope: Scope) -> None:
    found = search(real(), scope)
    assert found.terminal > 1
    count("R8", "states of the protocol in a bucket", found.states)
    print(f"{found.states} states ({found.terminal} final), {found.runs} runs of the code")


@pytest.mark.parametrize(("mutant", "scope"), MUTANTS, ids=[str(m) for m, _ in MUTANTS])
def test_each_rule_is_needed(mutant: Mutant, scope: Scope) -> None:
    with planted(mutant) as code, pytest.raises(Violation):
        ObjectSearch(code, scope).run(limit=200_000)
    count("R8", "mutants caught")


@pytest.mark.parametrize(
    "scope",
    [Scope((A, B), exclusive=False), Scope((A[:1], B[:1]), faults=1, losses=1, exclusive=False)],
    ids=["at once", "late"],
)
def test_a_store_that_writes_over_what_is_there_is_found_out(scope: Scope) -> None:
    with pytest.raises(Violation):
        search(real(), scope)


def test_the_orders_that_are_not_tried_lead_nowhere_else() -> None:
    for scope in (Scope((A[:1], B[:1])), Scope((A[:1], CLAIMANT), faults=1, losses=1)):
        reduced, full = search(real(), scope), search(real(), scope.unreduced())
        assert reduced.ends() == full.ends()
        assert reduced.states < full.states

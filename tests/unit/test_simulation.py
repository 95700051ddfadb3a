"""The driver and its core in a simulated world, over random graphs, ends, crashes and signals.

Every run is a function of its seed: `simulate(seed)` replays one that failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.counting import count
from tests.unit.simulation import Violation, simulate, statuses

from headway.engine import budget, core
from headway.engine.driver import Driver
from headway.engine.state import NodeState, RunState
from headway.model.events import AttemptEnded, AttemptStarted, DriverStarted, RunEnded
from headway.model.outcome import NodeStatus

pytestmark = pytest.mark.reliability("R7")

SEEDS = range(300)
RELEASE = 20_000  # seeds that the long version plays (TARGETS, R7)


def test_three_hundred_runs_keep_every_promise_and_meet_every_kind_of_trouble() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        try:
            world = simulate(seed)
        except Violation as violation:
            pytest.fail(f"simulate({seed}): {violation}")
        seen["faults"] += world.faults
        for event in world.journal:
            match event:
                case DriverStarted(resumed=True):
                    seen["resumed"] += 1
                case AttemptEnded():
                    seen[event.outcome] += 1
                    seen["left"] += not event.charged
                case RunEnded():
                    seen["run " + event.status] += 1
        seen.update(status.value for status in statuses(world))
    count("R7", "seeds", len(SEEDS))
    count("R7", "faults", seen["faults"])
    # A simulation in which nothing happens proves nothing.
    for trouble in [
        *("succeeded", "app error", "recoverable", "oom", "timeout", "non-recoverable"),
        *("preempted", "killed", "node lost", "cancelled", "left"),
        *("run succeeded", "run failed", "run cancelled", "run interrupted", "resumed"),
        *("failed", "skipped", "faults"),
    ]:
        assert seen[trouble] >= 5, (trouble, seen)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_runs_keep_every_promise() -> None:
    for seed in range(len(SEEDS), RELEASE):
        try:
            simulate(seed)
        except Violation as violation:
            pytest.fail(f"simulate({seed}): {violation}")
        count("R7", "seeds")


def test_the_same_seed_is_the_same_run() -> None:
    for seed in range(20):
        assert simulate(seed).journal == simulate(seed).journal


class ActsFirst(Driver):
    """Starts attempts before the journal has them."""

    def _plan(self) -> Any:
        specs = super()._plan()
        for spec in specs:
            self._submit(spec)
        return []


class ForgetsHints(Driver):
    """Lets an attempt end before its checkpoints are recorded."""

    def _record(self) -> None:
        held = dict(self._riding)
        self._riding.clear()
        super()._record()
        self._riding.update(held)


class StaysBusy(Driver):
    """Does not close its executor when it leaves."""

    def run(self, opening: Any) -> RunState:
        self._executor.close = lambda: None  # type: ignore[method-assign]
        return super().run(opening)


class Believes(Driver):
    """Takes what late attempts say for news."""

    def _hear(self, key: Any, message: Any) -> None:
        self._live.setdefault(key, None)
        super()._hear(key, message)


class ChargesLeaving(Driver):
    """Bills a node for its driver's departure, without saying so in the journal."""

    def _happened(self, event: Any) -> None:
        if isinstance(event, AttemptEnded) and not event.charged:
            self.state.nodes[event.node].failures += 1
        super()._happened(event)


@pytest.mark.parametrize("make", [ActsFirst, ForgetsHints, StaysBusy, ChargesLeaving])
def test_a_driver_with_a_planted_bug_is_found_out(make: type[Driver]) -> None:
    assert found(make)
    count("R7", "planted bugs found")


def found(make: Callable[..., Driver] = Driver) -> str:
    for seed in SEEDS:
        try:
            simulate(seed, make)
        except Violation as violation:
            return str(violation)
    return ""


def _generous(
    node: NodeState, attempt: Any, outcome: Any, draw: float
) -> float | None:  # one retry too many
    node.failures -= node.failures == 1 and node.plan.options.retries == 1
    return budget.charge(node, attempt, outcome, draw)


def _mean(node: NodeState, attempt: Any, outcome: Any, draw: float) -> float | None:
    attempt.checkpoint = 0  # progress does not count
    return budget.charge(node, attempt, outcome, draw)


def _shallow(state: RunState, name: str) -> None:
    """Skips direct dependents only."""
    for dependent in state.dependents.get(name, ()):
        core._turn(state, state.nodes[dependent], NodeStatus.SKIPPED)


def _hopeful(state: RunState, name: str) -> None:
    """Starts a node when the first thing that it needs is there."""
    node = state.nodes[name]
    if node.status is NodeStatus.WAITING:
        core._turn(state, node, NodeStatus.READY)
        state.ready[name] = None


def _trusting(state: RunState, name: str, attempt: int) -> Any:
    """Believes every message about a node that runs, whichever attempt sent it."""
    return state.nodes[name].attempts[-1] if name in state.running else None


def _amnesiac(state: RunState) -> None:
    """Loses the results when it resumes."""
    for name in list(state.results)[:1]:
        del state.results[name]
        state.nodes[name].status = NodeStatus.FAILED
    _REOPEN(state)


def _stale(state: RunState, time: float, error: str) -> None:
    """Leaves the attempts of a dead driver running."""


_REOPEN = core._reopen


@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("charge", _generous),
        ("charge", _mean),
        ("_skip_dependents", _shallow),
        ("_met", _hopeful),
        ("_reopen", _amnesiac),
        ("_close_attempts", _stale),
    ],
)
def test_a_core_with_a_planted_bug_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, bug: Callable[..., Any]
) -> None:
    monkeypatch.setattr(core, name, bug)
    assert found()


def test_believing_late_messages_is_found_out_once_both_guards_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "_live", _trusting)
    assert found(Believes)


def test_numbering_attempts_anew_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(state: RunState) -> None:
        _REOPEN(state)
        for node in state.nodes.values():
            if node.status is not NodeStatus.SUCCEEDED:
                node.attempts = []

    monkeypatch.setattr(core, "_reopen", forgetful)
    assert "twice" in found() or "back" in found()


def test_the_judge_itself_needs_a_start_before_an_end() -> None:
    from tests.unit.simulation import Judge, World

    world = World(1)
    world.journal = [AttemptStarted("n0", 0, 1.0), AttemptEnded("n0", 1, "succeeded", 2.0)]
    with pytest.raises(Violation, match="does not run"):
        Judge(world).judge()

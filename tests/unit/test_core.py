"""The scheduler's rules, one by one: DESIGN section 2's table of outcomes, budgets and back-off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from headway.engine.budget import IDLE_LIMIT, allowance, wait
from headway.engine.core import (
    Command,
    EndRun,
    RunState,
    StartAttempt,
    StopAttempt,
    WakeAt,
    apply,
    decide,
    fold,
)
from headway.model.events import (
    AttemptEnded,
    AttemptStarted,
    AttemptWarned,
    CancelRequested,
    CheckpointSaved,
    DriverStarted,
    Event,
    NodePlan,
    RunCreated,
    RunEnded,
    RunNoted,
)
from headway.model.outcome import NodeStatus, Outcome, RunStatus
from headway.model.program import Program
from headway.model.settings import Backoff, TaskOptions


def plan(name: str, *after: str, outputs: tuple[str, ...] = ("o0",), **options: Any) -> NodePlan:
    return NodePlan(name, f"m:{name}", TaskOptions(**options), {}, after, outputs)


def created(*nodes: NodePlan) -> RunCreated:
    return RunCreated("r1", "m:flow", Program("m", digest="d1"), {}, 100.0, "0", nodes, {})


def driver(time: float = 101.0, **more: Any) -> DriverStarted:
    return DriverStarted(time, 1, "host", "d1", **more)


def begun(*nodes: NodePlan) -> RunState:
    return fold([created(*nodes), driver()])


def started(node: str, attempt: int = 0, time: float = 102.0) -> AttemptStarted:
    return AttemptStarted(node, attempt, time)


def ended(
    node: str, attempt: int = 0, outcome: Outcome = Outcome.SUCCEEDED, **more: Any
) -> AttemptEnded:
    outputs = {"o0": node} if outcome is Outcome.SUCCEEDED else None
    return AttemptEnded(node, attempt, outcome, 103.0, outputs, **more)


def feed(state: RunState, *events: Event) -> RunState:
    for event in events:
        apply(state, event)
    return state


def attempt(state: RunState, node: str, outcome: Outcome, *, saves: bool = False) -> None:
    """One whole attempt of `node`, which must be ready."""
    number = state.nodes[node].next_attempt
    apply(state, started(node, number))
    if saves:
        apply(state, CheckpointSaved(node, number, number + 1, 10, 102.5))
    apply(state, ended(node, number, outcome))


def starts(commands: Iterable[Command]) -> list[tuple[str, int]]:
    return [(c.node, c.attempt) for c in commands if isinstance(c, StartAttempt)]


def test_nothing_is_decided_before_a_driver_started() -> None:
    state = fold([created(plan("a"))])
    assert decide(state, 0, 4) == []
    assert state.status is RunStatus.INTERRUPTED
    assert state.counts[NodeStatus.WAITING] == 1


def test_independent_nodes_start_together_in_the_order_of_the_graph() -> None:
    state = begun(plan("a"), plan("b"), plan("c", "a"))
    assert decide(state, 0, 4) == [StartAttempt("a", 0), StartAttempt("b", 0)]


def test_no_more_start_than_there_are_slots() -> None:
    state = begun(plan("a"), plan("b"), plan("c"))
    assert starts(decide(state, 0, 2)) == [("a", 0), ("b", 0)]
    feed(state, started("a"))
    assert starts(decide(state, 0, 2)) == [("b", 0)]
    assert starts(decide(state, 0, 1)) == []
    assert starts(decide(state, 0, 0)) == []


def test_deciding_twice_gives_the_same_commands() -> None:
    state = begun(plan("a", timeout=5), plan("b"))
    feed(state, started("a"))
    assert decide(state, 1, 2) == decide(state, 1, 2) == [StartAttempt("b", 0), WakeAt(6)]


def test_a_node_starts_when_the_last_of_what_it_needs_succeeded() -> None:
    state = begun(plan("a"), plan("b"), plan("c", "a", "b", "a"))
    feed(state, started("a"), started("b"), ended("a"))
    assert decide(state, 0, 4) == []
    feed(state, ended("b"))
    assert starts(decide(state, 0, 4)) == [("c", 0)]


def test_a_run_whose_nodes_all_succeeded_ends() -> None:
    state = begun(plan("a"))
    attempt(state, "a", Outcome.SUCCEEDED)
    assert decide(state, 0, 1) == [EndRun(RunStatus.SUCCEEDED)]
    feed(state, RunEnded("succeeded", 104.0, {"o0": 1}))
    assert state.over
    assert state.result == {"o0": 1}
    assert state.finished == 1
    assert decide(state, 0, 1) == []


def test_a_run_without_nodes_succeeds_at_once() -> None:
    assert decide(begun(), 0, 1) == [EndRun(RunStatus.SUCCEEDED)]


@pytest.mark.parametrize(
    "outcome", [Outcome.APP_ERROR, Outcome.RECOVERABLE, Outcome.OOM, Outcome.TIMEOUT]
)
def test_retries_pay_for_the_failures_of_a_task(outcome: Outcome) -> None:
    state = begun(plan("a", retries=2))
    for number in range(3):
        assert decide(state, 0, 1) == [StartAttempt("a", number)]
        assert state.nodes["a"].retries_left == 2 - number
        attempt(state, "a", outcome)
    assert state.nodes["a"].status is NodeStatus.FAILED
    assert decide(state, 0, 1) == [EndRun(RunStatus.FAILED, f"a: {outcome}")]
    assert allowance(state.nodes["a"], outcome) == "attempt 2 (3 of 3)"


def test_without_retries_the_first_failure_is_the_last() -> None:
    state = begun(plan("a"))
    feed(state, started("a"), ended("a", 0, Outcome.APP_ERROR, error="ValueError: x\nmore"))
    assert decide(state, 0, 1) == [EndRun(RunStatus.FAILED, "a: app error: ValueError: x")]


@pytest.mark.parametrize("outcome", [Outcome.NON_RECOVERABLE, Outcome.CANCELLED])
def test_some_ends_are_never_retried(outcome: Outcome) -> None:
    state = begun(plan("a", retries=5))
    attempt(state, "a", outcome)
    assert state.nodes["a"].status is NodeStatus.FAILED
    assert allowance(state.nodes["a"], outcome) == "attempt 0"


INTERRUPTIONS = [Outcome.PREEMPTED, Outcome.KILLED, Outcome.NODE_LOST]


@pytest.mark.parametrize("outcome", INTERRUPTIONS)
def test_interruptions_cost_no_retries(outcome: Outcome) -> None:
    state = begun(plan("a", retries=1))
    for _ in range(50):
        attempt(state, "a", outcome, saves=True)
        assert len(starts(decide(state, 0, 1))) == 1
    assert state.nodes["a"].retries_left == 1
    assert allowance(state.nodes["a"], outcome) == "attempt 49"


@pytest.mark.parametrize("outcome", INTERRUPTIONS)
def test_ten_interruptions_in_a_row_without_a_new_checkpoint_are_enough(outcome: Outcome) -> None:
    state = begun(plan("a"))
    now = 0.0
    attempt(state, "a", outcome, saves=True)
    for _ in range(IDLE_LIMIT - 1):
        attempt(state, "a", outcome)
        decide(state, now, 1)
        now += 1000
        assert len(starts(decide(state, now, 1))) == 1
    attempt(state, "a", outcome)
    assert state.nodes["a"].status is NodeStatus.FAILED
    assert "10 interruptions in a row" in allowance(state.nodes["a"], outcome)


@pytest.mark.parametrize("breaker", [Outcome.KILLED, Outcome.APP_ERROR])
def test_a_checkpoint_or_another_kind_of_end_breaks_the_row(breaker: Outcome) -> None:
    state = begun(plan("a", retries=1))
    for _ in range(IDLE_LIMIT - 1):
        attempt(state, "a", Outcome.KILLED)
    attempt(state, "a", breaker, saves=breaker is Outcome.KILLED)
    attempt(state, "a", Outcome.KILLED)
    assert state.nodes["a"].status is NodeStatus.READY
    assert state.nodes["a"].idle == 1


def test_max_interruptions_replaces_the_default_limit() -> None:
    state = begun(plan("a", max_interruptions=1), plan("b", max_interruptions=20))
    attempt(state, "a", Outcome.KILLED, saves=True)
    assert len(starts(decide(state, 0, 1))) == 1
    attempt(state, "a", Outcome.KILLED, saves=True)
    assert state.nodes["a"].status is NodeStatus.FAILED
    assert allowance(state.nodes["a"], Outcome.KILLED) == "attempt 1, interruption 2"
    for number in range(20):
        attempt(state, "b", Outcome.KILLED)
        assert state.nodes["b"].status is NodeStatus.READY, number
        decide(state, 1e6 * (number + 1), 1)
    attempt(state, "b", Outcome.KILLED)
    assert state.nodes["b"].status is NodeStatus.FAILED


def test_an_attempt_that_left_with_its_driver_costs_nothing() -> None:
    state = begun(plan("a", max_interruptions=0))
    feed(state, started("a"), ended("a", 0, Outcome.PREEMPTED, charged=False))
    assert starts(decide(state, 0, 1)) == [("a", 1)]
    assert state.nodes["a"].interruptions == 0


def test_failures_are_retried_at_once_by_default() -> None:
    state = begun(plan("a", retries=9))
    for _ in range(9):
        attempt(state, "a", Outcome.APP_ERROR)
        assert len(starts(decide(state, 0, 1))) == 1


def test_interruptions_without_progress_wait_longer_and_longer_from_the_second_on() -> None:
    state = begun(plan("a"))
    now = 50.0
    for seconds in (0, 1, 2, 4, 8):
        number = state.nodes["a"].next_attempt
        feed(state, started("a", number), ended("a", number, Outcome.KILLED, jitter=0.5))
        if seconds:
            assert decide(state, now, 1) == [WakeAt(now + seconds)]
            assert decide(state, now + seconds - 0.01, 1) == [WakeAt(now + seconds)]
        now += seconds
        assert starts(decide(state, now, 1)) == [("a", number + 1)]


def test_a_users_backoff_grows_with_each_retry_that_brought_nothing_new() -> None:
    backoff = Backoff(initial=3, factor=2, maximum=10, jitter=0.5)
    state = begun(plan("a", retries=9, backoff=backoff))
    now = 0.0
    for saves, draw, seconds in [
        (False, 0.5, 3.0),
        (False, 0.0, 3.0),
        (False, 1.0, 15.0),
        (True, 0.5, 3.0),
        (False, 0.5, 6.0),
    ]:
        number = state.nodes["a"].next_attempt
        feed(state, started("a", number))
        if saves:
            feed(state, CheckpointSaved("a", number, 1, 1, 1.0))
        outcome = Outcome.KILLED if number == 1 else Outcome.APP_ERROR
        feed(state, ended("a", number, outcome, jitter=draw))
        assert decide(state, now, 1) == [WakeAt(now + seconds)]
        now += seconds
        assert starts(decide(state, now, 1)) == [("a", number + 1)]


def test_a_backoff_of_a_thousand_retries_is_still_a_number() -> None:
    assert wait(Backoff(initial=1, jitter=0), 5000, 0.5) == 300
    assert wait(Backoff(initial=0), 5000, 0.5) == 0


def test_a_failure_skips_all_that_needs_it_and_nothing_else() -> None:
    state = begun(plan("a"), plan("b"), plan("c", "a"), plan("d", "c", "b"), plan("e", "b"))
    attempt(state, "a", Outcome.APP_ERROR)
    statuses = {name: node.status for name, node in state.nodes.items()}
    assert statuses["c"] is statuses["d"] is NodeStatus.SKIPPED
    assert starts(decide(state, 0, 4)) == [("b", 0)]
    attempt(state, "b", Outcome.SUCCEEDED)
    assert starts(decide(state, 0, 4)) == [("e", 0)]
    attempt(state, "e", Outcome.APP_ERROR)
    [end] = decide(state, 0, 4)
    assert end == EndRun(RunStatus.FAILED, "a: app error (and 1 more)")


def test_a_timeout_counts_from_the_first_look_after_the_start() -> None:
    state = begun(plan("a", timeout=5, retries=1), plan("b", timeout=3))
    feed(state, started("a"), started("b"))
    assert decide(state, 10, 2) == [WakeAt(13)]
    feed(state, ended("b"))
    assert decide(state, 13, 2) == [WakeAt(15)]
    stop = StopAttempt("a", 0, "timeout")
    assert decide(state, 15, 2) == [stop]
    assert decide(state, 16, 2) == [stop]
    feed(state, ended("a", 0, Outcome.TIMEOUT))
    assert decide(state, 17, 2) == [StartAttempt("a", 1)]


def test_cancelling_stops_what_runs_and_starts_nothing_more() -> None:
    state = begun(plan("a", retries=3), plan("b", "a"), plan("c"), plan("d", retries=1))
    attempt(state, "d", Outcome.APP_ERROR)
    feed(state, started("a"), CancelRequested(104.0))
    assert decide(state, 0, 4) == [StopAttempt("a", 0, "cancelled")]
    feed(state, ended("a", 0, Outcome.CANCELLED))
    assert decide(state, 0, 4) == [EndRun(RunStatus.CANCELLED, "cancelled by the user")]
    assert {node.status for node in state.nodes.values()} == {NodeStatus.CANCELLED}


def test_what_succeeds_or_fails_while_the_run_is_cancelled() -> None:
    state = begun(plan("a"), plan("b", retries=3), plan("c", "a"))
    feed(state, started("a"), started("b"), CancelRequested(104.0))
    feed(state, ended("a"), ended("b", 0, Outcome.APP_ERROR))
    assert state.nodes["a"].status is NodeStatus.SUCCEEDED
    assert state.nodes["b"].status is NodeStatus.CANCELLED
    assert state.nodes["c"].status is NodeStatus.CANCELLED
    assert decide(state, 0, 4) == [EndRun(RunStatus.CANCELLED, "cancelled by the user")]


def test_a_run_that_is_over_cannot_be_cancelled() -> None:
    state = begun()
    feed(state, RunEnded("succeeded", 104.0), CancelRequested(105.0))
    assert not state.cancelling


def test_cancelling_a_run_whose_driver_died_closes_it() -> None:
    state = begun(plan("a"), plan("b", "a"))
    feed(state, started("a"), CancelRequested(104.0), RunEnded("cancelled", 105.0))
    assert {node.status for node in state.nodes.values()} == {NodeStatus.CANCELLED}
    assert state.counts[NodeStatus.CANCELLED] == 2
    assert not state.running


def test_resuming_ends_what_ran_without_charging_it() -> None:
    state = begun(plan("a", max_interruptions=0), plan("b"))
    feed(state, started("a", time=102), CheckpointSaved("a", 0, 1, 1, 109.0), driver(500))
    last = state.nodes["a"].attempts[-1]
    assert (last.outcome, last.charged, last.ended) == (Outcome.KILLED, False, 109.0)
    assert last.error == "its driver died"
    assert starts(decide(state, 0, 2)) == [("a", 1), ("b", 0)]


def test_resuming_opens_what_did_not_succeed_with_a_fresh_budget() -> None:
    state = begun(plan("a", retries=1), plan("b", "a"), plan("c"))
    attempt(state, "c", Outcome.SUCCEEDED)
    attempt(state, "a", Outcome.APP_ERROR)
    attempt(state, "a", Outcome.APP_ERROR)
    feed(state, RunEnded("failed", 104.0, error="a: app error"))
    assert state.over
    feed(state, driver(200, resumed=True))
    assert not state.over
    assert (state.error, state.ended) == ("", None)
    assert decide(state, 0, 4) == [StartAttempt("a", 2)]
    attempt(state, "a", Outcome.APP_ERROR)
    assert state.nodes["a"].status is NodeStatus.READY
    assert allowance(state.nodes["a"], Outcome.APP_ERROR) == "attempt 2 (3 of 4)"
    attempt(state, "a", Outcome.SUCCEEDED)
    assert starts(decide(state, 0, 4)) == [("b", 0)]


def test_resuming_an_open_node_keeps_its_budget_but_not_its_wait() -> None:
    state = begun(plan("a", retries=1, backoff=Backoff(initial=60)))
    attempt(state, "a", Outcome.APP_ERROR)
    feed(state, driver(200))
    assert decide(state, 0, 1) == [StartAttempt("a", 1)]
    attempt(state, "a", Outcome.APP_ERROR)
    assert state.nodes["a"].status is NodeStatus.FAILED


def test_resuming_a_cancelled_run_goes_on() -> None:
    state = begun(plan("a"), plan("b", "a"))
    feed(state, CancelRequested(102.0), RunEnded("cancelled", 103.0), driver(104.0))
    assert decide(state, 0, 1) == [StartAttempt("a", 0)]


def test_a_driver_that_left_in_good_order_leaves_an_interrupted_run() -> None:
    state = begun(plan("a"))
    feed(state, started("a"), RunEnded("interrupted", 105.0))
    assert state.status is RunStatus.INTERRUPTED
    assert not state.over
    assert state.nodes["a"].status is NodeStatus.READY
    assert state.nodes["a"].attempts[-1].error == "its driver left"
    assert decide(state, 0, 1) == []


def test_a_result_is_committed_once_whatever_arrives_later() -> None:
    state = begun(plan("a"), plan("b", "a"))
    feed(state, started("a"), ended("a"))
    late = AttemptEnded("a", 0, "succeeded", 200.0, {"o0": "another"})
    feed(state, late, ended("a", 0, Outcome.APP_ERROR), started("a", 1), started("nobody"))
    assert state.results["a"] == {"o0": "a"}
    assert starts(decide(state, 0, 4)) == [("b", 0)]
    assert len(state.nodes["a"].attempts) == 1


def test_what_an_attempt_of_an_older_driver_says_is_ignored() -> None:
    state = begun(plan("a"))
    feed(state, started("a"), driver(200), started("a", 1))
    feed(state, CheckpointSaved("a", 0, 7, 1, 201.0), AttemptWarned("a", 0, "k", "old", 201.0))
    feed(state, ended("a", 0))
    assert state.nodes["a"].status is NodeStatus.RUNNING
    assert [a.checkpoint for a in state.nodes["a"].attempts] == [0, 0]
    assert state.nodes["a"].attempts[1].warnings == ()


def test_attempt_numbers_are_never_used_again() -> None:
    state = begun(plan("a", retries=3))
    attempt(state, "a", Outcome.APP_ERROR)
    feed(state, started("a", 0))
    assert "a" not in state.running


def test_a_checkpoint_with_an_older_number_changes_nothing() -> None:
    state = begun(plan("a"))
    feed(state, started("a"), CheckpointSaved("a", 0, 5, 1, 103.0))
    feed(state, CheckpointSaved("a", 0, 4, 1, 104.0), AttemptWarned("a", 0, "k", "odd", 104.0))
    assert state.nodes["a"].attempts[0].checkpoint == 5
    assert state.nodes["a"].attempts[0].warnings == ("odd",)


def test_notes_are_kept() -> None:
    assert feed(begun(), RunNoted("code changed", 1.0)).notes == ["code changed"]


def test_a_changed_plan_is_taken_over_and_results_are_kept() -> None:
    state = begun(plan("a"), plan("b", "a"), plan("old", "a"))
    attempt(state, "a", Outcome.SUCCEEDED)
    attempt(state, "b", Outcome.APP_ERROR)
    changed = driver(
        200,
        resumed=True,
        replaced=(plan("a", retries=4), plan("b", "a", "c"), plan("c", retries=1)),
        removed=("old", "never-there"),
        outputs={"o0": {"node": ["b", "o0"]}},
    )
    feed(state, changed)
    assert set(state.nodes) == {"a", "b", "c"}
    assert state.results["a"] == {"o0": "a"}
    assert state.nodes["a"].plan.options.retries == 4
    assert state.outputs == {"o0": {"node": ["b", "o0"]}}
    assert decide(state, 0, 4) == [StartAttempt("c", 0)]


def test_a_node_that_comes_back_goes_on_counting_its_attempts() -> None:
    state = begun(plan("a"))
    attempt(state, "a", Outcome.SUCCEEDED)
    feed(state, driver(200, removed=("a",)))
    assert decide(state, 0, 1) == [EndRun(RunStatus.SUCCEEDED)]
    feed(state, driver(300, replaced=(plan("a"),)))
    assert decide(state, 0, 1) == [StartAttempt("a", 1)]


def test_a_finished_node_whose_outputs_changed_runs_again() -> None:
    state = begun(plan("a"), plan("b", "a"))
    attempt(state, "a", Outcome.SUCCEEDED)
    feed(state, driver(200, replaced=(plan("a", outputs=("loss", "model")),)))
    assert decide(state, 0, 1) == [StartAttempt("a", 1)]
    assert "a" not in state.results


def test_nodes_that_wait_for_each_other_end_the_run_instead_of_hanging_it() -> None:
    state = begun(plan("a", "b"), plan("b", "a"), plan("c", "nowhere"))
    [end] = decide(state, 0, 1)
    assert end == EndRun(RunStatus.FAILED, "no node can start; waiting for each other: a, b, c")


def test_the_steps_of_a_wide_graph_do_not_get_dearer_with_its_size() -> None:
    """Counts the steps' work instead of timing them: bytecode instructions per event."""
    import sys

    def work(size: int) -> int:
        root = plan("root")
        leaves = [plan(f"n{i}", "root", timeout=9.0) for i in range(size)]
        state = begun(root, *leaves)
        attempt(state, "root", Outcome.SUCCEEDED)
        lines = 0

        def tracer(frame: Any, event: str, argument: Any) -> Any:
            nonlocal lines
            lines += 1
            return tracer

        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            for i in range(50):
                decide(state, float(i), 2)
                attempt(state, f"n{i}", Outcome.SUCCEEDED)
        finally:
            sys.settrace(before)
        return lines

    assert work(2000) < work(100) * 1.1

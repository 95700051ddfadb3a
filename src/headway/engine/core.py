"""The scheduler: `apply(state, event) -> state` and `decide(state, now) -> commands`. Pure.

No I/O, no clock, no randomness: what must be known from outside comes with the event (the draw for a
back-off's jitter) or as an argument. Folding the same events gives the same state, which is all that
resuming is.

`now` is any clock that does not go back; the core never compares it, or anything, with the times in
events, which are wall-clock and for people only. A back-off or a timeout counts from the first
`decide` after the event that began it. On resume none is left over: `DriverStarted` ends every
attempt and lets every node start at once.

`apply` changes the state in place and returns it (`engine.state` says why). Per event it costs the
degree of the node, and `DriverStarted` and `CancelRequested` the size of the graph; `decide` costs
the number of its commands, plus a logarithm per back-off or timeout that came due.

Events that do not fit are ignored rather than refused: a second end of an attempt, the end of an
attempt that is not the node's newest, a start of a node that succeeded. So a result is committed
exactly once whatever arrives, and however late.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import msgspec

from headway.engine.budget import charge
from headway.engine.state import RUNNING, AttemptState, NodeState, RunState
from headway.model.events import (
    AttemptEnded,
    AttemptStarted,
    AttemptWarned,
    CancelRequested,
    CheckpointSaved,
    DriverStarted,
    Event,
    RunCreated,
    RunEnded,
    RunNoted,
)
from headway.model.outcome import NodeStatus, Outcome, RunStatus

__all__ = ["Command", "EndRun", "RunState", "StartAttempt", "StopAttempt", "WakeAt"]
__all__ += ["apply", "decide", "fold"]


class StartAttempt(msgspec.Struct, frozen=True):
    """Start attempt `attempt` of `node`."""

    node: str
    attempt: int


class StopAttempt(msgspec.Struct, frozen=True):
    """Make a running attempt leave; `reason` is "timeout" or "cancelled". Repeated until it has."""

    node: str
    attempt: int
    reason: str


class EndRun(msgspec.Struct, frozen=True):
    """Nothing is left to do. The run's outputs are for the driver to resolve."""

    status: RunStatus
    error: str = ""


class WakeAt(msgspec.Struct, frozen=True):
    """Decide again at `time` (of the clock that `now` comes from) even if nothing happens."""

    time: float


Command = StartAttempt | StopAttempt | EndRun | WakeAt


def fold(events: Iterable[Event]) -> RunState:
    """The state after `events`, from nothing."""
    state = RunState()
    for event in events:
        apply(state, event)
    return state


def decide(state: RunState, now: float, slots: int) -> list[Command]:
    """What to do next, `slots` attempts running at once at most.

    The state means the same afterwards; only waits and limits that came due move to the indexes that
    say so. Commands repeat until the events they cause are applied.
    """
    if state.status is not RunStatus.RUNNING:
        return []
    _count_down(state, now)
    if state.cancelling:
        if not state.running:
            return [EndRun(RunStatus.CANCELLED, "cancelled by the user")]
        return [StopAttempt(node, attempt, "cancelled") for node, attempt in state.running.items()]
    commands: list[Command] = [StopAttempt(*late, "timeout") for late in state.overdue]
    commands += [
        StartAttempt(name, state.nodes[name].next_attempt)
        for name in islice(state.ready, max(0, slots - len(state.running)))
    ]
    if not state.running and not state.ready and not state.waits:
        return [_end(state)]
    due = [heap[0][0] for heap in (state.waits, state.limits) if heap]
    if due:
        commands.append(WakeAt(min(due)))
    return commands


def _count_down(state: RunState, now: float) -> None:
    """Place new waits and limits on the clock, and take down those that are over."""
    for name, seconds in state.new_waits:
        state.order += 1
        heapq.heappush(state.waits, (now + seconds, state.order, name))
    state.new_waits.clear()
    for name, attempt, seconds in state.new_limits:
        heapq.heappush(state.limits, (now + seconds, name, attempt))
    state.new_limits.clear()
    while state.waits and state.waits[0][0] <= now:
        name = heapq.heappop(state.waits)[2]
        state.ready[name] = None
    while state.limits:
        due, name, attempt = state.limits[0]
        live = state.running.get(name) == attempt
        if live and due > now:
            break
        heapq.heappop(state.limits)
        if live:
            state.overdue[name, attempt] = None


def _end(state: RunState) -> EndRun:
    if state.finished == len(state.nodes):
        return EndRun(RunStatus.SUCCEEDED)
    if not state.failed:
        stuck = [name for name, node in state.nodes.items() if node.status is NodeStatus.WAITING]
        listed = ", ".join(stuck[:5]) or "none"
        return EndRun(RunStatus.FAILED, f"no node can start; waiting for each other: {listed}")
    name = state.failed[0]
    last = state.nodes[name].attempts[-1]
    more = f" (and {len(state.failed) - 1} more)" if len(state.failed) > 1 else ""
    cause = f": {last.error.splitlines()[0]}" if last.error else ""
    return EndRun(RunStatus.FAILED, f"{name}: {last.outcome}{cause}{more}")


def apply(state: RunState, event: Event) -> RunState:
    """Take `event` into `state`, in place; returns `state`."""
    _APPLY[type(event)](state, event)
    state.latest = max(state.latest, event.time)
    return state


def _run_created(state: RunState, event: RunCreated) -> None:
    state.run = event.run
    state.entity = event.entity
    state.program = event.program
    state.inputs = event.inputs
    state.created = event.time
    state.outputs = event.outputs
    state.nodes = {plan.name: NodeState(plan) for plan in event.nodes}
    state.counts[NodeStatus.WAITING] = len(state.nodes)


def _driver_started(state: RunState, event: DriverStarted) -> None:
    state.status = RunStatus.RUNNING
    state.ended, state.error, state.result = None, "", None
    state.pid, state.host = event.pid, event.host
    state.program = msgspec.structs.replace(state.program, digest=event.digest)
    if event.outputs is not None:
        state.outputs = event.outputs
    # Nobody knows when those attempts died; the last sign of life is the honest lower bound.
    _close_attempts(state, state.latest, "its driver died")
    state.cancelling = False
    for name in event.removed:
        node = state.nodes.pop(name, None)
        if node is not None:
            state.results.pop(name, None)
            node.status = NodeStatus.SKIPPED  # so that it is opened like one if it comes back
            state.retired[name] = node
    for plan in event.replaced:
        node = state.nodes.get(plan.name) or state.retired.pop(plan.name, None) or NodeState(plan)
        if node.status is NodeStatus.SUCCEEDED and set(state.results[plan.name]) != set(
            plan.outputs
        ):
            # What it committed no longer has the outputs that others ask for.
            del state.results[plan.name]
            node.status = NodeStatus.SKIPPED
        node.plan = plan
        state.nodes[plan.name] = node
    _reopen(state)


def _close_attempts(state: RunState, time: float, error: str) -> None:
    """End every attempt that shows as running, at no budget's cost."""
    status = NodeStatus.CANCELLED if state.cancelling else NodeStatus.READY
    for name in state.running:
        node = state.nodes[name]
        attempt = node.attempts[-1]
        attempt.outcome = Outcome.KILLED
        attempt.ended = max(time, attempt.started, attempt.saved)
        attempt.error = error
        attempt.charged = False
        _turn(state, node, status)
    state.running.clear()


def _reopen(state: RunState) -> None:
    """Make every node that did not succeed open again, and build the indexes anew."""
    for index in (state.dependents, state.ready, state.overdue):
        index.clear()
    for heap in (state.new_waits, state.waits, state.new_limits, state.limits, state.failed):
        heap.clear()
    state.counts = dict.fromkeys(NodeStatus, 0)
    for name, node in state.nodes.items():
        needs = set(node.plan.after)
        for need in needs:
            if need in state.dependents:
                state.dependents[need].append(name)
            else:
                state.dependents[need] = [name]  # to measure, as most have one
        if node.status in {NodeStatus.FAILED, NodeStatus.SKIPPED, NodeStatus.CANCELLED}:
            node.failures = node.interruptions = node.idle = node.streak = 0
        node.needs = sum(need not in state.results for need in needs)
        if node.status is not NodeStatus.SUCCEEDED:
            node.status = NodeStatus.WAITING if node.needs else NodeStatus.READY
            if not node.needs:
                state.ready[name] = None
        state.counts[node.status] += 1


def _attempt_started(state: RunState, event: AttemptStarted) -> None:
    node = state.nodes.get(event.node)
    if node is None or node.status is not NodeStatus.READY or event.attempt < node.next_attempt:
        return
    _turn(state, node, NodeStatus.RUNNING)
    # A list that grew has room for more; most nodes have one attempt, so theirs is made to measure;
    # `+` does that, unpacking does not.
    node.attempts = node.attempts + [AttemptState(event.attempt, event.time)]  # noqa: RUF005
    state.ready.pop(event.node, None)
    state.running[event.node] = event.attempt
    timeout = node.plan.options.timeout
    if timeout is not None:
        state.new_limits.append((event.node, event.attempt, timeout))


def _live(state: RunState, name: str, attempt: int) -> AttemptState | None:
    """That attempt if it is running, else None: what others say is late."""
    if state.running.get(name) != attempt:
        return None
    return state.nodes[name].attempts[-1]


def _checkpoint_saved(state: RunState, event: CheckpointSaved) -> None:
    attempt = _live(state, event.node, event.attempt)
    if attempt is not None and event.number > attempt.checkpoint:
        attempt.checkpoint, attempt.saved = event.number, event.time


def _attempt_warned(state: RunState, event: AttemptWarned) -> None:
    attempt = _live(state, event.node, event.attempt)
    if attempt is not None:
        attempt.warnings += (event.message,)


def _attempt_ended(state: RunState, event: AttemptEnded) -> None:
    attempt = _live(state, event.node, event.attempt)
    if attempt is None:
        return
    name, node, outcome = event.node, state.nodes[event.node], Outcome(event.outcome)
    attempt.outcome, attempt.ended = outcome, event.time
    attempt.error, attempt.traceback, attempt.charged = event.error, event.traceback, event.charged
    attempt.code = event.code
    del state.running[name]
    state.overdue.pop((name, event.attempt), None)
    if outcome is Outcome.SUCCEEDED:
        _turn(state, node, NodeStatus.SUCCEEDED)
        state.results[name] = event.outputs or {}
        for dependent in state.dependents.get(name, ()):
            _met(state, dependent)
        return
    wait = charge(node, attempt, outcome, event.jitter) if event.charged else 0.0
    if state.cancelling:
        _turn(state, node, NodeStatus.CANCELLED)
    elif wait is None:
        _turn(state, node, NodeStatus.FAILED)
        state.failed.append(name)
        _skip_dependents(state, name)
    else:
        _turn(state, node, NodeStatus.READY)
        if wait > 0:
            state.new_waits.append((name, wait))
        else:
            state.ready[name] = None


def _met(state: RunState, name: str) -> None:
    """One of the things that a node waits for has succeeded."""
    node = state.nodes[name]
    node.needs -= 1
    if node.needs == 0 and node.status is NodeStatus.WAITING:
        _turn(state, node, NodeStatus.READY)
        state.ready[name] = None


def _skip_dependents(state: RunState, name: str) -> None:
    """Skip what needs `name`, directly or not; branches that do not need it go on to their end."""
    doomed = [name]
    while doomed:
        for dependent in state.dependents.get(doomed.pop(), ()):
            node = state.nodes[dependent]
            if node.status is NodeStatus.WAITING:
                _turn(state, node, NodeStatus.SKIPPED)
                doomed.append(dependent)


def _run_noted(state: RunState, event: RunNoted) -> None:
    state.notes.append(event.message)


def _cancel_requested(state: RunState, event: CancelRequested) -> None:  # noqa: ARG001
    if state.over:
        return
    state.cancelling = True
    for node in state.nodes.values():
        if node.status in {NodeStatus.WAITING, NodeStatus.READY}:
            _turn(state, node, NodeStatus.CANCELLED)
    state.ready.clear()
    state.new_waits.clear()
    state.waits.clear()


def _run_ended(state: RunState, event: RunEnded) -> None:
    state.status = RunStatus(event.status)
    state.ended, state.error, state.result = event.time, event.error, event.outputs
    _close_attempts(state, event.time, "its driver left")


def _turn(state: RunState, node: NodeState, status: NodeStatus) -> None:
    state.counts[node.status] -= 1
    state.counts[status] += 1
    node.status = status


_APPLY: dict[type, Callable[[RunState, Any], None]] = {
    RunCreated: _run_created,
    DriverStarted: _driver_started,
    AttemptStarted: _attempt_started,
    CheckpointSaved: _checkpoint_saved,
    AttemptWarned: _attempt_warned,
    AttemptEnded: _attempt_ended,
    RunNoted: _run_noted,
    CancelRequested: _cancel_requested,
    RunEnded: _run_ended,
}

assert RUNNING not in set(Outcome)  # an attempt's outcome says both

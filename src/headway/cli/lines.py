"""Events of a run as lines for people. Each line makes sense alone, in a pipe and without colour."""

from __future__ import annotations

import time

from headway.cli.output import Paint
from headway.cli.tables import duration, plural, size
from headway.engine.state import NodeState, RunState
from headway.model.events import (
    AttemptEnded,
    AttemptStarted,
    AttemptWarned,
    CancelRequested,
    CheckpointSaved,
    DriverStarted,
    Event,
    RunEnded,
    RunNoted,
)
from headway.model.outcome import NodeStatus, Outcome


def newest(node: NodeState, upto: int | None = None) -> tuple[int, float]:
    """Number and time (Unix seconds) of the newest checkpoint the node is known to have.

    Args:
        node: the node.
        upto: leave attempts after this one out.

    Returns:
        (0, 0.0) when it has none.
    """
    return max(
        (
            (attempt.checkpoint, attempt.saved)
            for attempt in node.attempts
            if upto is None or attempt.number <= upto
        ),
        default=(0, 0.0),
    )


def pause(state: RunState, name: str) -> float | None:
    """Seconds until a node's next attempt may start; None when it does not wait."""
    for node, seconds in state.new_waits:
        if node == name:
            return seconds
    for due, _, node in state.waits:
        if node == name:
            return max(0.0, due - time.monotonic())  # the clock that a driver gives to the core
    return None


def line_of(event: Event, state: RunState, paint: Paint) -> str | None:
    """The line that tells of `event`, or None for events that need none.

    Args:
        event: what happened.
        state: the run, with the event in it.
        paint: colours for the stream.
    """
    match event:
        case DriverStarted(resumed=True):
            total = len(state.nodes)
            return f"resuming: {state.finished} of {plural(total, 'node')} done"
        case AttemptStarted(node=name, attempt=number):
            before, _ = newest(state.nodes[name], number - 1)
            resumed = f" ({paint(f'checkpoint {before}', 'green')})" if before else ""
            return f"{_name(name, paint)}  attempt {number} started{resumed}"
        case CheckpointSaved(node=name, attempt=number):
            saved = f"checkpoint {event.number} saved ({size(event.size)})"
            return paint(f"{name}  attempt {number} {saved}", "dim")
        case AttemptWarned(node=name, attempt=number):
            warning = paint("warning", "yellow")
            return f"{_name(name, paint)}  attempt {number} {warning}: {event.message}"
        case AttemptEnded(node=name) if name in state.nodes:
            return _ended(event, state, paint)
        case RunNoted():
            return f"note: {event.message}"
        case CancelRequested():
            return "cancelling"
        case RunEnded(status="succeeded"):  # of any other end `endings` tells
            took = duration(event.time - state.created)
            return f"run {state.run} {paint.status(event.status)} after {took}"
    return None


def _ended(event: AttemptEnded, state: RunState, paint: Paint) -> str:
    node = state.nodes[event.node]
    attempt = next(a for a in reversed(node.attempts) if a.number == event.attempt)
    took = duration(event.time - attempt.started)
    line = (
        f"{_name(event.node, paint)}  attempt {event.attempt} "
        f"outcome {paint.status(event.outcome)} after {took}"
    )
    if event.outcome == Outcome.SUCCEEDED:
        return line
    if event.error:
        line += f": {event.error.splitlines()[0]}"
    line += f" ({kept(node, event.attempt, event.time)})"
    # An attempt that no budget pays for left because the run stops: there is no next one now.
    return f"{line}; {_next(node, state)}" if event.charged else line


def kept(node: NodeState, upto: int, end: float) -> str:
    """What a node has of its attempts up to `upto`: `checkpoint 4, saved 0.3s before`."""
    number, saved = newest(node, upto)
    return (
        f"checkpoint {number}, saved {duration(end - saved)} before" if number else "no checkpoint"
    )


def _next(node: NodeState, state: RunState) -> str:
    match node.status:
        case NodeStatus.FAILED:
            return "no attempts left"
        case NodeStatus.CANCELLED:
            return "not tried again"
    seconds = pause(state, node.plan.name)
    return f"next attempt in {duration(seconds)}" if seconds else "next attempt at once"


def _name(name: str, paint: Paint) -> str:
    return paint(name, bold=True)

"""What a run is right now: the fold of its events, with the indexes that keep each step cheap.

Plain data; `engine.core` is the only module that changes it. `RunState` is changed in place: a run
of 100,000 nodes has some 300,000 events, and copying anything per event would make that quadratic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from headway.model.events import NodePlan
from headway.model.outcome import NodeStatus, RunStatus
from headway.model.program import Program

RUNNING = "running"
"""`AttemptState.outcome` of an attempt that has not ended."""


class AttemptState(msgspec.Struct):
    """One attempt. `outcome` is `RUNNING` or a value of `Outcome`; times are Unix seconds.

    `checkpoint` is the number of the newest checkpoint it is known to have saved (0: none), saved at
    `saved`. `charged` is False when no budget paid for its end; `code` is a failed command's.
    """

    number: int
    started: float
    ended: float | None = None
    outcome: str = RUNNING
    error: str = ""
    traceback: str = ""
    checkpoint: int = 0
    saved: float = 0.0
    charged: bool = True
    code: int | None = None
    warnings: tuple[str, ...] = ()  # most have none, and a list of their own costs each of 100,000


class NodeState(msgspec.Struct):
    """One node.

    Attributes:
        plan: what to run.
        status: where it stands.
        needs: nodes it still waits for.
        attempts: all of them, oldest first, over all drivers.
        failures: attempts that `retries` has paid for since the node was (re)opened.
        interruptions: attempts that `max_interruptions` has paid for since then.
        idle: of those, how many in a row brought no new checkpoint.
        streak: unsuccessful attempts in a row without a new checkpoint; the exponent of back-off.
    """

    plan: NodePlan
    status: NodeStatus = NodeStatus.WAITING
    needs: int = 0
    attempts: list[AttemptState] = []
    failures: int = 0
    interruptions: int = 0
    idle: int = 0
    streak: int = 0

    @property
    def last(self) -> AttemptState | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def next_attempt(self) -> int:
        """Number of the next attempt; numbers are never used twice."""
        return self.attempts[-1].number + 1 if self.attempts else 0

    @property
    def retries_left(self) -> int:
        """Failures that may still be retried."""
        return max(0, self.plan.options.retries - self.failures)


@dataclass(slots=True)
class RunState:
    """A run. Treat as read-only outside `engine.core`.

    Attributes:
        status: RUNNING from `DriverStarted` to `RunEnded`; whether its driver lives is not known here.
        nodes: name -> node, in the order of the graph.
        retired: nodes that a change of the code removed; kept because attempt numbers go on if one
            comes back.
        results: node name -> its committed outputs.
        program: where the code is, its digest as the newest driver found it.
        outputs: output name of the run -> binding.
        result: the run's own outputs, once it has succeeded.
        counts: how many nodes have each status.
        failed: nodes that failed since the driver started, in order.
        latest: largest time in any event.
        dependents, ready, running: indexes. `ready` holds nodes that may start now, in order (a dict
            because sets have none); `running` maps a node to its live attempt's number.
        new_waits, waits: back-offs as (node, seconds), and as a heap of (due, order, node).
        new_limits, limits, overdue: timeouts as (node, attempt, seconds), as a heap of
            (due, node, attempt), and those that are over, until the attempt ends.
    """

    run: str = ""
    entity: str = ""
    program: Program = field(default_factory=lambda: Program(module=""))
    inputs: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    status: RunStatus = RunStatus.INTERRUPTED
    ended: float | None = None
    error: str = ""
    cancelling: bool = False
    nodes: dict[str, NodeState] = field(default_factory=dict)
    retired: dict[str, NodeState] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    counts: dict[NodeStatus, int] = field(default_factory=lambda: dict.fromkeys(NodeStatus, 0))
    failed: list[str] = field(default_factory=list)
    pid: int = 0
    host: str = ""
    latest: float = 0.0
    dependents: dict[str, list[str]] = field(default_factory=dict)
    ready: dict[str, None] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    new_waits: list[tuple[str, float]] = field(default_factory=list)
    waits: list[tuple[float, int, str]] = field(default_factory=list)
    new_limits: list[tuple[str, int, float]] = field(default_factory=list)
    limits: list[tuple[float, str, int]] = field(default_factory=list)
    overdue: dict[tuple[str, int], None] = field(default_factory=dict)
    order: int = 0

    @property
    def finished(self) -> int:
        """Nodes that succeeded."""
        return self.counts[NodeStatus.SUCCEEDED]

    @property
    def over(self) -> bool:
        """Whether the run ended for good; an interrupted one did not."""
        return self.status in {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED}

"""Events of a run: what its journal holds, in the order in which it happened.

A run's state is the fold of its events, nothing else (`engine.core.apply`). Field names are part of
the format: `docs/design/format.md`. Times are Unix seconds, for people to read; no decision about
what is valid depends on them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headway.model.program import Program
from headway.model.settings import TaskOptions


class NodePlan(msgspec.Struct, frozen=True):
    """A node of the traced graph.

    Attributes:
        name: unique in the run.
        task: `module:qualname` of the task.
        options: retry and time limits.
        inputs: parameter name -> binding (`engine.graph`), encoded.
        after: names of nodes that must succeed first (data edges and `>>` edges).
        outputs: names of the outputs, in order.
    """

    name: str
    task: str
    options: TaskOptions
    inputs: dict[str, Any]
    after: tuple[str, ...]
    outputs: tuple[str, ...]


class RunCreated(msgspec.Struct, frozen=True, tag="run-created"):
    """First event of a run."""

    run: str
    entity: str
    program: Program
    inputs: dict[str, Any]
    time: float
    version: str
    nodes: tuple[NodePlan, ...]
    outputs: dict[str, Any]  # output name -> binding


class DriverStarted(msgspec.Struct, frozen=True, tag="driver-started"):
    """A driver took the run over: the first one, or one that resumes.

    Attempts that the journal shows as running died with the driver before. Failed, skipped and
    cancelled nodes are open again, with fresh budgets. `replaced` holds nodes whose plan changed
    with the code.
    """

    time: float
    pid: int
    host: str
    digest: str
    resumed: bool = False
    replaced: tuple[NodePlan, ...] = ()
    removed: tuple[str, ...] = ()
    outputs: dict[str, Any] | None = None


class AttemptStarted(msgspec.Struct, frozen=True, tag="attempt-started"):
    """Recorded before the attempt is handed to an executor."""

    node: str
    attempt: int
    time: float
    inputs_digest: str = ""


class CheckpointSaved(msgspec.Struct, frozen=True, tag="checkpoint-saved"):
    """A checkpoint of the node became durable (a hint for people; the node's ledger is the truth)."""

    node: str
    attempt: int
    number: int
    size: int
    time: float


class AttemptWarned(msgspec.Struct, frozen=True, tag="attempt-warned"):
    """Something odd that did not end the attempt, such as a damaged checkpoint that was skipped."""

    node: str
    attempt: int
    kind: str
    message: str
    time: float


class AttemptEnded(msgspec.Struct, frozen=True, tag="attempt-ended"):
    """An attempt is over. `outputs` is set exactly when `outcome` is succeeded: this record is the
    one commit of the node's result."""

    node: str
    attempt: int
    outcome: str
    time: float
    outputs: dict[str, Any] | None = None
    error: str = ""
    traceback: str = ""
    jitter: float = 0.5  # drawn by the driver, so that the core stays deterministic (0 to 1)
    charged: bool = True  # False: the driver was told to leave and took the attempt with it
    code: int | None = None  # of a command that failed: its exit code, or -signal number


class RunNoted(msgspec.Struct, frozen=True, tag="run-noted"):
    """A remark for people: code changed since the run started, a torn journal tail was ignored."""

    message: str
    time: float


class CancelRequested(msgspec.Struct, frozen=True, tag="cancel-requested"):
    """The user asked to cancel."""

    time: float


class RunEnded(msgspec.Struct, frozen=True, tag="run-ended"):
    """The run is over: `status` is succeeded, failed or cancelled (`interrupted` when its driver was
    told to leave and stopped in good order)."""

    status: str
    time: float
    outputs: dict[str, Any] | None = None
    error: str = ""


Event = (
    RunCreated
    | DriverStarted
    | AttemptStarted
    | CheckpointSaved
    | AttemptWarned
    | AttemptEnded
    | RunNoted
    | CancelRequested
    | RunEnded
)

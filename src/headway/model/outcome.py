"""How an attempt can end, and which budget pays for it."""

from __future__ import annotations

import enum


class Outcome(enum.StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    APP_ERROR = "app error"
    NON_RECOVERABLE = "non-recoverable"
    RECOVERABLE = "recoverable"
    OOM = "oom"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    KILLED = "killed"
    NODE_LOST = "node lost"
    CANCELLED = "cancelled"


class Budget(enum.StrEnum):
    """Who pays for an attempt that ended."""

    NONE = "none"  # nobody: it succeeded
    RETRIES = "retries"
    INTERRUPTIONS = "interruptions"
    NO_RETRY = "no retry"


CHARGED_TO: dict[Outcome, Budget] = {
    Outcome.SUCCEEDED: Budget.NONE,
    Outcome.APP_ERROR: Budget.RETRIES,
    Outcome.RECOVERABLE: Budget.RETRIES,
    Outcome.OOM: Budget.RETRIES,
    Outcome.TIMEOUT: Budget.RETRIES,
    Outcome.NON_RECOVERABLE: Budget.NO_RETRY,
    Outcome.CANCELLED: Budget.NO_RETRY,
    Outcome.PREEMPTED: Budget.INTERRUPTIONS,
    Outcome.KILLED: Budget.INTERRUPTIONS,
    Outcome.NODE_LOST: Budget.INTERRUPTIONS,
}


class NodeStatus(enum.StrEnum):
    """Where a node of a run stands."""

    WAITING = "waiting"  # for other nodes
    READY = "ready"  # may start (now, or when its back-off is over)
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"  # something it needs failed
    CANCELLED = "cancelled"


class RunStatus(enum.StrEnum):
    """Where a run stands. `INTERRUPTED`: no driver lives, and it did not end; resume it."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

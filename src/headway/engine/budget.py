"""Who pays for an attempt that ended, and how long the node waits before the next one.

    app error, recoverable, oom, timeout   `retries` (default 0)
    non-recoverable, cancelled             no retry
    preempted, node lost, killed           `max_interruptions`; without one, no limit but
                                           `IDLE_LIMIT` in a row that brought no new checkpoint

Without `backoff=` the next attempt starts at once, except that interruptions in a row without a new
checkpoint wait exponentially longer from the second on: such a row usually has a cause that stays
(the body needs more memory than the machine has). A user's `Backoff` counts retries in a row without
a new checkpoint: an attempt that saved something starts the count anew.
"""

from __future__ import annotations

from headway.engine.state import AttemptState, NodeState
from headway.model.outcome import CHARGED_TO, Budget, Outcome
from headway.model.settings import Backoff

IDLE_LIMIT = 10
IDLE_BACKOFF = Backoff(initial=1.0, factor=2.0, maximum=300.0, jitter=0.1)


def charge(node: NodeState, attempt: AttemptState, outcome: Outcome, draw: float) -> float | None:
    """Book the end of `attempt` to `node`; its counters change.

    Args:
        node: the node, its counters as before the attempt ended.
        attempt: the attempt, which did not succeed.
        outcome: how it ended.
        draw: a number from 0 to 1 that places the wait within its jitter.

    Returns:
        Seconds until the next attempt may start, or None when there will be none.
    """
    budget = CHARGED_TO[outcome]
    options = node.plan.options
    if budget is Budget.NO_RETRY:
        return None
    if attempt.checkpoint:
        node.streak = 0
    retry = node.streak
    node.streak += 1
    if budget is Budget.RETRIES:
        node.idle = 0
        node.failures += 1
        if node.failures > options.retries:
            return None
        return 0.0 if options.backoff is None else wait(options.backoff, retry, draw)
    node.idle = 0 if attempt.checkpoint else node.idle + 1
    node.interruptions += 1
    if options.max_interruptions is None:
        if node.idle >= IDLE_LIMIT:
            return None
    elif node.interruptions > options.max_interruptions:
        return None
    if options.backoff is not None:
        return wait(options.backoff, retry, draw)
    return 0.0 if node.idle <= 1 else wait(IDLE_BACKOFF, node.idle - 2, draw)


def wait(backoff: Backoff, retry: int, draw: float) -> float:
    """Seconds before the `retry`-th retry in a row (from 0), `draw` (0 to 1) choosing the jitter."""
    try:
        seconds = min(backoff.maximum, backoff.initial * backoff.factor**retry)
    except OverflowError:  # the exponent alone is beyond any maximum
        seconds = backoff.maximum if backoff.initial else 0.0
    return seconds * (1 + backoff.jitter * (2 * draw - 1))


def allowance(node: NodeState, outcome: Outcome) -> str:
    """What the node's last attempt was, against its budget: "attempt 2 (3 of 3)", for people."""
    last = node.last
    number = 0 if last is None else last.number
    match CHARGED_TO[outcome]:
        case Budget.RETRIES:
            # Interruptions and earlier drivers' attempts cost no retry, so they are added to both.
            left = max(0, node.plan.options.retries + 1 - node.failures)
            return f"attempt {number} ({number + 1} of {number + 1 + left})"
        case Budget.INTERRUPTIONS if node.plan.options.max_interruptions is not None:
            return f"attempt {number}, interruption {node.interruptions}"
        case Budget.INTERRUPTIONS if node.idle >= IDLE_LIMIT:
            return f"attempt {number}, {node.idle} interruptions in a row without a new checkpoint"
        case Budget.NONE | Budget.INTERRUPTIONS | Budget.NO_RETRY:
            return f"attempt {number}"

"""How an attempt ended, from the last thing heard of it and from whether we made it leave.

Why we stopped it wins over how it then looked: a body that was told to leave may raise anything on its
way out, and a process that overran its grace died of SIGKILL by our hand. Only a result wins over
that: an attempt that returned before it noticed has done its work.
"""

from __future__ import annotations

import signal

from headway.model.outcome import Outcome
from headway.model.program import CommandEnded, Died, Raised, Returned

_STOPPED = {
    "timeout": (Outcome.TIMEOUT, "it ran longer than its timeout and was stopped"),
    "cancelled": (Outcome.CANCELLED, "it was stopped because the run was cancelled"),
    "leaving": (Outcome.PREEMPTED, "it was stopped because its driver was told to leave"),
}
# Signals that come from outside: a machine that goes away, a closed terminal, an operator.
_FROM_OUTSIDE = {
    signal.SIGTERM: (Outcome.PREEMPTED, "was told to go (SIGTERM)"),
    signal.SIGKILL: (Outcome.KILLED, "was killed from outside (SIGKILL)"),
    signal.SIGINT: (Outcome.KILLED, "was interrupted from outside (SIGINT)"),
    signal.SIGHUP: (Outcome.KILLED, "lost its terminal (SIGHUP)"),
}


def classify(
    message: Returned | Raised | Died | CommandEnded, why_stopped: str | None = None
) -> tuple[Outcome, str, str]:
    """Name the end of an attempt.

    Args:
        message: the last message of the attempt.
        why_stopped: why the driver asked it to leave: "timeout", "cancelled" or "leaving"; None when
            it did not.

    Returns:
        (outcome, error text for people, traceback); both texts are "" for a success, and the
        traceback is "" unless the body raised.
    """
    if isinstance(message, Returned):
        return Outcome.SUCCEEDED, "", ""
    traceback = message.traceback if isinstance(message, Raised) else ""
    if why_stopped is not None:
        outcome, text = _STOPPED[why_stopped]
        return outcome, text, traceback
    if isinstance(message, Raised):
        text = f"{message.type}: {message.message}" if message.message else message.type
        return _raised(message), text, traceback
    if isinstance(message, CommandEnded) and message.code >= 0:
        return Outcome.APP_ERROR, f"the command ended with exit code {message.code}", ""
    return *_died(message.code, "command" if isinstance(message, CommandEnded) else "process"), ""


def _raised(message: Raised) -> Outcome:
    try:
        outcome = Outcome(message.kind)
    except ValueError:  # a worker of another version: an exception is an app error at least
        return Outcome.APP_ERROR
    # Only `Returned` carries a result to commit.
    return Outcome.APP_ERROR if outcome is Outcome.SUCCEEDED else outcome


def _died(code: int, what: str) -> tuple[Outcome, str]:
    if code == 0:
        return Outcome.APP_ERROR, (
            "the process ended with exit code 0 before the body returned (os._exit in the body?)"
        )
    if code > 0:
        return Outcome.APP_ERROR, f"the process ended with exit code {code} (sys.exit or os._exit)"
    try:
        number = signal.Signals(-code)
    except ValueError:  # a real-time signal
        return Outcome.APP_ERROR, f"the {what} died of signal {-code}"
    own_fault = Outcome.APP_ERROR, f"died of {number.name} ({_meaning(number)})"
    outcome, text = _FROM_OUTSIDE.get(number, own_fault)
    return outcome, f"the {what} {text}"


def _meaning(number: signal.Signals) -> str:
    return signal.strsignal(number) or "unknown signal"

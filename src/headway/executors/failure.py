"""An exception that ended a body, told to the driver: which outcome it is, and the user's traceback.

| raised by the body | outcome |
| --- | --- |
| `Preempted` | preempted |
| `NonRecoverableError` | non-recoverable |
| `CheckpointFenced` | non-recoverable: a newer attempt owns the state, to be left to it |
| `StorageUnavailable` | node lost: where it ran it had no storage; another place or time may have it |
| `MemoryError` | oom |
| `RecoverableError` | recoverable |
| anything else, `SystemExit` and `KeyboardInterrupt` too | app error |

A group counts as the first of these rows that one of its members matches; so does what
`torch.distributed.checkpoint` raises, which holds what each rank raised.

What ends a process may end others that it needs, too. So an app error, or one that is recoverable, is an
interruption, `preempted`, when it comes after the process was told to go.
"""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Iterable, Iterator

from headway.model.errors import (
    CheckpointFenced,
    HeadwayError,
    NonRecoverableError,
    Preempted,
    RecoverableError,
    StorageUnavailable,
)
from headway.model.outcome import Outcome
from headway.model.program import Raised

_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (Preempted, Outcome.PREEMPTED),
    (NonRecoverableError, Outcome.NON_RECOVERABLE),
    (CheckpointFenced, Outcome.NON_RECOVERABLE),
    (StorageUnavailable, Outcome.NODE_LOST),
    (MemoryError, Outcome.OOM),
    (RecoverableError, Outcome.RECOVERABLE),
)
_LONGEST_MESSAGE = 10_000
_LONGEST_TRACEBACK = 100_000
_HEADWAY = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


class CommandFailed(Exception):
    """Raised by the body that runs a command, which ended with another exit code than 0: the outcome is
    what it would be if the worker had ended so.

    Attributes:
        code: the exit code, or minus the signal that it died of.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the command ended with {code}")
        self.code = code


def raised(error: BaseException, *, told: bool = False) -> Raised:
    """The last message of an attempt whose body let `error` pass.

    Args:
        error: what it raised.
        told: whether the process had been told to go by then.
    """
    outcome = _outcome_of(error)
    message = _shortened(_message_of(error), _LONGEST_MESSAGE)
    if told and outcome in {Outcome.APP_ERROR, Outcome.RECOVERABLE}:
        outcome = Outcome.PREEMPTED
        message += " (after the process was told to go)"
    return Raised(
        kind=outcome,
        type=_type_name(type(error)),
        message=message,
        traceback=_shortened(_users_traceback(error), _LONGEST_TRACEBACK),
    )


def _outcome_of(error: BaseException) -> Outcome:
    errors = [*_all(error)]
    for kind, outcome in _OUTCOMES:
        if any(isinstance(each, kind) for each in errors):
            return outcome
    return Outcome.APP_ERROR


def _all(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it stands for."""
    yield error
    members: Iterable[BaseException] = ()
    if isinstance(error, BaseExceptionGroup):
        members = error.exceptions
    elif (
        type(error).__name__ == "CheckpointException"
    ):  # of PyTorch, which is not imported for this
        failures = getattr(error, "failures", None)
        if isinstance(failures, dict):
            members = [each[0] for each in failures.values() if isinstance(each, tuple) and each]
    for member in members:
        if isinstance(member, BaseException):
            yield from _all(member)


def _type_name(kind: type[BaseException]) -> str:
    if kind.__module__ == "builtins" or kind.__module__.startswith("headway."):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _message_of(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return f"the body called sys.exit({code}) instead of returning"
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001  # a user's __str__ may raise anything
        return f"(its message could not be made: {type(second).__name__})"


def _users_traceback(error: BaseException) -> str:
    try:
        told = traceback.TracebackException.from_exception(error, compact=True)
        _cut(told, error)
        return "".join(told.format())
    except Exception as second:  # noqa: BLE001  # a user's exception class may raise anything
        return f"(its traceback could not be made: {type(second).__name__})\n"


def _cut(told: traceback.TracebackException, error: BaseException) -> None:
    """Leave out frames of headway and of the import machinery, which say nothing to a user.

    Below the user's last frame they stay when the error is not one that headway raises on purpose:
    then the fault may be headway's.
    """
    frames = list(told.stack)
    theirs = [index for index, frame in enumerate(frames) if not _is_ours(frame.filename)]
    if isinstance(error, HeadwayError | Preempted):
        told.stack[:] = [frames[index] for index in theirs]
    elif theirs:
        last = theirs[-1]
        told.stack[:] = [frames[index] for index in theirs] + frames[last + 1 :]
    if told.__cause__ is not None and error.__cause__ is not None:
        _cut(told.__cause__, error.__cause__)
    if told.__context__ is not None and error.__context__ is not None:
        _cut(told.__context__, error.__context__)
    if told.exceptions is not None and isinstance(error, BaseExceptionGroup):
        for part, member in zip(told.exceptions, error.exceptions, strict=True):
            _cut(part, member)


def _is_ours(filename: str) -> bool:
    return filename.startswith((_HEADWAY, "<frozen importlib")) or filename == importlib.__file__


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"

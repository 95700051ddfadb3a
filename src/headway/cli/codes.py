"""Exit codes: documented in docs/reference/exit-codes.md, and as stable as any public name."""

from __future__ import annotations

import signal

from headway.model import errors

SUCCESS = 0
RUN_FAILED = 1
USAGE = 2
DEFINITION = 3
STORAGE = 4
BUSY = 5
CANCELLED = 6
DIFFERENT = 7
INTERNAL = 70
HUNG_UP = 128 + signal.SIGHUP
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE
TERMINATED = 128 + signal.SIGTERM

MEANING: dict[int, tuple[str, str]] = {
    SUCCESS: ("success", "The command did what it was asked to do; a run succeeded."),
    RUN_FAILED: ("failed", "A run failed: a task used up its attempts. `headway resume` goes on."),
    USAGE: ("usage", "An option, a value, a path or a run's id is wrong. Nothing was run."),
    DEFINITION: (
        "definition",
        "The program is wrong: it cannot be imported, or its tasks cannot run.",
    ),
    STORAGE: ("storage", "The home, or a checkpoint in it, could not be read or written."),
    BUSY: ("busy", "Another process drives this run."),
    CANCELLED: ("cancelled", "The run was cancelled on request."),
    DIFFERENT: ("different", "`headway verify`: a resumed run is not what it would have been."),
    INTERNAL: ("internal", "A fault in headway itself. Its traceback is shown; please report it."),
    HUNG_UP: ("interrupted", "SIGHUP, the terminal was closed. `headway resume` goes on."),
    INTERRUPTED: (
        "interrupted",
        "Ctrl-C (SIGINT): the run stopped cleanly. `headway resume` goes on.",
    ),
    BROKEN_PIPE: ("pipe", "Whoever read stdout went away, as in `headway runs | head -1`."),
    TERMINATED: ("interrupted", "SIGTERM: the run stopped cleanly. `headway resume` goes on."),
}
"""Code -> (its kind in `--json` errors, what it means): the table of docs/reference/exit-codes.md."""

# The first class that matches decides, so that a subclass stands before its base.
_BY_ERROR: tuple[tuple[type[BaseException], int], ...] = (
    (errors.TaskFailed, RUN_FAILED),
    (errors.InputError, USAGE),
    (errors.DefinitionError, DEFINITION),
    (errors.RunBusy, BUSY),
    (errors.StorageError, STORAGE),
    (errors.CheckpointError, STORAGE),
    (errors.HeadwayError, RUN_FAILED),
    (KeyboardInterrupt, INTERRUPTED),
)

_BY_STATUS = {"succeeded": SUCCESS, "failed": RUN_FAILED, "cancelled": CANCELLED}


def of_error(error: BaseException) -> int:
    """The exit code for an error that ended the command."""
    if isinstance(error, errors.TaskFailed) and error.outcome == "cancelled":
        return CANCELLED
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return INTERNAL


def of_status(status: str, signal_number: int | None = None, command: int | None = None) -> int:
    """The exit code for a run that came back with `status` (`model.outcome.RunStatus`).

    Args:
        status: how the run stands.
        signal_number: the signal that made an interrupted run stop, when one is known.
        command: the exit code of the command that `headway exec` ran, or minus the signal it died of.
    """
    if status == "failed" and command is not None:
        return command if command > 0 else 128 - command
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return INTERRUPTED if signal_number is None else 128 + signal_number

"""Every error headway raises, grouped by what a handler would do about it.

    HeadwayError
    ├── DefinitionError        the program is wrong: change the code
    ├── InputError             a value is wrong: change what you passed
    ├── TaskFailed             a task used up its attempts: look at its log, then resume
    ├── RunBusy                another process drives this run: wait for it, or cancel it
    ├── StorageError           the home could not be read or written
    │   ├── StorageUnavailable     a fault that may pass: try again
    │   ├── StorageFull            no space, no quota, no descriptors: make room
    │   └── StorageDenied          not allowed, or read-only: change the permissions
    ├── CheckpointError        a checkpoint cannot be used as asked
    │   ├── CheckpointCorrupt      bytes differ from what was saved
    │   ├── CheckpointFenced       a newer attempt owns this state: stop
    │   └── UntrustedState         it may be a forger's: not signed, or it would run code
    ├── RecoverableError       for task bodies: failed, but worth another try
    └── NonRecoverableError    for task bodies: failed, and no retry will help

`Preempted` stands outside the tree. It is a `BaseException`, so that the `except Exception` of a
task body does not swallow the request to leave.

A message says what happened, why, and the next thing to type.
"""

from __future__ import annotations


class HeadwayError(Exception):
    """Base of every error that headway raises on purpose."""


class DefinitionError(HeadwayError):
    """The program is wrong: a signature, a workflow's wiring, a task that cannot be imported."""


class InputError(HeadwayError, ValueError):
    """A value is wrong: an argument, an option, a path, a run that does not exist."""


class TaskFailed(HeadwayError):
    """A task used up its attempts, so its run failed (or was cancelled).

    Attributes:
        run: id of the run.
        node: name of the node that failed, or "" when no single node did.
        outcome: outcome of the last attempt, a value of `headway.model.outcome.Outcome`.
    """

    def __init__(self, message: str, *, run: str = "", node: str = "", outcome: str = "") -> None:
        super().__init__(message)
        self.run = run
        self.node = node
        self.outcome = outcome


class RunBusy(HeadwayError):
    """Another process drives this run."""


class StorageError(HeadwayError, OSError):
    """The home could not be read or written. The cause is chained (`__cause__`)."""


class StorageUnavailable(StorageError):
    """An I/O fault or an unreachable store: the same call may work later."""


class StorageFull(StorageError):
    """No space, no quota or no file descriptors left."""


class StorageDenied(StorageError):
    """Permission denied, or a read-only filesystem."""


class CheckpointError(HeadwayError):
    """A checkpoint cannot be used as asked."""


class CheckpointCorrupt(CheckpointError):
    """Stored bytes differ from what was saved, and nothing older can stand in."""


class CheckpointFenced(CheckpointError):
    """A newer attempt has claimed this state; nothing this attempt saves will be seen."""


class UntrustedState(CheckpointError):
    """Somebody else may have made this: it is not signed with the key that there is, or loading it would
    run code and others can write to the home."""


class RecoverableError(HeadwayError):
    """Raise it in a task body: this attempt failed, another may succeed (charged to `retries`)."""


class NonRecoverableError(HeadwayError):
    """Raise it in a task body: no retry will help; the task fails at once."""


class Preempted(BaseException):
    """The process was told to go (SIGTERM, a spot notice). Save what you can and let it pass."""

"""Where a program is, and what one attempt is asked to do: what driver and worker tell each other."""

from __future__ import annotations

from typing import Any

import msgspec

from headway.model.settings import Best, Keep, Steps


class Program(msgspec.Struct, frozen=True):
    """Python code that defines tasks and workflows.

    Attributes:
        module: name to import it under (a file's stem, or a dotted module name).
        path: absolute path of the file; "" for a module found on `sys.path`.
        search: entries put at the front of `sys.path` before the import.
        digest: SHA-256 (hex) of the program's source, to tell when code has changed.
    """

    module: str
    path: str = ""
    search: tuple[str, ...] = ()
    digest: str = ""


class Watch(msgspec.Struct, frozen=True):
    """How an attempt is watched, and when it is to be killed: for `headway verify`.

    Attributes:
        file: absolute path of the file that takes what is seen.
        seed: of the random generators, before the body runs.
        every: how often `track` saves; None: as the body says.
        durable: steps before which the saves that were begun are waited for.
        kill: the step at which the process kills itself; "" for none.
        late: so long after that step, in steps; 0 is at once.
    """

    file: str
    seed: int = 0
    every: float | Steps | None = None
    durable: tuple[str, ...] = ()
    kill: str = ""
    late: float = 0.0


class AttemptSpec(msgspec.Struct, frozen=True):
    """One attempt, complete: a worker needs nothing else.

    Attributes:
        home: URL or absolute path of the home.
        run, node, attempt: which attempt this is (`attempt` counts from 0 within the node).
        program: where the task's code is.
        task: `module:qualname` of the task function, `module` being where it was defined.
        inputs: parameter name -> encoded value (`engine.values`).
        inputs_digest: digest of `inputs`; checkpoints of other inputs are never loaded.
        log: absolute path of the file that takes the attempt's output.
        retries_left: failures that may still be retried after this attempt.
        keep, keep_best: which checkpoints stay, as in `settings.TaskOptions`.
        watch: see `Watch`.
    """

    home: str
    run: str
    node: str
    attempt: int
    program: Program
    task: str
    inputs: dict[str, Any]
    inputs_digest: str
    log: str
    retries_left: int = 0
    keep: Keep = None
    keep_best: Best | None = None
    watch: Watch | None = None


class Saved(msgspec.Struct, frozen=True, tag_field="message_kind", tag="saved"):
    """Worker -> driver: a checkpoint is durable. `size` is in bytes, `time` in Unix seconds."""

    number: int
    size: int
    time: float


class Warned(msgspec.Struct, frozen=True, tag_field="message_kind", tag="warned"):
    """Worker -> driver: something a person should know (an unreadable checkpoint was skipped)."""

    kind: str
    message: str


class Started(msgspec.Struct, frozen=True, tag_field="message_kind", tag="started"):
    """Executor -> driver: process `pid` has the attempt, and is about to run its body."""

    pid: int


class Returned(msgspec.Struct, frozen=True, tag_field="message_kind", tag="returned"):
    """Worker -> driver: the body returned; `outputs` maps output names to encoded values.

    `clean` says that the process may serve another attempt, `silent` that the log of this one is empty
    and stays so.
    """

    outputs: dict[str, Any]
    clean: bool
    silent: bool = False


class Raised(msgspec.Struct, frozen=True, tag_field="message_kind", tag="raised"):
    """Worker -> driver: the body raised. `kind` is a value of `Outcome`."""

    kind: str
    type: str
    message: str
    traceback: str


class Died(msgspec.Struct, frozen=True, tag_field="message_kind", tag="died"):
    """The process ended without a word: exit code >= 0, or -signal number."""

    code: int


class CommandEnded(msgspec.Struct, frozen=True, tag_field="message_kind", tag="command-ended"):
    """Worker -> driver: the command that the body ran failed: exit code > 0, or -signal number."""

    code: int


Message = Saved | Warned | Started | Returned | Raised | Died | CommandEnded

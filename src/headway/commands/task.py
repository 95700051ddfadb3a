"""The task that `headway exec` runs: its body is a command.

How the command ends is how the attempt ends: exit code 0 is success, another one an app error, and a signal
what it is for a worker (`engine.outcome`). A command that was told to go, with its worker, was interrupted
whatever it says then: many programs save what they have and end with 0.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from headway.commands.desk import VARIABLE, Desk, Ticket
from headway.commands.kept import Kept
from headway.commands.process import Process
from headway.engine.context import Context, current_context
from headway.engine.entity import P, R
from headway.engine.keys import KEPT
from headway.engine.task import Task
from headway.executors.failure import CommandFailed
from headway.model.events import NodePlan
from headway.model.settings import TaskOptions
from headway.ports import Leave


class CommandTask(Task[P, R]):
    """A task whose options are those of a command line, and stay what they were when the run began."""

    def with_options(self, options: TaskOptions) -> CommandTask[P, R]:
        """The same task, with these options."""
        return CommandTask(self.function, options)

    def again(self, plans: Sequence[NodePlan]) -> CommandTask[P, R]:
        """See `Entity.again`."""
        return self.with_options(plans[0].options) if plans else self


def _command(function: Callable[P, R]) -> CommandTask[P, R]:
    return CommandTask(function, TaskOptions(interruptible=True))


@_command
def command(
    words: list[str], directory: str, environment: dict[str, str], keep: list[str], every: float
) -> None:
    """Run a command.

    Args:
        words: the command line.
        directory: where it starts.
        environment: what is added to the environment.
        keep: directories that are saved with it, absolute.
        every: seconds between two saves of them.
    """
    context = current_context()
    kept = _kept(context, keep, every)
    with (
        _held(context.leave),
        tempfile.TemporaryDirectory(
            prefix="headway-exec-", dir=context.scratch, ignore_cleanup_errors=True
        ) as folder,
    ):
        desk = Desk(Path(folder), _ticket(context), context.warn)
        _run(context, desk, kept, words, directory, _environment(environment, desk))


def _run(
    context: Context,
    desk: Desk,
    kept: Kept | None,
    words: list[str],
    directory: str,
    environment: dict[str, str],
) -> None:
    if kept is not None:
        kept.put_back()
    if context.leave is not None and context.leave.told:
        context.leave.go()
    process = Process(words, directory, environment)
    if kept is not None:
        kept.start()

    def tick() -> None:
        desk.forward()
        if kept is not None:
            kept.check()

    try:
        code = process.wait(context.leave, lambda: desk.owner, tick)
    finally:
        if kept is not None:
            kept.stop()
    tick()
    if kept is not None:
        kept.last(by_itself=code >= 0 or desk.left)
    if process.told and context.leave is not None:
        context.leave.go()
    if code:
        raise CommandFailed(code)


def _kept(context: Context, keep: list[str], every: float) -> Kept | None:
    if not keep:
        return None
    assert context.beside is not None
    aside = f"{context.run}-{context.attempt}"
    paths = [Path(path) for path in keep]
    return Kept(context.beside(KEPT), paths, every=every, aside=aside, warn=context.warn)


@contextlib.contextmanager
def _held(leave: Leave | None) -> Iterator[None]:
    """Within it the body looks by itself whether it is told to go."""
    if leave is not None:
        leave.hold()
    try:
        yield
    finally:
        if leave is not None:
            leave.release()


def _ticket(context: Context) -> Ticket:
    return Ticket(
        os.environ["HEADWAY_HOME"],
        context.run,
        context.node,
        context.attempt,
        context.inputs,
        context.retries_left,
    )


def _environment(added: dict[str, str], desk: Desk) -> dict[str, str]:
    # Python writes to a file in blocks, and the last one of a process that is killed would be lost.
    unbuffered = {"PYTHONUNBUFFERED": "1"}
    return {**unbuffered, **os.environ, **added, VARIABLE: str(desk.folder)}

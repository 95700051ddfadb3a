"""`headway verify`: is a task that was killed and resumed the same as one that was not?"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from headway.cli import codes, output
from headway.cli.settings import Settings, takes_settings
from headway.model.errors import InputError

if TYPE_CHECKING:
    from headway.model.report import VerifyReport
    from headway.verifying import Progress

_TERMINAL, _PIPE = 0.5, 10.0
"""Seconds between two lines about how far it is."""


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("program", metavar="FILE|MODULE")
@click.argument("rest", metavar="TASK [--ARG VALUE]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--kills",
    type=click.IntRange(min=1),
    metavar="N",
    help="How often the task is killed.  [default: 3]",
)
@click.option(
    "--seed", type=int, metavar="N", help="Another choice of when it is killed.  [default: 0]"
)
@click.option("--inputs-file", metavar="FILE", help="As for `run`.")
@takes_settings()
def verify(
    program: str,
    rest: tuple[str, ...],
    settings: Settings,
    kills: int | None,
    seed: int | None,
    inputs_file: str | None,
) -> int:
    """Prove that a task which is killed and resumed makes what it would have made.

    The task runs once undisturbed, and once killed at random steps, and within them, and resumed from a
    checkpoint some steps before. After each step of its `track` loop everything tracked, the random
    generators and the data loaders are compared by their hashes, and in the end the result.

    Says "identical over N steps", or where the runs part first, in what, and why that may be; for this
    the task is run once or twice more. All of it is in a temporary home, below $TMPDIR, whatever
    --home says.

    Exit code 0 is identical, 7 is not. --kills and --seed stand before FILE, or after TASK if that has no
    input of the same name.
    """
    from headway.cli import arguments, programs
    from headway.engine.task import Task

    if programs.is_url(program):
        raise click.UsageError("verify runs a file or a module; download the program first")
    found = programs.load(program, programs.Trust(), settings)
    tasks = {name: entity for name, entity in found.items() if isinstance(entity, Task)}
    if not rest or rest[0].startswith("-"):
        raise click.UsageError(f"name a task after FILE; it has: {', '.join(tasks) or 'none'}")
    entity = programs.choose(rest[0], found, program)
    if not isinstance(entity, Task):
        raise InputError(
            f"{rest[0]} is a workflow, and verify looks at one task: {', '.join(tasks) or 'it has none'}"
        )
    own = [option for option in verify.params if isinstance(option, click.Option)]
    command = arguments.command_for(rest[0], entity, own)
    with command.make_context(f"headway verify {program} {rest[0]}", list(rest[1:])) as typed:
        late = {o.name: typed.params[o.name] for o in own if o.name in typed.params}
        settings = settings.with_options(late)
        inputs = arguments.inputs_from(typed, entity, late.get("inputs_file") or inputs_file)
    for name, before in (("kills", kills), ("seed", seed)):
        if late.get(name) is None:
            late[name] = before

    from headway import verifying
    from headway.cli.signals import Signals

    signals = Signals()
    with signals, _shown(settings) as progress, contextlib.redirect_stdout(sys.stderr):
        try:
            report = verifying.verify(
                entity,
                inputs,
                kills=3 if late["kills"] is None else late["kills"],
                seed=late["seed"] or 0,
                progress=progress,
            )
        except verifying.Stopped:
            return codes.of_status("interrupted", signals.first)
    _print(report, settings)
    return codes.SUCCESS if report.identical else codes.DIFFERENT


def _print(report: VerifyReport, settings: Settings) -> None:
    from headway.engine.parting import text_of

    if settings.as_json:
        output.write_json(report)
        return
    paint = output.Paint(settings, sys.stdout)
    first, *rest = text_of(report).split("\n")
    output.write("\n".join([paint(first, "green" if report.identical else "red"), *rest]))


@contextlib.contextmanager
def _shown(settings: Settings) -> Iterator[Progress]:
    """What goes on, on stderr: a line for each part, and how far it is."""
    from headway.verifying import Progress

    if settings.quiet:
        yield Progress()
        return
    terminal = sys.stderr.isatty()
    stream, over, lock = sys.stderr, threading.Event(), threading.Lock()

    def tell(text: str) -> None:
        with lock:
            stream.write(f"\r\x1b[K{text}\n" if terminal else f"{text}\n")
            stream.flush()

    def tick() -> None:
        while not over.wait(_TERMINAL if terminal else _PIPE):
            text = f"  {progress.boundaries} steps"
            with lock:
                stream.write(f"\r\x1b[K{text}" if terminal else f"{text}\n")
                stream.flush()

    progress = Progress(tell)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        over.set()
        thread.join()
        if terminal:
            stream.write("\r\x1b[K")

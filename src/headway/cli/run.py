"""`headway run` and `headway resume`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from headway.cli import codes, output
from headway.cli.settings import Settings, takes_settings
from headway.model.errors import HeadwayError, RunBusy

if TYPE_CHECKING:
    from headway.cli.progress import Progress
    from headway.engine.state import RunState
    from headway.model.report import RunReport

_TYPED = "headway.typed"


class _Run(click.Command):
    """Keeps what was typed, for the message that says what to type instead."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_TYPED] = tuple(args)
        return super().parse_args(ctx, args)


@click.command(
    cls=_Run,
    context_settings={"allow_interspersed_args": False},
)
@click.argument("program", metavar="FILE|MODULE|URL")
@click.argument("rest", metavar="[ENTITY [--ARG VALUE]...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--inputs-file",
    metavar="FILE",
    help="Inputs from a JSON or YAML file (- is stdin); options on the line win.",
)
@click.option("--sha256", metavar="HEX", help="Run a URL's program if it has this SHA-256.")
@click.option("--yes", is_flag=True, help="Run a URL's program without asking.")
@takes_settings(jobs=True)
@click.pass_context
def run(
    context: click.Context,
    program: str,
    rest: tuple[str, ...],
    settings: Settings,
    inputs_file: str | None,
    sha256: str | None,
    yes: bool,
) -> int:
    """Run a task or workflow of a program.

    Its inputs become options: `headway run train.py pipeline --epochs 10`. Without ENTITY, lists what
    the program defines; `headway run FILE ENTITY --help` shows the options of one.

    The result goes to stdout, progress and what tasks print to stderr. Options of `run` itself
    stand before FILE, or after ENTITY if that has no input of the same name.
    """
    from headway.cli import programs

    options: dict[str, Any] = {"inputs_file": inputs_file, "sha256": sha256, "yes": yes}
    if rest and rest[0].startswith("-"):
        typed = _typed_between(context, rest)
        rest = typed.pop("rest")
        options |= {name: value for name, value in typed.items() if value and name in options}
        settings = settings.with_options(typed)
    trust = programs.Trust(options["sha256"], options["yes"], context.meta[_TYPED])
    found = programs.load(program, trust, settings)
    if not rest:
        from headway.cli.listing import show_entities

        show_entities(program, found, settings)
        return codes.SUCCESS

    from headway.cli import arguments

    entity = programs.choose(rest[0], found, program)
    own = [option for option in _own_options() if option.name not in {"sha256", "yes"}]
    command = arguments.command_for(rest[0], entity, own)
    # No parent: click would put the names of its arguments into the usage line, in place of ours.
    with command.make_context(f"headway run {program} {rest[0]}", list(rest[1:])) as typed_context:
        late = {o.name: typed_context.params[o.name] for o in own if o.name in typed_context.params}
        before, settings = settings.home, settings.with_options(late)
        if settings.home != before and programs.is_url(program):
            raise click.UsageError(
                "--home stands before the URL, which is kept there", typed_context
            )
        file = late.get("inputs_file") or options["inputs_file"]
        inputs = arguments.inputs_from(typed_context, entity, file)

    from headway import runtime

    home = runtime.open_home(settings.home)
    return drive(
        lambda progress: runtime.run(
            home, entity, inputs, jobs=settings.jobs, observer=progress, say=progress.say
        ),
        settings,
    )


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option(
    "--take-over",
    is_flag=True,
    help="Do not wait to see whether a driver on another machine lives.",
)
@takes_settings(jobs=True)
def resume(settings: Settings, run_id: str | None, take_over: bool) -> int:
    """Go on with a run that was interrupted, failed or was cancelled.

    Nodes that succeeded are not run again; the others start from their newest checkpoints, with
    fresh budgets. RUN is a run's id, a part of one that no other run has, or `last`; without it, the
    newest run that is unfinished.

    With a home in a bucket, a run whose driver was killed on another machine is watched for 30 seconds
    first. --take-over goes on at once; a driver that lives after all is shut out, and stops.
    """
    from headway import runtime

    home = runtime.open_home(settings.home, create=False)
    chosen = None if run_id is None else runtime.find(home, None if run_id == "last" else run_id)
    return drive(
        lambda progress: runtime.resume(
            home,
            chosen,
            jobs=settings.jobs,
            observer=progress,
            say=progress.say,
            take_over=take_over,
        ),
        settings,
    )


def _own_options() -> list[click.Option]:
    return [option for option in run.params if isinstance(option, click.Option)]


def _typed_between(context: click.Context, rest: tuple[str, ...]) -> dict[str, Any]:
    """Read the options of `run` that stand between FILE and ENTITY; what follows is in `rest`."""

    def show_help(_context: click.Context, _option: click.Parameter, wanted: bool) -> None:
        if wanted:
            output.write(context.get_help())
            context.exit()

    help_option = click.Option(
        ["--help", "-h"], is_flag=True, is_eager=True, expose_value=False, callback=show_help
    )
    command = click.Command(
        "run",
        params=[
            *_own_options(),
            help_option,
            click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED),
        ],
        add_help_option=False,
        context_settings={"allow_interspersed_args": False},
    )
    return command.make_context("headway run", list(rest)).params


def drive(start: Callable[[Progress], RunReport], settings: Settings) -> int:
    """Run or resume with progress shown, print the result, and give the exit code."""
    from headway.cli.endings import ending
    from headway.cli.progress import progress_for
    from headway.cli.signals import Signals

    signals = Signals()
    progress = progress_for(settings, lambda: signals.first is not None)
    try:
        # What the program prints in this process (a workflow's body) is not the result either.
        with signals, contextlib.redirect_stdout(sys.stderr):
            try:
                report = start(progress)
            finally:
                progress.close()
    except (HeadwayError, KeyboardInterrupt) as error:
        if progress.run_id is not None and not isinstance(error, RunBusy):
            command = f"headway resume {progress.run_id}{settings.home_arguments}"
            output.write(f"go on with: {command}", sys.stderr)
        raise
    if report.status != "succeeded":
        paint = output.Paint(settings, sys.stderr)
        output.write(
            "\n".join(ending(report, progress.state, settings, paint, signals.first)), sys.stderr
        )
    if settings.as_json:
        output.write_json(report)
    elif report.status == "succeeded":
        text = output.as_text(report.result)
        if text is not None:
            output.write(text)
    return codes.of_status(report.status, signals.first, _command_code(progress.state))


def _command_code(state: RunState | None) -> int | None:
    """How the command ended that the run is about; None when it is about none, or that did not fail."""
    if state is None or len(state.nodes) != 1:
        return None
    (node,) = state.nodes.values()
    return None if node.last is None else node.last.code

"""The entry: `headway COMMAND …`, with one way out for every error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from headway import __version__
from headway.cli import codes, output
from headway.cli.changes import cancel, delete
from headway.cli.checkpoints import checkpoints
from headway.cli.copy import copy
from headway.cli.execute import execute
from headway.cli.gc import gc
from headway.cli.run import resume, run
from headway.cli.settings import Settings, takes_settings
from headway.cli.verify import verify
from headway.cli.views import logs, runs, show


class _ReaderGone(Exception):
    """stdout was closed by its reader. click would make exit code 1 of a `BrokenPipeError`."""


class _Commands(click.Group):
    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            output.write(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)  # in the order in which one needs them


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="Exit codes: 0 success, 1 run failed, 2 usage, 3 program, 4 storage, 5 busy, "
    "6 cancelled, 7 verify found a difference, 130 Ctrl-C.",
)
@click.version_option(__version__, message="headway %(version)s")
@takes_settings()
def cli(settings: Settings) -> None:  # its options are defaults for the commands
    """Run Python tasks that survive being killed.

    \b
    headway run train.py pipeline --epochs 10
    headway exec --retries 5 -- python train.py
    headway resume
    """


_COMMANDS = (
    run, execute, resume, runs, show, logs, checkpoints, cancel, delete, gc, copy, verify,
)  # fmt: skip
for _command in _COMMANDS:
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; None takes `sys.argv`.

    Returns:
        The exit code (`headway.cli.codes`).
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = cli.main(arguments, prog_name="headway", standalone_mode=False)
        sys.stdout.flush()
    except (_ReaderGone, BrokenPipeError):
        _silence()
        return codes.BROKEN_PIPE
    except SystemExit as error:  # from shell completion
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001  # the one place that turns errors into codes
        return _fail(error, as_json="--json" in arguments)
    return code if isinstance(code, int) else codes.SUCCESS


def _fail(error: BaseException, *, as_json: bool) -> int:
    if isinstance(error, click.Abort):
        code = codes.INTERRUPTED
    elif isinstance(error, click.ClickException):
        code = codes.USAGE
    else:
        code = codes.of_error(error)
    try:
        output.write_error(error, code, as_json=as_json)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            output.write(f"options: {error.ctx.command_path} --help", sys.stderr)
    except BrokenPipeError:
        _silence()
    return code


def _silence() -> None:
    """Point stdout nowhere, so that the interpreter's last flush does not complain."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:
        pass  # no descriptor behind it: nothing will complain

"""`headway cancel` and `headway delete`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

import click

from headway.cli import codes, output
from headway.cli.settings import Settings, takes_settings
from headway.cli.views import find
from headway.model.errors import InputError


@click.command()
@click.argument("run_id", metavar="RUN")
@takes_settings()
def cancel(settings: Settings, run_id: str) -> int:
    """Stop a run for good (`headway resume` can still go on with it).

    RUN is a run's id, a part of one that no other run has, or `last`.
    """
    from headway import runtime

    home, chosen = find(settings, run_id)
    runtime.cancel(home, chosen, say=_say(settings))
    if settings.as_json:
        output.write_json({"run": chosen, "cancelled": True})
    elif not settings.quiet:
        output.write(f"run {chosen}: cancel requested", sys.stderr)
    return codes.SUCCESS


@click.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@takes_settings()
def delete(settings: Settings, run_ids: tuple[str, ...], yes: bool) -> int:
    """Delete runs with their checkpoints, values and logs.

    RUN is a run's id, a part of one that no other run has, or `last`.
    """
    from headway import runtime

    found = [find(settings, run_id) for run_id in run_ids]
    chosen = list(dict.fromkeys(run_id for _, run_id in found))
    if not yes:
        if not sys.stdin.isatty():
            command = f"headway delete --yes{settings.home_arguments} {shlex.join(chosen)}"
            raise InputError(f"nobody is there to be asked; to delete without asking: {command}")
        listed = ", ".join(chosen)
        if not click.confirm(f"Delete {listed} with all checkpoints and logs?", err=True):
            raise InputError("nothing was deleted")
    home = found[0][0]
    for run_id in chosen:
        runtime.delete(home, run_id, say=_say(settings))
        if not settings.as_json and not settings.quiet:
            output.write(f"deleted {run_id}", sys.stderr)
    if settings.as_json:
        output.write_json({"deleted": chosen})
    return codes.SUCCESS


def _say(settings: Settings) -> Callable[[str], None]:
    return lambda text: None if settings.quiet else output.write(text, sys.stderr)

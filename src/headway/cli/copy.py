"""`headway copy`: a run into another home."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from headway.cli import codes, output
from headway.cli.settings import Settings, takes_settings
from headway.cli.tables import plural, size

if TYPE_CHECKING:
    from headway.engine.transfer import RunPlace
    from headway.model.report import CopyReport


@click.command()
@click.argument("source", metavar="[HOME/]RUN")
@click.argument("target", metavar="HOME[/RUN]")
@takes_settings()
def copy(settings: Settings, source: str, target: str) -> int:
    """Copy a run into another home, with its checkpoints, values and logs.

    `headway copy 1tq4zk-8f3d s3://bucket/headway` copies a run of --home; `headway resume` goes on with it
    there. Homes are directories or buckets, in both places; the target is made when it is not there. Every
    byte is verified on the way. The run shows up there when all of it is; a copy that was
    interrupted goes on when the command is given again. Nobody may drive the run meanwhile.
    """
    from_ = _source(settings, source)
    to = _target(target, from_.run)
    report = _copied(from_, to, settings)
    if settings.as_json:
        output.write_json(report)
        return codes.SUCCESS
    for note in report.notes:
        output.write(f"note: {note}", sys.stderr)
    if not settings.quiet:
        what = f"{plural(report.checkpoints, 'checkpoint')}, {size(report.size)}"
        output.write(f"copied with {what}", sys.stderr)
        output.write(f"go on with: headway resume {report.run} --home {report.home}", sys.stderr)
    output.write(str(to))
    return codes.SUCCESS


def _source(settings: Settings, text: str) -> RunPlace:
    from headway import runtime
    from headway.engine.transfer import RunPlace

    url, _, run = text.rstrip("/").rpartition("/")
    if url and settings.home:
        raise click.UsageError(f"{text} names its home, so --home says too much")
    home = runtime.open_home(url or settings.home, create=False)
    return RunPlace(home, runtime.find(home, None if run == "last" else run))


def _target(text: str, run: str) -> RunPlace:
    """The place that is named: its last part is the run's new id, if it can be one."""
    from headway import runtime
    from headway.engine.transfer import RunPlace
    from headway.model.ids import is_run_id

    url, _, last = text.rstrip("/").rpartition("/")
    if url and is_run_id(last):
        return RunPlace(runtime.open_home(url), last)
    return RunPlace(runtime.open_home(text), run)


def _copied(from_: RunPlace, to: RunPlace, settings: Settings) -> CopyReport:
    """Copy, with a bar on a terminal."""
    from headway.engine.transfer import copy_run, size_of

    if settings.quiet or settings.as_json or not sys.stderr.isatty():
        return copy_run(from_, to)
    from headway.cli.bars import bar

    with bar("copying", size_of(from_)) as advance:
        return copy_run(from_, to, advance)

"""`headway gc`: give back the space of what nobody needs any more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from headway.cli import codes, output
from headway.cli.settings import Settings, takes_settings
from headway.cli.tables import plural, size

if TYPE_CHECKING:
    from headway.model.report import GarbageReport


@click.command()
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would go.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also give up all but the newest N checkpoints of each node.",
)
@click.option(
    "--lineage",
    metavar="NAME",
    help="A lineage of open_checkpoint, or HOME/NAME; who has it open is fenced.",
)
@takes_settings()
def gc(
    settings: Settings,
    run_ids: tuple[str, ...],
    dry_run: bool,
    keep: int | None,
    lineage: str | None,
) -> int:
    """Delete what no checkpoint needs, in runs that nobody drives.

    That is what killed attempts left behind; saves give back the rest by themselves. RUN is a run's id, a
    part of one that no other run has, or `last`; without it, all runs of the home are looked through.
    """
    if lineage is not None and run_ids:
        raise click.UsageError("--lineage is of no run: name one or the other")
    reports = _collected(settings, run_ids, dry_run, keep, lineage)
    freed = sum(report.size for report in reports)
    if settings.as_json:
        output.write_json({"dry_run": dry_run, "size": freed, "found": reports})
        return codes.SUCCESS
    if not settings.quiet:
        for report in reports:
            output.write(_line(report), sys.stderr)
    output.write(f"{size(freed)} {'can be given back' if dry_run else 'given back'}")
    return codes.SUCCESS


def _collected(
    settings: Settings,
    run_ids: tuple[str, ...],
    dry_run: bool,
    keep: int | None,
    lineage: str | None,
) -> list[GarbageReport]:
    from headway import runtime
    from headway.cli.checkpoints import home_of_lineage
    from headway.engine import archive, upkeep

    if lineage is not None:
        home, name = home_of_lineage(settings, lineage)
        return [upkeep.gc_lineage(home, name, keep=keep, dry_run=dry_run)]
    home = runtime.open_home(settings.home, create=False)
    if run_ids:
        chosen = [runtime.find(home, None if run == "last" else run) for run in run_ids]
    else:
        chosen = archive.run_ids(home.storage)
    reports = [
        report
        for run in dict.fromkeys(chosen)
        for report in upkeep.gc_run(home, run, keep=keep, dry_run=dry_run)
    ]
    return reports if run_ids else [*reports, *upkeep.gc_deleted(home, dry_run=dry_run)]


def _line(report: GarbageReport) -> str:
    if report.skipped:
        return f"{report.where}: passed over: {report.skipped}"
    what = plural(report.packs, "pack") if report.packs else ""
    if report.checkpoints:
        what = f"{plural(report.checkpoints, 'checkpoint')}, {what or 'no pack'}"
    return f"{report.where}: {what or 'what was being written or deleted'}, {size(report.size)}"

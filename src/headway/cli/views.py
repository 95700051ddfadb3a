"""`headway runs`, `headway show` and `headway logs`: they read, and change nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from headway.cli import codes, output
from headway.cli.settings import Settings, takes_settings
from headway.cli.tables import columns, duration, plural, size

if TYPE_CHECKING:
    from headway.model.report import AttemptReport, NodeReport, RunReport, RunSummary

FOLLOW_EVERY = 0.2
"""Seconds between two looks at a log that is followed."""
_FOLLOW_STORE_EVERY = 5.0
"""The same in a store, where a look is some requests."""


@click.command()
@click.option("--limit", "-n", type=click.IntRange(min=1), metavar="N", help="The newest N only.")
@takes_settings()
def runs(settings: Settings, limit: int | None) -> int:
    """List the runs in the home, newest first."""
    from headway import runtime

    home = runtime.open_home(settings.home, create=False)
    found = runtime.runs(home, limit)
    found = sorted(found, key=lambda r: (r.started, r.run), reverse=True)[:limit]
    if settings.as_json:
        output.write_json(found)
        return codes.SUCCESS
    if not found:
        if not settings.quiet:
            output.write(f"no runs in {home.url}", sys.stderr)
        return codes.SUCCESS
    paint = output.Paint(settings, sys.stdout)
    now = time.time()
    rows: list[tuple[str, ...]] = [
        ("RUN", "STATUS", "STARTED", "TOOK", "NODES", "ATTEMPTS", "ENTITY")
    ]
    rows += [_summary(summary, now) for summary in found]

    def colored(column: int, cell: str) -> str:
        if column == 1:
            return paint.status(cell.rstrip()) + " " * (len(cell) - len(cell.rstrip()))
        return cell

    output.write("\n".join(columns(rows, paint=colored, right=frozenset({4, 5}))))
    return codes.SUCCESS


def _summary(summary: RunSummary, now: float) -> tuple[str, ...]:
    if not summary.started:  # its journal cannot be read
        return (summary.run, summary.status, "", "", "", "", summary.error)
    took = "" if summary.ended is None else duration(summary.ended - summary.started)
    if summary.status == "running":
        took = duration(now - summary.started)
    return (
        summary.run,
        summary.status,
        f"{duration(now - summary.started)} ago",
        took,
        f"{summary.finished}/{summary.nodes}",
        str(summary.attempts),
        summary.entity,
    )


def find(settings: Settings, text: str | None) -> tuple[Any, str]:
    """The home, and the id of the run that `text` (or `last`, or nothing: the newest) means."""
    from headway import runtime

    home = runtime.open_home(settings.home, create=False)
    return home, runtime.find(home, None if text in {None, "last"} else text)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@takes_settings()
def show(settings: Settings, run_id: str | None) -> int:
    """Show a run: nodes, attempts, outcomes, checkpoints, work saved and lost.

    RUN is a run's id, a part of one that no other run has, or `last`, the default.
    """
    from headway import runtime

    home, chosen = find(settings, run_id)
    report = runtime.show(home, chosen)
    if settings.as_json:
        output.write_json(report)
    else:
        paint = output.Paint(settings, sys.stdout)
        output.write("\n".join(_report(report, settings, paint)))
    return codes.SUCCESS


def _report(report: RunReport, settings: Settings, paint: output.Paint) -> Iterator[str]:
    now = time.time()
    took = duration((report.ended or now) - report.started)
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.started))
    status = paint.status(report.status)
    yield f"run {paint(report.run, bold=True)}  {report.entity}  {status}"
    yield f"started {begun}, {'took' if report.ended else 'so far'} {took}"
    if report.error:
        yield f"error: {report.error}"
    for note in report.notes:
        yield f"note: {note}"
    for node in report.nodes:
        yield ""
        yield from _node(node, now, paint)
    text = output.as_text(report.result)
    if text is not None:
        yield ""
        yield f"result: {text}"
    if report.status in {"failed", "interrupted", "cancelled"}:
        yield ""
        resume = f"headway resume {report.run}{settings.home_arguments}"
        yield f"go on with: {paint(resume, bold=True)}"


def _node(node: NodeReport, now: float, paint: output.Paint) -> Iterator[str]:
    line = f"{paint(node.name, bold=True)}  {paint.status(node.status)}"
    if len(node.attempts) > 1:
        line += f", {plural(len(node.attempts), 'attempt')}"
    if node.saved or node.lost:
        line += f", work saved {duration(node.saved)}, lost {duration(node.lost)}"
    yield line
    numbers = [saved.number for attempt in node.attempts for saved in attempt.checkpoints]
    # Newer ones stay, so what an early attempt saved may have been given up since.
    nothing = "no checkpoint left" if numbers and min(numbers) > 1 else "no checkpoint"
    for attempt in node.attempts:
        yield f"  {_attempt(attempt, now, paint, nothing)}"
        for text in attempt.error.splitlines()[:1]:
            yield f"    {text}"
        for warning in attempt.warnings:
            yield f"    {paint('warning', 'yellow')}: {warning}"
    if node.attempts and node.status != "succeeded":
        from headway.cli.endings import log_of

        yield f"  log: {log_of(node.attempts[-1])}"


def _attempt(attempt: AttemptReport, now: float, paint: output.Paint, nothing: str) -> str:
    ended = attempt.ended if attempt.ended is not None else now
    took = duration(ended - attempt.started)
    line = f"attempt {attempt.number}  {paint.status(attempt.outcome)} after {took}"
    saved = attempt.checkpoints
    if not saved:
        return f"{line}, {nothing}"
    last = saved[-1]
    numbers = (
        f"checkpoint {last.number}"
        if len(saved) == 1
        else (f"checkpoints {saved[0].number}–{last.number}")
    )
    age = duration(ended - last.time)
    line += f", {numbers} (last {size(last.size)}, {age} before {'the end' if attempt.ended else 'now'})"
    bad = [str(checkpoint.number) for checkpoint in saved if not checkpoint.valid]
    return f"{line}, {paint('damaged', 'yellow')}: {', '.join(bad)}" if bad else line


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.argument("node", metavar="[NODE]", required=False)
@click.option("--attempt", type=click.IntRange(min=0), metavar="N", help="This attempt only.")
@click.option(
    "--follow", "-f", is_flag=True, help="Go on with what is written, until the run ends."
)
@takes_settings()
def logs(
    settings: Settings, run_id: str | None, node: str | None, attempt: int | None, follow: bool
) -> int:
    """Print what a run's tasks printed.

    RUN is a run's id, a part of one that no other run has, or `last`, the default. With --json, one
    object per line of a log: `node`, `attempt`, `line`.
    """
    from headway import runtime
    from headway.cli.logs import Printer

    home, chosen = find(settings, run_id)
    printer = Printer(settings)
    while True:
        # The status is read first: a run that was over before the look has nothing left to say.
        over = not follow or runtime.show(home, chosen).status != "running"
        for log in runtime.logs(home, chosen, node, attempt):
            printer.print(log)
        if over:
            printer.close()
            return codes.SUCCESS
        time.sleep(FOLLOW_EVERY if home.place.is_home else _FOLLOW_STORE_EVERY)

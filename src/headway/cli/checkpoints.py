"""`headway checkpoints`: which there are, what they take, and whether they are whole."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from headway.cli import codes, output
from headway.cli.settings import Settings, takes_settings
from headway.cli.tables import columns, duration, plural, size

if TYPE_CHECKING:
    from headway.checkpoint.audit import Audit
    from headway.model.report import CheckpointRow

VERIFY = "verify"


@click.command()
@click.argument("words", metavar="[verify] [RUN]", nargs=-1)
@click.option("--node", metavar="NODE", help="The checkpoints of this node only.")
@click.option(
    "--lineage",
    metavar="NAME",
    help="Those of open_checkpoint: a lineage of the home, or HOME/NAME as it was opened.",
)
@click.option("--all", "everything", is_flag=True, help="Also those that were given up.")
@takes_settings()
def checkpoints(
    settings: Settings,
    words: tuple[str, ...],
    node: str | None,
    lineage: str | None,
    everything: bool,
) -> int:
    """List the checkpoints of a run; with `verify`, read every byte of them.

    RUN is a run's id, a part of one that no other run has, or `last`, the default. NEW is what a save had
    to write; the rest of SIZE it shares with older ones. KIND is what was saved, and behind a `+` the
    working directories beside it.

    `verify` re-reads and checks all checkpoints that are there, changes nothing, and ends with code 4 when
    one is bad.
    """
    verify, words = words[:1] == (VERIFY,), words[1:] if words[:1] == (VERIFY,) else words
    if len(words) > 1:
        raise click.UsageError(f"one run at a time; got {' '.join(words)}")
    if lineage is not None and (words or node):
        raise click.UsageError("--lineage is of no run: it goes with neither RUN nor --node")
    audits = _found(settings, words[0] if words else None, node, lineage)
    damage = [text for audit in audits for text in audit.damage]
    if verify:
        rows = _verified(audits, settings)
    else:
        rows = [row for audit in audits for row in audit.rows()]
        if not everything:
            rows = [row for row in rows if row.state != "dropped"]
    if settings.as_json:
        output.write_json(rows)
    else:
        _print(rows, settings, verify=verify)
    for text in damage:
        output.write(f"damaged: {text}", sys.stderr)
    bad = [row for row in rows if row.state == "bad"]
    for row in bad:
        output.write(f"bad: {row.node}: {row.error}", sys.stderr)
    return codes.STORAGE if bad or damage else codes.SUCCESS


def _found(
    settings: Settings, run: str | None, node: str | None, lineage: str | None
) -> list[Audit]:
    from headway import runtime
    from headway.engine import upkeep

    if lineage is not None:
        home, name = home_of_lineage(settings, lineage)
        return [upkeep.lineage_audit(home, name)]
    home = runtime.open_home(settings.home, create=False)
    chosen = runtime.find(home, None if run in {None, "last"} else run)
    return upkeep.audits(home, chosen, node)


def home_of_lineage(settings: Settings, lineage: str) -> tuple[Any, str]:
    """The home, and the name in it, that `--lineage` means."""
    from headway import runtime

    url, _, name = lineage.rstrip("/").rpartition("/")
    if url and settings.home:
        raise click.UsageError(f"--lineage {lineage} names its home, so --home says too much")
    return runtime.open_home(url or settings.home, create=False), name


def _verified(audits: list[Audit], settings: Settings) -> list[CheckpointRow]:
    """Verify with a bar on a terminal."""
    if settings.quiet or settings.as_json or not sys.stderr.isatty():
        return [row for audit in audits for row in audit.verify()]
    from headway.cli.bars import bar

    with bar("verifying", sum(audit.size for audit in audits)) as advance:
        return [row for audit in audits for row in audit.verify(advance)]


def _print(rows: list[CheckpointRow], settings: Settings, *, verify: bool) -> None:
    if not rows:
        if not settings.quiet:
            output.write("no checkpoints", sys.stderr)
        return
    paint = output.Paint(settings, sys.stdout)
    now = time.time()
    heads = ("NODE", "NUMBER", "ATTEMPT", "KIND", "SIZE", "NEW", "AGE", "METRIC", "STATE")
    table: list[tuple[str, ...]] = [heads, *(_row(row, now) for row in rows)]

    def colored(column: int, cell: str) -> str:
        text = cell.rstrip()
        color = {"bad": "red", "dropped": "dim"}.get(text) if column == len(heads) - 1 else None
        return paint(text, color) + cell[len(text) :]

    output.write("\n".join(columns(table, paint=colored, right=frozenset({1, 2, 4, 5}))))
    bad = sum(row.state == "bad" for row in rows)
    if verify and not settings.quiet:
        good = plural(len(rows) - bad, "checkpoint")
        output.write(f"{good} whole" + (f", {bad} bad" if bad else ""), sys.stderr)


def _row(row: CheckpointRow, now: float) -> tuple[str, ...]:
    metric = "" if row.metric is None else f"{row.metric[0]} {row.metric[1]:.6g}"
    return (
        row.node,
        str(row.number),
        str(row.attempt),
        " + ".join([row.kind, *(f"{name}/" for name in row.directories)]),
        size(row.size),
        size(row.written),
        duration(now - row.time),
        metric,
        row.state,
    )

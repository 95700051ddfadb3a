"""The figures for people: a table in the terminal, and `RESULTS.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figure import MET, MISSED, NO_TARGET, UNKNOWN, Figure, Row, shown
from benchmarks.tried import TRIED

_HEAD = "Written by `python -m benchmarks`; do not edit. How the rows are measured: [README.md](README.md)."
_READING = (
    "Each figure is the median of its rounds; a ratio is taken within each round, so that what "
    "disturbs the machine disturbs both sides. All targets are upper limits."
)
HEADER = ("figure", "min", "median", "max", "rounds", "target", "")


@dataclass(frozen=True)
class Report:
    """A whole measurement.

    Attributes:
        command: what was typed.
        date: the day, ISO.
        quick: too little was done for the figures to mean anything.
        machine: what was measured on, in words.
        versions: of headway and of the peers, or why one is not there.
        rows: what was measured.
        seconds: how long it took.
    """

    command: str
    date: str
    quick: bool
    machine: dict[str, str]
    versions: dict[str, str]
    rows: tuple[Row, ...] = field(default=())
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "command": self.command,
            "date": self.date,
            "quick": self.quick,
            "seconds": self.seconds,
            "machine": self.machine,
            "versions": self.versions,
            "rows": [row.plain() for row in self.rows],
        }


def to_terminal(report: Report) -> None:
    """Print all rows as tables."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has no width; 80 would break the names
    colors = {MET: "green", MISSED: "red", UNKNOWN: "yellow", NO_TARGET: ""}
    for row in report.rows:
        table = Table(title=f"{row.key}  {row.title}", title_justify="left", box=box.SIMPLE_HEAD)
        for column in HEADER:
            table.add_column(column, justify="left" if column in {"figure", ""} else "right")
        for figure in row.figures:
            *cells, verdict = _cells(figure)
            color = colors[figure.verdict]
            table.add_row(*map(escape, cells), f"[{color}]{verdict}[/]" if color else verdict)
        console.print(table)
        for text in [*_notes(row), *([f"not measured: {row.error}"] if row.error else [])]:
            console.print(f"  {text}", style="dim", highlight=False, markup=False)
        console.print()
    if report.quick:
        console.print("--quick: the figures only show that everything runs.", style="yellow")


def to_markdown(report: Report) -> str:
    """The whole of `RESULTS.md`."""
    lines = [
        "# Results",
        "",
        _HEAD,
        "",
        "```console",
        f"$ {report.command}",
        "```",
        "",
        f"{report.date}, in {report.seconds / 60:.1f} minutes. {_counted(report.rows)}",
        "",
        "| | |",
        "| --- | --- |",
    ]
    if report.quick:
        lines[2:2] = ["**`--quick`: these figures only show that everything runs.**", ""]
    lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in report.machine.items()]
    lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in report.versions.items()]
    lines += [
        "",
        _READING,
    ]
    for row in report.rows:
        lines += ["", f"## {row.key}: {row.title}", "", row.about, ""]
        if row.error:
            lines += [f"Not measured: {_cell(row.error)}"]
            continue
        lines += [
            "| figure | min | median | max | rounds | target | |",
            "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for figure in row.figures:
            lines.append("| " + " | ".join(map(_cell, _cells(figure))) + " |")
        notes = _notes(row)
        lines += [""] * bool(notes) + [f"- {note}" for note in notes]
    return "\n".join(lines) + "\n"


def _cells(figure: Figure) -> tuple[str, ...]:
    target = "" if figure.target is None else f"≤ {shown(figure.target, figure.unit)}"
    if not figure.values:
        return figure.name, "–", "–", "–", "0", target, figure.verdict
    spread = (shown(value, figure.unit) for value in (figure.low, figure.median, figure.high))
    return figure.name, *spread, str(len(figure.values)), target, figure.verdict


def _notes(row: Row) -> list[str]:
    notes = [f"{figure.name}: {figure.note}" for figure in row.figures if figure.note]
    if row.key in TRIED and any(figure.verdict in {MISSED, UNKNOWN} for figure in row.figures):
        notes.append(f"tried: {TRIED[row.key]}")
    return notes


def _counted(rows: Sequence[Row]) -> str:
    held = [
        (row.key, figure) for row in rows for figure in row.figures if figure.target is not None
    ]
    verdicts = [figure.verdict for _, figure in held]
    text = f"{verdicts.count(MET)} of {len(verdicts)} targets met"
    missed = [f"{key} {figure.name}" for key, figure in held if figure.verdict == MISSED]
    if missed:
        text += "; missed: " + ", ".join(missed)
    unknown = verdicts.count(UNKNOWN)
    return text + (f"; {unknown} not measured." if unknown else ".")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())

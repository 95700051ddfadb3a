"""Durations, ages, sizes and columns, as people read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """Seconds as `0.34s`, `12s`, `3m 20s`, `5h 07m` or `2d 03h`: two units at most."""
    if seconds < 0:
        return "0s"  # two machines' clocks disagree
    if seconds < 9.95:
        return f"{seconds:.2g}s" if seconds >= 0.1 else f"{seconds:.2f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def clock(seconds: float) -> str:
    """Seconds as a running clock: `0:42`, `1:02:03`."""
    whole = max(0, int(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def size(count: int) -> str:
    """Bytes as `17 B`, `1.5 KiB`, `300 MiB`."""
    if count < 1024:
        return f"{count} B"
    value, place = count / 1024, 0
    while value >= 1023.5 and place < len(_UNITS) - 1:
        value, place = value / 1024, place + 1
    unit = _UNITS[place]
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def plural(count: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first few of `names`, and how many more there are."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def columns(
    rows: Sequence[Sequence[str]],
    *,
    paint: Callable[[int, str], str] = lambda _, text: text,
    right: frozenset[int] = frozenset(),
) -> list[str]:
    """Rows as aligned lines, two blanks between the columns, the last one left ragged.

    Args:
        rows: cells without colour; all rows of one length, the heading among them.
        paint: gets the column and the padded cell, and may colour it.
        right: columns that are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            paint(i, cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]))
            for i, cell in enumerate(row[:-1])
        ]
        lines.append("  ".join([*cells, paint(len(row) - 1, row[-1])]).rstrip())
    return lines

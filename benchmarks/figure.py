"""What a benchmark hands back: figures of several rounds, and what became of their targets."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

MET, MISSED, UNKNOWN, NO_TARGET = "met", "missed", "not measured", ""


@dataclass(frozen=True)
class Figure:
    """One quantity, measured once a round.

    Attributes:
        name: what was measured.
        unit: of `values`: µs, ms, s, ×, bytes …
        values: one a round, in the order of the rounds; () when it could not be measured.
        target: the median may be this much at most; None when there is nothing to hold it to.
        note: what a reader must know besides, or why there are no values.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None
    note: str = ""

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def median(self) -> float:
        """The value that counts."""
        return statistics.median(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.target is None:
            return NO_TARGET
        if not self.values:
            return UNKNOWN
        return MET if self.median <= self.target else MISSED

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        spread = {"min": self.low, "median": self.median, "max": self.high} if self.values else {}
        return {
            "name": self.name,
            "unit": self.unit,
            "values": list(self.values),
            **spread,
            "target": self.target,
            "verdict": self.verdict,
            "note": self.note,
        }


@dataclass(frozen=True)
class Row:
    """The figures of one row of the targets.

    Attributes:
        key: the row, such as "S7".
        title: what the row is about.
        about: how it was measured, a short paragraph.
        figures: in the order in which they are shown.
        error: why the row could not be measured; "" when it was.
    """

    key: str
    title: str
    about: str
    figures: tuple[Figure, ...] = field(default=())
    error: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "row": self.key,
            "title": self.title,
            "about": self.about,
            "figures": [figure.plain() for figure in self.figures],
            "error": self.error,
        }


def scaled(
    name: str,
    unit: str,
    seconds: Iterable[float],
    *,
    target: float | None = None,
    note: str = "",
) -> Figure:
    """A figure of times.

    Args:
        name: what was measured.
        unit: ns, µs, ms or s.
        seconds: one a round.
        target: at most this much, in `unit`.
        note: see `Figure`.
    """
    factor = {"ns": 1e9, "µs": 1e6, "ms": 1e3, "s": 1.0}[unit]
    return Figure(name, unit, tuple(each * factor for each in seconds), target, note)


def ratio(
    name: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    target: float | None = None,
    note: str = "",
) -> Figure:
    """How many times theirs ours is, round by round: what both suffered in a round cancels out.

    Rounds that only one of them took part in are left out.
    """
    pairs = zip(ours, theirs, strict=False)
    return Figure(name, "×", tuple(a / b for a, b in pairs), target, note)


def absent(name: str, unit: str, why: str, *, target: float | None = None) -> Figure:
    """A figure that could not be measured, and why."""
    return Figure(name, unit, (), target, why)


def shown(value: float, unit: str) -> str:
    """A value for people: three digits that mean something, and its unit."""
    if unit in {"bytes", "modules", "packages"}:
        return f"{value:,.0f} {unit}"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f} {unit}"

"""From what contestants measured to the lines of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.figure import Figure, absent, ratio, scaled
from benchmarks.stage import Measured, Missing

SIZES = {"bytes": 1.0, "MiB": 2.0**20, "%": 0.01}


@dataclass(frozen=True)
class Columns:
    """What a cast measured, and who of it is missing.

    Attributes:
        measured, missing: from `Stage.play`.
    """

    measured: Measured
    missing: Missing

    def of(self, label: str, column: int = 0) -> list[float]:
        """A value a round; [] of one who is missing."""
        return [turn[column] for turn in self.measured.get(label, ())]

    def figure(
        self,
        label: str,
        unit: str,
        column: int = 0,
        *,
        name: str = "",
        target: float | None = None,
        note: str = "",
    ) -> Figure:
        """What one of them measured, in a unit of time or of size."""
        name = name or label
        if label in self.missing:
            return absent(name, unit, self.missing[label], target=target)
        values = self.of(label, column)
        if unit in SIZES:
            return Figure(name, unit, tuple(each / SIZES[unit] for each in values), target, note)
        return scaled(name, unit, values, target=target, note=note)

    def figures(self, labels: Iterable[str], unit: str, column: int = 0) -> list[Figure]:
        """What all of them measured."""
        return [self.figure(label, unit, column) for label in labels]

    def ratio(
        self,
        ours: str,
        theirs: str,
        column: int = 0,
        *,
        below: int | None = None,
        name: str = "",
        target: float | None = None,
        note: str = "",
    ) -> Figure:
        """How many times theirs ours is.

        Args:
            ours, theirs: labels.
            column: what is compared.
            below: which column of theirs, when it is another.
            name: "" makes one of the labels.
            target, note: see `Figure`.
        """
        name = name or f"{_short(ours)} ÷ {_short(theirs)}"
        for label in (ours, theirs):
            if label in self.missing:
                return absent(name, "×", self.missing[label], target=target)
        other = self.of(theirs, column if below is None else below)
        return ratio(name, self.of(ours, column), other, target=target, note=note)

    def ratios(
        self, ours: str, targets: Mapping[str, float | None], column: int = 0
    ) -> list[Figure]:
        """The same with several others, each with its target."""
        return [
            self.ratio(ours, theirs, column, target=target) for theirs, target in targets.items()
        ]


def _short(label: str) -> str:
    """`the limit: memcpy` -> `the limit`; `DCP, async_save` stays."""
    return label.partition(": ")[0]

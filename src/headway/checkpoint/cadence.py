"""How often a loop's state is saved.

`"auto"` balances what a save costs the loop against what a failure would cost: the work since the last
one. With a stall of C seconds for each save and a mean time of M seconds between failures, the best
interval is about sqrt(2 C M) (J. W. Young, "A first order approximation to the optimum checkpoint
interval", CACM 17(9), 1974; J. T. Daly, FGCS 22(3), 2006). Stalls never take more than 1 % of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from headway.model.errors import InputError
from headway.model.settings import Steps

Every = Literal["auto"] | float | Steps

BUDGET = 0.01
"""Share of the loop's time that stalls may take, with "auto"."""
LONGEST = 900.0
"""Seconds between two saves at most, with "auto": a failure nobody expected costs no more than that."""
FIRST = 0.25
"""Seconds until the first save with "auto": nothing is known of its cost before."""
_PRIOR_FAILURES, _PRIOR_SECONDS = 1.0, 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Record:
    """What was seen before: how many attempts failed in how many seconds of work."""

    failures: int = 0
    seconds: float = 0.0

    @property
    def between(self) -> float:
        """Mean seconds between failures: as seen, and a day with one failure before anything is."""
        return (_PRIOR_SECONDS + self.seconds) / (_PRIOR_FAILURES + self.failures)


class Cadence:
    """Says when a save is due.

    Args:
        every: "auto", seconds, or `Steps(n)`.
        record: for "auto".
        now: monotonic seconds.

    Raises:
        InputError: `every` is none of these.
    """

    def __init__(self, every: Any, record: Record, now: float) -> None:
        fine = every == "auto" or isinstance(every, Steps)
        if not fine and (
            isinstance(every, bool) or not isinstance(every, int | float) or not 0 <= every < 1e9
        ):
            raise InputError(
                f'track(every=…) is "auto", seconds, or Steps(n), which is every n steps; got {every!r}'
            )
        self._every = every
        self._record = record
        self._last = now
        self._steps = 0
        self._stall: float | None = None
        self._weight = 1.0  # of the newest save in it

    @property
    def interval(self) -> float:
        """Seconds from the beginning of one save to that of the next."""
        if not isinstance(self._every, str):
            return math.inf if isinstance(self._every, Steps) else float(self._every)
        if self._stall is None:
            return FIRST
        best = math.sqrt(2 * self._stall * self._record.between)
        return max(min(best, LONGEST), self._stall / BUDGET)

    def step(self) -> None:
        """One more step of the loop is done."""
        self._steps += 1

    def due(self, now: float) -> bool:
        """Whether it is time for a save."""
        if isinstance(self._every, Steps):
            return self._steps >= self._every.count
        return now - self._last >= self.interval

    def saved(self, began: float, stall: float) -> None:
        """A save was begun.

        Args:
            began: when, in monotonic seconds.
            stall: seconds that the loop had to wait for it. Of several, half of the newest counts: one that
                was slow by chance, as the first mostly is, is forgotten soon.
        """
        self._last, self._steps = began, 0
        self._weight = 1.0 if self._stall is None else 0.5
        self._stall = (1 - self._weight) * (self._stall or 0.0) + self._weight * stall

    def stalled(self, seconds: float) -> None:
        """The loop had to wait that much longer for the newest save."""
        self._stall = (self._stall or 0.0) + self._weight * seconds

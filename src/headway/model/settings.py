"""Options of tasks, as plain data that travels in the journal."""

from __future__ import annotations

from typing import Literal

import msgspec

Keep = int | Literal["all"] | None
"""How many checkpoints stay; None is the default of `checkpoint.retain`."""

Best = tuple[str, Literal["min", "max"]]
"""Name of a number at the top of a state, and which of its values is the best."""


class Steps(msgspec.Struct, frozen=True):
    """Every so many steps of a loop, for `track(every=Steps(100))`.

    Args:
        count: how many, 1 or more.
    """

    count: int

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 1:
            raise ValueError(f"Steps(n) needs a whole number, 1 or more; got {self.count!r}")


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long to wait before the next attempt.

    The k-th consecutive retry waits `min(maximum, initial * factor**k)` seconds, spread by
    ±`jitter` (a fraction of the wait).

    Args:
        initial: seconds before the first retry.
        factor: growth from one retry to the next.
        maximum: longest wait, seconds.
        jitter: fraction of the wait by which it is spread at random, 0 to 1.
    """

    initial: float = 0.0
    factor: float = 2.0
    maximum: float = 300.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if self.initial < 0 or self.maximum < 0 or self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError(
                "Backoff needs initial >= 0, maximum >= 0, factor >= 1 and 0 <= jitter <= 1, "
                f"got {self!r}"
            )


class TaskOptions(msgspec.Struct, frozen=True):
    """What `@task(...)` was given.

    Attributes:
        retries: attempts after the first that app errors, timeouts and OOM kills may cost.
        interruptible: the task may be placed on machines that go away.
        max_interruptions: interruptions allowed; None is no limit.
        timeout: seconds for one attempt; None is no limit.
        backoff: waits between attempts; None is the default of `engine.core`.
        keep: how many checkpoints stay, or "all"; None is the default of `checkpoint.retain`.
        keep_best: name of a number in the state, and "min" or "max": the best one stays too.
    """

    retries: int = 0
    interruptible: bool = False
    max_interruptions: int | None = None
    timeout: float | None = None
    backoff: Backoff | None = None
    keep: Keep = None
    keep_best: Best | None = None

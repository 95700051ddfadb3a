"""`@task`: a function whose calls survive being killed."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any, ClassVar, overload

from headway.checkpoint.retain import objection
from headway.engine.entity import Entity, P, R, refuse_unknown
from headway.engine.tracing import Trace
from headway.model.errors import DefinitionError
from headway.model.settings import Backoff, Best, Keep, TaskOptions


class Task(Entity[P, R]):
    """A task; made by `@task`. `options` is what the decorator was given."""

    kind: ClassVar[str] = "task"

    def __init__(self, function: Callable[P, R], options: TaskOptions) -> None:
        super().__init__(function)
        self.options = options

    def expand(self, trace: Trace, bound: dict[str, Any]) -> Any:
        """See `Entity.expand`."""
        return trace.call(self, bound)

    def traced(self, trace: Trace, bound: dict[str, Any]) -> Any:
        """See `Entity.traced`."""
        return trace.call(self, bound)

    def inside(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Entity.inside`."""
        return self.function(*args, **kwargs)


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *,
    retries: int = 0,
    interruptible: bool = False,
    max_interruptions: int | None = None,
    timeout: float | dt.timedelta | None = None,
    backoff: Backoff | None = None,
    keep: Keep = None,
    keep_best: Best | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    retries: int = 0,
    interruptible: bool = False,
    max_interruptions: int | None = None,
    timeout: float | dt.timedelta | None = None,
    backoff: Backoff | None = None,
    keep: Keep = None,
    keep_best: Best | None = None,
    **unknown: Any,
) -> Any:
    """Make a function a task. Use it bare, or with options.

    Args:
        function: at the top level of a module, with annotations.
        retries: attempts after the first one that errors, timeouts and OOM kills may cost.
        interruptible: the task may be placed on machines that go away.
        max_interruptions: how often the infrastructure may end it; None is no limit.
        timeout: seconds, or a timedelta, that one attempt may take; None is no limit.
        backoff: waits between attempts; None is at once, and longer and longer for interruptions that
            bring no progress.
        keep: how many of the task's newest checkpoints stay, or "all". By default the newest 3 of those
            that are too large (32 KiB) for the record itself, and every small one. With 1 there is
            nothing to fall back on when the only one is damaged.
        keep_best: name of a number at the top of the saved mapping, and "min" or "max", such as
            ("loss", "min"): the checkpoint where it is best stays beside the newest.

    Raises:
        DefinitionError: an option has a wrong value or does not exist, or the function cannot be a
            task; the message says what to write instead.
    """
    options = TaskOptions(
        retries=_count("retries", retries),
        interruptible=_flag("interruptible", interruptible),
        max_interruptions=None
        if max_interruptions is None
        else _count("max_interruptions", max_interruptions),
        timeout=None if timeout is None else _seconds(timeout),
        backoff=_backoff(backoff),
        **_kept(keep, keep_best),
    )
    refuse_unknown("task", unknown, TaskOptions.__struct_fields__)
    if function is not None:
        return Task(function, options)
    return lambda decorated: Task(decorated, options)


def _count(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise DefinitionError(f"@task({name}=…) is a whole number from 0 on, got {value!r}")
    return value


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise DefinitionError(f"@task({name}=…) is True or False, got {value!r}")
    return value


def _seconds(value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if type(seconds) not in {int, float} or not 0 < seconds < math.inf:
        raise DefinitionError(
            f"@task(timeout=…) is seconds, more than 0, or a timedelta, got {value!r}"
        )
    return float(seconds)


def _backoff(value: Any) -> Backoff | None:
    if value is not None and not isinstance(value, Backoff):
        raise DefinitionError(
            f"@task(backoff=…) is a headway.Backoff, such as Backoff(initial=5), got {value!r}"
        )
    return value


def _kept(keep: Any, keep_best: Any) -> dict[str, Any]:
    wrong = objection(keep, keep_best, "@task({})")
    if wrong:
        raise DefinitionError(wrong)
    best = None if keep_best is None else (keep_best[0], keep_best[1])
    return {"keep": keep, "keep_best": best}

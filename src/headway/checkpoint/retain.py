"""Which checkpoints are given up when a new one is made. Pure: no I/O, no clock.

- Nothing said: the newest 3 that have packs stay. What lies whole in its record costs nothing else, and is
  never given up. `keep=n`: the newest n of any kind. `keep="all"`: all.
- One that this process found bad is not counted: bad ones never push out the last good one.
- `keep_best`: the best one stays beside the newest.
- Checkpoints of other inputs can be gone on from when those inputs come back. They stay as they are until
  the inputs of now have as many checkpoints as are kept; from then on the newest one of each of the two
  inputs before stays.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway.model.errors import InputError
from headway.model.manifest import Manifest
from headway.model.settings import Best, Keep

KEPT = 3
"""How many checkpoints with packs stay when nothing was said."""
OTHERS = 2
"""Of how many inputs before one checkpoint stays."""

Metric = tuple[str, float]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is to be kept.

    Attributes:
        keep: how many of the newest; "all"; None is the default above.
        best: name of a number at the top of the state, and whether its smallest or its largest value
            stays beside the newest.
    """

    keep: Keep = None
    best: Best | None = None

    @property
    def count(self) -> int:
        """How many of the newest stay."""
        return self.keep if isinstance(self.keep, int) else KEPT

    def advice(self) -> str:
        """What somebody can do whose disk is full."""
        kept = "all" if self.keep == "all" else str(self.count)
        return (
            f"Keep fewer checkpoints (keep= is {kept} now), see what `headway gc` would give back, or "
            "delete old runs with `headway delete`."
        )

    def concerns(self, manifest: Manifest) -> bool:
        """Whether this checkpoint may ever be given up."""
        return self.keep != "all" and (self.keep is not None or bool(manifest.packs))


def objection(keep: Any, keep_best: Any, call: str = "{}") -> str:
    """What is wrong with `keep=` or `keep_best=`, for a message; "" when nothing is.

    Args:
        keep, keep_best: what a user wrote.
        call: where they wrote it: `@task({})`.
    """
    if keep is not None and keep != "all" and (type(keep) is not int or keep < 1):
        option = call.format("keep=…")
        return f'{option} is how many checkpoints stay: 1 or more, or "all"; got {keep!r}'
    if keep_best is None:
        return ""
    fine = isinstance(keep_best, tuple | list) and len(keep_best) == 2
    if not fine or not isinstance(keep_best[0], str) or keep_best[1] not in {"min", "max"}:
        option = call.format("keep_best=…")
        return (
            f"{option} is the name of a number in the state, and which of its values is the best, such "
            f'as ("loss", "min") or ("accuracy", "max"); got {keep_best!r}'
        )
    return ""


def rule_of(keep: Any = None, keep_best: Any = None) -> Rule:
    """The rule for what a user wrote.

    Raises:
        InputError: it is not a rule; the message says what to write.
    """
    wrong = objection(keep, keep_best)
    if wrong:
        raise InputError(wrong)
    return Rule(keep, None if keep_best is None else (keep_best[0], keep_best[1]))


def metric_of(rule: Rule, state: Mapping[Any, Any] | None) -> Metric | None:
    """The number in a state that `keep_best` compares, with its name; None without `keep_best`.

    Args:
        rule: what is to be kept.
        state: what is about to be saved; None when that is bytes or files.

    Raises:
        InputError: it has no such number.
    """
    if rule.best is None:
        return None
    name, mode = rule.best
    asked = f"keep_best=({name!r}, {mode!r})"
    if state is None:
        raise InputError(
            f"{asked} compares a number in the saved mapping, and this save is of bytes or files. Use "
            f"save({{{name!r}: …}}), or leave keep_best out."
        )
    if name not in state:
        there = ", ".join(repr(key) for key in list(state)[:10]) or "nothing"
        raise InputError(f"{asked} finds no {name!r} in the state to save; it has {there}")
    value = state[name]
    if callable(getattr(value, "item", None)) and getattr(value, "shape", None) == ():
        value = value.item()  # a NumPy scalar, an array or a tensor with one value
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(
            f"{asked} needs a number, and {name!r} in the state to save is a "
            f"{type(state[name]).__name__}"
        )
    return name, float(value)


def given_up(
    rule: Rule, older: Sequence[Manifest], new: Manifest, bad: Container[int]
) -> tuple[int, ...]:
    """Numbers of the checkpoints that are given up with `new`.

    Args:
        rule: what is to be kept.
        older: those there are, of all inputs, oldest first.
        new: the one that is about to be made.
        bad: numbers of those that were found bad.
    """
    found = [manifest for manifest in (*older, new) if rule.concerns(manifest)]
    own = [manifest for manifest in found if manifest.inputs == new.inputs]
    good = [manifest for manifest in own if manifest.number not in bad]
    if len(good) < rule.count:
        return ()
    oldest = good[-rule.count].number
    best = _best(rule, good)
    gone = [m.number for m in own if m.number < oldest and m.number != best]
    newest: dict[str, int] = {}
    for manifest in found:
        if manifest.inputs != new.inputs:
            newest[manifest.inputs] = manifest.number
    stay = sorted(newest.values())[-OTHERS:]
    gone += [m.number for m in found if m.inputs != new.inputs and m.number not in stay]
    return tuple(sorted(gone))


def _best(rule: Rule, good: Sequence[Manifest]) -> int | None:
    """The number of the best checkpoint; of equal ones, the newest."""
    if rule.best is None:
        return None
    name, mode = rule.best
    sign = 1 if mode == "max" else -1
    ranked = [
        (sign * manifest.metric[1], manifest.number)
        for manifest in good
        if manifest.metric is not None
        and manifest.metric[0] == name
        and math.isfinite(manifest.metric[1])
    ]
    return max(ranked)[1] if ranked else None

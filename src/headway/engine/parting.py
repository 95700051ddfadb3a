"""Two runs of one task, boundary by boundary: where they part, and what that tells. Pure.

An undisturbed run says what each boundary is to be. Whatever another run wrote about the same boundary
must be the same, each time that it came there: an attempt that went on from a checkpoint does again what
the one before it had done since.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway.engine.values import digest
from headway.engine.watching import DIRECTORY, UNTRACKED, Line
from headway.model.report import VerifyReport

_RNG = "rng."
_POSITION = "loop position"
_SHOWN = 8  # entries that are named


@dataclass(frozen=True, slots=True)
class Trail:
    """What one run left: the lines of each attempt, and its encoded outputs when it succeeded."""

    attempts: Sequence[Sequence[Line]]
    outputs: Mapping[str, Any] | None = None

    @property
    def steps(self) -> dict[str, Line]:
        """Boundary -> its line, in the order in which they were first reached."""
        found: dict[str, Line] = {}
        for lines in self.attempts:
            for line in lines:
                if line.step:
                    found.setdefault(line.step, line)
        return found


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two runs part.

    Attributes:
        step: the boundary; "" when only the outputs differ.
        entries: what differs.
        attempt: which attempt of the other run was there; 0 when none was.
        resumed: the boundary after which that attempt went on; "" is the beginning.
        missing, extra: only one of the runs came there.
    """

    step: str
    entries: list[str]
    attempt: int = 0
    resumed: str = ""
    missing: bool = False
    extra: bool = False


def numbers(steps: Mapping[str, Any]) -> dict[str, int]:
    """Boundary -> number of the step that it follows, from 1. The end of all is no step of its own."""
    found: dict[str, int] = {}
    count = 0
    for step in steps:
        count += not step.endswith(".")
        found[step] = count
    return found


def words(step: str) -> str:
    """Where a boundary is: "after item 5 within item 2"."""
    if step.endswith("."):
        return "at the end of the loop"
    *outer, inner = [tuple(map(int, frame.split(":"))) for frame in step.split("/")]
    parts = [f"after item {inner[1]}{_which(inner[0])}"]
    parts += [f"item {at + 1}{_which(ordinal)}" for ordinal, at in reversed(outer)]
    return " within ".join(parts)


def _which(ordinal: int) -> str:
    return f" of loop {ordinal + 1}" if ordinal else ""


def parting(one: Trail, other: Trail) -> Parting | None:
    """The first place where two runs part, in the order of `one`; None when they are the same.

    A random generator that the state leaves out, or that was never set to anything, is no difference by
    itself: what it does to the rest is.
    """
    steps = one.steps
    idle = _idle(steps, other.steps)
    order = {step: index for index, step in enumerate(steps)}
    found: dict[str, Parting] = {}
    names = list(steps)
    for attempt, lines in enumerate(other.attempts):
        resumed: str | None = None
        for line in lines:
            if not line.step:
                continue
            if resumed is None:
                at = order.get(line.step, 0)
                resumed = names[at - 1] if attempt and at else ""
            was = steps.get(line.step)
            if was is None:
                found.setdefault(line.step, Parting(line.step, [], attempt, resumed, extra=True))
                continue
            entries = _different(was, line)
            if any(not _aside(name, idle) for name in entries):
                found.setdefault(line.step, Parting(line.step, entries, attempt, resumed))
    for step in steps.keys() - other.steps.keys():
        found[step] = Parting(step, [], missing=True)
    if found:
        first = min(found, key=lambda step: order.get(step, len(order)))
        return found[first]
    if one.outputs is not None and other.outputs is not None:
        differ = _outputs(one.outputs, other.outputs)
        if differ:
            return Parting("", differ, max(0, len(other.attempts) - 1))
    return None


def _different(one: Line, other: Line) -> list[str]:
    if (one.hashes, one.names) == (other.hashes, other.names):
        return []
    was, then = one.entries, other.entries
    return [name for name in was | then if was.get(name) != then.get(name)]


def _outputs(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys([*one, *other])
    return [
        name
        for name in names
        if name not in one or name not in other or digest(one[name]) != digest(other[name])
    ]


def _idle(one: Mapping[str, Line], other: Mapping[str, Line]) -> set[str]:
    """Generators that differ from the first boundary on at which there are any: nobody set them."""
    same: dict[str, bool] = {}
    for step, line in one.items():
        if step in other and any(_is_new(name, same) for name in line.names or ()):
            was, then = line.entries, other[step].entries
            for name in was.keys() & then.keys():
                if _is_new(name, same):
                    same[name] = was[name] == then[name]
    return {name for name, equal in same.items() if not equal}


def _is_new(name: str, known: Mapping[str, bool]) -> bool:
    return name.startswith(_RNG) and name not in known


def _aside(name: str, idle: set[str]) -> bool:
    return name.endswith(UNTRACKED) or name in idle


def drawn(steps: Mapping[str, Line]) -> set[str]:
    """The random generators that are drawn from in the loop: they change from boundary to boundary."""
    return {
        name
        for before, after in itertools.pairwise(steps.values())
        for name in _different(before, after)
        if name.startswith(_RNG) and name in (before.names or ())
    }


def cause(found: Parting, used: set[str], *, steady: bool, ordered: bool) -> str:
    """The likely cause of a difference.

    Args:
        found: the difference.
        used: the generators that are `drawn` from.
        steady: two undisturbed runs in processes with the same order of sets are the same.
        ordered: so are two with different ones.
    """
    if not steady:
        which = (
            "a random generator that is seeded from the clock or the system (np.random.default_rng() "
            "without a number, for example)"
        )
        return (
            "Two undisturbed runs differ already, so the body is not deterministic: it goes by the time, "
            f"by the order in which threads or files come, or by {which}. Give every generator a seed, and "
            "pass in what else it needs as inputs."
        )
    if not ordered:
        return (
            "Two undisturbed runs differ when PYTHONHASHSEED does, so the body goes by the order of a set, "
            "or by hash() of a string, and both are others in each process. Sort the set, or set "
            "PYTHONHASHSEED for all runs."
        )
    if not found.step:
        return (
            "All steps are the same, so what is returned is made from something that is not tracked: a "
            "list or a number kept beside the state, which a resumed attempt begins anew. Track it."
        )
    if found.missing or found.extra:
        return (
            "The loops made other turns after a resume: what they go over, or when they break, depends on "
            "something that is not tracked."
        )
    if any(name.startswith(_POSITION) for name in found.entries):
        return (
            "The data loader came back at another place: what its state_dict() says does not bring it back "
            "to where it was."
        )
    if all(name.startswith(DIRECTORY) for name in found.entries):
        return (
            "Only files in a working directory came out different. What is written to an open file and "
            "not flushed is not in the checkpoint: flush or close it in the same step. And code before the "
            "loop runs again in each attempt: have it open files to append, not to begin them anew."
        )
    left_out = sorted(name for name in used if name.endswith(UNTRACKED))
    if left_out:
        return (
            "Random numbers are drawn in the loop, and track(rng=False) keeps their generator out of the "
            f"state: {', '.join(left_out)}. Leave rng=False out."
        )
    if any(name.startswith(_RNG) for name in found.entries):
        return (
            "After the resume more or fewer random numbers were drawn than before: by something that a "
            "resumed attempt begins anew, such as a plain loop over a shuffling loader. Go over it with "
            "state.iterate(…)."
        )
    return (
        "The state was restored, and the next steps came out different: they go by something that is not "
        "tracked, which a resumed attempt begins anew. It may be an optimizer or its momentum, a counter "
        "or a cache kept in a global, a generator of your own, or an iterator that is not gone over with "
        "state.iterate(…). Track it. A tracked number or set is read as state.NAME: a variable of its own "
        "keeps what it was before."
    )


def text_of(report: VerifyReport) -> str:
    """A report, for people."""
    name = short(report.task)
    steps = f"{report.steps} {'step' if report.steps == 1 else 'steps'}"
    at = ", ".join(map(str, report.kills))
    found = report.difference
    if found is None:
        return f"{name}: identical over {steps}, killed at {at} and resumed"
    if found.error:
        lines = [f"{name}: a resumed run failed, and the undisturbed one did not"]
        lines += [f"  {line}" for line in found.error.splitlines()]
    elif found.step is None:
        what = ", ".join(found.entries)
        lines = [f"{name}: {steps} are the same, but {what} of a resumed run differs"]
    else:
        lines = [
            f"{name}: a resumed run parts from the undisturbed one at step {found.step} of {steps}, "
            + found.place,
            f"  differs: {_some(found.entries) or 'one of the two runs did not come there'}",
        ]
    start = f"went on after step {found.resumed}" if found.resumed else "began at the beginning"
    where = "" if found.step is None else f"in attempt {found.attempt}, which {start}; "
    lines.append(f"  {where}killed at {at or 'no step yet'}")
    if found.cause:
        lines.append(f"  likely cause: {found.cause}")
    return "\n".join(lines)


def short(name: str) -> str:
    """A task's name without its module."""
    return name.rpartition(":")[2]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown

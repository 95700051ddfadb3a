"""Trials of Optuna as data.

A study's trials are many and finished ones never change, so they stand in segments: one piece of bytes
each, made once. Where a trial has attributes that msgpack would not give back as they were (arrays,
tuples), its segment stays a tree. Times are apart: they differ between two runs that do the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState

from headway.checkpoint.capture import APART, is_data
from headway.model.errors import InputError

SEGMENT = 64
"""Trials in a full segment."""
_CHOICES = (type(None), bool, int, float, str)
_INT64 = range(-(1 << 63), 1 << 63)


class Segments:
    """The trials of one study. It remembers the segments whose trials are all finished."""

    def __init__(self) -> None:
        self._full: list[tuple[list[FrozenTrial], dict[str, Any]]] = []

    def take(self, trials: Sequence[FrozenTrial], path: str) -> list[dict[str, Any]]:
        """Data for trials, which are numbered from 0.

        Args:
            trials, path: which, and the study's name for messages.

        Raises:
            InputError: one of them has something that is not data; the message says where.
        """
        found: list[dict[str, Any]] = []
        for number, at in enumerate(range(0, len(trials), SEGMENT)):
            part = list(trials[at : at + SEGMENT])
            if number < len(self._full) and _same(self._full[number][0], part):
                found.append(self._full[number][1])
                continue
            made = _segment(part, at, path)
            found.append(made)
            del self._full[number:]
            if len(part) == SEGMENT and all(trial.state.is_finished() for trial in part):
                self._full.append((part, made))
        return found


def _same(one: list[FrozenTrial], other: list[FrozenTrial]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def trials_of(segments: Iterable[dict[str, Any]]) -> list[FrozenTrial]:
    """The trials that `Segments.take` made these of."""
    found: list[FrozenTrial] = []
    for segment in segments:
        data = segment["trials"]
        if isinstance(data, bytes):
            data = msgspec.msgpack.decode(data)
        spaces = [json_to_distribution(text) for text in data["spaces"]]
        times = msgspec.msgpack.decode(segment[APART])
        for row, (start, complete) in zip(data["rows"], times, strict=True):
            state, values, params, user, system, reported = row
            found.append(
                FrozenTrial(
                    number=len(found),
                    trial_id=-1,
                    state=TrialState(state),
                    value=None,
                    values=values,
                    params={name: value for name, (_, value) in params.items()},
                    distributions={name: spaces[space] for name, (space, _) in params.items()},
                    user_attrs=user,
                    system_attrs=system,
                    intermediate_values=reported,
                    datetime_start=_time(start),
                    datetime_complete=_time(complete),
                )
            )
    return found


def checked(attributes: dict[str, Any], path: str) -> dict[str, Any]:
    """Attributes of a study or a trial, which must be data: nothing else could be made anew.

    Raises:
        InputError: something in them is not; the message says where.
    """
    for key, value in attributes.items():
        _exact(value, f"{path}[{key!r}]")
    return attributes


def _segment(trials: list[FrozenTrial], first: int, path: str) -> dict[str, Any]:
    spaces: dict[str, int] = {}
    exact = True
    rows = []
    for number, trial in enumerate(trials, first):
        where = f"{path}.trials[{number}]"
        params = {}
        for name, value in trial.params.items():
            text = _space(trial.distributions[name], f"{where}.params[{name!r}]")
            params[name] = [spaces.setdefault(text, len(spaces)), value]
            exact &= _exact(value, f"{where}.params[{name!r}]")
        user, system = trial.user_attrs, trial.system_attrs
        for name, some in (("user_attrs", user), ("system_attrs", system)):
            exact &= _exact(some, f"{where}.{name}")
        exact &= _exact(trial.values, f"{where}.values")
        exact &= _exact(trial.intermediate_values, f"{where}.intermediate_values")
        rows.append(
            [trial.state.value, trial.values, params, user, system, trial.intermediate_values]
        )
    data = {"spaces": list(spaces), "rows": rows}
    times = [[_text(trial.datetime_start), _text(trial.datetime_complete)] for trial in trials]
    return {
        "trials": msgspec.msgpack.encode(data) if exact else data,
        APART: msgspec.msgpack.encode(times),
    }


def _space(distribution: BaseDistribution, path: str) -> str:
    if isinstance(distribution, CategoricalDistribution):
        for choice in distribution.choices:
            if type(choice) not in _CHOICES:
                raise InputError(
                    f"{path} is one of several choices, and a {type(choice).__name__} among them is not "
                    "data: choose among names (strings), and look up by name what they stand for"
                )
    return str(distribution_to_json(distribution))


def _exact(value: Any, path: str) -> bool:
    """Whether msgpack gives a value back as it is.

    Raises:
        InputError: it is not data at all.
    """
    kind = type(value)
    if kind in {type(None), bool, float, str, bytes}:
        return True
    if kind is int:
        return value in _INT64
    if kind is dict or kind is OrderedDict:
        exact = [_exact(v, f"{path}[{k!r}]") & (type(k) in {str, int}) for k, v in value.items()]
        return all(exact) and kind is dict
    if kind in {list, tuple}:
        exact = [_exact(v, f"{path}[{i}]") for i, v in enumerate(value)]
        return all(exact) and kind is list
    if is_data(value):
        return False
    raise InputError(
        f"{path} is a {kind.__module__}.{kind.__qualname__}, which cannot be made anew from data: keep "
        "it in a file, and the file's name in the study"
    )


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)

"""Optuna: studies in memory, with their trials and what sampler and pruner remember; samplers and pruners.

A trial that was running when the state was saved waits to be asked for again, with its parameters and all
that it reported: `study.ask()` and `study.optimize()` take such trials first. So a body that is on its way
back to where it was comes by the same trial, under the same number. Once it is there, the trial is running
in its hands, and stays so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import BaseTrial, FrozenTrial, TrialState

from headway.adapters.objects import Family, Putting, Taking
from headway.adapters.trials import Segments, checked, trials_of
from headway.checkpoint.capture import APART
from headway.model.errors import InputError
from headway.ports import StateAdapter


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    if isinstance(value, optuna.Study):
        return _Study()
    if isinstance(value, BaseSampler | BasePruner):
        return _Object()
    return None


def study_data(storage: BaseStorage, number: int, segments: Any) -> dict[str, Any]:
    """A study in a storage as data.

    Args:
        storage, number: where, and its id there.
        segments: data for its trials.
    """
    return {
        APART: storage.get_study_name_from_id(number),
        "directions": [direction.value for direction in storage.get_study_directions(number)],
        "user": checked(storage.get_study_user_attrs(number), "study.user_attrs"),
        "system": checked(storage.get_study_system_attrs(number), "study.system_attrs"),
        "trials": segments,
    }


def put_study(storage: BaseStorage, data: dict[str, Any], trials: list[FrozenTrial]) -> int:
    """Make a study of data in a storage that has none of this name.

    Returns:
        Its id there.
    """
    with _quiet():
        number = storage.create_new_study(
            [StudyDirection(value) for value in data["directions"]], data[APART]
        )
    for key, value in data["user"].items():
        storage.set_study_user_attr(number, key, value)
    for key, value in data["system"].items():
        storage.set_study_system_attr(number, key, value)
    for trial in trials:
        storage.create_new_trial(number, template_trial=trial)
    return int(number)


class _Study:
    def capture(self, value: Any, path: str) -> Any:
        storage = value._storage  # noqa: SLF001
        if type(storage) is not InMemoryStorage:
            raise InputError(
                f"{path} is a study in a {type(storage).__name__}, which keeps its trials itself: track a "
                "study that is made without storage=…, or do without track()"
            )
        if value._study_id or len(storage.get_all_studies()) > 1:  # noqa: SLF001
            raise InputError(
                f"{path} is a study in a storage that has, or had, others: make it without storage=…"
            )
        trials = storage.get_all_trials(0, deepcopy=False)
        segments = _SEGMENTS.setdefault(storage, Segments()).take(trials, path)
        return {
            "study": study_data(storage, 0, segments),
            "sampler": Taking(_FAMILY).take(value.sampler),
            "pruner": Taking(_FAMILY).take(value.pruner),
        }

    def restore(self, value: Any, data: Any, path: str) -> Any:
        if not isinstance(data, dict) or data.keys() != {"study", "sampler", "pruner"}:
            raise InputError(f"{path} is a study of Optuna now, and was none in the checkpoint")
        there = [direction.value for direction in value.directions]
        if data["study"]["directions"] != there:
            raise InputError(
                f"{path} has other directions than in the checkpoint. Create it as it was when it was "
                "saved, or start over with a new `headway run`."
            )
        trials = trials_of(data["study"]["trials"])
        live = value.get_trials(deepcopy=False)
        if value in _RETURNING:
            _in_hand(trials, live, path)
        waiting = _hand_back(trials, live)
        fresh = InMemoryStorage()
        put_study(fresh, data["study"], trials)
        storage = value._storage  # noqa: SLF001  # the same object, which trials refer to
        storage.__setstate__(fresh.__getstate__())
        vars(storage).pop("set_trial_state_values", None)
        if value in _RETURNING:
            _RETURNING.remove(value)
        else:
            _RETURNING.add(value)
            _guard(storage, waiting, path)
        value.study_name = data["study"][APART]
        value._thread_local.cached_all_trials = None  # noqa: SLF001  # those of before
        Putting(_FAMILY, f"{path}.sampler").put(value.sampler, data["sampler"])
        Putting(_FAMILY, f"{path}.pruner").put(value.pruner, data["pruner"])
        return value


class _Object:
    def capture(self, value: Any, path: str) -> Any:
        return Taking(_FAMILY).take(value)

    def restore(self, value: Any, data: Any, path: str) -> Any:
        return Putting(_FAMILY, path).put(value, data)


def _hand_back(trials: list[FrozenTrial], live: list[FrozenTrial]) -> set[int]:
    """Trials that were running wait, unless the program is running them now; the numbers of these."""
    waiting = set()
    for trial in trials:
        in_hand = trial.number < len(live) and live[trial.number].state == TrialState.RUNNING
        if trial.state == TrialState.RUNNING and not in_hand:
            trial.state = TrialState.WAITING
            waiting.add(trial.number)
    return waiting


def _in_hand(trials: list[FrozenTrial], live: list[FrozenTrial], path: str) -> None:
    """The body is where it was: trials that it runs now must be there."""
    for trial in live[len(trials) :]:
        if trial.state == TrialState.RUNNING:
            raise InputError(
                f"trial {trial.number} of {path} is running now, and {len(trials)} trials are in the "
                "checkpoint: the program asked for more than it had when it was here before. Ask for "
                "a trial in the turn of the loop that tells what it came to."
            )


def _guard(storage: Any, waiting: set[int], path: str) -> None:
    """Until the body is where it was: it must not finish a trial that was running there. Loops that had
    ended by then give no items, so it would be finished with nothing done."""

    def set_trial_state_values(trial_id: int, state: TrialState, values: Any = None) -> Any:
        changed = InMemoryStorage.set_trial_state_values(storage, trial_id, state, values)
        if trial_id in waiting and state.is_finished():
            raise InputError(
                f"trial {trial_id} of {path} was running in a tracked loop when the checkpoint was taken, "
                "and the program finished it before it came there again. Give each trial a turn of an "
                "outer loop: for _ in state.range(100): study.optimize(objective, n_trials=1)"
            )
        return changed

    storage.set_trial_state_values = (
        set_trial_state_values  # in its dict, where it hides the method
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's word about a new study, which this is not."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _of_optuna(kind: type) -> bool:
    return kind.__module__.startswith("optuna.")


def _apart(value: Any) -> bool:
    ours = _of_optuna(type(value)) or isinstance(value, BaseSampler | BasePruner)
    return ours and hasattr(value, "__dict__")


def _given(value: Any) -> bool:
    """Functions, and what holds them; studies that a sampler looks at."""
    if isinstance(value, optuna.Study | BaseStorage | BaseTrial) or hasattr(value, "_fields"):
        return True
    return callable(value) and not _apart(value)


_FAMILY = Family("optuna", _apart, _of_optuna, _given)
_SEGMENTS: WeakKeyDictionary[Any, Segments] = WeakKeyDictionary()
"""By storage: what is known of its trials from the last time."""
_RETURNING: WeakSet[Any] = WeakSet()
"""Studies that were restored once: `track` does so again when the body is where it was."""

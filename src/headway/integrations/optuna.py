"""Optuna: `optuna.create_study(storage=HeadwayStorage(), …)` goes on after the last trial that finished.

Trials are kept in memory, and saved whenever one has finished. So a trial that is cut off leaves nothing
behind, and begins again under the same number. With the sampler saved too it gets the same parameters, and
the study is what it would have been.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from headway import adapters
from headway.adapters.optuna import put_study, study_data
from headway.adapters.trials import Segments, trials_of
from headway.checkpoint.capture import capture
from headway.checkpoint.handle import Checkpoint
from headway.model.errors import CheckpointError, InputError
from headway.ports import Leave
from headway.tracking import place

T = TypeVar("T")

_STUDIES = "_studies"
"""Where in the saved mapping the studies are."""


class HeadwayStorage(InMemoryStorage):  # type: ignore[misc]  # Optuna's types are not read
    """A storage for the studies of one task. An attempt that makes it finds the trials that the ones before
    it finished. When `study.tell` returns, or a trial of `study.optimize` has ended, that is durable.

    A trial that was running when an attempt died begins again under its number, before any new one. What
    the objective did to the study meanwhile (attributes, trials that it enqueued) is done again too.

    A study is found again by its name, with `load_if_exists=True`. Studies without one are by their order:
    the first that an attempt creates is the first that the attempts before it created.

    Args:
        checkpoint: where; None is that of the attempt that headway runs, once in each attempt.
        sampler: the study's, whose random state is saved with the trials and restored here, in place.
            Without it a sampler with a seed draws after a restart what it drew at first.
        pruner: the study's, if it finds its settings in the first trials (`HyperbandPruner`, or
            `min_resource="auto"`).

    Raises:
        as for `track`. When a trial is finished, `StorageError` and `CheckpointFenced` as for
        `Checkpoint.save`, and `InputError` for an attribute that is not data.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None = None,
        *,
        sampler: BaseSampler | None = None,
        pruner: BasePruner | None = None,
    ) -> None:
        super().__init__()
        self._kept = _Kept(sampler=sampler, pruner=pruner)
        attempt, self._kept.checkpoint = place("HeadwayStorage()", checkpoint)
        self._kept.leave = None if attempt is None else attempt.leave
        self._kept.load(self)

    def __reduce__(self) -> Any:
        """A copy, pickled or deep, is a plain storage in memory: only one object may save."""
        state: Any = self.__getstate__()
        return InMemoryStorage, (), {name: state[name] for name in state if name != "_kept"}

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """See `BaseStorage`."""

        def create() -> int:
            if study_name is None and self._kept.nameless:
                number = self._kept.nameless.pop(0)
                if self.get_study_directions(number) != list(directions):
                    raise InputError(
                        "the study has other directions than in the checkpoint. Create it as it was, give "
                        "it a name, or start over with a new `headway run`."
                    )
                return number
            return int(super(HeadwayStorage, self).create_new_study(directions, study_name))

        return self._done(create)

    def delete_study(self, study_id: int) -> None:
        """See `BaseStorage`."""
        self._done(lambda: super(HeadwayStorage, self).delete_study(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._done(lambda: super(HeadwayStorage, self).set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._done(lambda: super(HeadwayStorage, self).set_study_system_attr(study_id, key, value))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See `BaseStorage`."""

        def create() -> int:
            number = int(super(HeadwayStorage, self).create_new_trial(study_id, template_trial))
            if template_trial is None or template_trial.state == TrialState.RUNNING:
                self._kept.running[number] = None
            return number

        return self._done(create)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See `BaseStorage`."""

        def change() -> bool:
            queued = deepcopy(self.get_trial(trial_id)) if state == TrialState.RUNNING else None
            changed = bool(
                super(HeadwayStorage, self).set_trial_state_values(trial_id, state, values)
            )
            if state == TrialState.RUNNING and changed:
                self._kept.running[trial_id] = queued
            elif state.is_finished():
                self._kept.running.pop(trial_id, None)
            return changed

        return self._done(change, finished=state.is_finished())

    def _done(self, change: Callable[[], T], *, finished: bool = False) -> T:
        """Change something. It is saved when a trial has finished by it, or none is running: what a running
        one does is done again if it is cut off."""
        kept = self._kept
        with kept.lock, kept.held():
            made = change()
            if finished or not kept.running:
                kept.save(self)
            return made


class _Kept:
    """What a storage saves.

    Attributes:
        lock: held from a change until it is saved.
        running: id of each trial that runs -> what it was when it waited; None when it never did.
        nameless: ids of studies without a name that were found, and that the program has not asked for.
    """

    def __init__(self, **also: Any) -> None:
        self.checkpoint: Checkpoint | None = None
        self.leave: Leave | None = None
        self.lock = threading.RLock()
        self.running: dict[int, FrozenTrial | None] = {}
        self.nameless: list[int] = []
        self._also = {name: value for name, value in also.items() if value is not None}
        self._segments: dict[int, Segments] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it SIGTERM waits: Optuna trips over what is raised while it finishes a trial."""
        main = threading.current_thread() is threading.main_thread()  # nothing is raised in others
        leave = self.leave if main else None
        if leave is not None:
            leave.hold()
        try:
            yield
        finally:
            if leave is not None:
                leave.release()

    def save(self, storage: HeadwayStorage) -> None:
        """Save all, durably."""
        if self.checkpoint is not None:
            pickles = self.checkpoint.trusts_pickles
            self.checkpoint.save(self._state(storage, pickles=pickles), pickle=pickles)

    def load(self, storage: HeadwayStorage) -> None:
        """Put what was saved into a storage that is empty, and into sampler and pruner."""
        if self.checkpoint is None:
            return
        self.checkpoint.expect_many()
        self._state(storage, pickles=self.checkpoint.trusts_pickles)  # is it data?
        data = self.checkpoint.load()
        if data is None:
            return
        if not isinstance(data, dict) or _STUDIES not in data:
            raise CheckpointError(
                "the newest checkpoint of this task was not saved by HeadwayStorage(). Start over with a "
                "new `headway run`."
            )
        studies = data.pop(_STUDIES)
        if data.keys() != self._also.keys():
            raise InputError(
                f"HeadwayStorage() was given {_list(self._also)}, and the checkpoint has {_list(data)}. "
                "Give it the same, or start over with a new `headway run`."
            )
        for name, saved in data.items():
            found = adapters.find(self._also[name])
            assert found is not None
            found.restore(self._also[name], saved, name)
        checkpoint, self.checkpoint = self.checkpoint, None
        for study in studies:
            number = put_study(storage, study, trials_of(study["trials"]))
            if storage.get_study_name_from_id(number).startswith(DEFAULT_STUDY_NAME_PREFIX):
                self.nameless.append(number)
        self.checkpoint = checkpoint

    def _state(self, storage: HeadwayStorage, *, pickles: bool) -> dict[str, Any]:
        studies = []
        for study in storage.get_all_studies():
            number = study._study_id  # noqa: SLF001  # `get_study_id_from_name` is the same
            segments = self._segments.setdefault(number, Segments())
            trials = segments.take(
                self._quiet(storage.get_all_trials(number, deepcopy=False)), "study"
            )
            studies.append(study_data(storage, number, trials))
        also = {}
        for name, value in self._also.items():
            also[name] = capture(value, name, adapters.find, pickles=pickles)
        return {_STUDIES: studies, **also}

    def _quiet(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Trials as if those that run had not begun."""
        while trials and self.running.get(trials[-1]._trial_id, trials[-1]) is None:  # noqa: SLF001
            trials.pop()
        return [
            self.running[trial._trial_id] or _waiting(trial)  # noqa: SLF001
            if trial._trial_id in self.running  # noqa: SLF001
            else trial
            for trial in trials
        ]


def _waiting(trial: FrozenTrial) -> FrozenTrial:
    """A trial of this number with nothing in it."""
    return FrozenTrial(
        number=trial.number,
        trial_id=-1,
        state=TrialState.WAITING,
        value=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        datetime_start=None,
        datetime_complete=None,
    )


def _list(names: Any) -> str:
    return " and ".join(names) or "no sampler"

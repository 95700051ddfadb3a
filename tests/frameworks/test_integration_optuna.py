"""Studies of Optuna that are killed at any instant: all trials are those of a study that was left alone."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.counting import count
from tests.crash.nursery import MARK, descendants, survivors
from tests.docs.markdown import ROOT
from tests.frameworks.killing import PREFIX, Trial

from headway.checkpoint.handle import Checkpoint
from headway.model.errors import CheckpointError, HeadwayError, InputError
from headway.testing.memory import MemoryStorage

optuna = pytest.importorskip("optuna")
pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

PROGRAM = Path(__file__).parent / "programs" / "optuna_study.py"
TRIALS = 40
SAMPLE, RELEASE = 6, 100  # kills
PACE = 0.004


class Run:
    """A run of the program, in a process of its own."""

    def __init__(self, home: Path, way: str, kind: str) -> None:
        self.told = home / "told"
        home.mkdir()
        self.mark = f"{home}"
        asked = ["--way", way, "--kind", kind, "--trials", str(TRIALS), "--told", str(self.told)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headway", "run", str(PROGRAM), "study", *asked, "--json"],
            env={
                **os.environ,
                "HEADWAY_HOME": str(home / "home"),
                "PACE": str(PACE),
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                MARK: self.mark,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def worker(self) -> int | None:
        """The process that runs the body now."""
        for pid in descendants(self.mark):
            with suppress(OSError):
                if Path("/proc", str(pid), "comm").read_text().strip() == "headway worker"[:15]:
                    return pid
        return None

    def report(self) -> dict[str, Any]:
        """What it ended with."""
        said, errors = self.process.communicate(timeout=100)
        assert self.process.returncode == 0, errors
        assert survivors(self.mark) == []
        found: dict[str, Any] = json.loads(said)
        return found


@pytest.mark.reliability("R2", "R9")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
@pytest.mark.parametrize("kind", ["TPESampler", "RandomSampler"])
@pytest.mark.parametrize("way", ["tracked", "stored"])
@pytest.mark.parametrize(
    "kills", [SAMPLE, pytest.param(RELEASE, marks=pytest.mark.slow)], ids=["sample", "release"]
)
@pytest.mark.timeout(1800)
def test_a_killed_study_ends_with_the_trials_of_an_undisturbed_one(
    way: str, kind: str, kills: int, number: signal.Signals, tmp_path: Path
) -> None:
    alone = Run(tmp_path / "alone", "alone", kind).report()["result"]
    assert len(alone["trials"]) == TRIALS
    assert {trial[1] for trial in alone["trials"]} == {"COMPLETE", "PRUNED"}
    source = random.Random(f"{way} {kind} {number}")
    sent = runs = resumed = 0
    while sent < kills:
        run = Run(tmp_path / f"{runs}", way, kind)
        runs += 1
        for _ in range(6):
            began = time.monotonic()
            seen = len(run.told.read_text().split()) if run.told.exists() else 0
            while time.monotonic() - began < 20 and run.process.poll() is None:
                if run.told.exists() and len(run.told.read_text().split()) > seen:
                    break  # the next attempt is at it
                time.sleep(0.01)
            time.sleep(source.uniform(0, 0.8 * TRIALS * 4 * PACE / 2))
            worker = run.worker()
            if run.process.poll() is not None or sent == kills:
                break
            if worker is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker, number)
                    sent += 1
        assert run.report()["result"] == alone
        resumed += sum(int(begun) > 0 for begun in run.told.read_text().split())
    assert resumed >= kills // 4
    count("R2", f"{number.name}s of studies", sent)
    count("R9", f"{number.name}s of frameworks", sent)


class Storages:
    """Attempts one after the other, each with a storage of its own."""

    def __init__(self) -> None:
        self._storage = MemoryStorage(trusted=False)
        self.attempts = 0

    def made(self, **more: Any) -> Any:
        from headway.integrations.optuna import HeadwayStorage

        self.attempts += 1
        checkpoint = Checkpoint(self._storage, PREFIX, attempt=self.attempts)
        return HeadwayStorage(checkpoint, **more)

    def study(self, **more: Any) -> Any:
        return optuna.create_study(storage=self.made(), **more)


class Stop(BaseException):
    """The process is gone."""


def test_a_trial_that_was_running_begins_again_before_new_ones() -> None:
    storages = Storages()

    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, 0)
        trial.study.set_user_attr("seen", trial.number)
        if trial.number == 3 and storages.attempts == 1:
            trial.study.enqueue_trial({"x": 0.75})
            raise Stop
        return float(x)

    study = storages.study()
    study.enqueue_trial({"x": 0.5}, user_attrs={"mine": True})
    with pytest.raises(Stop):
        study.optimize(objective, n_trials=10)
    assert [trial.state.name for trial in study.trials[2:]] == ["COMPLETE", "RUNNING", "WAITING"]
    again = storages.study()
    assert [trial.number for trial in again.trials] == [0, 1, 2]
    assert again.trials == study.trials[:3]
    assert again.user_attrs == {"seen": 2}
    assert again.trials[0].params == {"x": 0.5}
    assert again.trials[0].user_attrs == {"mine": True}
    again.optimize(objective, n_trials=2)
    assert [trial.number for trial in again.trials] == [0, 1, 2, 3, 4]


def test_a_trial_from_the_queue_goes_back_into_it() -> None:
    storages = Storages()
    study = storages.study()
    study.enqueue_trial({"x": 0.5}, user_attrs={"mine": [1]})
    trial = study.ask()
    assert trial.suggest_float("x", 0, 1) == 0.5
    trial.set_user_attr("more", 1)
    study.ask()
    again = storages.study()
    (queued,) = again.trials
    assert queued.state.name == "WAITING"
    assert (queued.params, queued.user_attrs) == ({}, {"mine": [1]})
    assert again.ask().suggest_float("x", 0, 1) == 0.5


def test_of_trials_that_run_side_by_side_the_finished_ones_stay() -> None:
    storages = Storages()
    study = storages.study()
    first, second, third, fourth = (study.ask() for _ in range(4))
    for trial in (first, second, third, fourth):
        trial.suggest_float("x", 0, 1)
    study.tell(second, 2.0)
    study.tell(third, state=optuna.trial.TrialState.PRUNED)
    study.add_trial(optuna.trial.create_trial(value=7.0))
    again = storages.study()
    assert [trial.state.name for trial in again.trials] == ["WAITING", "COMPLETE", "PRUNED"]
    assert again.trials[1:] == study.trials[1:3]
    assert again.trials[0].params == {}
    assert again.ask().number == 0
    assert again.ask().number == 3


def test_threads_lose_and_double_nothing() -> None:
    storages = Storages()
    done: list[int] = []
    lock = threading.Lock()

    def objective(trial: Any) -> float:
        with lock:
            if len(done) >= 20 and storages.attempts == 1:
                raise Stop
        x = trial.suggest_float("x", 0, 1)
        with lock:
            done.append(trial.number)
        return float(x)

    study = storages.study()
    with pytest.raises(Stop):
        study.optimize(objective, n_trials=60, n_jobs=3)
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    again = storages.study()
    kept = [trial for trial in again.trials if trial.state.is_finished()]
    assert len(kept) >= 20 - 3
    assert kept == [trial for trial in finished if trial.number in {t.number for t in kept}]
    again.optimize(objective, n_trials=60 - len(kept), n_jobs=3)
    assert [trial.number for trial in again.trials] == list(range(60))
    assert {trial.state.name for trial in again.trials} == {"COMPLETE"}
    assert len(set(done)) == 60


def test_a_sampler_goes_on_where_it_was_and_so_does_a_pruner() -> None:
    storages = Storages()

    def attempt(trials: int) -> Any:
        sampler = optuna.samplers.TPESampler(seed=5)
        pruner = optuna.pruners.HyperbandPruner()
        storage = storages.made(sampler=sampler, pruner=pruner)
        study = optuna.create_study(
            storage=storage, sampler=sampler, pruner=pruner, study_name="s", load_if_exists=True
        )

        def objective(trial: Any) -> float:
            x = trial.suggest_float("x", 0, 1)
            for step in range(1 + trial.number % 9):
                trial.report(x, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return float(x)

        study.optimize(objective, n_trials=trials)
        return study

    whole = attempt(30)
    storages = Storages()
    for trials in (1, 12, 5, 12):
        parts = attempt(trials)
    assert [t.params for t in parts.trials] == [t.params for t in whole.trials]
    assert [t.state for t in parts.trials] == [t.state for t in whole.trials]
    assert len({t.state for t in whole.trials}) == 2
    with pytest.raises(InputError, match="given no sampler, and the checkpoint has sampler and pr"):
        storages.made()


def test_studies_are_found_by_name_and_those_without_by_their_order() -> None:
    storages = Storages()
    storage = storages.made()
    first = optuna.create_study(storage=storage)
    named = optuna.create_study(storage=storage, study_name="named", directions=["minimize"] * 2)
    second = optuna.create_study(storage=storage, direction="maximize")
    gone = optuna.create_study(storage=storage, study_name="gone")
    first.add_trial(optuna.trial.create_trial(value=1.0))
    second.add_trial(optuna.trial.create_trial(value=2.0))
    named.add_trial(optuna.trial.create_trial(values=[3.0, float("inf")]))
    named.set_metric_names(["one", "other"])
    optuna.delete_study(study_name=gone.study_name, storage=storage)
    storage = storages.made()
    assert {s.study_name for s in storage.get_all_studies()} == {
        first.study_name, "named", second.study_name,
    }  # fmt: skip
    again = [optuna.create_study(storage=storage)]
    again.append(optuna.create_study(storage=storage, direction="maximize"))
    assert [study.study_name for study in again] == [first.study_name, second.study_name]
    assert [study.trials[0].value for study in again] == [1.0, 2.0]
    found = optuna.load_study(storage=storage, study_name="named")
    assert [trial.values for trial in found.trials] == [[3.0, float("inf")]]
    assert found.trials[0].datetime_complete == named.trials[0].datetime_complete
    assert found.metric_names == ["one", "other"]
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        optuna.create_study(storage=storage, study_name="named")
    assert optuna.create_study(storage=storage).trials == []
    storage = storages.made()
    with pytest.raises(InputError, match="other directions than in the checkpoint"):
        optuna.create_study(storage=storage, direction="maximize")


def test_a_copy_is_a_storage_in_memory_that_saves_nothing() -> None:
    storages = Storages()
    study = storages.study()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    for other in (pickle.loads(pickle.dumps(study)), copy.deepcopy(study)):
        assert type(other._storage) is optuna.storages.InMemoryStorage
        other.add_trial(optuna.trial.create_trial(value=2.0))
        assert len(other.trials) == 2
    assert len(storages.study().trials) == 1


def test_what_is_not_data_is_refused_by_its_path() -> None:
    study = Storages().study()
    trial = study.ask()
    trial.set_user_attr("model", threading.Lock())
    with pytest.raises(InputError, match=r"study\.trials\[0\]\.user_attrs\['model'\] is a _thread"):
        study.tell(trial, 1.0)

    class Odd(optuna.samplers.RandomSampler):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(InputError, match=r"sampler\.lock is a lock"):
        Storages().made(sampler=Odd())


def test_attributes_of_any_data_come_back_as_they_were() -> None:
    storages = Storages()
    study = storages.study()
    study.set_user_attr("tuple", (1, 2))
    trial = study.ask()
    mine = {"array": np.arange(3.0), "scalar": np.float32(0.1), "big": 1 << 80, "keys": {2: (1,)}}
    for key, value in mine.items():
        trial.set_user_attr(key, value)
    study.tell(trial, float("-inf"))
    again = storages.study()
    assert again.user_attrs == {"tuple": (1, 2)}
    assert again.trials[0].values == [float("-inf")]
    found = again.trials[0].user_attrs
    assert found["array"].tobytes() == mine["array"].tobytes()  # type: ignore[attr-defined]
    assert (type(found["scalar"]), found["scalar"]) == (np.float32, np.float32(0.1))
    assert {key: found[key] for key in ("big", "keys")} == {"big": 1 << 80, "keys": {2: (1,)}}


def test_what_another_saved_is_refused_and_two_in_one_attempt_are() -> None:
    from headway.integrations.optuna import HeadwayStorage

    storage = MemoryStorage()
    with_bytes = Checkpoint(storage, PREFIX)
    with_bytes.save({"x": 1})
    with pytest.raises(CheckpointError, match=r"not saved by HeadwayStorage\(\)"):
        HeadwayStorage(with_bytes)
    with pytest.raises(HeadwayError, match=r"HeadwayStorage\(\) was called twice in one attempt"):
        Trial().attempt(lambda _: (HeadwayStorage(), HeadwayStorage()))
    with pytest.warns(RuntimeWarning, match=r"HeadwayStorage\(\) saves nothing here"):
        study = optuna.create_study(storage=HeadwayStorage())
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert len(study.trials) == 2

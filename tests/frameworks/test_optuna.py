"""Optuna under `track`: what a killed study ends with is what it would have ended with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.docs.markdown import ROOT
from tests.frameworks.killing import Example, Trial, added_lines

from headway.model.errors import InputError
from headway.testing.memory import MemoryStorage

optuna = pytest.importorskip("optuna")
pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
EXAMPLE = "with_optuna"
S, P = optuna.samplers, optuna.pruners
TRIALS = 16


@pytest.fixture(autouse=True)
def quiet() -> Any:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def test_three_lines_are_added() -> None:
    assert len(added_lines(EXAMPLE)) == 3


@pytest.mark.reliability("R9")
def test_a_killed_study_ends_with_the_same_trials() -> None:
    Example(EXAMPLE, np.random.seed, trials=12).check()


@pytest.mark.reliability("R9")
def test_a_study_whose_worker_gets_sigkill_ends_with_the_same_trials(tmp_path: Path) -> None:
    Example(EXAMPLE, np.random.seed, trials=12).check_signal(tmp_path)


def all_but_times(study: Any) -> list[Any]:
    """All that is known of a study's trials, but when they were; and but CMA-ES's pickles of itself, which
    have memory in them that nobody wrote to."""
    left_out = {"_datetime_start", "datetime_complete"}
    return [
        {
            key: {k: v for k, v in value.items() if not k.startswith("cma:")}
            if key == "_system_attrs"
            else value
            for key, value in vars(trial).items()
            if key not in left_out
        }
        for trial in study.trials
    ]


def objective(trial: Any) -> float:
    steps = isinstance(trial.study.sampler, S.BruteForceSampler)  # which goes through all there are
    x = trial.suggest_float("x", -5, 5, step=0.5 if steps else None)
    y = trial.suggest_int("y", 1, 9, log=True)
    kind = trial.suggest_categorical("kind", ["a", "b", None])
    for step in range(4):
        trial.report(abs(x) * (4 - step) + y, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    trial.set_user_attr("kind", [kind, (x, {"y": y})])
    return float(x * x + y + (kind is None))


MAKE: dict[str, Callable[[], tuple[Any, Any]]] = {
    "tpe": lambda: (S.TPESampler(seed=3), P.MedianPruner(n_startup_trials=3)),
    "tpe, one by one": lambda: (S.TPESampler(seed=3, multivariate=False), P.HyperbandPruner()),
    "tpe, groups": lambda: (
        S.TPESampler(seed=3, multivariate=True, group=True),
        P.SuccessiveHalvingPruner(min_resource="auto"),
    ),
    "tpe, own functions": lambda: (
        S.TPESampler(seed=3, gamma=lambda n: min(n, 3), weights=np.ones),
        P.NopPruner(),
    ),
    "random": lambda: (S.RandomSampler(seed=3), P.PatientPruner(P.MedianPruner(), 1)),
    "random, no seed": lambda: (S.RandomSampler(), P.NopPruner()),
    "cma": lambda: (S.CmaEsSampler(seed=3), P.NopPruner()),
    "brute force": lambda: (S.BruteForceSampler(seed=3), P.NopPruner()),
    "nsga": lambda: (S.NSGAIISampler(seed=3, population_size=4), P.NopPruner()),
    "quasi monte carlo, no seed": lambda: (S.QMCSampler(), P.ThresholdPruner(upper=30)),
    "some fixed": lambda: (S.PartialFixedSampler({"y": 3}, S.RandomSampler(3)), P.WilcoxonPruner()),
    "grid": lambda: (
        S.GridSampler({"x": [-1, 0, 1], "y": [1, 2, 3], "kind": ["a", None]}, seed=3),
        P.NopPruner(),
    ),
}  # fmt: skip


@pytest.mark.reliability("R9")
@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
@pytest.mark.parametrize("name", MAKE)
def test_a_sampler_and_a_pruner_go_on_where_they_were(name: str) -> None:
    if name == "cma":
        pytest.importorskip("cmaes", reason="no cmaes: `pip install cmaes`")
    seen: dict[int, Any] = {}

    def attempt(trial: Trial, stop: int | None) -> Any:
        def body(track: Any) -> Any:
            sampler, pruner = MAKE[name]()
            study = optuna.create_study(sampler=sampler, pruner=pruner, study_name="study")
            state = track(study=study)
            assert state.study is study
            for turn in state.range(TRIALS):
                if turn == stop:
                    seen[turn] = study.trials
                    trial.kill()
                study.optimize(objective, n_trials=1)
            return study

        return trial.attempt(body)

    def stopped(trial: Trial, stop: int) -> None:
        with pytest.raises(trial.Killed):
            attempt(trial, stop)

    once = Trial(MemoryStorage(trusted=False))
    if "no seed" in name:  # the first trials of one attempt, and the rest of two others
        stopped(once, 4)
        parts = attempt(once, None)
        assert parts.trials[:4] == seen[4]
        assert len({trial.params["x"] for trial in parts.trials}) == TRIALS
        return
    wanted = attempt(once, None)
    assert len(wanted.trials) == TRIALS
    for stop in (1, 4, 11, 15):
        trial = Trial(MemoryStorage(trusted=False))
        stopped(trial, stop)
        before = seen[stop]
        stopped(trial, min(stop + 2, 15))
        assert seen[min(stop + 2, 15)][:stop] == before  # times too
        parts = attempt(trial, None)
        assert all_but_times(parts) == all_but_times(wanted)
        assert parts.best_trial.number == wanted.best_trial.number
        assert trial.warnings == []


@pytest.mark.reliability("R9")
def test_a_process_regression_goes_on_where_it_was() -> None:
    pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    pytest.importorskip("scipy")

    def attempt(trial: Trial, stop: int | None) -> Any:
        def body(track: Any) -> Any:
            study = optuna.create_study(sampler=S.GPSampler(seed=3, n_startup_trials=3))
            for turn in track(study=study).range(8):
                if turn == stop:
                    trial.kill()
                study.optimize(lambda t: t.suggest_float("x", 0, 1) ** 2, n_trials=1)
            return study

        return trial.attempt(body)

    wanted = attempt(Trial(), None)
    trial = Trial(MemoryStorage(trusted=False))
    with pytest.raises(trial.Killed):
        attempt(trial, 6)
    assert all_but_times(attempt(trial, None)) == all_but_times(wanted)


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("way", ["ask and tell", "optimize"])
def test_a_trial_goes_on_within_its_loop(way: str) -> None:
    """Its model too, which each trial makes anew."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import SGDClassifier

    images, labels = load_digits(return_X_y=True)
    steps: list[tuple[int, int]] = []

    def attempt(trial: Trial, stop: int | None) -> Any:
        def body(track: Any) -> Any:
            study = optuna.create_study(
                sampler=S.TPESampler(seed=3, n_startup_trials=2),
                pruner=P.MedianPruner(n_startup_trials=1),
                direction="maximize",
            )
            study.enqueue_trial({"alpha": 0.001}, user_attrs={"first": True})
            parts: dict[str, Any] = {}
            state = track(study=study, parts=parts, done=[])

            def train(found: Any) -> float:
                parts["model"] = SGDClassifier(
                    alpha=found.suggest_float("alpha", 1e-6, 0.1, log=True),
                    eta0=found.suggest_float("eta0", 0.01, 1),
                    learning_rate="constant",
                    random_state=found.number,
                )
                for epoch in state.range(4):
                    if len(state.done) == stop:
                        trial.kill()
                    state.done.append((found.number, epoch))
                    steps.append((found.number, epoch))
                    parts["model"].partial_fit(images[:99], labels[:99], classes=np.arange(10))
                    found.report(float(parts["model"].score(images[99:], labels[99:])), epoch)
                    if found.should_prune():
                        raise optuna.TrialPruned
                return float(parts["model"].score(images[99:], labels[99:]))

            for _ in state.range(6):
                if way == "optimize":
                    study.optimize(train, n_trials=1)
                    continue
                found = study.ask()
                try:
                    study.tell(found, train(found))
                except optuna.TrialPruned:
                    study.tell(found, state=optuna.trial.TrialState.PRUNED)
            return all_but_times(study), state.done, parts["model"].coef_.tobytes()

        return trial.attempt(body)

    wanted = attempt(Trial(), None)
    assert len(wanted[1]) == len(set(wanted[1]))
    assert {trial["state"].name for trial in wanted[0]} == {"COMPLETE", "PRUNED"}
    for stop in range(1, len(wanted[1])):
        trial = Trial(MemoryStorage(trusted=False))
        with pytest.raises(trial.Killed):
            attempt(trial, stop)
        steps.clear()
        assert attempt(trial, None) == wanted, stop
        assert len(steps) == len(wanted[1]) - stop


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_loops_in_trials_that_have_no_turn_of_their_own_are_refused(
    fails: bool, counted: bool
) -> None:
    """Trials would be finished with nothing done."""
    trial = Trial()

    def attempt(stop: bool) -> None:
        def body(track: Any) -> None:
            study = optuna.create_study(sampler=S.RandomSampler(seed=3))
            state = track(study=study)

            def train(found: Any) -> float:
                for epoch in state.range(3):
                    if (found.number, epoch) == (2, 1) and stop:
                        trial.kill()
                return float(epoch) if fails else 1.0

            study.optimize(train, n_trials=5 - len(study.trials) * counted)

        trial.attempt(body)

    with pytest.raises(trial.Killed):
        attempt(True)
    with pytest.raises(InputError, match=r"trial 2 of study was running .* n_trials=1"):
        attempt(False)


def test_more_trials_in_hand_than_there_were_are_refused() -> None:
    """Some of those that were asked for together had been told."""

    def attempt(trial: Trial, stop: bool) -> None:
        def body(track: Any) -> None:
            study = optuna.create_study(sampler=S.RandomSampler(seed=3))
            state = track(study=study)
            for _ in state.range(2):
                for number, found in enumerate(state.iterate([study.ask() for _ in range(4)])):
                    if number == 2 and stop:
                        trial.kill()
                    study.tell(found, found.suggest_float("x", 0, 1))

        trial.attempt(body)

    trial = Trial()
    with pytest.raises(trial.Killed):
        attempt(trial, True)
    with pytest.raises(
        InputError, match=r"trial 4 of study is running now, and 4 trials are in the"
    ):
        attempt(trial, False)


def test_attributes_names_and_several_objectives_come_back() -> None:
    trial = Trial(MemoryStorage(trusted=False))

    def body(name: str | None) -> Callable[[Any], Any]:
        def run(track: Any) -> Any:
            study = optuna.create_study(
                study_name=name,
                directions=["minimize", "maximize"],
                sampler=S.NSGAIIISampler(seed=3, population_size=4),
            )
            state = track(study=study)
            for _ in state.range(6):
                study.set_metric_names(["one", "other"])
                study.set_user_attr("array", np.arange(3))
                study.optimize(
                    lambda found: (found.suggest_int("x", 0, 9), found.number % 3), n_trials=1
                )
            return study

        return run

    first, second = (trial.attempt(body(None)) for _ in range(2))
    assert first is not second
    assert first.study_name == second.study_name
    assert second.metric_names == ["one", "other"]
    assert second.user_attrs["array"].tolist() == [0, 1, 2]
    assert [t.number for t in second.best_trials] == [t.number for t in first.best_trials]
    assert first.trials == second.trials
    assert optuna.load_study(study_name=first.study_name, storage=second._storage).trials


def test_what_cannot_be_captured_is_refused_by_its_path(tmp_path: Path) -> None:
    def refused(change: Callable[[Any], Any], match: str, **more: Any) -> None:
        study = optuna.create_study(**more)
        change(study)
        with pytest.raises(InputError, match=match):
            Trial().attempt(lambda track: track(best=study))

    def odd_choice(study: Any) -> None:
        with pytest.warns(UserWarning, match="Choices for a categorical"):
            study.optimize(lambda t: t.suggest_categorical("model", [int, (1, 2)]) and 1, 1)

    refused(
        lambda study: study.add_trial(
            optuna.trial.create_trial(value=1.0, user_attrs={"model": {"a": [open]}})
        ),
        r"best\.trials\[0\]\.user_attrs\['model'\]\['a'\]\[0\] is a .* keep it in a file",
    )
    refused(
        odd_choice, r"best\.trials\[0\]\.params\['model'\] is one of several choices, and a type"
    )
    refused(lambda study: None, "which keeps its trials itself", storage=f"sqlite:///{tmp_path}/db")
    several = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=several)
    refused(lambda study: None, "has, or had, others", storage=several)


def test_a_study_of_another_kind_is_refused() -> None:
    trial = Trial()

    def body(**more: Any) -> Callable[[Any], Any]:
        def run(track: Any) -> Any:
            study = optuna.create_study(**more)
            for _ in track(study=study).range(1):
                study.optimize(lambda found: found.suggest_int("x", 0, 9), n_trials=1)

        return run

    trial.attempt(body(sampler=S.RandomSampler(seed=1)))
    with pytest.raises(
        InputError, match=r"study\.sampler is a TPESampler now, and a RandomSampler in"
    ):
        trial.attempt(body())
    with pytest.raises(InputError, match="study has other directions than in the checkpoint"):
        trial.attempt(body(sampler=S.RandomSampler(), direction="maximize"))


def test_many_trials_are_packed_once() -> None:
    """A save costs by what is new, not by what there is."""
    from headway.adapters.trials import SEGMENT, Segments, trials_of

    study = optuna.create_study(sampler=S.RandomSampler(seed=1))
    study.optimize(lambda found: found.suggest_float("x", 0, 1), n_trials=3 * SEGMENT + 5)
    segments = Segments()
    first = segments.take(study.get_trials(deepcopy=False), "study")
    assert len(first) == 4
    study.ask()
    again = segments.take(study.get_trials(deepcopy=False), "study")
    assert [a["trials"] is b["trials"] for a, b in zip(first, again, strict=True)] == [
        True, True, True, False,
    ]  # fmt: skip
    found = trials_of(again)
    assert len(found) == 3 * SEGMENT + 6
    assert [trial.params for trial in found] == [trial.params for trial in study.trials]
    assert found[-1].state == optuna.trial.TrialState.RUNNING


@pytest.mark.reliability("R9")
def test_verify_says_that_a_study_is_identical(tmp_path: Path) -> None:
    """Though its times differ, and its name, which Optuna makes up."""
    program = tmp_path / "program.py"
    program.write_text(
        "import examples.with_optuna as example\n"
        "from headway import task\n\n\n"
        "@task\ndef search(trials: int) -> str:\n    return example.train(trials)\n"
    )
    asked = ["--trials", "6", "--kills", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "headway", "verify", str(program), "search", *asked],
        env={
            **os.environ,
            "HEADWAY_HOME": str(tmp_path / "home"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["identical"] is True

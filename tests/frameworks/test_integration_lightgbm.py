"""`integrations.lightgbm.Resume`: the final model and its scores are, byte for byte, those of a training
that was left alone."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.counting import count
from tests.frameworks.killing import Trial, run_program

import headway
from headway.model.errors import HeadwayError, InputError
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.frameworks
lightgbm = pytest.importorskip("lightgbm")

ROUNDS = 14
BASE = {
    "objective": "multiclass",
    "num_class": 10,
    "num_leaves": 4,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
    "seed": 3,
}
SAMPLED = {"bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction": 0.5}
PROGRAM = """\
import os, signal
from headway import current_context, task
from tests.frameworks.test_integration_lightgbm import SAMPLED, trained

@task(interruptible=True, retries=2)
def train() -> str:
    context = current_context()
    def strike():
        context.checkpoint.flush()
        os.kill(os.getpid(), signal.SIGTERM if context.attempt else signal.SIGKILL)
    return trained(SAMPLED, {0: 5, 1: 10}.get(context.attempt), strike)[0]
"""


class At:
    """Calls something before a round."""

    before_iteration = True

    def __init__(self, stop: int | None, strike: Callable[[], None] | None) -> None:
        self.order = 5
        self._stop = stop
        self._strike = strike

    def __call__(self, env: Any) -> None:
        if env.iteration - env.begin_iteration == self._stop and self._strike is not None:
            self._strike()


def trained(
    more: dict[str, Any],
    stop: int | None = None,
    strike: Callable[[], None] | None = None,
    *,
    rounds: int = ROUNDS,
    resume: dict[str, Any] | None = None,
    early: bool = False,
    **arguments: Any,
) -> tuple[str, Any]:
    """A model and its scores; something strikes before round `stop`."""
    from sklearn.datasets import load_digits

    from headway.integrations.lightgbm import Resume

    images, labels = load_digits(return_X_y=True)
    parameters = {**BASE, **more}
    data = lightgbm.Dataset(images[:400], label=labels[:400], params=parameters)
    other = data.create_valid(images[400:600], label=labels[400:600])
    scores: dict[str, Any] = {}
    callbacks: list[Any] = [
        At(stop, strike),
        lightgbm.record_evaluation(scores),
        lightgbm.reset_parameter(learning_rate=lambda turn: 0.7 * 0.9**turn),
    ]
    if early:
        callbacks.append(lightgbm.early_stopping(2, verbose=False))
    if resume is None or resume:
        callbacks.append(Resume(**{"every": 0, "rounds": 3, **(resume or {})}))
    booster = lightgbm.train(
        parameters,
        data,
        rounds,
        valid_sets=[data, other],
        valid_names=["train", "valid"],
        callbacks=callbacks,
        **arguments,
    )
    assert not {"update", "eval_train", "eval_valid", "model_from_string"} & vars(booster).keys()
    assert (data.get_field("init_score") is None) == ("init_model" not in arguments)
    assert pickle.loads(pickle.dumps(booster)).model_to_string() == booster.model_to_string()
    return booster.model_to_string(), {name: dict(each) for name, each in scores.items()}


def trees(model: str) -> str:
    """A model without its settings."""
    return model[: model.index("parameters:")]


def cubic(predictions: Any, data: Any) -> tuple[Any, Any]:
    """An objective of one's own."""
    off = predictions - data.get_label()
    return np.tanh(off), np.ones_like(off)


def furthest(predictions: Any, data: Any) -> tuple[str, float, bool]:
    """A score of one's own."""
    return "furthest", float(np.abs(predictions).max()), False


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "sampled": (SAMPLED, {}),
    "extra trees": ({"extra_trees": True, "feature_fraction_bynode": 0.5}, {}),
    "goss": ({"data_sample_strategy": "goss"}, {}),
    "early": (SAMPLED, {"early": True, "rounds": 60}),
    "quantized": ({"use_quantized_grad": True}, {}),
    "linear": ({"objective": "regression", "num_class": 1, "linear_tree": True}, {}),
    "absolute": ({"objective": "regression_l1", "num_class": 1, "metric": "l1"}, {}),
    "own": ({"objective": cubic, "num_class": 1, "metric": "l2"}, {"feval": furthest}),
    "kept": (SAMPLED, {"keep_training_booster": True}),
}


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("name", CASES)
def test_a_killed_training_ends_with_the_same_model(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, arguments = CASES[name]
    wanted = Trial().attempt(lambda _: trained(more, **arguments))
    ran = len(next(iter(wanted[1]["valid"].values())))
    assert ran == ROUNDS if "rounds" not in arguments else 8 <= ran < 60
    grown: list[None] = []
    update = lightgbm.Booster.update

    def counted(*args: Any, **kwargs: Any) -> Any:
        grown.append(None)
        return update(*args, **kwargs)

    monkeypatch.setattr(lightgbm.Booster, "update", counted)
    for stop in (2, 7, ran - 1):
        trial = Trial(MemoryStorage(trusted=False))

        def attempt(at: int | None = None, trial: Trial = trial) -> Any:
            grown.clear()
            return trial.attempt(lambda _: trained(more, at, trial.kill, **arguments))

        with pytest.raises(trial.Killed):
            attempt(stop)
        assert len(grown) == stop
        for _ in range(2):  # a second time, when only the last part is left
            assert attempt() == wanted
        assert len(grown) == ran - (ran - 1) // 3 * 3
        count("R9", "interrupted attempts of frameworks", 1)


@pytest.mark.parametrize("name", ["plain", "linear", "absolute", "own"])
def test_without_sampling_the_trees_are_those_of_a_training_without_it(name: str) -> None:
    more, arguments = CASES[name]
    model, scores = Trial().attempt(lambda _: trained(more, **arguments))
    plain, same = trained(more, resume={}, **arguments)
    assert trees(model) == trees(plain)
    assert scores == same


def test_parts_draw_differently_and_as_the_seed_says() -> None:
    def model(seed: str, value: int) -> str:
        return trees(Trial().attempt(lambda _: trained({**SAMPLED, seed: value}))[0])

    assert model("seed", 3) == model("seed", 3)
    for name in ("seed", "bagging_seed", "bagging_fraction_seed", "feature_fraction_seed"):
        one, other = (model(name, value).split("Tree=") for value in (5, 6))
        assert one[-1] != other[-1]
    from headway.integrations.lightgbm import _Part

    part = _Part(None, 10)
    seeds = []
    for part.done in (10, 20):
        made = part._seeded({"bagging_fraction_seed": 5, "verbose": 1})
        assert made.keys() == {
            "bagging_seed", "feature_fraction_seed", "extra_seed", "objective_seed", "verbose",
        }  # fmt: skip
        seeds.append(made["bagging_seed"])
    assert seeds[0] != seeds[1]


@pytest.mark.reliability("R9")
def test_a_training_whose_worker_gets_a_signal_ends_with_the_same_model(tmp_path: Path) -> None:
    """SIGTERM waits for the end of the part."""
    wanted, _ = Trial().attempt(lambda _: trained(SAMPLED))
    result, outcomes = run_program(tmp_path, PROGRAM)
    assert outcomes == ["killed", "preempted", "succeeded"]
    assert result == wanted
    count("R9", "SIGKILLs of frameworks", 1)
    count("R9", "SIGTERMs of frameworks", 1)


@pytest.mark.reliability("R9")
def test_a_training_that_begins_with_a_model_goes_on() -> None:
    first = lightgbm.Booster(model_str=trained({}, rounds=4, resume={})[0])
    wanted = Trial().attempt(lambda _: trained(SAMPLED, init_model=first))
    assert lightgbm.Booster(model_str=wanted[0]).current_iteration() == 4 + ROUNDS
    trial = Trial(MemoryStorage(trusted=False))
    with pytest.raises(trial.Killed):
        trial.attempt(lambda _: trained(SAMPLED, 8, trial.kill, init_model=first))
    assert trial.attempt(lambda _: trained(SAMPLED, init_model=first)) == wanted


@pytest.mark.reliability("R9")
def test_scikit_learns_estimators_go_on() -> None:
    from sklearn.datasets import load_digits

    from headway.integrations.lightgbm import Resume

    images, labels = load_digits(return_X_y=True)

    def fitted(stop: int | None, strike: Callable[[], None] | None) -> Any:
        model = lightgbm.LGBMClassifier(
            n_estimators=8, num_leaves=4, subsample=0.5, subsample_freq=1, n_jobs=1, verbose=-1,
            random_state=1, deterministic=True, force_row_wise=True,
        )  # fmt: skip
        resume = Resume(every=0, rounds=2)
        model.fit(images[:400], labels[:400], callbacks=[resume, At(stop, strike)])
        return model.predict_proba(images[400:]).tobytes()

    wanted = Trial().attempt(lambda _: fitted(None, None))
    trial = Trial(MemoryStorage(trusted=False))
    with pytest.raises(trial.Killed):
        trial.attempt(lambda _: fitted(5, trial.kill))
    assert trial.attempt(lambda _: fitted(None, None)) == wanted


def test_more_rounds_go_on_and_other_settings_are_refused(tmp_path: Path) -> None:
    def on(rounds: int, part: int = 3) -> Any:
        with headway.open_checkpoint(f"{tmp_path}/home/boost") as checkpoint:
            resume = {"checkpoint": checkpoint, "rounds": part}
            return trained(SAMPLED, rounds=rounds, resume=resume)

    on(8)
    assert on(11) == Trial().attempt(lambda _: trained(SAMPLED, rounds=11))
    with pytest.raises(InputError, match=r"training has 5 rounds now, and [69] are done"):
        on(5)
    with pytest.raises(InputError, match=r"Resume\(rounds=4\) was Resume\(rounds=3\)"):
        on(11, part=4)
    with headway.open_checkpoint(f"{tmp_path}/home/boost") as checkpoint:
        from headway.integrations.lightgbm import Resume

        data = lightgbm.Dataset(np.eye(20), label=np.arange(20) % 10, params=BASE)
        with pytest.raises(InputError, match="the data sets are not those"):
            lightgbm.train(BASE, data, 11, callbacks=[Resume(checkpoint, rounds=3)])


def test_what_cannot_go_on_is_refused() -> None:
    from headway.integrations.lightgbm import Resume

    def data() -> Any:
        return lightgbm.Dataset(np.eye(40), label=np.arange(40) % 2)

    quiet = {"verbose": -1, "min_data_in_leaf": 1, "min_data_in_bin": 1}
    with pytest.raises(InputError, match=r"lightgbm\.cv\(\) cannot go on"):
        lightgbm.cv(quiet, data(), 2, nfold=2, stratified=False, callbacks=[Resume()])
    for kind in ("dart", "rf"):
        more = {"boosting_type": kind, "bagging_fraction": 0.5, "bagging_freq": 1}
        with pytest.raises(InputError, match=f"cannot be used with boosting_type='{kind}'"):
            lightgbm.train({**quiet, **more}, data(), 2, callbacks=[Resume()])
    with pytest.raises(InputError, match="one round at least"):
        Resume(rounds=0)
    with pytest.warns(RuntimeWarning, match=r"Resume\(\) saves nothing here"):
        model = lightgbm.train(quiet, data(), 25, callbacks=[Resume()])
    assert model.current_iteration() == 25

    def twice(_: Any) -> None:
        for _ in range(2):
            lightgbm.train(quiet, data(), 2, callbacks=[Resume()])

    with pytest.raises(HeadwayError, match=r"Resume\(\) was called twice"):
        Trial().attempt(twice)


def test_a_training_booster_that_was_stopped_early_is_let_go_of() -> None:
    """`train` tells nobody of its end then."""

    def body(_: Any) -> Any:
        from headway.integrations.lightgbm import Resume

        draw = np.random.default_rng(1).normal
        data = lightgbm.Dataset(draw(size=(200, 5)), label=draw(size=200))
        return lightgbm.train(
            {"verbose": -1},
            data,
            200,
            valid_sets=[data.create_valid(draw(size=(200, 5)), label=draw(size=200))],
            callbacks=[Resume(rounds=3), lightgbm.early_stopping(5, verbose=False)],
            keep_training_booster=True,
        )

    model = Trial().attempt(body)
    gc.collect()
    so_far = model.current_iteration()
    assert 5 < so_far < 200
    model.update()
    assert model.current_iteration() == so_far + 1
    assert model.eval_valid()

"""XGBoost and LightGBM under `track`: the final model is, byte for byte, that of an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.frameworks.killing import Example, Trial, added_lines

from headway.model.errors import InputError
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.frameworks

EXAMPLES = ["with_xgboost", "with_lightgbm"]
ROUNDS = 8


def example(name: str, rounds: int) -> Example:
    needed = name.removeprefix("with_")
    pytest.importorskip(needed, reason=f"no {needed}: `make frameworks` installs it")
    return Example(name, np.random.seed, rounds=rounds)


@pytest.fixture
def digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images[:600], labels[:600]


@pytest.mark.parametrize("name", EXAMPLES)
def test_three_lines_are_added(name: str) -> None:
    assert len(added_lines(name)) == 3


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_killed_training_ends_with_the_same_model(name: str) -> None:
    example(name, 10).check()


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_training_whose_worker_gets_sigkill_ends_with_the_same_model(
    name: str, tmp_path: Path
) -> None:
    example(name, 6).check_signal(tmp_path)


def boosted(
    trial: Trial, make: Callable[[], Any], step: Callable[[Any, int], None], stop: int | None
) -> Any:
    """A booster after all rounds; killed before round `stop`."""

    def body(track: Any) -> Any:
        booster = make()
        state = track(booster=booster)
        assert state.booster is booster
        for turn in state.range(1, ROUNDS):
            if turn == stop:
                trial.kill()
            step(booster, turn)
        return booster

    return trial.attempt(body)


@pytest.mark.reliability("R9")
@pytest.mark.parametrize(
    "more",
    [
        {"subsample": 0.5, "colsample_bytree": 0.5},
        {"subsample": 0.5, "tree_method": "approx"},
        {"subsample": 0.5, "tree_method": "exact"},
        {"booster": "dart", "rate_drop": 0.3, "subsample": 0.5},
        {"num_parallel_tree": 2, "subsample": 0.5},
    ],
    ids=["columns", "approx", "exact", "dart", "forest"],
)
def test_xgboost_is_exact_with(more: dict[str, Any], digits: tuple[Any, Any]) -> None:
    xgboost = pytest.importorskip("xgboost")
    data = xgboost.DMatrix(digits[0], label=digits[1])
    base = {"objective": "multi:softprob", "num_class": 10, "max_depth": 2, "nthread": 1}

    def make() -> Any:
        return xgboost.Booster({**base, **more, "seed_per_iteration": True}, [data])

    def step(booster: Any, turn: int) -> None:
        booster.update(data, turn)
        booster.set_attr(turn=str(turn))
        booster.reset()

    wanted = boosted(Trial(), make, step, None)
    for stop in (2, 5):
        trial = Trial(MemoryStorage(trusted=False))
        with pytest.raises(trial.Killed):
            boosted(trial, make, step, stop)
        made = boosted(trial, make, step, None)
        assert made.save_raw("ubj") == wanted.save_raw("ubj")
        assert made.attr("turn") == str(ROUNDS - 1)


@pytest.mark.reliability("R9")
@pytest.mark.parametrize(
    "more",
    [
        {"bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction_bynode": 0.5},
        {"extra_trees": True},
        {"data_sample_strategy": "goss", "learning_rate": 0.5},
    ],
    ids=["bagging", "extra trees", "goss"],
)
def test_lightgbm_is_exact_with(more: dict[str, Any], digits: tuple[Any, Any]) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    base = {"objective": "multiclass", "num_class": 10, "num_leaves": 4, "verbose": -1}
    fixed = {**base, **more, "num_threads": 1, "deterministic": True, "force_row_wise": True}
    data: Any = None

    def make() -> Any:
        nonlocal data
        data = lightgbm.Dataset(digits[0], label=digits[1], params=fixed, free_raw_data=False)
        return lightgbm.train({**fixed, "seed": 1}, data, 1)

    def step(booster: Any, turn: int) -> None:
        parameters = {**fixed, "seed": turn + 1}
        grown = lightgbm.train(parameters, data, 1, init_model=booster)
        booster.model_from_string(grown.model_to_string())
        booster.best_iteration = turn
        booster.best_score["train"]["loss"] = 1 / turn

    wanted = boosted(Trial(), make, step, None)
    assert wanted.current_iteration() == ROUNDS
    for stop in (2, 5):
        trial = Trial(MemoryStorage(trusted=False))
        with pytest.raises(trial.Killed):
            boosted(trial, make, step, stop)
        made = boosted(trial, make, step, None)
        assert made.model_to_string() == wanted.model_to_string()
        assert made.best_iteration == ROUNDS - 1
        assert made.best_score == {"train": {"loss": 1 / (ROUNDS - 1)}}


def test_a_lightgbm_booster_with_data_is_refused(digits: tuple[Any, Any]) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    data = lightgbm.Dataset(digits[0], label=digits[1])
    booster = lightgbm.Booster({"verbose": -1}, data)
    with pytest.raises(
        InputError, match=r"booster is a Booster of LightGBM with data .*init_model"
    ):
        Trial().attempt(lambda track: track(booster=booster))

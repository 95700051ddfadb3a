"""scikit-learn under `track`: what a killed program ends with is what it would have ended with."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import MiniBatchKMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import IncrementalPCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from tests.frameworks.killing import Example, Trial, added_lines

from headway import adapters
from headway.model.errors import InputError
from headway.testing.memory import MemoryStorage

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
EXAMPLE = "with_scikit_learn"
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = IMAGES[:400] / 16
LABELS = LABELS[:400]


def test_three_lines_are_added() -> None:
    assert len(added_lines(EXAMPLE)) == 3


@pytest.mark.reliability("R9")
def test_a_killed_training_ends_with_the_same_weights() -> None:
    Example(EXAMPLE, np.random.seed, epochs=40).check()


@pytest.mark.reliability("R9")
def test_a_training_whose_worker_gets_sigkill_ends_with_the_same_weights(tmp_path: Path) -> None:
    Example(EXAMPLE, np.random.seed, epochs=40).check_signal(tmp_path)


def partly(model: Any, turn: int) -> None:
    part = slice(40 * turn, 40 * turn + 80)
    if isinstance(model, MiniBatchKMeans | IncrementalPCA):
        model.partial_fit(IMAGES[part])
    else:
        model.partial_fit(IMAGES[part], LABELS[part], classes=np.arange(10))


def wholly(model: Any, turn: int) -> None:
    if hasattr(model, "n_estimators"):
        model.n_estimators += 2
    else:
        model.max_iter += 2
    model.fit(IMAGES, LABELS)


MODELS: dict[str, tuple[Callable[[], Any], Callable[[Any, int], None], bool]] = {
    "sgd": (SGDClassifier, partly, True),
    "sgd, averaged": (lambda: SGDClassifier(average=200, loss="log_loss"), partly, True),
    "mlp": (lambda: MLPClassifier((8,), random_state=1), partly, True),
    "mlp, global random state": (lambda: MLPClassifier((8,), solver="sgd"), partly, True),
    "mlp, warm start": (
        lambda: MLPClassifier((8,), max_iter=2, warm_start=True, random_state=1), wholly, True,
    ),
    "k-means": (lambda: MiniBatchKMeans(10, random_state=1), partly, True),
    "pca": (lambda: IncrementalPCA(5), partly, True),
    "naive bayes": (GaussianNB, partly, True),
    "forest": (
        lambda: RandomForestClassifier(1, max_depth=4, warm_start=True, random_state=1),
        wholly, False,
    ),
    "forest, shared generator": (
        lambda: RandomForestClassifier(
            1, max_depth=4, warm_start=True, random_state=np.random.RandomState(3)
        ),
        wholly, False,
    ),
    "boosting": (
        lambda: GradientBoostingClassifier(
            n_estimators=1, max_depth=2, subsample=0.5, warm_start=True, random_state=1
        ),
        wholly, False,
    ),
    "histogram boosting": (
        lambda: HistGradientBoostingClassifier(
            max_iter=1, max_features=0.5, warm_start=True, random_state=1
        ),
        wholly, False,
    ),
}  # fmt: skip


def trained(model: Any, step: Callable[[Any, int], None], trial: Trial, stop: int | None) -> bytes:
    """Six steps of a model; killed before step `stop`."""

    def body(track: Any) -> bytes:
        np.random.seed(5)
        state = track(model=model)
        assert state.model is model
        for turn in state.range(6):
            if turn == stop:
                trial.kill()
            step(model, turn)
        return pickle.dumps(model)

    return bytes(trial.attempt(body))


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_goes_on_as_if_nothing_had_happened(name: str) -> None:
    make, step, plain = MODELS[name]
    whole = make()
    wanted = trained(whole, step, Trial(MemoryStorage(trusted=not plain)), None)
    assert len(wanted) > 500
    for stop in range(1, 6):
        trial = Trial(MemoryStorage(trusted=not plain))
        with pytest.raises(trial.Killed):
            trained(make(), step, trial, stop)
        with pytest.raises(trial.Killed):
            trained(make(), step, trial, min(stop + 1, 5))
        model = make()
        trained(model, step, trial, None)
        assert predictions(model) == predictions(whole)
        assert same(vars(model), vars(whole)), stop


def predictions(model: Any) -> bytes:
    found = model.transform(IMAGES) if hasattr(model, "transform") else model.predict(IMAGES)
    return bytes(found.tobytes())


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, bit for bit, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) or (isinstance(one, np.ndarray) and one.dtype == object):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype) and one.tobytes() == other.tobytes()
    if isinstance(one, np.random.RandomState):
        return same(one.get_state(legacy=False), other.get_state(legacy=False))
    if isinstance(one, np.random.Generator):
        return same(one.bit_generator.state, other.bit_generator.state)
    if hasattr(one, "__dict__") and not callable(one):
        return same(vars(one), vars(other))
    if type(one).__name__ == "Tree":
        return same(one.__getstate__(), other.__getstate__())
    if type(one).__module__.startswith("sklearn."):
        return same(one.__reduce__()[1], other.__reduce__()[1])
    return repr(one) == repr(other)  # NaN too


def test_what_is_no_data_is_refused_where_pickles_are_not_trusted() -> None:
    model = RandomForestClassifier(2).fit(IMAGES, LABELS)
    with pytest.raises(
        InputError, match=r"model\.estimators_\[0\]\.tree_ is a sklearn\.tree\._tree\.Tree"
    ):
        Trial(MemoryStorage(trusted=False)).attempt(lambda track: track(model=model))


def test_functions_among_the_parameters_are_those_of_the_program() -> None:
    def build(function: Any) -> Any:
        return make_pipeline(FunctionTransformer(function), StandardScaler())

    trial = Trial(MemoryStorage(trusted=False))

    def body(track: Any) -> Any:
        model = build(np.log1p)
        for _ in track(model=model).range(1):
            model.fit(IMAGES)
        return model

    first = trial.attempt(body)
    second = build(np.sqrt)
    trial.attempt(lambda track: track(model=second))
    assert second[0].func is np.sqrt
    assert second[1].mean_.tobytes() == first[1].mean_.tobytes()


class Mine(BaseEstimator):  # type: ignore[misc]
    """An estimator of a program's own, with another one in it that it makes when it is fitted."""

    def fit(self, inner: Any) -> Mine:
        self.inner_ = inner
        return self


def test_an_estimator_of_another_class_is_refused() -> None:
    trial = Trial()

    def body(model: Any, inner: Any) -> Callable[[Any], Any]:
        def run(track: Any) -> Any:
            for _ in track(model=model).range(1):
                if inner is not None:
                    model.fit(inner)
            return model

        return run

    trial.attempt(body(Mine(), Mine()))
    with pytest.raises(
        InputError, match=r"model\.inner_ is nothing now, and a Mine in the checkpoint"
    ):
        trial.attempt(body(Mine(), None))
    with pytest.raises(InputError, match="model is a GaussianNB now, and a Mine in the checkpoint"):
        trial.attempt(body(GaussianNB(), None))
    there = trial.attempt(body(Mine().fit(Mine()), None))
    assert type(there.inner_) is Mine


def test_arrays_that_attributes_share_stay_shared() -> None:
    trial = Trial()

    def body(track: Any) -> Any:
        model = Mine()
        for _ in track(model=model).range(1):
            model.fit([IMAGES, IMAGES, GaussianNB().fit(IMAGES, LABELS)])
        return model

    trial.attempt(body)
    inner = trial.attempt(body).inner_
    assert inner[0] is inner[1]
    assert inner[0].tobytes() == IMAGES.tobytes()
    assert (
        inner[2].predict(IMAGES).tobytes()
        == GaussianNB().fit(IMAGES, LABELS).predict(IMAGES).tobytes()
    )


@pytest.mark.parametrize(
    "name", ["sklearn.utils._bunch:Bunch", "subprocess:Popen", "builtins:eval"]
)
def test_only_estimators_and_their_parts_are_made(name: str) -> None:
    """Whoever forges a checkpoint gets no other class called."""
    live = SGDClassifier()
    data = adapters.find(live).capture(live, "model")  # type: ignore[union-attr]
    data["estimator"] = {"": ["made", name], "from": ("x",)}
    with pytest.raises(InputError, match="in the checkpoint"):
        adapters.find(live).restore(live, data, "model")  # type: ignore[union-attr]

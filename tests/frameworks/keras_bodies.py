"""What the tests of Keras run, in a process for each backend: `python -m … NAME` with KERAS_BACKEND."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tests.frameworks.killing import Example, Killed, Trial

from headway.model.errors import InputError


def forget(number: int) -> None:
    keras.utils.set_random_seed(1000 + number)


def killed() -> None:
    Example("with_keras", forget, epochs=8).check()


def sigkill(home: str) -> None:
    Example("with_keras", forget, epochs=30).check_signal(Path(home))


IMAGES = np.random.default_rng(1).random((64, 8)).astype(np.float32)
LABELS = np.random.default_rng(2).integers(0, 3, 64)


def network(kind: str = "float32") -> Any:
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(6, activation="relu", dtype=kind),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    model.compile(
        keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def batches() -> None:
    """Batches, with metrics that add up, weights of bfloat16, and random numbers without a seed."""
    wanted: Any = None
    for stop in (None, 2, 5):
        trial = Trial()

        def body(track: Any, stop: int | None, trial: Trial = trial) -> Any:
            forget(1)
            model = network("bfloat16")
            model.test_on_batch(IMAGES, LABELS)
            model.reset_metrics()
            noise = keras.random.SeedGenerator(4)
            state = track(model=model, noise=noise, seen=[])
            assert state.model is model
            for turn in state.range(8):
                if turn == stop:
                    trial.kill()
                drawn = keras.ops.convert_to_numpy(keras.random.normal((64, 8), seed=noise))
                unseeded = keras.ops.convert_to_numpy(keras.random.uniform((1,)))
                told = model.train_on_batch(IMAGES + drawn, LABELS, return_dict=True)
                state.seen.append([float(unseeded[0]), *map(float, told.values())])
            weights = [keras.ops.convert_to_numpy(v).tobytes() for v in model.variables]
            return state.seen, weights

        try:
            made = body_of(trial, body, stop)
        except Killed:
            forget(99)
            made = body_of(trial, body, None)
        wanted = wanted or made
        assert made == wanted, stop


def body_of(trial: Trial, body: Any, stop: int | None) -> Any:
    return trial.attempt(lambda track: body(track, stop))


def refused() -> None:
    """What does not fit says so."""
    trial = Trial()

    def save(track: Any) -> None:
        model = network()
        model.test_on_batch(IMAGES, LABELS)
        for _ in track(model=model).range(1):
            model.train_on_batch(IMAGES, LABELS)

    trial.attempt(save)
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(7)])
    raises("model has 2 variables now, and 5 in the checkpoint", trial, other)
    shaped = keras.Sequential(
        [keras.Input((9,)), keras.layers.Dense(6), keras.layers.Dropout(0.1), keras.layers.Dense(3)]
    )
    raises("(9, 6)", trial, shaped)
    raises("model.test_on_batch(x, y)", trial, network())
    raises("without weights so far", trial, keras.Sequential([keras.layers.Dense(7)]))


def raises(text: str, trial: Trial, model: Any) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        trial.attempt(lambda track: track(model=model))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])

"""What the tests of `integrations.keras` run, in a process for each backend: `python -m … NAME`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
from tests.frameworks.keras_bodies import IMAGES, LABELS, forget
from tests.frameworks.killing import Killed, Trial, run_program

import headway
from headway.integrations.keras import Resume
from headway.model.errors import HeadwayError, InputError
from headway.testing.memory import MemoryStorage

EPOCHS = 6
PROGRAM = """\
import os, signal
from headway import current_context, task
from tests.frameworks.keras_resume_bodies import At, fitted

@task(interruptible=True, retries=2)
def train() -> str:
    context = current_context()
    def strike():
        context.checkpoint.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    when = {0: (2, 1), 1: (4, 0)}.get(context.attempt)
    return fitted(At(when, strike))
"""


class At(keras.callbacks.Callback):  # type: ignore[misc]  # Keras' types are not read
    """Does something before a batch of an epoch."""

    def __init__(self, when: tuple[int, int] | None, strike: Any) -> None:
        super().__init__()
        self._when = when
        self._strike = strike
        self.epochs: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._when is not None and (self.epochs[-1], batch) == self._when:
            self._strike()


def network() -> Any:
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def fitted(at: At, *, resume: bool = True, patience: int = 99, epochs: int = EPOCHS) -> str:
    """All variables after `fit`, and its history."""
    keras.utils.set_random_seed(3)
    model = network()
    early = keras.callbacks.EarlyStopping(
        "val_loss", patience=patience, min_delta=0.05, restore_best_weights=patience < 99
    )
    slower = keras.callbacks.ReduceLROnPlateau("loss", patience=1, factor=0.5)
    mine = [Resume(every=0, also=[early, slower])] if resume else []
    done = model.fit(
        IMAGES, LABELS, batch_size=16, epochs=epochs, verbose=0,
        validation_data=(IMAGES[:16], LABELS[:16]), callbacks=[at, early, slower, *mine],
    )  # fmt: skip
    variables = [*model.variables, *model.optimizer.variables]
    weights = [keras.ops.convert_to_numpy(v).tobytes().hex() for v in variables]
    logs = {name: [float(v) for v in values] for name, values in done.history.items()}
    return json.dumps([weights, list(done.epoch), logs])


def killed() -> None:
    """In epochs, and between them; the rest is done, and nothing twice."""
    for patience in (99, 2):
        wanted = fitted(At(None, None), resume=False, patience=patience, epochs=12)
        ran = json.loads(wanted)[1]
        assert len(ran) == 12 if patience == 99 else 3 <= len(ran) < 12, ran
        for when in [(0, 2), (1, 0), (2, 3), (len(ran) - 1, 0)]:
            trial = Trial(MemoryStorage(trusted=False))

            def attempt(at: At, trial: Trial = trial, patience: int = patience) -> str:
                made: str = trial.attempt(lambda _: fitted(at, patience=patience, epochs=12))
                return made

            forget(when[0])
            with pytest.raises(Killed):
                attempt(At(when, trial.kill))
            forget(77)
            again = At(None, None)
            assert attempt(again) == wanted, when
            begun = again.epochs[0]  # the last boundary is not saved while a save is in flight
            assert min(when[0], 1) <= begun <= when[0]
            assert again.epochs == ran[begun:]
            finished = At(None, None)
            assert attempt(finished) == wanted
            assert finished.epochs == []


def sigkill(home: str) -> None:
    wanted = fitted(At(None, None), resume=False)
    result, outcomes = run_program(Path(home), PROGRAM)
    assert outcomes == ["killed", "killed", "succeeded"]
    assert result == wanted


def elsewhere(home: str) -> None:
    """With a checkpoint of its own, without one, and twice."""
    model = network()
    for epochs, ran in [(2, [0, 1]), (5, [2, 3, 4])]:
        with headway.open_checkpoint(f"{home}/home/fit") as checkpoint:
            at = At(None, None)
            model = network()
            callbacks = [at, Resume(checkpoint)]
            history = model.fit(IMAGES, LABELS, epochs=epochs, verbose=0, callbacks=callbacks)
            assert at.epochs == ran
            assert history.epoch == list(range(epochs))
    at = At(None, None)
    model.fit(IMAGES, LABELS, epochs=2, verbose=0, callbacks=[at])
    assert at.epochs == [0, 1]
    with pytest.warns(RuntimeWarning, match=r"Resume\(\) saves nothing here"):
        model.fit(IMAGES, LABELS, verbose=0, callbacks=[at, Resume()])
    with pytest.raises(InputError, match="what a At remembers"):
        Resume(also=[at])

    def twice(_: Any) -> None:
        for _ in range(2):
            model.fit(IMAGES, LABELS, verbose=0, callbacks=[Resume()])

    with pytest.raises(HeadwayError, match=r"Resume\(\) was called twice"):
        Trial().attempt(twice)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])

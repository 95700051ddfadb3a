"""Train a classifier of handwritten digits that can be killed at any time.

    headway run examples/digits.py digits --epochs 60

Every epoch ends with a checkpoint of all that the next one depends on: the weights, the step
counter of the learning rate, and the state of the random generator. So a run that was killed and
resumed ends with the same weights, bit for bit, as one that was left alone.

Data: the "Optical Recognition of Handwritten Digits" test set (UCI, 1,797 images of 8 x 8 pixels),
which scikit-learn ships; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from headway import current_context, task, workflow

CLASSES = np.arange(10)
TEST_SHARE = 0.25

Images = NDArray[np.float64]  # (n, 64), from 0 to 1
Labels = NDArray[np.int64]  # (n,), from 0 to 9


class Data(NamedTuple):
    """The images, split once."""

    train_x: Images
    train_y: Labels
    test_x: Images
    test_y: Labels


class Weights(NamedTuple):
    """A trained linear classifier."""

    coef: NDArray[np.float64]  # (10, 64)
    intercept: NDArray[np.float64]  # (10,)


class Result(NamedTuple):
    """What the workflow returns: the share of test images recognised, and the weights' SHA-256."""

    accuracy: float
    digest: str


@task
def split(seed: int) -> Data:
    """Shuffle the images and put a quarter aside for testing."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    cut = int(len(images) * TEST_SHARE)
    x, y = images[order] / 16.0, labels[order].astype(np.int64)
    return Data(x[cut:], y[cut:], x[:cut], y[:cut])


@task(retries=3, interruptible=True)
def train(x: Images, y: Labels, epochs: int, seed: int, pace: float) -> Weights:
    """Fit the classifier, one checkpoint an epoch.

    Args:
        x: training images, (n, 64).
        y: their digits, (n,).
        epochs: passes over the images; every pass sees them in a new order and with new noise.
        seed: of the random generator.
        pace: seconds an epoch takes at least. It stands in for data that would keep a machine busy.
    """
    cp = current_context().checkpoint
    model = SGDClassifier(
        loss="log_loss", learning_rate="invscaling", eta0=0.05, power_t=0.25, shuffle=False
    )
    rng = np.random.default_rng(seed)
    saved = cp.read()
    done = 0 if saved is None else restore(saved, model, rng)
    print(f"training from epoch {done} in process {os.getpid()}", flush=True)

    for epoch in range(done, epochs):
        began = time.monotonic()
        order = rng.permutation(len(x))
        noise = rng.normal(0.0, 0.1, size=x.shape)
        model.partial_fit(x[order] + noise, y[order], classes=CLASSES)
        time.sleep(max(0.0, pace - (time.monotonic() - began)))
        cp.write(dump(epoch + 1, model, rng))
    return Weights(model.coef_, model.intercept_)


@task
def evaluate(
    coef: NDArray[np.float64], intercept: NDArray[np.float64], x: Images, y: Labels
) -> Result:
    """Recognise the test images with the weights, and count."""
    guessed = np.argmax(x @ coef.T + intercept, axis=1)
    digest = hashlib.sha256(coef.tobytes() + intercept.tobytes()).hexdigest()
    return Result(float(np.mean(guessed == y)), digest)


@workflow
def digits(epochs: int = 60, seed: int = 7, pace: float = 0.2) -> Result:
    """Split, train, evaluate."""
    data = split(seed=seed)
    weights = train(x=data.train_x, y=data.train_y, epochs=epochs, seed=seed, pace=pace)
    return evaluate(coef=weights.coef, intercept=weights.intercept, x=data.test_x, y=data.test_y)


def dump(epoch: int, model: SGDClassifier, rng: np.random.Generator) -> bytes:
    """Everything the next epoch depends on, as the bytes of an .npz file: arrays, no pickle."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        epoch=epoch,
        coef=model.coef_,
        intercept=model.intercept_,
        steps=model.t_,
        rng=json.dumps(rng.bit_generator.state),
    )
    return buffer.getvalue()


def restore(saved: bytes, model: SGDClassifier, rng: np.random.Generator) -> int:
    """Put `saved` back into `model` and `rng`; returns how many epochs are done."""
    with np.load(io.BytesIO(saved), allow_pickle=False) as state:
        model.classes_ = CLASSES
        model.coef_, model.intercept_ = state["coef"], state["intercept"]
        model.t_ = float(state["steps"])
        rng.bit_generator.state = json.loads(str(state["rng"]))
        return int(state["epoch"])


if __name__ == "__main__":
    result = digits()
    print(f"accuracy {result.accuracy:.3f}, weights {result.digest[:16]}")

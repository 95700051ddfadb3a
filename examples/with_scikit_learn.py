"""Train a small neural network on handwritten digits (UCI's, which scikit-learn ships)."""

from __future__ import annotations

import hashlib

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from headway import track


def train(epochs: int = 100) -> str:
    """The SHA-256 of the weights after so many epochs."""
    images, labels = load_digits(return_X_y=True)
    model = MLPClassifier((32,), random_state=7)
    state = track(model=model)
    for _ in state.range(epochs):
        model.partial_fit(images / 16, labels, classes=np.arange(10))
    digest = hashlib.sha256()
    for weights in model.coefs_ + model.intercepts_:
        digest.update(weights.tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(train())

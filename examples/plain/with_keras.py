"""Train a small network on handwritten digits (UCI's, which scikit-learn ships) with Keras 3."""

from __future__ import annotations

import hashlib

import keras
import numpy as np
from sklearn.datasets import load_digits


def train(epochs: int = 20) -> str:
    """The SHA-256 of the weights after so many epochs."""
    keras.utils.set_random_seed(7)
    images, labels = load_digits(return_X_y=True)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.test_on_batch(images[:1] / 16, labels[:1])  # metrics take their form from the first batch
    model.reset_metrics()
    for _ in range(epochs):
        model.fit(images.astype(np.float32) / 16, labels, batch_size=128, verbose=0)
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(train())

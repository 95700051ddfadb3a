"""Boost trees on handwritten digits (UCI's, which scikit-learn ships) with XGBoost."""

from __future__ import annotations

import hashlib

import xgboost
from sklearn.datasets import load_digits

PARAMETERS = {
    "objective": "multi:softprob",
    "num_class": 10,
    "max_depth": 2,
    "nthread": 1,
    "subsample": 0.5,
    "colsample_bynode": 0.5,
    "seed": 7,
    "seed_per_iteration": True,  # what a round draws depends on its number alone
}


def train(rounds: int = 50) -> str:
    """The SHA-256 of the model after so many rounds."""
    images, labels = load_digits(return_X_y=True)
    data = xgboost.DMatrix(images, label=labels)
    booster = xgboost.Booster(PARAMETERS, [data])
    for turn in range(rounds):
        booster.update(data, turn)
        booster.reset()  # its caches, and generators that are drawn from only when it begins
    return hashlib.sha256(booster.save_raw("ubj")).hexdigest()


if __name__ == "__main__":
    print(train())

"""Boost trees on handwritten digits (UCI's, which scikit-learn ships) with LightGBM."""

from __future__ import annotations

import hashlib

import lightgbm
from sklearn.datasets import load_digits

from headway import track

PARAMETERS = {
    "objective": "multiclass",
    "num_class": 10,
    "num_leaves": 4,
    "num_threads": 1,
    "bagging_fraction": 0.5,
    "bagging_freq": 1,
    "feature_fraction": 0.5,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}


def train(rounds: int = 50) -> str:
    """The SHA-256 of the model after so many rounds."""
    images, labels = load_digits(return_X_y=True)
    data = lightgbm.Dataset(images, label=labels, params=PARAMETERS, free_raw_data=False)
    booster = lightgbm.train({**PARAMETERS, "seed": 7}, data, 1)
    state = track(booster=booster)
    for turn in state.range(1, rounds):
        # A round of its own, with a seed of its own: it depends on nothing but the trees so far.
        more = lightgbm.train({**PARAMETERS, "seed": 7 + turn}, data, 1, init_model=booster)
        booster.model_from_string(more.model_to_string())
    return hashlib.sha256(booster.model_to_string().encode()).hexdigest()


if __name__ == "__main__":
    print(train())

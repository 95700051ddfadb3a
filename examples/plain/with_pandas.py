"""Collect the mean image of each handwritten digit (UCI's, which scikit-learn ships) in a pandas frame."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pandas as pd
from sklearn.datasets import load_digits


def train(parts: int = 50) -> str:
    """The SHA-256 of the table, made of so many parts of the images."""
    images, labels = load_digits(return_X_y=True)
    state = SimpleNamespace(table=pd.DataFrame())
    for part in range(parts):
        frame = pd.DataFrame(images[part::parts], columns=[f"p{i}" for i in range(64)])
        means = frame.assign(digit=labels[part::parts]).groupby("digit", as_index=False).mean()
        state.table = pd.concat([state.table, means.assign(part=part)], ignore_index=True)
    return hashlib.sha256(state.table.to_csv().encode()).hexdigest()


if __name__ == "__main__":
    print(train())

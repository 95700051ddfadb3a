"""Train a small network on handwritten digits (UCI's, which scikit-learn ships) with JAX and Optax."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

OPTIMIZER = optax.adam(1e-2)


def network(weights: dict[str, Any], images: Any, key: Any) -> Any:
    """The scores of the digits, with a tenth of the hidden numbers dropped."""
    hidden = jax.nn.relu(images @ weights["in"])
    return (hidden * jax.random.bernoulli(key, 0.9, hidden.shape)) @ weights["out"]


@jax.jit  # type: ignore[untyped-decorator]
def step(weights: Any, moments: Any, key: Any, images: Any, labels: Any) -> Any:
    """One step, on a sample that the key draws: weights, moments and key for the next one."""
    key, draw, drop = jax.random.split(key, 3)
    chosen = jax.random.choice(draw, len(labels), (128,))

    def loss(weights: Any) -> Any:
        scores = network(weights, images[chosen], drop)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels[chosen]).mean()

    updates, moments = OPTIMIZER.update(jax.grad(loss)(weights), moments)
    return optax.apply_updates(weights, updates), moments, key


def train(steps: int = 500) -> str:
    """The SHA-256 of the weights after so many steps."""
    images, labels = (jnp.asarray(part) for part in load_digits(return_X_y=True))
    key, one, two = jax.random.split(jax.random.key(7), 3)
    weights = {
        "in": jax.random.normal(one, (64, 32)) / 8,
        "out": jax.random.normal(two, (32, 10)) / 8,
    }
    state = SimpleNamespace(weights=weights, moments=OPTIMIZER.init(weights), key=key)
    for _ in range(steps):
        state.weights, state.moments, state.key = step(
            state.weights, state.moments, state.key, images / 16, labels
        )
    digest = hashlib.sha256()
    for part in state.weights.values():
        digest.update(bytes(memoryview(part)))
    return digest.hexdigest()


if __name__ == "__main__":
    print(train())

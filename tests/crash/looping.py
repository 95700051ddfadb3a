"""A task whose state `track` keeps: nested loops with Python code, a call that takes long in C, sleep, and
a second loop in each turn. What it returns says which steps were done, how often, and what they drew."""

from __future__ import annotations

import hashlib
import random
import time
from typing import Any

import numpy as np

from headway import task, track

EPOCHS, BATCHES = 4, 12
BLOCK = bytes(12 << 20)  # hashing it takes some milliseconds without looking at signals


@task(retries=0, interruptible=True)
def train(seed: int, pace: float) -> dict[str, Any]:
    random.seed(seed)
    np.random.seed(seed)
    weights = np.zeros(4096)
    done: list[tuple[int, int]] = []
    state = track(every=0.0, weights=weights, done=done, loss=0.0)
    for epoch in state.range(EPOCHS):
        order = random.sample(range(BATCHES), BATCHES)
        for batch in state.iterate(order):
            kind = batch % 3
            if kind == 0:
                time.sleep(pace)
            elif kind == 1:
                hashlib.sha256(BLOCK)
            else:
                sum(number * number for number in range(20_000))
            weights[batch::BATCHES] += np.random.normal()
            done.append((epoch, batch))
        for part in state.range(2):
            state.loss += float(weights.sum()) * random.random()
            done.append((epoch, -1 - part))
    return {
        "steps": len(done),
        "different": len(set(done)),
        "loss": state.loss,
        "weights": hashlib.sha256(weights.tobytes()).hexdigest(),
    }

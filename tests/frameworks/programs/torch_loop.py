"""A training with a loader of two processes, a validation that is not tracked, and a call that takes long
in C. What it returns says which steps were done, how often, and what they drew."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from headway import task, track

EPOCHS, ITEMS, BATCH = 6, 48, 4
BLOCK = bytes(12 << 20)  # hashing it takes some milliseconds without looking at signals


class Numbers(Dataset[torch.Tensor]):  # type: ignore[misc]
    """Slow to read: the main process waits for its loader most of the time."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.002)
        return torch.full((8,), float(index))


@task(retries=0, interruptible=True)
def train(seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    loader = DataLoader(Numbers(), batch_size=BATCH, shuffle=True, num_workers=2)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 64), torch.nn.Dropout(0.3), torch.nn.Linear(64, 1)
    )
    optimizer = torch.optim.Adam(model.parameters())
    done: list[Any] = []
    state = track(every=0.0, model=model, optimizer=optimizer, done=done, loss=0.0)
    for epoch in state.range(EPOCHS):
        for batch in state.iterate(loader):
            optimizer.zero_grad()
            model(batch / ITEMS).square().mean().backward()
            optimizer.step()
            done.append((epoch, *batch[:, 0].int().tolist()))
        hashlib.sha256(BLOCK)
        model.eval()
        with torch.no_grad():
            for _ in range(20):
                state.loss += model(torch.rand(16, 8)).mean().item()
        model.train()
    weights = hashlib.sha256()
    for each in model.state_dict().values():
        weights.update(each.numpy().tobytes())
    return {
        "steps": len(done),
        "different": len({tuple(step) for step in done}),
        "items": sorted(item for _, *items in done for item in items)
        == sorted([*range(ITEMS)] * EPOCHS),
        "loss": state.loss,
        "weights": weights.hexdigest(),
    }

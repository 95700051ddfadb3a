"""Train a convolutional network on handwritten digits (UCI's, which scikit-learn ships) with PyTorch."""

from __future__ import annotations

import hashlib

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from headway import track


def train(epochs: int = 20, workers: int = 0) -> str:
    """The SHA-256 of the weights after so many epochs; `workers` processes load the images."""
    torch.manual_seed(7)
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    data = TensorDataset(pixels, torch.tensor(labels))
    loader = DataLoader(data, batch_size=128, shuffle=True, num_workers=workers)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * 8 * 8, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.995)
    state = track(model=model, optimizer=optimizer, schedule=schedule)
    for _ in range(epochs):
        for x, y in state.iterate(loader):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    digest = hashlib.sha256()
    for weights in model.state_dict().values():
        digest.update(weights.numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(train())

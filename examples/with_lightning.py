"""Train a convolutional network on handwritten digits (UCI's, which scikit-learn ships) with Lightning."""

from __future__ import annotations

import hashlib

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from headway.integrations.lightning import Resume


class Digits(pl.LightningModule):  # type: ignore[misc]  # Lightning's types are not read
    """A network with dropout, whose learning rate falls when the loss does not."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(8 * 8 * 8, 10),
        )

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """The loss of a batch."""
        pixels, labels = batch
        loss = nn.functional.cross_entropy(self.net(pixels), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> dict[str, object]:
        """Adam, and a schedule that looks at the mean loss of an epoch."""
        optimizer = torch.optim.Adam(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "loss"}}


def train(epochs: int = 20) -> str:
    """The SHA-256 of the weights after so many epochs."""
    torch.manual_seed(7)
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    data = TensorDataset(pixels, torch.tensor(labels))
    model = Digits()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Resume()],
    )
    trainer.fit(model, DataLoader(data, batch_size=128, shuffle=True))
    digest = hashlib.sha256()
    for weights in model.state_dict().values():
        digest.update(weights.numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(train())

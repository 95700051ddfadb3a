"""What the tests of `integrations.lightning` train: everything that a next batch may depend on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torchmetrics
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

EPOCHS, BATCHES = 4, 7


class Digits(pl.LightningModule):  # type: ignore[misc]  # Lightning's types are not read
    """A classifier with dropout and batch normalisation, whose schedules look at what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(64, 24),
            torch.nn.BatchNorm1d(24),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(24, 10),
        )
        self.accuracy = torchmetrics.MeanMetric()
        self.register_buffer("average", torch.zeros(24, 64))

    def training_step(self, batch: Any, index: int) -> Any:
        x, y = batch
        x = x + 0.01 * random.random() + 0.01 * np.random.rand()
        out = self.net(x)
        loss = torch.nn.functional.cross_entropy(out, y)
        self.accuracy((out.argmax(1) == y).float())
        self.log("loss", loss, on_step=True, on_epoch=True, batch_size=len(x))
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """After all callbacks had theirs."""
        self.average.mul_(0.9).add_(self.net[0].weight.detach(), alpha=0.1)

    def validation_step(self, batch: Any, index: int) -> None:
        x, y = batch
        self.log("validation", torch.nn.functional.cross_entropy(self.net(x), y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=0, threshold=0.2
        )
        by_batch = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
        self.plateau = plateau
        return [optimizer], [
            {"scheduler": by_batch, "interval": "step"},
            {"scheduler": plateau, "interval": "epoch", "monitor": "loss_epoch"},
        ]


class Seen(pl.Callback):  # type: ignore[misc]
    """Writes down where it is; does something before a batch."""

    def __init__(
        self, when: tuple[int, int] | None = None, strike: Callable[[], Any] | None = None
    ) -> None:
        self.batches: list[tuple[int, int]] = []
        self.logged: list[float] = []
        self._when = when
        self._strike = strike

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        here = (trainer.current_epoch, index)
        if here == self._when and self._strike is not None:
            self._strike()
        self.batches.append(here)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        names = ("loss_epoch", "accuracy", "validation")
        self.logged += [float(trainer.callback_metrics.get(name, -1)) for name in names]


def data() -> tuple[TensorDataset, TensorDataset]:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    return TensorDataset(x[:210], y[:210]), TensorDataset(x[210:300], y[210:300])


def plain_loader(rows: Any) -> Any:
    return DataLoader(rows, batch_size=30, shuffle=True)


def trained(
    root: Path,
    callbacks: Sequence[Any] = (),
    *,
    epochs: int = EPOCHS,
    loader: Callable[[Any], Any] = plain_loader,
    module: Callable[[], Any] = Digits,
    ckpt_path: str | None = None,
    **more: Any,
) -> str:
    """A digest of all that there is at the end, and the learning rates."""
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    training, validation = data()
    model = module()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, default_root_dir=root, logger=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[*callbacks],
        **{"num_sanity_val_steps": 1, "enable_checkpointing": False, **more},
    )  # fmt: skip
    trainer.fit(model, loader(training), DataLoader(validation, batch_size=45), ckpt_path=ckpt_path)
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.numpy().tobytes())
    for state in trainer.optimizers[0].state.values() if trainer.optimizers else ():
        for value in state.values():
            digest.update(value.numpy().tobytes())
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return f"{digest.hexdigest()} {rates} {trainer.global_step}"


def stateful_loader(rows: Any) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(rows, batch_size=30, shuffle=True)


class Noisy(torch.utils.data.Dataset):  # type: ignore[misc]
    """Rows with noise that a worker draws."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        x, y = self._rows[index]
        return x + 0.1 * torch.rand(64), y


def loader_with_workers(rows: Any) -> Any:
    return DataLoader(Noisy(rows), batch_size=30, shuffle=True, num_workers=2)


def two_loaders(rows: Any) -> Any:
    from lightning.pytorch.utilities import CombinedLoader

    both = {"a": plain_loader(rows), "b": DataLoader(rows, batch_size=60, shuffle=True)}
    return CombinedLoader(both, "max_size_cycle")


class Both(Digits):
    """Learns from two loaders."""

    def training_step(self, batch: Any, index: int) -> Any:
        pairs = [batch["a"], batch["b"]]
        joined = [torch.cat(each) for each in zip(*pairs, strict=True)]
        return super().training_step(joined, index)


class Endless(torch.utils.data.IterableDataset):  # type: ignore[misc]
    """Rows in an order that is drawn anew each time; how many is not known before."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __iter__(self) -> Any:
        return iter([self._rows[i] for i in torch.randperm(len(self._rows))])


def unsized_loader(rows: Any) -> Any:
    return DataLoader(Endless(rows), batch_size=30)


class Validating(Digits):
    """Its schedule looks at the validation, which is not made in every epoch, after every batch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.9, patience=1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": plateau, "interval": "step", "monitor": "validation", "strict": False,
            },
        }  # fmt: skip


class ByHand(Digits):
    """Two optimizers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        first, second = self.optimizers()
        loss = super().training_step(batch, index)
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(loss)
        first.step()
        if index % 2:
            second.step()

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.net[0].parameters(), lr=0.02),
            torch.optim.SGD(self.net[4].parameters(), lr=0.1, momentum=0.9),
        ]


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stateful": {"loader": stateful_loader},
    "workers": {"loader": loader_with_workers},
    "two loaders": {"loader": two_loaders, "module": Both},
    "unsized": {"loader": unsized_loader},
    "accumulated": {"accumulate_grad_batches": 2},
    "validated within epochs": {"val_check_interval": 3, "module": Validating},
    "validated every second epoch": {"check_val_every_n_epoch": 2, "module": Validating},
    "by hand": {"module": ByHand},
    "by steps": {"max_steps": EPOCHS * BATCHES - 2},
    "some batches": {"limit_train_batches": BATCHES - 1},
    "loaders anew": {"reload_dataloaders_every_n_epochs": 1},
}

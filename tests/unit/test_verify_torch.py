"""`headway verify` of training loops with PyTorch: right ones, and each with one thing forgotten."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from headway import verifying
from headway.engine.loading import find_entity, load_file
from headway.engine.task import Task
from headway.model.report import VerifyReport

pytestmark = pytest.mark.frameworks

PROGRAM = """
import itertools

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from headway import task, track


def cleared(optimizer):
    optimizer.zero_grad()
    return optimizer


@task
def train(epochs: int = 3) -> float:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    inputs = torch.randn(24, 6)
    data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    {loader}
    state = track({tracked})
    for epoch in state.range(epochs):
        for x, y in {batches}:
            loss = nn.functional.mse_loss(model(x), y)
            cleared(optimizer)
            loss.backward()
            optimizer.step()
            state.loss = loss.item()
        scheduler.step()
    return state.loss
"""

PLAIN = "loader = DataLoader(data, batch_size=6, shuffle=True)"
STATEFUL = (
    "from torchdata.stateful_dataloader import StatefulDataLoader\n"
    "    loader = StatefulDataLoader(data, batch_size=6, shuffle=True)"
)
OWN = "loader = DataLoader(data, 6, shuffle=True, generator=torch.Generator().manual_seed(5))"
ENDLESS = "loader = itertools.cycle(DataLoader(data, batch_size=6, shuffle=False))"
ALL = "model=model, optimizer=optimizer, scheduler=scheduler, loss=0.0"


@pytest.fixture(autouse=True)
def _own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)


def verified(
    folder: Path,
    *,
    loader: str = PLAIN,
    tracked: str = ALL,
    batches: str = "state.iterate(loader)",
    seed: int = 0,
) -> VerifyReport:
    """What is said of a training loop."""
    file = folder / f"verified_{random.getrandbits(40):x}.py"
    file.write_text(PROGRAM.format(loader=loader, tracked=tracked, batches=batches))
    _, found = load_file(file)
    entity = find_entity("train", found)
    assert isinstance(entity, Task)
    return verifying.verify(entity, {}, seed=seed)


@pytest.mark.parametrize("loader", [PLAIN, OWN, STATEFUL], ids=["plain", "own", "stateful"])
def test_a_complete_loop_is_identical(tmp_path: Path, loader: str) -> None:
    if loader is STATEFUL:
        pytest.importorskip("torchdata")
    report = verified(tmp_path, loader=loader, seed=1)
    assert report.identical, verifying.text_of(report)
    assert report.steps == 3 * 4 + 3


def test_an_optimizer_that_is_not_tracked_is_found(tmp_path: Path) -> None:
    report = verified(tmp_path, tracked="model=model, scheduler=scheduler, loss=0.0")
    found = report.difference
    assert found is not None
    assert "model.0.weight" in found.entries
    assert "rng.torch" not in found.entries
    assert found.attempt > 0
    assert "optimizer" in found.cause


def test_a_scheduler_that_is_not_tracked_is_found(tmp_path: Path) -> None:
    """The optimizer has the rate that it made, so that only the next change of it comes too late."""
    report = verified(tmp_path, tracked="model=model, optimizer=optimizer, loss=0.0")
    found = report.difference
    assert found is not None
    assert "optimizer.param_groups[0].lr" in found.entries
    assert found.attempt > 0


def test_generators_that_are_left_out_are_found(tmp_path: Path) -> None:
    found = verified(tmp_path, tracked=f"rng=False, {ALL}").difference
    assert found is not None
    assert "rng=False" in found.cause
    assert "rng.torch (not tracked)" in found.entries


def test_a_loader_that_begins_anew_is_found(tmp_path: Path) -> None:
    found = verified(
        tmp_path, loader=ENDLESS, batches="state.iterate(itertools.islice(loader, 3))"
    ).difference
    assert found is not None
    assert found.attempt > 0
    assert "model.0.weight" in found.entries
    assert "iterator" in found.cause

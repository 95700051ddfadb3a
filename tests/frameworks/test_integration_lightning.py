"""`integrations.lightning`: a training that is killed at any batch ends with the weights, learning rates
and metrics of one that was left alone."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tests.counting import count
from tests.docs.markdown import ROOT
from tests.frameworks.killing import PREFIX, Killed, Trial, added_lines, run_program

from headway import open_checkpoint
from headway.checkpoint.handle import Checkpoint
from headway.engine.context import Context, entered
from headway.model.errors import HeadwayError, InputError, Preempted
from headway.testing.comparing import difference
from headway.testing.memory import MemoryStorage

pytest.importorskip("lightning", reason="no Lightning: `make frameworks` installs it")

from tests.frameworks.lightning_bodies import (
    BATCHES,
    EPOCHS,
    VARIANTS,
    Digits,
    Seen,
    trained,
)

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*set_vital:UserWarning"),
    pytest.mark.filterwarnings("ignore:ReduceLROnPlateau conditioned on metric"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # of loaders with workers
]
EXAMPLE = "with_lightning"


def resume(checkpoint: Checkpoint | None = None, **more: Any) -> Any:
    from headway.integrations.lightning import Resume

    return Resume(checkpoint, **{"every": 0, **more})


def other_numbers(number: int) -> None:
    """As in a new process."""
    import numpy as np
    import torch

    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(number)


def killed_at(when: list[tuple[int, int]], root: Path, **more: Any) -> tuple[str, list[float], Any]:
    """Killed before these batches, one after the other; what came of it, what it logged at the ends of
    epochs, and where its last attempt began."""
    trial = Trial(MemoryStorage(trusted=False))
    logged: list[float] = []
    for here in when:
        seen = Seen(here, trial.kill)
        with pytest.raises(Killed):
            trial.attempt(lambda _: trained(root, [seen, resume()], **more))  # noqa: B023
        logged += seen.logged
        other_numbers(len(logged) + 17)
    seen = Seen()
    made = trial.attempt(lambda _: trained(root, [seen, resume()], **more))
    return made, logged + seen.logged, seen.batches[0] if seen.batches else None


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, Seen]]:
    """What each variant makes without headway."""
    made: dict[str, tuple[str, Seen]] = {}

    def wanted(name: str) -> tuple[str, Seen]:
        if name not in made:
            seen = Seen()
            made[name] = trained(tmp_path_factory.mktemp("alone"), [seen], **VARIANTS[name]), seen
        return made[name]

    return wanted


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_killed_training_ends_with_the_same_weights_rates_and_metrics(
    name: str, tmp_path: Path, alone: Any
) -> None:
    wanted, seen = alone(name)
    last = VARIANTS[name].get("limit_train_batches", BATCHES) - 1
    within = 0
    for when in [[(0, 3), (0, 5), (2, 1)], [(1, 0), (2, last)], [(0, 1), (EPOCHS - 1, 2)]]:
        made, logged, begun = killed_at(when, tmp_path, **VARIANTS[name])
        assert made == wanted, when
        assert logged[-len(seen.logged) :] == seen.logged[-len(logged) :], when
        behind = (when[-1][0] - begun[0]) * (last + 1) + when[-1][1] - begun[1]
        assert 0 <= behind <= last + 1, (
            when,
            begun,
        )  # a save may be in flight, or gradients be due
        within += begun[1] > 0
        count("R9", "interrupted attempts of frameworks", len(when))
    assert (within > 0) is (name not in {"two loaders", "unsized"})


def test_what_headway_saves_changes_nothing(tmp_path: Path, alone: Any) -> None:
    wanted, seen = alone("plain")
    also = Seen()
    trial = Trial(MemoryStorage(trusted=False))
    assert trial.attempt(lambda _: trained(tmp_path, [also, resume()])) == wanted
    assert also.logged == seen.logged
    assert also.batches == seen.batches
    finished = Seen()
    assert (
        trial.attempt(lambda _: trained(tmp_path, [finished, resume()])).split()[0]
        == wanted.split()[0]
    )
    assert finished.batches == []
    assert trial.warnings == []


@pytest.mark.reliability("R9")
def test_a_training_that_was_stopped_early_stays_stopped(tmp_path: Path) -> None:
    import lightning.pytorch as pl

    def attempt(trial: Trial | None, seen: Seen) -> str:
        early = pl.callbacks.EarlyStopping("validation", patience=1, min_delta=0.5)
        if trial is None:
            return trained(tmp_path, [seen, early], epochs=9)
        made: str = trial.attempt(lambda _: trained(tmp_path, [seen, early, resume()], epochs=9))
        return made

    alone = Seen()
    wanted = attempt(None, alone)
    assert 2 <= len(alone.logged) / 3 < 9
    trial = Trial(MemoryStorage(trusted=False))
    with pytest.raises(Killed):
        attempt(trial, Seen((1, 2), trial.kill))
    rest = Seen()
    assert attempt(trial, rest) == wanted
    assert rest.batches[-1] == alone.batches[-1]
    finished = Seen()
    assert attempt(trial, finished).split()[0] == wanted.split()[0]
    assert finished.batches == []
    count("R9", "interrupted attempts of frameworks", 1)


def test_a_training_that_ended_goes_on_when_it_may_take_longer(tmp_path: Path, alone: Any) -> None:
    wanted, _ = alone("plain")
    trial = Trial(MemoryStorage(trusted=False))
    trial.attempt(lambda _: trained(tmp_path, [resume()], epochs=2))
    other_numbers(3)
    seen = Seen()
    assert trial.attempt(lambda _: trained(tmp_path, [seen, resume()])) == wanted
    assert seen.batches[0] == (2, 0)


@pytest.mark.parametrize("name", ["plain", "stateful"])
def test_files_that_lightning_saves_meanwhile_are_as_they_were(name: str, tmp_path: Path) -> None:
    """Somebody may go on from them without headway."""
    import lightning.pytorch as pl
    import torch

    kept = []
    for place, mine in [("with", True), ("without", False)]:
        saver = pl.callbacks.ModelCheckpoint(tmp_path / place, every_n_train_steps=3, save_top_k=-1)

        def body(_: Any, saver: Any = saver, mine: bool = mine) -> str:
            callbacks = [saver, *([resume()] if mine else [])]
            more = {**VARIANTS[name], "enable_checkpointing": True, "epochs": 2}
            return trained(tmp_path, callbacks, **more)

        Trial(MemoryStorage(trusted=False)).attempt(body)
        files = sorted((tmp_path / place).iterdir())
        found = [torch.load(file, weights_only=False) for file in files]
        kept.append([(file.name, each["loops"]) for file, each in zip(files, found, strict=True)])
    assert len(kept[0]) == 4
    assert difference(kept[0], kept[1]) == ""


class Told:
    """Somebody tells the process to go; see `ports.Leave`."""

    told = False
    held = 0

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1

    def go(self) -> NoReturn:
        raise Preempted

    def tell(self) -> None:
        self.told = True


@pytest.mark.reliability("R9")
def test_a_training_that_is_told_to_go_saves_once_more(tmp_path: Path, alone: Any) -> None:
    storage = MemoryStorage(trusted=False)

    def attempt(number: int, leave: Told, seen: Seen) -> str:
        checkpoint = Checkpoint(storage, PREFIX, attempt=number)
        try:
            with entered(Context("r", "train", number, 0, checkpoint, leave)):
                return trained(tmp_path, [seen, resume(every=1000.0)])
        finally:
            checkpoint.close()

    first, second = Told(), Told()
    with pytest.raises(Preempted):
        attempt(0, first, Seen((1, 4), first.tell))
    assert first.held == 0
    seen = Seen()
    assert attempt(1, second, seen) == alone("plain")[0]
    assert seen.batches[0] == (1, 5)
    assert second.held == 0
    count("R9", "interrupted attempts of frameworks", 1)


PROGRAM = """\
import functools, os, random, signal, threading, time, warnings
import examples.with_lightning as example
from headway import current_context, task
from headway.integrations.lightning import Resume

warnings.simplefilter("ignore")
example.Resume = functools.partial(Resume, every=0)
SAVES = [(5, 40), (5, 40)]


@task(interruptible=True, retries=9)
def train(epochs: int, number: int) -> str:
    context = current_context()
    checkpoint, source = context.checkpoint, random.Random(context.attempt)
    assert context.attempt == 0 or checkpoint.history()
    if context.attempt < len(SAVES):
        saves = source.randrange(*SAVES[context.attempt])
        done = [report.number for report in checkpoint.history()][-1:] or [0]

        def strike():  # whatever the training does then
            while not checkpoint.history() or checkpoint.history()[-1].number < done[0] + saves:
                time.sleep(0.002)
            time.sleep(source.uniform(0, 0.02))
            os.kill(os.getpid(), number)

        threading.Thread(target=strike, daemon=True).start()
    return example.train(epochs)
"""


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("number", [9, 15])
def test_an_example_whose_worker_gets_real_signals_ends_with_the_same_weights(
    number: int, tmp_path: Path
) -> None:
    epochs = 10
    wanted = importlib.import_module(f"examples.plain.{EXAMPLE}").train(epochs)
    result, (*killed, last) = run_program(
        tmp_path, PROGRAM, "--epochs", str(epochs), "--number", str(number), timeout=115
    )
    assert last == "succeeded"
    assert killed == [{9: "killed", 15: "preempted"}[number]] * max(2, len(killed))
    assert result == wanted
    count("R9", "SIGKILLs of frameworks" if number == 9 else "SIGTERMs of frameworks", len(killed))


def test_two_lines_are_added() -> None:
    assert len(added_lines(EXAMPLE)) == 2


def test_outside_of_a_run_and_what_is_refused(tmp_path: Path) -> None:
    import lightning.pytorch as pl

    for epochs, first in [(1, (0, 0)), (2, (1, 0))]:
        with open_checkpoint(str(tmp_path / "home" / "fit")) as checkpoint:
            seen = Seen()
            trained(tmp_path, [seen, resume(checkpoint)], epochs=epochs)
            assert seen.batches[0] == first
    with pytest.warns(RuntimeWarning, match=r"Resume\(\) saves nothing here"):
        trained(tmp_path, [resume()], epochs=1)

    def twice(_: Any) -> None:
        for _ in range(2):
            trained(tmp_path, [resume()], epochs=1)

    with pytest.raises(HeadwayError, match=r"Resume\(\) was called twice"):
        Trial().attempt(twice)
    two = pl.Trainer(accelerator="cpu", devices=2, logger=False, enable_checkpointing=False)
    with pytest.raises(InputError, match="this one has 2"):
        resume().setup(two, None, "fit")
    with pytest.raises(InputError, match="the Trainer is of another package"):
        resume().setup(object(), None, "fit")


def test_what_a_module_keeps_that_is_no_data_is_named_where_others_can_write(
    tmp_path: Path,
) -> None:
    class Keeps(Digits):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["mine"] = {"where": Path("a")}

    with pytest.raises(InputError, match=r"training\.lightning\.mine\.where"):
        Trial(MemoryStorage(trusted=False)).attempt(
            lambda _: trained(tmp_path, [resume()], module=Keeps, epochs=1)
        )
    Trial(MemoryStorage()).attempt(lambda _: trained(tmp_path, [resume()], module=Keeps, epochs=1))


OTHER = """\
import sys, warnings
import pytorch_lightning as pl
import torch
from headway import open_checkpoint
from headway.integrations.lightning import HeadwayIO, Resume

warnings.simplefilter("ignore")


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, index):
        return (self.weight - batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def steps(place, epochs):
    with open_checkpoint(sys.argv[1] + "/" + place) as checkpoint:
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_checkpointing=False, callbacks=[Resume(checkpoint)],
        )
        trainer.fit(Line(), torch.utils.data.DataLoader(torch.arange(4.0)))
    return float(trainer.model.weight)


steps("a", 1)
assert steps("a", 2) == steps("b", 2)
assert issubclass(HeadwayIO, pl.plugins.io.CheckpointIO)
assert "lightning.pytorch" not in sys.modules
"""


def test_the_other_package_of_lightning_is_known_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(tmp_path / "home")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# The plugin


@pytest.mark.reliability("R9")
def test_what_a_trainer_saves_is_kept_in_headway_and_loaded(tmp_path: Path) -> None:
    import lightning.pytorch as pl
    import torch

    from headway.integrations.lightning import HeadwayIO

    trial = Trial()

    def body(_: Any, strike: Any = None) -> list[tuple[int, int]]:
        io = HeadwayIO()
        seen = Seen((2, 1), strike)
        saver = pl.callbacks.ModelCheckpoint(tmp_path / "files", save_top_k=1)
        torch.manual_seed(1)
        trained(
            tmp_path,
            [seen, saver],
            plugins=[io],
            enable_checkpointing=True,
            ckpt_path=io.newest,
            epochs=3,
        )
        return seen.batches

    with pytest.raises(Killed):
        trial.attempt(lambda track: body(track, trial.kill))
    assert trial.attempt(body)[0] == (2, 0)
    assert not (tmp_path / "files").exists() or [*(tmp_path / "files").iterdir()] == []
    count("R9", "interrupted attempts of frameworks", 1)


def test_the_plugin_loads_the_newest_and_nothing_else(tmp_path: Path) -> None:
    from headway.integrations.lightning import HeadwayIO

    checkpoint = Checkpoint(MemoryStorage(trusted=False), PREFIX)
    io = HeadwayIO(checkpoint)
    assert io.newest is None
    from headway.model.errors import CheckpointError

    with pytest.raises(CheckpointError, match="there is none yet"):
        io.load_checkpoint("headway")
    io.save_checkpoint({"a": 1}, tmp_path / "one.ckpt")
    io.save_checkpoint({"a": 2}, tmp_path / "two.ckpt")
    io.remove_checkpoint(tmp_path / "two.ckpt")
    assert io.newest == "headway"
    assert io.load_checkpoint(io.newest) == {"a": 2}
    assert io.load_checkpoint(tmp_path / "two.ckpt", map_location=None, weights_only=True) == {
        "a": 2
    }
    with pytest.raises(CheckpointError, match=r"it was asked for .*one\.ckpt"):
        io.load_checkpoint(tmp_path / "one.ckpt")
    checkpoint.save({"a": 3})
    with pytest.raises(CheckpointError, match="not saved by HeadwayIO"):
        io.load_checkpoint("headway")
    with pytest.raises(HeadwayError, match=r"HeadwayIO\(\) has no checkpoint"):
        HeadwayIO()
    with pytest.raises(HeadwayError, match=r"HeadwayIO\(\) was called twice"):
        Trial().attempt(lambda track: (track(a=1), HeadwayIO()))

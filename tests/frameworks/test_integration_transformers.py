"""`integrations.transformers.Resume`: a Trainer whose output is lost ends with the weights of one that was
left alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tests.counting import count
from tests.frameworks.killing import PREFIX, Trial, run_program

from headway.checkpoint.handle import Checkpoint
from headway.engine.context import Context, entered
from headway.model.errors import HeadwayError, Preempted
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.frameworks
transformers = pytest.importorskip("transformers")


PROGRAM = """\
import os, pathlib, signal
from headway import current_context, task
from tests.frameworks.test_integration_transformers import At, trained

@task(interruptible=True, retries=2)
def train() -> tuple[str, int]:
    context = current_context()
    def strike():
        context.checkpoint.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    begun = []
    place = pathlib.Path(f"out{context.attempt}")  # of its own: what the one before wrote is lost
    step = {0: 6, 1: 13}.get(context.attempt, 99)
    return trained(place, At(step, strike), begun=begun), begun[0]
"""


def trained(out: Path, *more: Any, resume: bool = True, begun: list[int] | None = None) -> str:
    """The weights after all steps, 24 of them, saved after every fourth."""
    import torch
    from tests.frameworks.programs.hf_trainer import Numbers

    from headway.integrations.transformers import Resume

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    arguments = transformers.TrainingArguments(
        str(out),
        num_train_epochs=3,
        per_device_train_batch_size=32,
        save_steps=4,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        seed=1,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    mine = Resume() if resume else None
    last = None if mine is None else mine.directory()
    if begun is not None:
        begun.append(0 if last is None else steps_of(Path(last)))
    trainer = transformers.Trainer(
        transformers.BertForSequenceClassification(config),
        arguments,
        train_dataset=Numbers(),
        callbacks=[*more, *([] if mine is None else [mine])],
    )
    trainer.train(resume_from_checkpoint=last)
    assert trainer.state.global_step == 24
    weights = b"".join(each.detach().numpy().tobytes() for each in trainer.model.parameters())
    return hashlib.sha256(weights).hexdigest()


def steps_of(directory: Path) -> int:
    state = transformers.TrainerState.load_from_json(str(directory / "trainer_state.json"))
    return int(state.global_step)


class At(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
    """Does something at the end of a step."""

    def __init__(self, step: int, strike: Any) -> None:
        self._step = step
        self._strike = strike

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            self._strike()


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("alone"), resume=False)


@pytest.mark.reliability("R9")
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, wanted: str) -> None:
    trial = Trial(MemoryStorage(trusted=False))
    begun: list[int] = []
    for number, step in enumerate([3, 6, 13, 23]):
        with pytest.raises(trial.Killed):
            trial.attempt(
                lambda _: trained(tmp_path / str(number), At(step, trial.kill), begun=begun)  # noqa: B023
            )
    assert trial.attempt(lambda _: trained(tmp_path / "last", begun=begun)) == wanted
    assert begun == [0, 0, 4, 12, 20]
    count("R9", "interrupted attempts of frameworks", 4)


@pytest.mark.reliability("R9")
@pytest.mark.timeout(300)
def test_a_training_whose_worker_gets_sigkill_ends_with_the_same_weights(
    tmp_path: Path, wanted: str
) -> None:
    result, outcomes = run_program(tmp_path, PROGRAM, timeout=200)
    assert outcomes == ["killed", "killed", "succeeded"]
    assert result == [wanted, 12]
    count("R9", "SIGKILLs of frameworks", 2)


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
def test_a_training_that_is_told_to_go_saves_once_more(tmp_path: Path, wanted: str) -> None:
    storage = MemoryStorage(trusted=False)
    begun: list[int] = []

    def attempt(number: int, leave: Told, step: int) -> str:
        checkpoint = Checkpoint(storage, PREFIX, attempt=number)
        try:
            with entered(Context("r", "train", number, 0, checkpoint, leave)):
                return trained(tmp_path / str(number), At(step, leave.tell), begun=begun)
        finally:
            checkpoint.close()

    first, second = Told(), Told()
    with pytest.raises(Preempted):
        attempt(0, first, 6)
    assert first.held == 1
    assert attempt(1, second, 99) == wanted
    assert begun == [0, 6]
    assert second.held == 0
    count("R9", "interrupted attempts of frameworks", 1)


def test_outside_of_a_run_nothing_is_saved_and_a_second_one_is_refused() -> None:
    from headway.integrations.transformers import Resume

    with pytest.warns(RuntimeWarning, match=r"Resume\(\) saves nothing here"):
        assert Resume().directory() is None
    with pytest.raises(HeadwayError, match=r"Resume\(\) was called twice"):
        Trial().attempt(lambda _: (Resume(), Resume()))

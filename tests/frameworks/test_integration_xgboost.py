"""`integrations.xgboost.Resume`: the final model and its scores are, byte for byte, those of an undisturbed
training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.counting import count
from tests.frameworks.killing import Trial, run_program

import headway
from headway.model.errors import HeadwayError, InputError
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.frameworks
xgboost = pytest.importorskip("xgboost")

ROUNDS = 12
BASE = {
    "objective": "multi:softprob",
    "num_class": 10,
    "max_depth": 2,
    "nthread": 1,
    "eta": 0.7,
    "seed": 3,
}
SAMPLED = {"subsample": 0.5, "colsample_bynode": 0.5}
PROGRAM = """\
import os, signal
from headway import current_context, task
from tests.frameworks.test_integration_xgboost import SAMPLED, trained

@task(interruptible=True, retries=2)
def train() -> str:
    context = current_context()
    def strike():
        context.checkpoint.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return trained(SAMPLED, {0: 4, 1: 7}.get(context.attempt), strike)[0]
"""


def trained(
    more: dict[str, Any],
    stop: int | None = None,
    strike: Callable[[], None] | None = None,
    *,
    rounds: int = ROUNDS,
    resume: dict[str, Any] | None = None,
    **arguments: Any,
) -> tuple[str, Any]:
    """A model and its scores; something strikes before round `stop`."""
    from sklearn.datasets import load_digits

    from headway.integrations.xgboost import Resume

    class Strike(xgboost.callback.TrainingCallback):  # type: ignore[misc,name-defined]
        def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if epoch == stop and strike is not None:
                strike()
            return False

    images, labels = load_digits(return_X_y=True)
    data = xgboost.DMatrix(images[:400], label=labels[:400], nthread=1)
    other = xgboost.DMatrix(images[400:600], label=labels[400:600], nthread=1)
    slower = xgboost.callback.LearningRateScheduler(lambda turn: 0.7 * 0.9**turn)
    scores: dict[str, Any] = {}
    booster = xgboost.train(
        {**BASE, **more},
        data,
        rounds,
        evals=[(data, "train"), (other, "valid")],
        evals_result=scores,
        verbose_eval=False,
        callbacks=[Resume(**{"every": 0, **(resume or {})}), Strike(), slower],
        **arguments,
    )
    assert vars(booster).keys() == {"handle"}
    return booster.save_raw("ubj").hex(), {name: dict(each) for name, each in scores.items()}


@pytest.mark.reliability("R9")
@pytest.mark.parametrize(
    ("more", "arguments"),
    [
        ({}, {}),
        (SAMPLED, {}),
        ({"booster": "dart", "rate_drop": 0.3, "subsample": 0.5}, {}),
        (SAMPLED, {"early_stopping_rounds": 2}),
    ],
    ids=["plain", "sampled", "dart", "early"],
)
def test_a_killed_training_ends_with_the_same_model(
    more: dict[str, Any], arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 60 if arguments else ROUNDS
    wanted = Trial().attempt(lambda _: trained(more, rounds=rounds, **arguments))
    ran = len(wanted[1]["valid"]["mlogloss"])
    assert ran == ROUNDS if not arguments else 3 <= ran < 60
    updated: list[int] = []
    update = xgboost.Booster.update

    def counted(booster: Any, data: Any, iteration: int, fobj: Any = None) -> None:
        updated.append(iteration)
        update(booster, data, iteration, fobj)

    monkeypatch.setattr(xgboost.Booster, "update", counted)
    for stop in (1, 5, ran - 1):
        trial = Trial(MemoryStorage(trusted=False))

        def attempt(at: int | None = None, trial: Trial = trial) -> Any:
            updated.clear()
            return trial.attempt(
                lambda _: trained(more, at, trial.kill, rounds=rounds, **arguments)
            )

        with pytest.raises(trial.Killed):
            attempt(stop)
        assert updated == list(range(stop))
        assert attempt() == wanted
        assert updated == list(range(updated[0], ran))
        assert updated[0] > 0
        assert attempt() == wanted
        assert updated == []
        count("R9", "interrupted attempts of frameworks", 1)


@pytest.mark.reliability("R9")
def test_a_training_whose_worker_gets_sigkill_ends_with_the_same_model(tmp_path: Path) -> None:
    wanted, _ = Trial().attempt(lambda _: trained(SAMPLED))
    result, outcomes = run_program(tmp_path, PROGRAM)
    assert outcomes == ["killed", "killed", "succeeded"]
    assert result == wanted
    count("R9", "SIGKILLs of frameworks", 2)


def test_more_rounds_go_on_and_fewer_are_refused(tmp_path: Path) -> None:
    def on(rounds: int, **more: Any) -> Any:
        with headway.open_checkpoint(f"{tmp_path}/home/boost") as checkpoint:
            return trained({}, rounds=rounds, resume={"checkpoint": checkpoint, **more})

    on(3)
    wanted = Trial().attempt(lambda _: trained({}, rounds=5))
    assert on(5) == wanted
    with pytest.raises(InputError, match="ended after 4 rounds, and the checkpoint has 5"):
        on(4)
    scores = on(7, exact=False)[1]["valid"]["mlogloss"]
    assert len(scores) == 7
    assert scores[:5] == wanted[1]["valid"]["mlogloss"]


def test_what_cannot_go_on_is_refused() -> None:
    from headway.integrations.xgboost import Resume

    data = xgboost.DMatrix([[1.0], [2.0], [3.0], [4.0]], label=[0, 1, 0, 1])
    with pytest.raises(InputError, match=r"xgboost\.cv\(\) cannot go on"):
        xgboost.cv({}, data, 2, nfold=2, callbacks=[Resume()])
    with pytest.warns(RuntimeWarning, match=r"Resume\(\) saves nothing here"):
        assert xgboost.train({}, data, 2, callbacks=[Resume()]).num_boosted_rounds() == 2

    def twice(_: Any) -> None:
        for _ in range(2):
            xgboost.train({}, data, 2, callbacks=[Resume()])

    with pytest.raises(HeadwayError, match=r"Resume\(\) was called twice"):
        Trial().attempt(twice)

"""A study of Optuna in a task, kept in one of the two ways that there are. What it returns are all of its
trials but for their times."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import optuna

from headway import task, track
from headway.integrations.optuna import HeadwayStorage

optuna.logging.set_verbosity(optuna.logging.WARNING)


def shown(trial: Any) -> list[Any]:
    """A trial but for its times, as data."""
    return [
        trial.number,
        trial.state.name,
        trial.values,
        trial.params,
        {name: repr(space) for name, space in trial.distributions.items()},
        trial.user_attrs,
        trial.system_attrs,
        {str(step): value for step, value in trial.intermediate_values.items()},
    ]


def objective(trial: Any) -> float:
    """Depends on several kinds of parameters, and reports on its way."""
    x = trial.suggest_float("x", -5, 5)
    y = trial.suggest_int("y", 1, 9)
    kind = trial.suggest_categorical("kind", ["a", "b", None])
    for step in range(4):
        trial.report(abs(x) * (4 - step) + y, step)
        if trial.should_prune():
            raise optuna.TrialPruned
        time.sleep(float(os.environ["PACE"]))
    trial.set_user_attr("squares", [x * x, y * y])
    return float(x * x + y + (3 if kind is None else len(kind)))


@task(retries=0, interruptible=True)
def study(way: str, kind: str, trials: int, told: Path) -> dict[str, Any]:
    """Run so many trials. `told` gets a line for each attempt, with the trials that it began with."""
    sampler = getattr(optuna.samplers, kind)(seed=3)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3)
    storage = HeadwayStorage(sampler=sampler) if way == "stored" else None
    found = optuna.create_study(storage=storage, sampler=sampler, pruner=pruner)
    state = track(study=found, every=0) if way == "tracked" else None
    with told.open("a") as file:
        print(len(found.trials), file=file)
    if state is None:
        found.optimize(objective, n_trials=trials - len(found.trials))
    else:
        for _ in state.range(trials):
            found.optimize(objective, n_trials=1)
    return {
        "trials": [shown(trial) for trial in found.trials],
        "best": found.best_params,
    }

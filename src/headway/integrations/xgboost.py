"""XGBoost: `xgboost.train(…, callbacks=[Resume()])` goes on at the round where it was.

`train` counts its rounds from 0, whatever model it begins with. So the rounds that are done are gone
through again, without training: the restored booster has their trees already, and gives the scores that
it gave then. Other callbacks (early stopping, schedules) come to where they were by that.
"""

from __future__ import annotations

from typing import Any

import xgboost

from headway.checkpoint.cadence import Every
from headway.checkpoint.handle import Checkpoint
from headway.integrations.turns import Turns
from headway.model.errors import InputError


class Resume(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # XGBoost's types are not read
    """Restores the booster and its scores when training begins, and saves them between rounds, once the
    other callbacks had their turn.

    Args:
        checkpoint: where; None is that of the attempt that headway runs, once in each attempt.
        every: when a save is due, as for `track`.
        exact: the final model is, byte for byte, that of an undisturbed run with this callback. For that a
            round draws by its number (`seed_per_iteration`), and predicts with all trees so far.

    `train` raises what `track` does.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None = None,
        every: Every = "auto",
        *,
        exact: bool = True,
    ) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._every = every
        self._exact = exact
        self._turns: Turns | None = None
        self._booster: Any = None
        self._past = 0  # rounds that were done before
        self._rounds = 0  # that this `train` went through
        self._begun = 0  # rounds that the model had when training began for the first time

    def before_training(self, model: Any) -> Any:
        """Restores."""
        if not isinstance(model, xgboost.Booster):
            raise InputError("Resume() is for xgboost.train(); xgboost.cv() cannot go on")
        self._begun = model.num_boosted_rounds()
        if self._exact:
            model.set_param({"seed_per_iteration": True})
        self._turns = Turns("Resume()", self._checkpoint, self._every, booster=model, scores=[])
        self._booster = model
        self._past, self._rounds = len(self._turns.values["scores"]), 0
        # In the instance's dict, where they hide the methods until training ends.
        model.update, model.eval_set = self._update, self._eval_set
        model.num_boosted_rounds = self._num_boosted_rounds  # early stopping asks before it begins
        return model

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Saves what the round before made, when that is due."""
        if self._turns is not None and self._rounds > self._past:
            if self._exact:
                model.reset()  # its caches, and generators that are drawn from only when it begins
            self._turns.done()
        return False

    def after_training(self, model: Any) -> Any:
        """Saves how it ended."""
        turns, self._turns = self._turns, None
        if turns is not None:
            for name in ("update", "eval_set", "num_boosted_rounds"):
                delattr(self._booster, name)
            if self._rounds < self._past:
                raise InputError(
                    f"training ended after {self._rounds} rounds, and the checkpoint has {self._past}. "
                    "Give it as many as before, or more, or start over with a new `headway run`."
                )
            turns.end(turn=self._rounds > self._past)
        self._booster = None
        return model

    def _update(self, *args: Any, **kwargs: Any) -> None:
        """In place of `Booster.update`."""
        self._rounds += 1
        if self._rounds > self._past:
            xgboost.Booster.update(self._booster, *args, **kwargs)

    def _eval_set(self, *args: Any, **kwargs: Any) -> str:
        """In place of `Booster.eval_set`, which `train` calls after each round."""
        assert self._turns is not None
        scores: list[str] = self._turns.values["scores"]
        if self._rounds > self._past:
            scores.append(xgboost.Booster.eval_set(self._booster, *args, **kwargs))
        return scores[self._rounds - 1]

    def _num_boosted_rounds(self) -> int:
        """In place of `Booster.num_boosted_rounds`, which knows more at times."""
        return self._begun + self._rounds

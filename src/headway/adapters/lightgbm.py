"""LightGBM: boosters with their trees, in the library's own format (text, whose numbers are exact).

One that holds data to train on has more than its trees: scores, and random generators that cannot be
read. So trees are put only into one that holds none: the text of one round is what the next begins with.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Any

import lightgbm

from headway.model.errors import InputError
from headway.ports import StateAdapter


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    return _Booster() if isinstance(value, lightgbm.Booster) else None


class _Booster:
    def capture(self, value: Any, path: str) -> Any:
        if getattr(value, "train_set", None) is not None:
            raise InputError(
                f"{path} is a Booster of LightGBM with data to train on, which cannot be saved exactly: "
                "track what lightgbm.train(…, init_model=…) returns, and train one round at a time; or "
                "give lightgbm.train the callback headway.integrations.lightgbm.Resume()"
            )
        return {
            "model": value.model_to_string(num_iteration=-1),
            "best": value.best_iteration,
            "scores": {name: dict(scores) for name, scores in value.best_score.items()},
        }

    def restore(self, value: Any, data: Any, path: str) -> Any:
        if not isinstance(data, dict) or data.keys() != {"model", "best", "scores"}:
            raise InputError(f"{path} is a Booster of LightGBM now, and was none in the checkpoint")
        value.model_from_string(data["model"])
        value.best_iteration = data["best"]
        value.best_score = defaultdict(OrderedDict)
        for name, scores in data["scores"].items():
            value.best_score[name] = OrderedDict(scores)
        return value

"""LightGBM: `lightgbm.train(…, callbacks=[Resume()])` goes on at the round where it was.

A booster in training holds more than its trees: the scores of its data, and random generators that cannot
be read. So training is cut into parts of some rounds. Each begins with a booster of its own, made of the
trees so far, the exact scores, and seeds that belong to the part: there it can be saved, and made again.

`train` counts its rounds from 0. Rounds that are done are gone through again without training: each gives
the scores that it gave then, so other callbacks come to where they were.
"""

from __future__ import annotations

import ctypes
import weakref
import zlib
from collections.abc import Callable
from typing import Any

import lightgbm
import msgspec
import numpy as np
from lightgbm.basic import _LIB, _c_str, _param_dict_to_str, _safe_call

from headway.checkpoint.cadence import Every
from headway.checkpoint.handle import Checkpoint
from headway.integrations.turns import Turns
from headway.model.errors import InputError

_BOOSTING = ("boosting", "boosting_type", "boost")
_SEEDS = ("bagging_seed", "feature_fraction_seed", "extra_seed", "objective_seed")
"""Seeds of what a round draws. Those of the data stay: the data is there already."""
_OTHER = "bagging_fraction_seed"  # another name of the first
_GIVEN = {*_SEEDS, _OTHER, "seed", "random_seed", "random_state"}
_HIDDEN = ("update", "eval_train", "eval_valid", "model_from_string")


class Resume:
    """Restores the booster when training begins, and saves it after every so many rounds, when that is due.

    Args:
        checkpoint: where; None is that of the attempt that headway runs, once in each attempt.
        every: when a save is due, as for `track`.
        rounds: of a part. What a round draws depends on it, so it is part of the training's settings.

    `train` raises what `track` does.
    """

    def __init__(
        self, checkpoint: Checkpoint | None = None, every: Every = "auto", *, rounds: int = 10
    ) -> None:
        if rounds < 1:
            raise InputError(f"Resume(rounds={rounds}): a part has one round at least")
        self.order = -1000  # LightGBM looks at these: first of all,
        self.before_iteration = True  # and before a round
        self._checkpoint = checkpoint
        self._every = every
        self._rounds = rounds
        self._turns: Turns | None = None
        self._part = _Part(None, rounds)
        self._gone = 0  # rounds that this `train` went through
        self._last = False

    def __call__(self, env: Any) -> None:
        """Before a round."""
        if env.iteration == env.begin_iteration:
            self._begin(env)
        part, turns = self._part, self._turns
        assert turns is not None
        if self._gone == part.done:
            part.go_on()
        elif self._gone > part.done and self._gone % self._rounds == 0:
            part.advance(self._gone)
            turns.done()
        self._last = env.iteration == env.end_iteration - 1

    def _begin(self, env: Any) -> None:
        if not isinstance(env.model, lightgbm.Booster):
            raise InputError("Resume() is for lightgbm.train(); lightgbm.cv() cannot go on")
        for name in _BOOSTING:
            if str(env.params.get(name)) in {"dart", "rf", "random_forest"}:
                raise InputError(
                    f"Resume() cannot be used with {name}={env.params[name]!r}, whose trees change, or are "
                    "averaged, until the end"
                )
        self._part, self._gone = _Part(env.model, self._rounds), 0
        self._turns = Turns("Resume()", self._checkpoint, self._every, part=self._part)
        if self._part.done >= env.end_iteration - env.begin_iteration:
            raise InputError(
                f"training has {env.end_iteration - env.begin_iteration} rounds now, and "
                f"{self._part.done} are done in the checkpoint. Give it more, or start over with a new "
                "`headway run`."
            )
        self._hide(env.model)

    def _hide(self, model: Any) -> None:
        """Put methods of ours into the booster's dict, where they hide its own as long as this lives."""
        mine = weakref.ref(self)

        def hidden(name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                me = mine()
                if me is None or me._turns is None:
                    return getattr(lightgbm.Booster, name)(model, *args, **kwargs)
                return getattr(me, f"_{name}")(model, *args, **kwargs)

            return call

        for name in _HIDDEN:
            setattr(model, name, hidden(name))

    def _end(self, model: Any) -> None:
        """Training is through."""
        turns, self._turns = self._turns, None
        for name in _HIDDEN:
            delattr(model, name)
        if turns is not None:
            turns.end(turn=False)

    def _update(self, model: Any, *args: Any, **kwargs: Any) -> bool:
        self._gone += 1
        if self._gone <= self._part.done:
            return False
        self._part.scores.append([])
        if self._last:
            self._end(model)
        return bool(lightgbm.Booster.update(model, *args, **kwargs))

    def _eval_train(self, model: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return self._scored(lambda: lightgbm.Booster.eval_train(model, *args, **kwargs), 0)

    def _eval_valid(self, model: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return self._scored(lambda: lightgbm.Booster.eval_valid(model, *args, **kwargs), 1)

    def _scored(self, score: Callable[[], list[Any]], kind: int) -> list[Any]:
        """The scores of a round: those of then, or new ones."""
        there = self._part.scores[self._gone - 1]
        if self._gone > self._part.done:
            found = score()
            there.append([kind, [[*names, float(value), bool(up)] for *names, value, up in found]])
            return found
        make = getattr(lightgbm.basic, "EvalResult", lambda *result: result)
        return [make(*result) for each, results in there if each == kind for result in results]

    def _model_from_string(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """What `train` calls at its end, when another callback stopped it early."""
        self._end(model)
        return lightgbm.Booster.model_from_string(model, *args, **kwargs)


class _Part:
    """A booster in training, as it was when the part began.

    Attributes:
        done: rounds that were done then.
        scores: of each round, what `train` asked for.
    """

    def __init__(self, model: Any, rounds: int) -> None:
        self._model = model
        self._rounds = rounds
        self.done = 0
        self.scores: list[list[Any]] = []
        self._raw: list[Any] = []
        self._trees = 0  # iterations; more than `done` when `train` began with a model
        self._saved: Any = None  # a booster of the checkpoint, until rounds are trained again

    def advance(self, done: int) -> None:
        """Begin the next part."""
        model = self._model
        # Without an objective a booster gives its scores as they are.
        _reset(model._handle, "objective=none verbosity=-1")
        count = 1 + len(model.valid_sets)
        self.done, self._raw = done, [_raw_scores(model._handle, data) for data in range(count)]
        self._trees = model.current_iteration()
        self._begin(model._handle)

    def state_dict(self) -> dict[str, Any]:
        """As data."""
        model = self._model if self._saved is None else self._saved
        text = model.model_to_string(num_iteration=self._trees) if self.done else ""
        return {
            "done": self.done,
            "rounds": self._rounds,
            "raw": self._raw,
            "scores": msgspec.msgpack.encode(self.scores[: self.done]),
            "model": text.encode(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From data."""
        if state["rounds"] != self._rounds:
            raise InputError(
                f"Resume(rounds={self._rounds}) was Resume(rounds={state['rounds']}) in the checkpoint. "
                "Leave it as it was, or start over with a new `headway run`."
            )
        sizes = [
            _size(self._model._handle, data) for data in range(1 + len(self._model.valid_sets))
        ]
        if state["done"] and [len(raw) for raw in state["raw"]] != sizes:
            raise InputError(
                "the data sets are not those that the checkpoint was trained with. Give `train` the same "
                "data and `valid_sets`, or start over with a new `headway run`."
            )
        self.done, self._raw = state["done"], state["raw"]
        self.scores = msgspec.msgpack.decode(state["scores"])
        if self.done:
            self._saved = lightgbm.Booster(model_str=state["model"].decode())
            self._trees = self._saved.current_iteration()

    def go_on(self) -> None:
        """The rounds that are done were gone through: begin the part that was loaded. Not before, because
        other callbacks may change parameters in these rounds, for which a booster draws numbers."""
        saved, self._saved = self._saved, None
        if saved is not None:
            self._begin(saved._handle)

    def _begin(self, trees: Any) -> None:
        """Give the booster a new inside: these trees, the scores, and seeds of the part."""
        model = self._model
        sets = [model.train_set, *model.valid_sets]
        before = [(data.get_field("init_score"), data.version) for data in sets]
        handle = ctypes.c_void_p()
        try:
            for data, raw in zip(sets, self._raw, strict=True):
                data.set_field("init_score", raw)
            text = _param_dict_to_str({**self._seeded(model.params), "verbosity": -1})
            _safe_call(_LIB.LGBM_BoosterCreate(sets[0]._handle, _c_str(text), ctypes.byref(handle)))
            for data in sets[1:]:
                _safe_call(_LIB.LGBM_BoosterAddValidData(handle, data._handle))
        finally:
            for data, (score, version) in zip(sets, before, strict=True):
                data.set_field("init_score", score)
                data.version = version  # it is what it was
        _safe_call(_LIB.LGBM_BoosterMerge(handle, trees))
        _reset(handle, f"verbosity={_verbosity(model.params)}")
        model._handle, old = handle, model._handle
        _safe_call(_LIB.LGBM_BoosterFree(old))

    def _seeded(self, params: dict[str, Any]) -> dict[str, Any]:
        given = sorted((name, str(value)) for name, value in params.items() if name in _GIVEN)
        part = self.done // self._rounds
        seed = (zlib.crc32(repr(given).encode()) + 9973 * part) % (1 << 30)
        found = {name: value for name, value in params.items() if name != _OTHER}
        return {**found, **{name: seed + i for i, name in enumerate(_SEEDS)}}


def _verbosity(params: dict[str, Any]) -> int:
    return int(next((params[name] for name in ("verbosity", "verbose") if name in params), 1))


def _reset(handle: Any, parameters: str) -> None:
    _safe_call(_LIB.LGBM_BoosterResetParameter(handle, _c_str(parameters)))


def _size(handle: Any, data: int) -> int:
    """How many scores data set number `data` has."""
    size = ctypes.c_int64()
    _safe_call(_LIB.LGBM_BoosterGetNumPredict(handle, ctypes.c_int(data), ctypes.byref(size)))
    return size.value


def _raw_scores(handle: Any, data: int) -> Any:
    """These scores."""
    found = np.empty(_size(handle, data))
    size = ctypes.c_int64()
    pointer = found.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    _safe_call(_LIB.LGBM_BoosterGetPredict(handle, ctypes.c_int(data), ctypes.byref(size), pointer))
    return found

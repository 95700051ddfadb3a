"""Keras 3: models with their optimizer and metrics, and optimizers, metrics and seed generators alone.

All that they learn is in variables, which are restored in place. With every model goes the state of the
generator that Keras draws from where nobody gave it a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from headway import adapters
from headway.checkpoint.capture import restore
from headway.model.errors import InputError
from headway.ports import StateAdapter


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    if isinstance(value, keras.Model):
        return _Model()
    if isinstance(value, keras.random.SeedGenerator):
        return _Generator()
    if isinstance(value, keras.Layer | keras.optimizers.Optimizer | keras.metrics.Metric):
        return _Holder()
    return None


class _Holder:
    def capture(self, value: Any, path: str) -> Any:
        return {"variables": _values(value.variables)}

    def restore(self, value: Any, data: Any, path: str) -> Any:
        _assign(value.variables, data["variables"], path)
        return value


class _Generator:
    def capture(self, value: Any, path: str) -> Any:
        return {"variables": _values([value.state])}

    def restore(self, value: Any, data: Any, path: str) -> Any:
        _assign([value.state], data["variables"], path)
        return value


class _Model:
    def capture(self, value: Any, path: str) -> Any:
        if not value.built:
            raise InputError(
                f"{path} is a Keras model without weights so far: begin it with keras.Input(…), or call "
                "its build(shape) before track()"
            )
        optimizer = getattr(value, "optimizer", None)
        if optimizer is not None and _unseen(value):
            # Keras would run the model once more in the next process, and draw random numbers for it.
            raise InputError(
                f"{path} is compiled, and its loss and metrics take their form from the first batch: call "
                f"{path}.test_on_batch(x, y) and {path}.reset_metrics() before track()"
            )
        return {
            "variables": _values(value.variables),
            "optimizer": _values(optimizer.variables) if optimizer else None,
            "metrics": _values(value.metrics_variables) if optimizer else None,
            "global": _values([_global().state]),
        }

    def restore(self, value: Any, data: Any, path: str) -> Any:
        _assign(value.variables, data["variables"], path)
        _assign([_global().state], data["global"], path)
        optimizer = getattr(value, "optimizer", None)
        if (optimizer is None) != (data["optimizer"] is None):
            raise InputError(
                f"{path} was compiled in one of both, the checkpoint and now: do as then"
            )
        if optimizer is None:
            return value
        if len(optimizer.variables) < len(data["optimizer"]) and not optimizer.built:
            optimizer.build(value.trainable_variables)
        _assign(optimizer.variables, data["optimizer"], f"{path}.optimizer")
        _assign(value.metrics_variables, data["metrics"], f"{path}.metrics")
        return value


def _unseen(model: Any) -> bool:
    parts = (getattr(model, "_compile_loss", None), getattr(model, "_compile_metrics", None))
    return any(part is not None and not part.built for part in parts)


def _global() -> Any:
    from keras.src.random.seed_generator import global_seed_generator

    return global_seed_generator()


def _values(variables: Sequence[Any]) -> list[Any]:
    """What the variables hold: arrays or tensors of the backend."""
    if keras.config.backend() == "tensorflow":
        return [keras.ops.convert_to_numpy(variable) for variable in variables]
    return [
        variable.value.detach() if hasattr(variable.value, "detach") else variable.value
        for variable in variables
    ]


def _assign(variables: Sequence[Any], data: list[Any], path: str) -> None:
    now = _values(variables)
    if len(now) != len(data):
        raise InputError(
            f"{path} has {len(now)} variables now, and {len(data)} in the checkpoint. Build it as it was "
            "when it was saved, or start over with a new `headway run`."
        )
    for variable, old, new in zip(variables, now, data, strict=True):
        made = restore(old, new, f"{path}.{variable.path}", adapters.find)
        if tuple(made.shape) != tuple(variable.shape):
            raise InputError(
                f"{path}.{variable.path} has the shape {tuple(variable.shape)} now, and "
                f"{tuple(made.shape)} in the checkpoint"
            )
        if made is not old:
            variable.assign(made)

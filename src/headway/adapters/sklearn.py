"""scikit-learn: estimators with all that they have learnt, their parameters included.

An estimator is data when its attributes are (`objects`): numbers, strings, arrays, random generators, other
estimators, optimizers and losses. What else there is, trees above all, stays as it is and is pickled, where
pickles are trusted (`checkpoint.capture`). Functions are parameters, which the program gives again.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from headway.adapters.objects import Family, Putting, Taking, name_of
from headway.ports import StateAdapter

_PARTS = (
    "sklearn.neural_network._stochastic_optimizers",
    "sklearn.linear_model._sgd_fast",
    "sklearn._loss",
)
"""Where the classes of plain objects are that estimators have."""
_FUNCTIONS = types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, np.ufunc


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    return _Estimator() if isinstance(value, BaseEstimator) else None


class _Estimator:
    def capture(self, value: Any, path: str) -> Any:
        return Taking(_FAMILY).take(value)

    def restore(self, value: Any, data: Any, path: str) -> Any:
        return Putting(_FAMILY, path).put(value, data)


def _apart(value: Any) -> bool:
    part = type(value).__module__.startswith(_PARTS) and hasattr(value, "__dict__")
    return part or isinstance(value, BaseEstimator)


def _may_make(kind: type) -> bool:
    return issubclass(kind, BaseEstimator) or kind.__module__.startswith(_PARTS)


def _made(value: Any) -> Any:
    """Data for what its class makes again from data (losses that are compiled); else the value."""
    kind = type(value)
    if not kind.__module__.startswith("sklearn.") or hasattr(value, "__dict__"):
        return value
    match value.__reduce__():
        case (made_by, tuple() as arguments) if made_by is kind:
            return {"": ["made", name_of(kind)], "from": arguments}
    return value


_FAMILY = Family("sklearn", _apart, _may_make, lambda value: isinstance(value, _FUNCTIONS), _made)

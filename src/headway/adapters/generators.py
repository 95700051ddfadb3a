"""Random generators that a program makes itself: `random.Random`, NumPy's `Generator`, `RandomState`."""

from __future__ import annotations

import random
import sys
from typing import Any

from headway.model.errors import InputError
from headway.ports import StateAdapter


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    if type(value) is random.Random:
        return _Python()
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return _Generator()
    if numpy is not None and isinstance(value, numpy.random.RandomState):
        return _RandomState()
    return None


class _Python:
    def capture(self, value: Any, path: str) -> Any:
        version, words, gauss = value.getstate()
        return {"version": version, "words": list(words), "gauss": gauss}

    def restore(self, value: Any, data: Any, path: str) -> Any:
        value.setstate((data["version"], tuple(data["words"]), data["gauss"]))
        return value


class _Generator:
    def capture(self, value: Any, path: str) -> Any:
        return value.bit_generator.state

    def restore(self, value: Any, data: Any, path: str) -> Any:
        now, then = type(value.bit_generator).__name__, data["bit_generator"]
        if now != then:
            raise InputError(f"{path} is a {now} now, and a {then} in the checkpoint")
        value.bit_generator.state = data
        return value


class _RandomState:
    def capture(self, value: Any, path: str) -> Any:
        return value.get_state(legacy=False)

    def restore(self, value: Any, data: Any, path: str) -> Any:
        value.set_state(data)
        return value

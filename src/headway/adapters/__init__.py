"""How live objects of other packages become data for a checkpoint, and are filled with it again.

An adapter is found by the module of a value's type, or of one of the types that this is derived from. So
nothing is imported for it that is not there already.
"""

from __future__ import annotations

import importlib
from typing import Any

from headway.checkpoint.capture import Absent
from headway.checkpoint.loops import Items
from headway.ports import StateAdapter, Steady

_ROOMS = {
    "random": "generators",
    "numpy": "generators",
    "keras": "keras",  # before PyTorch, whose modules its layers may be
    "torch": "torch",
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "jax": "jax",
    "jaxlib": "jax",
    "optuna": "optuna",
    "pandas": "frames",
    "polars": "frames",
}
"""Top-level package of a type -> the module here that knows it. Each has `adapter(value)`, and may have
`items(iterable)` and `owner(value)`; they give None for what they do not know. And `maker()`, which gives
the adapter for what is made anew (`capture.Absent`)."""


def find(value: Any) -> StateAdapter | None:
    """The adapter for a value; None when there is none, or it needs none."""
    if isinstance(value, Absent):
        if value.room not in _ROOMS.values():
            return None
        maker = getattr(importlib.import_module(f"{__name__}.{value.room}"), "maker", None)
        made: StateAdapter | None = None if maker is None else maker()
        return made
    for room in _rooms(value):
        found: StateAdapter | None = room.adapter(value)
        if found is not None:
            return found
    return None


def find_items(iterable: Any) -> Items | None:
    """How to go over something of another package, beginning in its middle; None for anything else."""
    for room in _rooms(iterable):
        found: Items | None = room.items(iterable) if hasattr(room, "items") else None
        if found is not None:
            return found
    return None


def find_owner(value: Any) -> Steady | None:
    """What announces that it changes its memory; None for anything else."""
    for room in _rooms(value):
        found: Steady | None = room.owner(value) if hasattr(room, "owner") else None
        if found is not None:
            return found
    return None


def _rooms(value: Any) -> list[Any]:
    names = dict.fromkeys(kind.__module__.partition(".")[0] for kind in type(value).__mro__)
    rooms = dict.fromkeys(_ROOMS[name] for name in names if name in _ROOMS)
    return [importlib.import_module(f"{__name__}.{room}") for room in rooms]

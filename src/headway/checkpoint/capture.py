"""Live objects as data, and data put back into live objects.

    None, bool, int, float, str, bytes, tuples        values: data; a restored one replaces the old
    arrays, tensors, bytearrays, lists, dicts         data themselves; filled in place
    what has an adapter (`ports.StateAdapter`)        as the adapter says
    what has state_dict() and load_state_dict()       by these two
    anything else                                     its pickle, where pickles are trusted

Lists, tuples and dicts may hold any of these.
"""

from __future__ import annotations

import io
import socket
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headway.checkpoint import arrays, tensors
from headway.checkpoint.state import below, shown
from headway.model.errors import InputError
from headway.ports import StateAdapter

Find = Callable[[Any], StateAdapter | None]
"""The adapter for a value."""

MADE = "\0made"
"""Key of what an adapter captured that is made anew, whether there is such a value now or not (arrays of
JAX, say, in a list that is shorter now): it names the adapter's room."""
APART = "\0apart"
"""Key of what may differ between two runs that do the same: times, made-up names. `headway verify` leaves
it out."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Stands for a value that is not there now: `Find` gives the adapter that makes it."""

    room: str


_ATOMS = (type(None), bool, int, float, str, bytes)
_NEVER = (
    (io.IOBase, "an open file: keep its name and the position, and open it again"),
    (types.GeneratorType, "a generator, whose position nobody can read: go over state.iterate(…)"),
    (types.CoroutineType, "a coroutine: keep what it is made from"),
    (types.ModuleType, "a module: import it again"),
    (type(threading.Lock()), "a lock: make it anew, and leave it out"),
    (type(threading.RLock()), "a lock: make it anew, and leave it out"),
    (threading.Condition, "a lock: make it anew, and leave it out"),
    (threading.Thread, "a thread: start it again, and leave it out"),
    (socket.socket, "a socket: connect it again, and leave it out"),
    (types.FunctionType, "a function: define it in the module, and leave it out"),
)


def _is_value(value: Any) -> bool:
    """Whether it cannot change in place, so that a restored one replaces it."""
    return type(value) in _ATOMS or isinstance(value, tuple) or _scalar(value)


def is_data(value: Any) -> bool:
    """Whether it is data itself, which may be exchanged for other data."""
    return (
        _is_value(value)
        or type(value) in {list, dict, OrderedDict, bytearray}
        or tensors.is_tensor(value)
        or _is_array(value)
    )


def capture(value: Any, path: str, find: Find, *, pickles: bool = False) -> Any:
    """Data that stands for a value now. It may look into the value's own memory.

    Args:
        value, path: what, and its name for messages: `optimizer.state[3]`.
        find: see `Find`.
        pickles: what is not data is left as it is, to be pickled, instead of refused.

    Raises:
        InputError: it cannot be captured; the message says why, and what to do.
    """
    kind = type(value)
    if kind in _ATOMS or _scalar(value):
        return value
    if kind in {list, tuple} or _named_tuple(value):
        made = (capture(v, f"{path}[{i}]", find, pickles=pickles) for i, v in enumerate(value))
        return list(made) if kind is list else tuple(made)
    if kind in {dict, OrderedDict}:
        found = kind(
            (key, capture(item, below(path, key), find, pickles=pickles))
            for key, item in value.items()
        )
        if hasattr(value, "_metadata"):  # of a module's state_dict: see `state`
            vars(found)["_metadata"] = value._metadata  # noqa: SLF001
        return found
    adapter = find(value)
    if adapter is not None:
        data = adapter.capture(value, path)
        return data if data is value else capture(data, path, find, pickles=pickles)
    if tensors.is_tensor(value) or _is_array(value) or kind is bytearray:
        return value
    if _has_state_dict(value):
        return capture(value.state_dict(), path, find, pickles=pickles)
    for never, why in _NEVER:
        if isinstance(value, never):
            raise InputError(f"{shown(path)} is {why}.")
    if pickles:
        return value
    raise InputError(
        f"{shown(path)} is a {kind.__module__}.{kind.__qualname__}, which headway cannot take apart: give "
        "it state_dict() and load_state_dict(), or track the numbers, strings and arrays it is made of"
    )


def restore(value: Any, data: Any, path: str, find: Find) -> Any:
    """The value as the data says: itself, changed in place, where it can be.

    Raises:
        InputError: the data does not fit; the message says where.
    """
    kind = type(value)
    if value is data:  # it was read straight into place
        return value
    if type(data) is dict and MADE in data:
        return _maker(data, path, find).restore(value, data, path)
    if kind is list and isinstance(data, list):
        return _list(value, data, path, find)
    if kind in {dict, OrderedDict} and isinstance(data, dict):
        return _dict(value, data, path, find)
    if isinstance(data, tuple) and (kind is tuple or _named_tuple(value)):
        if len(value) != len(data):
            if kind is tuple:
                return _new(data, path, find)
            raise _misfit(value, data, path)
        items = [restore(value[i], new, f"{path}[{i}]", find) for i, new in enumerate(data)]
        return tuple(items) if kind is tuple else kind(*items)
    adapter = find(value)
    if adapter is not None:
        return adapter.restore(value, data, path)
    if tensors.is_tensor(value):
        return _tensor(value, data, path)
    if arrays.is_live(value):
        return _array(value, data, path)
    if kind is bytearray and isinstance(data, bytes | bytearray):
        value[:] = data
        return value
    if is_data(value):
        return _new(data, path, find)
    if _has_state_dict(value):
        value.load_state_dict(data)
        return value
    return _object(value, data, path)


def _list(value: list[Any], data: list[Any], path: str, find: Find) -> list[Any]:
    value[:] = [
        restore(value[i], new, f"{path}[{i}]", find)
        if i < len(value)
        else _new(new, f"{path}[{i}]", find)
        for i, new in enumerate(data)
    ]
    return value


def _dict(value: dict[Any, Any], data: dict[Any, Any], path: str, find: Find) -> dict[Any, Any]:
    items = [
        (
            key,
            restore(value[key], new, below(path, key), find)
            if key in value
            else _new(new, below(path, key), find),
        )
        for key, new in data.items()
    ]
    value.clear()
    value.update(items)
    return value


def _new(data: Any, path: str, find: Find) -> Any:
    """A value that is not there now."""
    kind = type(data)
    if kind in {list, tuple}:
        return kind(_new(item, f"{path}[{i}]", find) for i, item in enumerate(data))
    if kind is dict and MADE in data:
        return _maker(data, path, find).restore(None, data, path)
    if kind in {dict, OrderedDict}:
        for key, item in data.items():
            data[key] = _new(item, below(path, key), find)
    return data


def _maker(data: dict[str, Any], path: str, find: Find) -> StateAdapter:
    adapter = find(Absent(str(data[MADE])))
    if adapter is None:
        raise InputError(f"{shown(path)} was saved by an adapter that this headway does not have")
    return adapter


def _tensor(value: Any, data: Any, path: str) -> Any:
    if not tensors.is_tensor(data) or (value.shape, value.dtype) != (data.shape, data.dtype):
        raise _misfit(value, data, path)
    tensors.copy_into(value, data)
    return value


def _array(value: Any, data: Any, path: str) -> Any:
    if not arrays.is_live(data) or (value.shape, value.dtype) != (data.shape, data.dtype):
        raise _misfit(value, data, path)
    value[...] = data
    return value


def _object(value: Any, data: Any, path: str) -> Any:
    """What was pickled: the same object with the saved one's attributes, or the saved one."""
    if type(value) is not type(data):
        raise _misfit(value, data, path)
    if not hasattr(value, "__dict__") or hasattr(value, "__setstate__"):
        return data
    vars(value).clear()
    vars(value).update(vars(data))
    return value


def _has_state_dict(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(
        getattr(value, "load_state_dict", None)
    )


def _named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(type(value), "_fields")


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def _scalar(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def _misfit(value: Any, data: Any, path: str) -> InputError:
    return InputError(
        f"{shown(path)} is {_form(value)} now, and {_form(data)} in the checkpoint. Build it as it was "
        "when it was saved, or start over with a new `headway run`."
    )


def _form(value: Any) -> str:
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    return kind if shape is None else f"a {kind} of {value.dtype} {tuple(shape)}"

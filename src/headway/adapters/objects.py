"""Plain Python objects of a framework as data: their attributes, all the way down; and back again.

An object is data when its attributes are: numbers, strings, arrays, random generators, other objects of
the framework. What else there is stays as it is, for `checkpoint.capture` to decide. A dict with the key ""
stands for what is neither:

    {"": ["object", class, given], name: value …}  an object; `given`: attributes that the program gives
    {"": ["made", class], "from": arguments}       made by its class from these arguments
    {"": ["random", class], "state": …}            a random generator
    {"": ["global"]}                               NumPy's global one, whose state `track` has already
    {"": ["same"], "as": path}                     met before: attributes may share an array
    {"": ["dict"], "items": […]}, {"": ["array", shape], "items": […]}    with values of these kinds

A class is named in a checkpoint, so only those that the framework's room says are made; others have to be
there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headway import adapters
from headway.checkpoint.capture import restore
from headway.checkpoint.state import below
from headway.model.errors import InputError


@dataclass(frozen=True, slots=True)
class Family:
    """The objects of one framework.

    Attributes:
        package: its name; classes are made from modules below it.
        apart: whether an object is taken apart into its attributes.
        may_make: whether a class may be made because a checkpoint names it.
        given: whether an attribute's value is the program's, which gives it again: functions, say.
        made: data for what its class makes again from data; else the value itself.
    """

    package: str
    apart: Callable[[Any], bool]
    may_make: Callable[[type], bool]
    given: Callable[[Any], bool]
    made: Callable[[Any], Any] = lambda value: value


class Taking:
    """Objects as data. `_seen`: what was met, by id, with its path."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._seen: dict[int, tuple[str, Any]] = {}

    def take(self, value: Any, path: str = "") -> Any:
        """Data for a value."""
        if value is None or isinstance(value, bool | int | float | str | bytes | np.generic):
            return value
        if type(value) is tuple:
            return tuple(self.take(v, f"{path}[{i}]") for i, v in enumerate(value))
        if id(value) in self._seen:
            return {"": ["same"], "as": self._seen[id(value)][0]}
        self._seen[id(value)] = path, value
        if type(value) is list:
            return [self.take(v, f"{path}[{i}]") for i, v in enumerate(value)]
        if type(value) is dict:
            items = [[k, self.take(v, below(path, k))] for k, v in list(value.items())]
            return {"": ["dict"], "items": items}
        if type(value) is np.ndarray and value.dtype == object:
            items = [self.take(v, f"{path}[{i}]") for i, v in enumerate(value.flat)]
            return {"": ["array", list(value.shape)], "items": items}
        if isinstance(value, np.random.RandomState | np.random.Generator):
            return _random(value)
        if self._family.apart(value):
            return self._object(value, path)
        return self._family.made(value)

    def _object(self, value: Any, path: str) -> dict[str, Any]:
        given: list[str] = []
        found: dict[str, Any] = {"": ["object", name_of(type(value)), given]}
        for name, held in list(vars(value).items()):
            if self._family.given(held):
                given.append(name)
            else:
                found[name] = self.take(held, below(path, name))
        return found


class Putting:
    """Data back into objects.

    Args:
        family: which objects they are.
        root: the path of the whole, for messages.
    """

    def __init__(self, family: Family, root: str) -> None:
        self._family = family
        self._root = root
        self._made: dict[str, Any] = {}

    def put(self, live: Any, data: Any, path: str = "") -> Any:
        """What the data stands for: `live` itself where that is an object that fits.

        Raises:
            InputError: it does not fit; the message says where.
        """
        made = self._put(live, data, path)
        self._made[path] = made
        return made

    def _put(self, live: Any, data: Any, path: str) -> Any:
        if type(data) is list:
            made = live if type(live) is list else []
            there = made[: len(data)] + [None] * (len(data) - len(made))
            made[:] = [
                self.put(old, new, f"{path}[{i}]")
                for i, (old, new) in enumerate(zip(there, data, strict=True))
            ]
            return made
        if type(data) is tuple:
            there = list(live) if type(live) is tuple and len(live) == len(data) else []
            there += [None] * (len(data) - len(there))
            return tuple(self.put(there[i], new, f"{path}[{i}]") for i, new in enumerate(data))
        if type(data) is not dict:
            return data
        match data.get(""):
            case ["object", name, *given]:
                return self._object(live, name, data, path, *given)
            case ["made", name]:
                return self._class(live, name, path)(*data["from"])
            case ["random", name]:
                return _set(live, name, data["state"])
            case ["global"]:
                return np.random.mtrand._rand  # noqa: SLF001  # what estimators themselves use
            case ["same"]:
                return self._made[data["as"]]
            case ["dict"]:
                old = live if type(live) is dict else {}
                items = [(k, self.put(old.get(k), v, below(path, k))) for k, v in data["items"]]
                old.clear()
                old.update(items)
                return old
            case ["array", shape]:
                array = np.empty(len(data["items"]), object)
                olds: Any = live.flat if type(live) is np.ndarray and live.dtype == object else []
                there = [*olds, *[None] * len(data["items"])]
                for i, item in enumerate(data["items"]):
                    array[i] = self.put(there[i], item, f"{path}[{i}]")
                return array.reshape(shape)
        if live is None:
            raise InputError(
                f"{self._root}{path and '.'}{path} is not there now, and it is in the checkpoint: build "
                "it before track(), or track it under a name of its own"
            )
        return restore(live, data, f"{self._root}.{path}", adapters.find)

    def _object(
        self, live: Any, name: str, data: dict[str, Any], path: str, given: Sequence[str] = ()
    ) -> Any:
        kind = self._class(live, name, path)
        made = live if type(live) is kind else kind.__new__(kind)
        self._made[path] = made
        old = vars(made)
        new = {k: self.put(old.get(k), v, below(path, k)) for k, v in data.items() if k}
        for key in old.keys() - new.keys():
            if key not in given and not self._family.given(old[key]):
                del old[key]
        old.update(new)
        return made

    def _class(self, live: Any, name: str, path: str) -> Any:
        if live is not None and name_of(type(live)) == name:
            return type(live)
        module, _, kind = name.rpartition(":")
        found = None
        if path and module.startswith(f"{self._family.package}."):
            found = vars(importlib.import_module(module)).get(kind)
        if (
            not isinstance(found, type)
            or name_of(found) != name
            or not self._family.may_make(found)
        ):
            now = "nothing" if live is None else f"a {type(live).__name__}"
            raise InputError(
                f"{self._root}{path and '.'}{path} is {now} now, and a {kind} in the checkpoint. Build it "
                "as it was when it was saved, or start over with a new `headway run`."
            )
        return found


def name_of(kind: type) -> str:
    """What stands for a class in a checkpoint."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _random(value: Any) -> Any:
    if value is np.random.mtrand._rand:  # noqa: SLF001
        return {"": ["global"]}
    if isinstance(value, np.random.RandomState):
        return {"": ["random", "RandomState"], "state": value.get_state(legacy=False)}
    bits = value.bit_generator
    return {"": ["random", type(bits).__name__], "state": bits.state}


def _set(live: Any, name: str, state: Any) -> Any:
    made = live
    if name == "RandomState":
        if type(live) is not np.random.RandomState or live is np.random.mtrand._rand:  # noqa: SLF001
            made = np.random.RandomState()
        made.set_state(state)
        return made
    if type(live) is not np.random.Generator or type(live.bit_generator).__name__ != name:
        kinds = {kind.__name__: kind for kind in (
            np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64,
        )}  # fmt: skip
        if name not in kinds:
            raise InputError(f"the checkpoint has a random generator {name!r}, which NumPy has not")
        made = np.random.Generator(kinds[name]())
    made.bit_generator.state = state
    return made

"""Promises: what calls return while a workflow's graph is drawn, before any value exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from headway.model.errors import DefinitionError

Binding = dict[str, Any]
"""Where a value comes from: `engine.graph` lists the forms."""


class Order:
    """The `>>` edges of one graph: (earlier node, later node)."""

    def __init__(self) -> None:
        self.edges: list[tuple[str, str]] = []

    def add(self, earlier: Iterable[str], later: Iterable[str]) -> None:
        """Every node of `later` waits for all of `earlier`."""
        before = list(earlier)
        self.edges += [(one, other) for other in later for one in before]


class Promise:
    """A value that will exist when the run gets there; a task without outputs gives one too.

    It can be passed to tasks (alone, or inside lists, tuples and dicts), returned, and put in order
    with `>>`. Anything else needs the value, and says so.

    Attributes:
        order: of the graph that it belongs to.
        binding: where the value comes from.
        type: its annotation.
        nodes: names of the nodes that `>>` puts in order.
        label: how messages call it.
        output: its name among the outputs of its call.
    """

    __slots__ = ("binding", "label", "nodes", "order", "output", "type")

    def __init__(
        self,
        order: Order,
        binding: Binding,
        type_: Any,
        nodes: tuple[str, ...],
        label: str,
        output: str = "",
    ) -> None:
        self.order = order
        self.binding = binding
        self.type = type_
        self.nodes = nodes
        self.label = label
        self.output = output

    def __rshift__(self, later: Any) -> Any:
        return _ordered(self, later)

    def __rrshift__(self, earlier: Any) -> Any:
        return _ordered(earlier, self)

    def __repr__(self) -> str:
        return f"<promise of {self.label}>"

    def __getattr__(self, name: str) -> NoReturn:
        # Python itself asks objects for special methods, to learn what they can do.
        if name.startswith("__"):
            raise AttributeError(name)
        raise _too_early(self, f"its attribute {name!r}")

    __hash__ = object.__hash__

    def __reduce__(self) -> NoReturn:
        raise _too_early(self, "its value inside another object")


class Results(tuple[Promise, ...]):
    """The promises of a call with several outputs: unpack it, index it, or use the outputs' names."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        # Not `__getattr__`: an output may be called `count` or `index`, which every tuple has.
        if not name.startswith("_"):
            for promise in tuple.__iter__(self):
                if promise.output == name:
                    return promise
        return super().__getattribute__(name)

    def __rshift__(self, later: Any) -> Any:
        return _ordered(self, later)

    def __rrshift__(self, earlier: Any) -> Any:
        return _ordered(earlier, self)


def contains_promise(value: Any) -> bool:
    """Whether there is a promise in `value`, inside lists, tuples, sets and dicts too."""
    if isinstance(value, Promise):
        return True
    if isinstance(value, dict):
        return any(contains_promise(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(contains_promise, value))
    return False


def _ordered(earlier: Any, later: Any) -> Any:
    first, second = _promises(earlier), _promises(later)
    if not first or not second:
        raise DefinitionError(
            f"{earlier!r} >> {later!r}: `>>` puts calls of tasks and workflows in order, alone or in "
            "lists and tuples"
        )
    order = first[0].order
    if any(promise.order is not order for promise in first + second):
        raise DefinitionError(f"{earlier!r} >> {later!r}: they belong to different workflows")
    order.add(_nodes(first), _nodes(second))
    return later


def _promises(value: Any) -> list[Promise]:
    """The promises in `value`, or [] when there is something else in it."""
    if isinstance(value, Promise):
        return [value]
    if not isinstance(value, list | tuple):
        return []
    found = [_promises(part) for part in value]
    return [promise for part in found for promise in part] if all(found) else []


def _nodes(promises: list[Promise]) -> list[str]:
    for promise in promises:
        if not promise.nodes:
            raise DefinitionError(f"{promise!r} cannot be put in order with `>>`: no task makes it")
    return list(dict.fromkeys(node for promise in promises for node in promise.nodes))


def _too_early(promise: Promise, what: str) -> DefinitionError:
    return DefinitionError(
        f"{what} is needed while the workflow's graph is drawn, but {promise!r} has no value before "
        "the run gets there. Move what uses it into a task."
    )


def _refusal(what: str) -> Callable[..., NoReturn]:
    def refuse(self: Promise, *_: Any) -> NoReturn:
        raise _too_early(self, what)

    return refuse


_REFUSED = {
    "its truth (if, while, and, or, not)": "bool",
    "its length": "len",
    "its items (for, unpacking, *)": "iter reversed contains getitem setitem delitem",
    "a comparison": "eq ne lt le gt ge",
    "its text": "str format bytes",
    "its number": "int float complex index round trunc floor ceil",
    "its path": "fspath",
    "a call of it": "call",
    "a with block": "enter exit",
    "arithmetic": "add sub mul truediv floordiv mod divmod pow matmul and or xor lshift "
    "radd rsub rmul rtruediv rfloordiv rmod rdivmod rpow rmatmul rand ror rxor rlshift "
    "neg pos abs invert",
}
for _what, _names in _REFUSED.items():
    for _name in _names.split():
        setattr(Promise, f"__{_name}__", _refusal(_what))

"""Drawing a graph: while a workflow's body runs, calls of tasks become nodes.

The trace is a context variable, so that threads and nested traces do not meet, and an exception
leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from headway.engine.promise import Binding, Order, Promise, Results, contains_promise
from headway.engine.shapes import Kind, Shape, fields_of, shape_of
from headway.engine.signature import Form, Interface
from headway.engine.types import assignable, describe, required_keys, typed_dict_item
from headway.model.errors import DefinitionError, InputError
from headway.model.ids import node_key

_current: contextvars.ContextVar[Trace | None] = contextvars.ContextVar("trace", default=None)

Encode = Callable[[Any, Any, str], Any]
"""value, annotation, where -> plain: `Values.encode`, which also checks."""


class Called(Protocol):
    """What a trace needs of a task."""

    @property
    def interface(self) -> Interface: ...


@dataclass
class Drawn:
    """A node as it was called."""

    name: str
    task: Any
    inputs: dict[str, Binding]
    after: list[str] = field(default_factory=list)


class Trace:
    """One graph being drawn.

    Args:
        encode: makes literals plain.
    """

    def __init__(self, encode: Encode) -> None:
        self.nodes: dict[str, Drawn] = {}
        self.order = Order()
        self._encode = encode
        self._prefix = ""
        self._keys: set[str] = set()
        self._calls: dict[str, int] = {}  # name -> number of the newest node of that name

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Make this the current trace."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def inputs(self, interface: Interface) -> dict[str, Any]:
        """Promises for the inputs of the graph's workflow or task."""
        return {
            p.name: Promise(self.order, {"input": p.name}, p.type, (), f"input {p.name!r}")
            for p in interface.inputs.values()
        }

    def call(self, task: Called, bound: Mapping[str, Any]) -> Any:
        """A node for a call of `task`; its promises.

        Raises:
            DefinitionError: an argument does not fit its parameter.
        """
        interface = task.interface
        needed: list[str] = []
        inputs = {
            name: self.bind(value, interface.inputs[name].type, f"{interface.name}: {name}", needed)
            for name, value in bound.items()
        }
        name = self._name(interface.name)
        self.nodes[name] = Drawn(name, task, inputs, needed)
        bindings = {output: {"node": [name, output]} for output in interface.outputs}
        return self._promises(interface, bindings, (name,), name)

    def inline(
        self, interface: Interface, body: Callable[..., Any], bound: Mapping[str, Any]
    ) -> Any:
        """The nodes of a workflow inside this one; its promises."""
        name = self._name(interface.name)
        outer, self._prefix = self._prefix, f"{name}."
        before = len(self.nodes)
        inputs = {}
        try:
            for p in interface.inputs.values():
                needed: list[str] = []
                binding = self.bind(bound[p.name], p.type, f"{interface.name}: {p.name}", needed)
                label = f"input {p.name!r} of {name}"
                inputs[p.name] = Promise(self.order, binding, p.type, tuple(needed), label)
            bindings = self.returned(interface, body(**inputs))
        finally:
            self._prefix = outer
        drawn = islice(reversed(self.nodes), len(self.nodes) - before)
        return self._promises(interface, bindings, tuple(drawn)[::-1], name)

    def returned(self, interface: Interface, result: Any) -> dict[str, Binding]:
        """Output name -> binding, from what a workflow's body returned.

        Raises:
            DefinitionError: it does not fit the return annotation.
        """
        what = f"{interface.name}: the result"
        types = interface.outputs
        if interface.form is Form.NOTHING:
            self.bind(result, None, what, [])
            return {}
        if interface.form is Form.ONE:
            return {"o0": self.bind(result, types["o0"], what, [])}
        if not isinstance(result, tuple) or len(result) != len(types):
            got = f"{len(result)} values" if isinstance(result, tuple) else repr(result)
            raise DefinitionError(
                f"{what}: expected {describe(interface.result)} ({len(types)} values), got {got}"
            )
        pairs = zip(types, result, strict=True)
        return {name: self.bind(v, types[name], f"{what}.{name}", []) for name, v in pairs}

    def bind(self, value: Any, type_: Any, where: str, needed: list[str]) -> Binding:
        """Where `value` comes from.

        Args:
            type_: the annotation that it has to fit.
            where: what it is for, in messages.
            needed: takes the names of the nodes that must come first.

        Raises:
            DefinitionError: it does not fit, or belongs to another workflow.
        """
        try:
            if not contains_promise(value):
                return {"value": self._encode(value, type_, where)}
        except InputError as error:
            raise DefinitionError(str(error)) from error
        except RecursionError:
            raise DefinitionError(f"{where}: nested too deeply, or it contains itself") from None
        if isinstance(value, Promise):
            return self._bind_promise(value, type_, where, needed)
        problem = DefinitionError(f"{where}: expected {describe(type_)}, got {value!r}")
        shape = shape_of(type_)
        for member in shape.args if shape.kind is Kind.UNION else (type_,):
            found: list[str] = []
            try:
                binding = self._bind_parts(value, member, where, found)
            except DefinitionError as error:
                problem = error
            else:
                if binding is not None:
                    _extend(needed, found)
                    return binding
        raise problem

    def _bind_promise(self, promise: Promise, type_: Any, where: str, needed: list[str]) -> Binding:
        if promise.order is not self.order:
            raise DefinitionError(
                f"{where}: {promise!r} belongs to another workflow, or to an earlier trace of this "
                "one. Call the task inside this workflow."
            )
        if not assignable(promise.type, type_):
            raise DefinitionError(
                f"{where}: expected {describe(type_)}, but {promise.label} gives "
                f"{describe(promise.type)}"
            )
        _extend(needed, nodes_in(promise.binding))
        if promise.binding.get("value", ...) is None:  # no value to wait for, but a call
            _extend(needed, promise.nodes)
        return promise.binding

    def _bind_parts(self, value: Any, type_: Any, where: str, needed: list[str]) -> Binding | None:
        """The binding of a list, tuple or dict with promises inside; None when `type_` takes none."""
        shape = shape_of(type_)
        if isinstance(value, dict):
            items = _value_types(shape, value, where)
            if items is None:
                return None
            parts = {k: self.bind(v, items[k], f"{where}[{k!r}]", needed) for k, v in value.items()}
            return {"dict": parts}
        if not isinstance(value, list | tuple):
            raise DefinitionError(f"{where}: a set cannot hold promises; use a list")
        kind = "list" if isinstance(value, list) else "tuple"
        types = _item_types(shape, kind, len(value))
        if types is None:
            return None
        pairs = enumerate(zip(value, types, strict=True))
        return {kind: [self.bind(v, t, f"{where}[{i}]", needed) for i, (v, t) in pairs]}

    def _name(self, name: str) -> str:
        """The next free name in this scope: `train`, `train-2` …, free as a path too."""
        number = self._calls.get(self._prefix + name, 0)
        while True:
            number += 1
            full = self._prefix + (name if number == 1 else f"{name}-{number}")
            # Lower case: some filesystems take `Train` and `train` for one.
            key = node_key(full).lower()
            if key not in self._keys:
                self._keys.add(key)
                self._calls[self._prefix + name] = number
                return full

    def _promises(
        self, interface: Interface, bindings: dict[str, Binding], nodes: tuple[str, ...], name: str
    ) -> Any:
        if interface.form is Form.NOTHING:
            return Promise(self.order, {"value": None}, None, nodes, name)
        made = [
            Promise(
                self.order, binding, interface.outputs[output], nodes, f"{name}.{output}", output
            )
            for output, binding in bindings.items()
        ]
        if interface.form is Form.ONE:
            made[0].label = name
            return made[0]
        return Results(made)


def current() -> Trace | None:
    """The trace that this code is called in; None when no graph is being drawn."""
    return _current.get()


def nodes_in(binding: Binding) -> Iterator[str]:
    """Names of the nodes whose outputs a binding refers to."""
    for form, part in binding.items():
        if form == "node":
            yield part[0]
        elif form in {"list", "tuple"}:
            for inner in part:
                yield from nodes_in(inner)
        elif form == "dict":
            for inner in part.values():
                yield from nodes_in(inner)


def _item_types(shape: Shape, made: str, length: int) -> list[Any] | None:
    """One annotation for each item of a list or tuple; None when the shape takes no such thing."""
    if shape.kind is Kind.ANY:
        return [Any] * length
    if shape.kind is (Kind.LIST if made == "list" else Kind.SERIES):
        return [shape.args[0]] * length
    types: list[Any] = []
    if made == "tuple" and shape.kind is Kind.TUPLE:
        types = list(shape.args)
    if made == "tuple" and shape.kind is Kind.NAMED:
        types = list(fields_of(shape.cls).values())
    return types if len(types) == length else None


def _value_types(shape: Shape, value: dict[Any, Any], where: str) -> Mapping[str, Any] | None:
    """One annotation for each value of a dict; None when the shape takes no such thing."""
    if not all(type(key) is str for key in value):
        raise DefinitionError(f"{where}: the keys of a dict with promises must be strings")
    if shape.kind is Kind.ANY:
        return dict.fromkeys(value, Any)
    if shape.kind is Kind.DICT and assignable(str, shape.args[0]):
        return dict.fromkeys(value, shape.args[1])
    if shape.kind is Kind.TYPED_DICT:
        fields = fields_of(shape.cls)
        if required_keys(shape.cls) <= value.keys() <= fields.keys():
            return {name: typed_dict_item(type_) for name, type_ in fields.items()}
    return None


def _extend(names: list[str], more: Iterable[str]) -> None:
    names += [name for name in dict.fromkeys(more) if name not in names]

"""`@workflow`: a function that says which tasks run, and what flows between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast, overload

from headway.engine import graph
from headway.engine.entity import Entity, P, R, refuse_unknown
from headway.engine.tracing import Trace
from headway.engine.types import check


class Workflow(Entity[P, R]):
    """A workflow; made by `@workflow`. Its body runs once, to draw the graph, on promises."""

    kind: ClassVar[str] = "workflow"

    def expand(self, trace: Trace, bound: dict[str, Any]) -> Any:  # noqa: ARG002  # is current
        """See `Entity.expand`."""
        return cast("Callable[..., Any]", self.function)(**bound)

    def traced(self, trace: Trace, bound: dict[str, Any]) -> Any:
        """See `Entity.traced`: its nodes become part of the graph, named `name.…`."""
        return trace.inline(self.interface, self.function, bound)

    def inside(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Entity.inside`: the tasks run here, one after the other, as plain calls."""
        bound = self.interface.bind(args, kwargs)
        self.interface.check_inputs(bound)
        drawn, outputs = graph.draw(self, _as_it_is)
        results: dict[str, dict[str, Any]] = {}
        for name in graph.in_order(drawn):
            node = drawn.nodes[name]
            given = {key: _value(b, bound, results) for key, b in node.inputs.items()}
            results[name] = node.task.interface.split(node.task.function(**given))
        values = {key: _value(binding, bound, results) for key, binding in outputs.items()}
        return cast("R", self.interface.join(values))


@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...


@overload
def workflow() -> Callable[[Callable[P, R]], Workflow[P, R]]: ...


def workflow(function: Callable[..., Any] | None = None, /, **unknown: Any) -> Any:
    """Make a function a workflow. Its parameters and its result are annotated like a task's.

    The body calls tasks and other workflows, passes what they return to others, and returns some of
    it. What does not wait for each other runs at the same time; `a >> b` makes b wait for a. There
    are no values yet while the body runs: whatever needs one belongs into a task.

    Args:
        function: at the top level of a module.

    Raises:
        DefinitionError: the function cannot be a workflow; the message says what to write instead.
    """
    refuse_unknown("workflow", unknown, ())
    return Workflow if function is None else Workflow(function)


def _as_it_is(value: Any, type_: Any, where: str) -> Any:
    """In one process literals need no encoding, only the check that comes with it."""
    check(value, type_, where)
    return value


def _value(
    binding: Mapping[str, Any], inputs: Mapping[str, Any], results: Mapping[str, Any]
) -> Any:
    """Like `graph.resolve`, for values that are not plain."""
    ((form, part),) = binding.items()
    if form == "value":
        return part
    if form == "input":
        return inputs[part]
    if form == "node":
        return results[part[0]][part[1]]
    if form == "dict":
        return {key: _value(inner, inputs, results) for key, inner in part.items()}
    items = [_value(inner, inputs, results) for inner in part]
    return tuple(items) if form == "tuple" else items

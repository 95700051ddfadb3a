"""Graphs: the nodes of a run and where their inputs come from.

A binding says where a value comes from. It is a plain dict with one key:

    {"value": plain}            a literal
    {"input": name}             an input of the run
    {"node": [node, output]}    an output of a node
    {"list": [binding, …]}      a list, {"tuple": …} a tuple, of values from several places
    {"dict": {key: binding}}    a dict likewise
"""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headway.engine.encode import plain_dict, plain_tuple
from headway.engine.entity import Entity
from headway.engine.promise import Binding
from headway.engine.tracing import Encode, Trace
from headway.engine.values import Values
from headway.model.errors import DefinitionError
from headway.model.events import NodePlan


@dataclass(frozen=True, slots=True)
class Graph:
    """What a run does.

    Attributes:
        nodes: in the order of the calls.
        outputs: output name of the workflow or task -> binding.
    """

    nodes: list[NodePlan]
    outputs: dict[str, Binding]


def trace(entity: Entity[..., Any], values: Values) -> Graph:
    """Draw the graph of a workflow, or of a single task (one node, named after it).

    The body of a workflow runs here, on promises. The same program gives the same graph.

    Args:
        values: takes the literals that the body passes to tasks.

    Raises:
        DefinitionError: a call does not fit its task, the nodes wait for each other in a circle, or
            the body needs a value that does not exist yet.
    """
    drawn, outputs = draw(entity, values.encode)
    named: dict[str, tuple[str, ...]] = {}  # by task, so that its nodes share one
    plans = [
        NodePlan(
            name=node.name,
            task=node.task.name,
            options=node.task.options,
            inputs=node.inputs,
            after=tuple(node.after),
            outputs=named.setdefault(node.task.name, tuple(node.task.interface.outputs)),
        )
        for node in drawn.nodes.values()
    ]
    return Graph(plans, outputs)


def draw(entity: Entity[..., Any], encode: Encode) -> tuple[Trace, dict[str, Binding]]:
    """Like `trace`, but gives the nodes with their tasks themselves; in `after`, `>>` edges are in."""
    drawn = Trace(encode)
    with drawn.entered():
        result = entity.expand(drawn, drawn.inputs(entity.interface))
        outputs = drawn.returned(entity.interface, result)
    for earlier, later in drawn.order.edges:
        after = drawn.nodes[later].after
        if earlier not in after:
            after.append(earlier)
    try:
        in_order(drawn)
    except graphlib.CycleError as error:
        circle = " >> ".join(error.args[1])
        raise DefinitionError(
            f"{entity.interface.name}: tasks wait for each other in a circle: {circle}. Remove one "
            "of the `>>` between them."
        ) from error
    return drawn, outputs


def in_order(drawn: Trace) -> list[str]:
    """Names of the nodes, every node after those that it waits for."""
    waits = {node.name: node.after for node in drawn.nodes.values()}
    return list(graphlib.TopologicalSorter(waits).static_order())


def resolve(
    binding: Mapping[str, Any],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Mapping[str, Any]],
) -> Any:
    """The plain value of a binding.

    Args:
        inputs: input name of the run -> plain.
        outputs: node -> output name -> plain, for every node that the binding refers to.
    """
    ((form, part),) = binding.items()
    if form == "value":
        return part
    if form == "input":
        return inputs[part]
    if form == "node":
        node, output = part
        return outputs[node][output]
    if form == "dict":
        return plain_dict({key: resolve(inner, inputs, outputs) for key, inner in part.items()})
    items = [resolve(inner, inputs, outputs) for inner in part]
    return plain_tuple(items) if form == "tuple" else items

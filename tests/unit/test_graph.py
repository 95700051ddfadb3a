"""The graph: names, edges and bindings, the same every time; and what bindings resolve to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec
import numpy as np
import pytest

from headway.engine.files import File
from headway.engine.graph import Graph, resolve, trace
from headway.engine.task import task
from headway.engine.values import Values
from headway.engine.workflow import Workflow, workflow
from headway.model.events import NodePlan
from headway.model.settings import TaskOptions
from headway.testing.memory import MemoryStorage


class Pair(NamedTuple):
    left: int
    right: int


class Options(TypedDict):
    size: int


@task
def make() -> int:
    return 1


@task(retries=2)
def use(a: int, b: int = 3) -> int:
    return a + b


@task
def pair() -> Pair:
    return Pair(1, 2)


@task
def pair_of(given: Pair) -> None: ...
@task
def both(given: tuple[int, ...] | list[int] | None) -> tuple[int, int]:
    return 1, 2


@task
def any_of(given: Any) -> None: ...
@task
def options_of(given: Options) -> None: ...
@task
def file_of(file: File, array: np.ndarray[Any, Any]) -> None: ...
@task
def note() -> None: ...


def draw(body: Callable[..., Any]) -> Graph:
    body.__qualname__ = body.__name__
    return trace(Workflow(body), Values(MemoryStorage(), "values"))


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def after(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {node.name: node.after for node in graph.nodes}


def test_a_single_task_is_a_graph_of_one_node() -> None:
    graph = trace(use, Values(MemoryStorage(), "values"))
    (node,) = graph.nodes
    assert (node.name, node.task, node.options) == ("use", use.name, TaskOptions(retries=2))
    assert node.inputs == {"a": {"input": "a"}, "b": {"input": "b"}}
    assert (node.after, node.outputs) == ((), ("o0",))
    assert graph.outputs == {"o0": {"node": ["use", "o0"]}}
    assert trace(pair, Values(MemoryStorage(), "v")).outputs == {
        "left": {"node": ["pair", "left"]},
        "right": {"node": ["pair", "right"]},
    }
    assert trace(note, Values(MemoryStorage(), "v")).outputs == {}


def test_nodes_are_named_in_the_order_of_the_calls_and_wait_for_data_only() -> None:
    def body(x: int) -> tuple[int, int]:
        a = use(x)
        b = use(make(), x)
        return use(a, b), use(1)

    graph = draw(body)
    assert names(graph) == ["use", "make", "use-2", "use-3", "use-4"]
    assert after(graph) == {
        "use": (),
        "make": (),
        "use-2": ("make",),
        "use-3": ("use", "use-2"),
        "use-4": (),
    }
    assert graph.nodes[2].inputs == {"a": {"node": ["make", "o0"]}, "b": {"input": "x"}}
    assert graph.nodes[4].inputs == {"a": {"value": 1}, "b": {"value": 3}}
    assert graph.outputs == {
        "o0": {"node": ["use-3", "o0"]},
        "o1": {"node": ["use-4", "o0"]},
    }


def test_arrows_order_nodes_that_share_no_data() -> None:
    def body() -> None:
        first, second, third = note(), note(), note()
        twins = both([1]), both([2])
        first >> [second, third] >> twins[0]  # type: ignore[operator]
        twins[0] >> twins[1]  # type: ignore[operator]
        (first, second) >> twins[1]  # type: ignore[operator]
        first >> twins[1][0]  # type: ignore[operator]

    assert after(draw(body)) == {
        "note": (),
        "note-2": ("note",),
        "note-3": ("note",),
        "both": ("note-2", "note-3"),
        "both-2": ("both", "note", "note-2"),
    }


@workflow
def inner(x: int, y: int = 5) -> tuple[int, int]:
    note()
    return use(x, y), x


@workflow
def nothing(x: int) -> None:
    use(x)
    note()


def test_sub_workflows_are_inlined_under_their_name() -> None:
    def body(x: int) -> int:
        first, _ = inner(x)
        second, literal = inner(first)
        nothing(second) >> note()  # type: ignore[operator]
        return use(literal, inner(7)[1])

    graph = draw(body)
    assert names(graph) == [
        "inner.note", "inner.use", "inner-2.note", "inner-2.use", "nothing.use", "nothing.note",
        "note", "inner-3.note", "inner-3.use", "use",
    ]  # fmt: skip
    assert after(graph)["inner-2.use"] == ("inner.use",)
    assert after(graph)["note"] == ("nothing.use", "nothing.note")
    plans = {node.name: node for node in graph.nodes}
    assert plans["inner-2.use"].inputs["a"] == {"node": ["inner.use", "o0"]}
    assert plans["use"].inputs == {"a": {"node": ["inner.use", "o0"]}, "b": {"value": 7}}
    assert after(graph)["use"] == ("inner.use",)


@workflow
def gathered(x: int) -> tuple[list[int], dict[str, int]]:
    return [use(x), make()], {"a": make()}


def test_what_a_sub_workflow_puts_together_keeps_its_edges() -> None:
    def body() -> None:
        many, named = gathered(1)
        both(many)
        any_of(named)
        [many, named] >> note()  # type: ignore[operator]

    graph = draw(body)
    assert after(graph)["both"] == ("gathered.use", "gathered.make")
    assert after(graph)["any_of"] == ("gathered.make-2",)
    assert after(graph)["note"] == ("gathered.use", "gathered.make", "gathered.make-2")


def test_an_arrow_to_a_sub_workflow_holds_all_of_it_back() -> None:
    def body() -> None:
        start = note()
        start >> nothing(1)  # type: ignore[operator]

    assert after(draw(body)) == {"note": (), "nothing.use": ("note",), "nothing.note": ("note",)}


def test_passing_on_what_a_task_without_outputs_gives_waits_for_it() -> None:
    def body() -> None:
        done = note()
        any_of(done)
        any_of([done])
        relay(done)

    graph = draw(body)
    assert after(graph) == {
        "note": (),
        "any_of": ("note",),
        "any_of-2": ("note",),
        "relay.any_of": ("note",),
    }
    assert graph.nodes[1].inputs == {"given": {"value": None}}
    assert graph.nodes[2].inputs == {"given": {"list": [{"value": None}]}}


@workflow
def relay(given: Any) -> None:
    any_of(given)


def test_promises_inside_lists_tuples_and_dicts_are_found() -> None:
    def body(x: int) -> dict[str, Any]:
        a, p = make(), pair()
        both([a, 2, x])
        both((a, *p))
        pair_of(p)
        pair_of(Pair(a, 4))
        any_of({"deep": [(a, {"b": p.right})], "$": 1})
        options_of({"size": a})
        return {"a": a, "literal": [1]}

    graph = draw(body)
    node = {"node": ["make", "o0"]}
    left, right = {"node": ["pair", "left"]}, {"node": ["pair", "right"]}
    assert [n.inputs["given"] for n in graph.nodes[2:]] == [
        {"list": [node, {"value": 2}, {"input": "x"}]},
        {"tuple": [node, left, right]},
        {"tuple": [left, right]},
        {"tuple": [node, {"value": 4}]},
        {
            "dict": {
                "deep": {"list": [{"tuple": [node, {"dict": {"b": right}}]}]},
                "$": {"value": 1},
            }
        },
        {"dict": {"size": node}},
    ]
    assert [n.after for n in graph.nodes[2:5]] == [("make",), ("make", "pair"), ("pair",)]
    assert graph.outputs == {"o0": {"dict": {"a": node, "literal": {"value": [1]}}}}


def test_a_dict_without_a_key_that_it_needs_is_refused() -> None:
    def body() -> None:
        options_of({"sice": make()})  # type: ignore[typeddict-item]

    with pytest.raises(Exception, match="options_of: given: expected Options"):
        draw(body)


def test_a_workflow_may_return_its_inputs_and_literals() -> None:
    def body(x: int, y: str = "a") -> tuple[int, str, list[Any]]:
        return x, y, [x, 2]

    graph = draw(body)
    assert graph.nodes == []
    assert graph.outputs == {
        "o0": {"input": "x"},
        "o1": {"input": "y"},
        "o2": {"list": [{"input": "x"}, {"value": 2}]},
    }


def test_literals_may_be_files_and_arrays(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 100_000)

    def body() -> None:
        file_of(File(path), np.zeros(100_000))

    storage = MemoryStorage()
    body.__qualname__ = "body"
    (node,) = trace(Workflow(body), Values(storage, "values")).nodes
    assert len(storage.objects) == 2
    assert len(msgspec.msgpack.encode(node)) < 1000


def test_names_that_would_share_a_path_are_told_apart() -> None:
    def body() -> None:
        accented()
        grave()
        Make()
        make()

    assert names(draw(body)) == ["é", "è-2", "Make", "make-2"]


@task
def Make() -> None: ...
def _renamed(name: str) -> Any:
    def function() -> None: ...

    function.__name__ = function.__qualname__ = name
    return task(function)


accented, grave = _renamed("é"), _renamed("è")


def test_the_same_program_gives_the_same_graph() -> None:
    def body(x: int) -> Any:
        a = make()
        b = use(a, x)
        note() >> b  # type: ignore[operator]
        any_of({"z": a, "y": frozenset({"p", "q", "r"})})
        return b

    one, other = draw(body), draw(body)
    assert one == other
    assert msgspec.json.encode(one.nodes) == msgspec.json.encode(other.nodes)
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(one.nodes), type=list[NodePlan])
    assert stored == one.nodes  # what a journal holds can be compared with a fresh trace


def test_bindings_resolve_to_plain_values_that_decode_as_what_was_written() -> None:
    values = Values(MemoryStorage(), "values")
    inputs = {"x": 5}
    outputs: dict[str, Any] = {
        "make": {"o0": 1},
        "pair": {"left": 2, "right": {"$": "int", "hex": hex(1 << 70)}},
    }
    binding = {
        "dict": {
            "list": {"list": [{"input": "x"}, {"node": ["make", "o0"]}]},
            "tuple": {"tuple": [{"value": "a"}, {"node": ["pair", "right"]}]},
            "$": {"dict": {}},
        }
    }
    plain = resolve(binding, inputs, outputs)
    assert values.decode(plain) == {"list": [5, 1], "tuple": ("a", 1 << 70), "$": {}}
    named = resolve({"tuple": [{"node": ["pair", "left"]}, {"value": 3}]}, inputs, outputs)
    assert values.decode(named, Pair) == Pair(2, 3)

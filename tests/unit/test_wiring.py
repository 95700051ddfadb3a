"""Wrong wiring in a workflow is told before anything runs, with the task and the parameter."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from headway.engine import tracing
from headway.engine.graph import trace
from headway.engine.task import task
from headway.engine.values import Values
from headway.engine.workflow import Workflow
from headway.model.errors import DefinitionError
from headway.testing.memory import MemoryStorage


class Scores(NamedTuple):
    loss: float
    size: int


@dataclasses.dataclass
class Config:
    size: int


@task
def one() -> int:
    return 1


@task
def add(a: int, b: int = 10) -> int:
    return a + b


@task
def score(x: int) -> Scores:
    return Scores(x / 2, x)


@task
def log(text: str) -> None: ...


@task
def total(numbers: list[int], extra: dict[str, tuple[int, int]]) -> int:
    return sum(numbers) + sum(map(sum, extra.values()))


@task
def configure(config: Config) -> int:
    return config.size


def draw(body: Callable[..., Any]) -> Any:
    """The graph of a workflow with this body."""
    return trace(Workflow(body), Values(MemoryStorage(), "values"))


def refused(body: Callable[..., Any]) -> str:
    with pytest.raises(DefinitionError) as caught:
        draw(body)
    assert tracing.current() is None
    return str(caught.value)


def w_missing() -> int:
    return add()  # type: ignore[call-arg]


def w_unknown() -> int:
    return add(1, c=2)  # type: ignore[call-arg]


def w_literal() -> int:
    return add(1, "2")  # type: ignore[arg-type]


def w_edge() -> None:
    log(one())  # type: ignore[arg-type]


def w_inside() -> int:
    return total([1, score(1).loss], {})  # type: ignore[list-item]


def w_dict() -> int:
    return total([], {"a": (1, one(), 3)})  # type: ignore[dict-item]


def w_keys() -> int:
    return total([], {1: (one(), 2)})  # type: ignore[dict-item]


def w_set() -> int:
    return total({one()}, {})  # type: ignore[arg-type]


def w_list_for_int() -> int:
    return add([one()])  # type: ignore[arg-type]


def w_dict_for_int() -> int:
    return add({"a": one()})  # type: ignore[arg-type]


def w_dataclass() -> int:
    return configure(Config(one()))


@task
def anything(given: Any) -> None: ...


def w_object() -> None:
    anything(SimpleNamespace(inside=one()))


def w_attribute() -> int:
    return score(1).los  # type: ignore[attr-defined, no-any-return]


def w_result() -> str:
    return one()  # type: ignore[return-value]


def w_nothing() -> None:
    return one()  # type: ignore[return-value]


def w_count() -> tuple[int, int]:
    return one(), one(), one()  # type: ignore[return-value]


def w_single() -> tuple[int, int]:
    return one()  # type: ignore[return-value]


def w_none() -> int:
    return add(log("a"))  # type: ignore[arg-type]


def w_order_value() -> None:
    one() >> 3


def w_order_input(x: int) -> None:
    x >> one()


def w_order_nothing() -> None:
    one() >> []  # type: ignore[operator]


def w_cycle() -> None:
    a, b, c = one(), one(), one()
    a >> b >> c >> a


def w_self() -> None:
    a = one()
    a >> a


def w_data_cycle() -> int:
    a = one()
    b = add(a)
    b >> a
    return b


def w_recursive() -> int:
    loop: Any = []
    loop.append(loop)
    return total(loop, {})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (w_missing, "add needs a value for 'a' (int)"),
        (w_unknown, "add has no parameter 'c'; it takes a, b"),
        (w_literal, "add: b: expected int, got str '2'"),
        (w_edge, "log: text: expected str, but one gives int"),
        (w_inside, "total: numbers[1]: expected int, but score.loss gives float"),
        (w_dict, "total: extra['a']: expected tuple[int, int], got (1, <promise of one>, 3)"),
        (w_keys, "total: extra: the keys of a dict with promises must be strings"),
        (w_set, "total: numbers: a set cannot hold promises; use a list"),
        (w_list_for_int, "add: a: expected int, got [<promise of one>]"),
        (w_dict_for_int, "add: a: expected int, got {'a': <promise of one>}"),
        (w_dataclass, "configure: config.size: expected int, got Promise"),
        (w_object, "anything: given: a value of class SimpleNamespace cannot be stored: its value"),
        (w_result, "w_result: the result: expected str, but one gives int"),
        (w_nothing, "w_nothing: the result: expected None, but one gives int"),
        (w_count, "w_count: the result: expected tuple[int, int] (2 values), got 3 values"),
        (w_single, "(2 values), got <promise of one>"),
        (w_none, "add: a: expected int, but log gives None"),
        (w_order_value, "<promise of one> >> 3: `>>` puts calls of tasks"),
        (
            w_order_input,
            "<promise of input 'x'> cannot be put in order with `>>`: no task makes it",
        ),
        (w_order_nothing, "`>>` puts calls of tasks and workflows in order"),
        (w_cycle, "w_cycle: tasks wait for each other in a circle: "),
        (w_self, "in a circle: one >> one"),
        (w_data_cycle, "in a circle: "),
        (w_recursive, "total: numbers: nested too deeply, or it contains itself"),
    ],
)
def test_wrong_wiring_is_a_definition_error_that_names_the_place(
    body: Callable[..., Any], message: str
) -> None:
    assert message in refused(body)


def test_an_output_that_a_task_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="los"):
        draw(w_attribute)


def test_a_circle_is_shown_in_the_order_of_the_arrows() -> None:
    message = refused(w_cycle)
    circle = message.partition("circle: ")[2].partition(". Remove")[0].split(" >> ")
    assert circle[0] == circle[-1]
    arrows = {("one", "one-2"), ("one-2", "one-3"), ("one-3", "one")}
    assert set(itertools.pairwise(circle)) == arrows

"""`@workflow`: what its body may do, and what it may not, told where it is written."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from headway.engine import context, tracing
from headway.engine.context import Context
from headway.engine.graph import trace
from headway.engine.promise import Promise
from headway.engine.task import task
from headway.engine.values import Values
from headway.engine.workflow import Workflow, workflow
from headway.model.errors import DefinitionError, InputError
from headway.testing.memory import MemoryStorage


class Scores(NamedTuple):
    loss: float
    count: int  # type: ignore[assignment]  # a tuple's method, and a good name for an output


LOG: list[str] = []


@task
def one() -> int:
    LOG.append("one")
    return 1


@task
def add(a: int, b: int = 10) -> int:
    LOG.append("add")
    return a + b


@task
def score(x: int) -> Scores:
    return Scores(x / 2, x)


@task
def log(text: str) -> None:
    LOG.append(text)


@task
def total(numbers: list[int], extra: dict[str, tuple[int, int]]) -> int:
    return sum(numbers) + sum(map(sum, extra.values()))


def draw(body: Callable[..., Any]) -> Any:
    """The graph of a workflow with this body (which need not be at a module's top level here)."""
    body.__qualname__ = body.__name__
    return trace(Workflow(body), Values(MemoryStorage(), "values"))


def refused(body: Callable[..., Any]) -> str:
    with pytest.raises(DefinitionError) as caught:
        draw(body)
    assert tracing.current() is None
    return str(caught.value)


USES: list[Callable[[Any], Any]] = [
    bool,
    len,
    list,
    reversed,
    lambda p: p + 1,
    lambda p: 1 + p,
    lambda p: p * 2.0,
    lambda p: -p,
    lambda p: p @ p,
    lambda p: p << 1,
    lambda p: p == 1,
    lambda p: p != 1,
    lambda p: p < 1,
    lambda p: 1 in p,
    lambda p: p[0],
    lambda p: p.size,
    lambda p: p(),
    lambda p: f"{p}",
    lambda p: f"{p:5}",
    str,
    int,
    float,
    round,
    math.floor,
    open,
    range,
    lambda p: not p,
    lambda p: 1 if p else 2,
    lambda p: [*p],
    lambda p: p.__enter__(),
]


@pytest.mark.parametrize("use", USES, ids=range(len(USES)))
def test_using_a_promise_as_a_value_says_to_move_it_into_a_task(use: Callable[[Any], Any]) -> None:
    def body(x: int) -> int:
        use(x)
        return x

    message = refused(body)
    assert "while the workflow's graph is drawn" in message
    assert "<promise of input 'x'>" in message
    assert "Move what uses it into a task." in message


def test_a_promise_can_be_looked_at_while_debugging() -> None:
    seen = []

    def body() -> int:
        promise: Any = one()
        seen.append(repr(promise))
        assert not hasattr(promise, "__array__")
        assert {promise: 1}[promise] == 1
        return promise  # type: ignore[no-any-return]

    draw(body)
    assert seen == ["<promise of one>"]


def test_a_promise_of_another_workflow_is_refused() -> None:
    kept: list[Any] = []

    def first() -> int:
        kept.append(one())
        return kept[0]  # type: ignore[no-any-return]

    def second() -> int:
        return add(kept[0])

    def third() -> None:
        kept[0] >> one()

    draw(first)
    assert "add: a: <promise of one> belongs to another workflow" in refused(second)
    assert "they belong to different workflows" in refused(third)


def test_an_exception_in_the_body_leaves_no_trace_behind() -> None:
    def broken() -> int:
        one()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        draw(broken)
    assert tracing.current() is None
    assert [node.name for node in draw(w_plain).nodes] == ["one"]


def w_plain() -> int:
    return one()


def test_threads_draw_their_own_graphs() -> None:
    seen = []

    def body() -> int:
        thread = threading.Thread(target=lambda: seen.append(tracing.current()))
        thread.start()
        thread.join()
        return one()

    draw(body)
    assert seen == [None]


@workflow
def inner(x: int) -> Scores:
    log("first") >> log("second")  # type: ignore[operator]
    return score(add(x))


@workflow()
def outer(x: int, more: int = 1) -> tuple[float, list[int], dict[str, int], int]:
    scores = inner(x)
    start = log("start")
    start >> scores  # type: ignore[operator]
    assert isinstance(scores.count, Promise)
    numbers = total([more, scores.count, 3], {"a": (x, more)})
    return scores.loss, [numbers, x], {"more": more}, 7


@pytest.fixture
def _in_body() -> Iterator[None]:
    with context.entered(Context("run", "node", 0, 0, None)):  # type: ignore[arg-type]
        LOG.clear()
        yield


@pytest.mark.usefixtures("_in_body")
def test_in_a_task_body_a_workflow_runs_its_tasks_in_order_as_plain_calls() -> None:
    assert outer(2, more=5) == (6.0, [5 + 12 + 3 + 2 + 5, 2], {"more": 5}, 7)
    assert LOG.index("start") < LOG.index("first") < LOG.index("second")
    assert LOG.index("start") < LOG.index("add")
    assert inner(2) == Scores(6.0, 12)
    assert type(inner(2)) is Scores


@pytest.mark.usefixtures("_in_body")
def test_in_a_task_body_a_workflow_checks_its_inputs() -> None:
    with pytest.raises(InputError, match="outer: x: expected int, got str 'a'"):
        outer("a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="outer needs a value for 'x'"):
        outer()  # type: ignore[call-arg]


def test_outside_any_run_a_call_is_a_durable_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    runtime = SimpleNamespace(call=lambda *given: calls.append(given))
    monkeypatch.setitem(sys.modules, "headway.runtime", runtime)
    outer(3, more=4)
    assert calls == [(outer, (3,), {"more": 4})]


def test_a_workflow_has_no_options_yet_and_says_so() -> None:
    with pytest.raises(DefinitionError, match="@workflow has no option 'retries'; it has none"):
        workflow(retries=3)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="@workflow on a lambda"):
        workflow(lambda: 1)
    assert outer.kind == "workflow"
    assert outer.name == f"{__name__}:outer"

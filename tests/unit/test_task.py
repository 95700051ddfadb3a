"""`@task`: what it accepts, what it refuses, and the three ways to call what it makes."""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import pydoc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from headway.engine import context, programs
from headway.engine.call import run_body
from headway.engine.context import Context
from headway.engine.task import Task, task
from headway.engine.values import Values
from headway.model.errors import DefinitionError, InputError
from headway.model.settings import Backoff, TaskOptions
from headway.testing.memory import MemoryStorage

THIS = __name__


@task
def double(number: int = 2) -> int:
    """Twice the number."""
    return 2 * number


@task(retries=3, interruptible=True, timeout=dt.timedelta(minutes=1), backoff=Backoff(initial=5))
def careful(text: str) -> tuple[str, int]:
    return text, len(text)


@task
def wrong() -> int:
    return "three"  # type: ignore[return-value]


@task
def silent(path: str) -> None: ...


def test_a_task_knows_its_name_options_and_signature() -> None:
    assert (double.name, double.options) == (f"{THIS}:double", TaskOptions())
    assert careful.options == TaskOptions(3, True, None, 60.0, Backoff(initial=5))
    assert list(careful.interface.inputs) == ["text"]
    assert repr(double) == f"<task {THIS}:double>"
    assert task(timeout=3)(double.function).options.timeout == 3.0
    assert task(max_interruptions=0)(double.function).options.max_interruptions == 0


class Holder:
    job = double


def test_a_task_kept_in_a_class_is_no_method() -> None:
    assert Holder().job is double


def test_a_task_looks_like_its_function() -> None:
    assert (double.__name__, double.__doc__, double.__module__) == (
        "double",
        "Twice the number.",
        THIS,
    )
    assert str(inspect.signature(double)) == "(number: 'int' = 2) -> 'int'"
    page = pydoc.plain(pydoc.render_doc(double))
    assert "double(number: 'int' = 2) -> 'int'" in page
    assert "Twice the number." in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, r"@task\(retries=…\) is a whole number from 0 on, got -1"),
        ({"retries": True}, "retries=.*got True"),
        ({"retries": "3"}, "retries=.*got '3'"),
        ({"retries": 1.5}, "retries=.*got 1.5"),
        ({"max_interruptions": -1}, "max_interruptions=.*got -1"),
        ({"interruptible": 1}, "interruptible=.*True or False, got 1"),
        ({"timeout": 0}, "timeout=.*more than 0, or a timedelta, got 0"),
        ({"timeout": -1.5}, "timeout="),
        ({"timeout": float("nan")}, "timeout="),
        ({"timeout": float("inf")}, "timeout="),
        ({"timeout": True}, "timeout="),
        ({"timeout": "1h"}, "timeout="),
        ({"timeout": dt.timedelta(0)}, "timeout="),
        ({"backoff": 5}, r"backoff=.*Backoff\(initial=5\), got 5"),
        ({"retry": 3}, r"@task has no option 'retry'; did you mean 'retries'\?"),
        ({"colour": 3}, "@task has no option 'colour'; it has retries, interruptible"),
    ],
)
def test_a_wrong_option_is_refused_when_the_task_is_defined(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        task(**options)


class Trainer:
    def fit(self) -> int:
        return 1


def numbers() -> Iterator[int]:
    yield 1


async def fetch() -> int:
    return 1


async def stream() -> AsyncIterator[int]:
    yield 1


def enclosing() -> Callable[[], int]:
    def inner() -> int:
        return 1

    return inner


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: 1, "on a lambda: workers find tasks by name.*Use `def`"),
        (enclosing(), r"on inner, which is defined inside enclosing: .*top level of a module"),
        (Trainer.fit, r"on the method Trainer\.fit: a worker would not have its object"),
        (numbers, "on the generator numbers: .*Return a list"),
        (fetch, r"on the async function fetch: .*asyncio\.run"),
        (stream, "on the async function stream"),
        (double, r"double> is decorated already"),
        (Trainer, "@task is for functions, and .* is a type"),
        (functools.partial(enclosing), "@task is for functions, and .* is a partial"),
        (len, "is a builtin_function_or_method"),
        (3, "is for functions, and 3 is a int"),
    ],
)
def test_what_a_worker_could_not_find_or_run_is_refused(function: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        task(function)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Takes what would be run, in place of the runtime above this floor."""
    calls: list[Any] = []

    def call(*given: Any) -> str:
        calls.append(given)
        return "the value"

    monkeypatch.setitem(sys.modules, "headway.runtime", SimpleNamespace(call=call))
    return calls


def test_outside_any_run_a_call_is_a_durable_run(launched: list[Any]) -> None:
    assert double(3) == "the value"  # type: ignore[comparison-overlap]
    assert double(number=4) == "the value"  # type: ignore[comparison-overlap]
    assert launched == [(double, (3,), {}), (double, (), {"number": 4})]


def test_a_call_while_the_program_is_imported_would_never_end(launched: list[Any]) -> None:
    with (
        programs.importing("train.py"),
        pytest.raises(DefinitionError, match=r'double\(...\) is called while train.py.*"__main__"'),
    ):
        double(3)
    assert launched == []


@pytest.fixture
def _in_body() -> Iterator[None]:
    with context.entered(Context("run", "node", 0, 0, None)):  # type: ignore[arg-type]
        yield


@pytest.mark.usefixtures("_in_body")
def test_in_a_task_body_a_call_is_a_plain_call(launched: list[Any]) -> None:
    assert double(3) == 6
    assert wrong() == "three"  # type: ignore[comparison-overlap]
    with pytest.raises(TypeError, match="unexpected keyword"):
        double(nmber=3)  # type: ignore[call-arg]
    assert launched == []


@pytest.fixture
def values() -> Values:
    return Values(MemoryStorage(), "values")


def test_a_body_runs_on_decoded_inputs_and_its_outputs_are_encoded(values: Values) -> None:
    assert run_body(double, {"number": 4}, values) == {"o0": 8}
    assert run_body(double, {}, values) == {"o0": 4}
    large = values.encode("x" * 100_000, str)
    outputs = run_body(careful, {"text": large}, values)
    assert outputs == {"o0": large, "o1": 100_000}
    assert run_body(silent, {"path": "a"}, values) == {}


def test_a_body_that_returns_another_type_is_an_input_error(values: Values) -> None:
    with pytest.raises(InputError, match="wrong: the result: expected int, got str 'three'"):
        run_body(wrong, {}, values)


def test_a_body_whose_input_does_not_fit_names_it(values: Values) -> None:
    with pytest.raises(InputError, match="double: number: expected int, got str 'a'"):
        run_body(double, {"number": "a"}, values)


def test_inputs_of_an_older_signature_say_how_to_go_on(values: Values) -> None:
    with pytest.raises(
        DefinitionError, match=r"it takes no a, b; it needs text\. `headway resume`"
    ):
        run_body(careful, {"b": 1, "a": 2}, values)


def test_an_exception_of_the_body_is_left_alone(values: Values) -> None:
    broken = Task(fail, TaskOptions())
    with pytest.raises(ZeroDivisionError):
        run_body(broken, {}, values)


def fail() -> float:
    return 1 / 0

"""Signatures: what they take, how a call is bound, how outputs are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from headway.engine.signature import REQUIRED, Form, Interface, Parameter
from headway.model.errors import DefinitionError, InputError

if TYPE_CHECKING:
    from decimal import Decimal


class Scores(NamedTuple):
    loss: float
    count: int  # type: ignore[assignment]  # a tuple's method, and a good name for an output


def fit(epochs: int, rate: float = 0.1, *, names: list[str] | None = None) -> float:
    return epochs * rate


def pair(a: int) -> tuple[int, str]:
    return a, str(a)


def scores() -> Scores:
    return Scores(0.5, 2)


def nothing(a: int) -> None: ...


def series() -> tuple[int, ...]:
    return (1, 2)


def empty() -> tuple[()]:
    return ()


def bare(a, b=None):  # type: ignore[no-untyped-def]  # is what is tested
    return a


FIT = Interface.of(fit)


def test_parameters_have_their_types_and_defaults_under_postponed_annotations() -> None:
    assert FIT.inputs == {
        "epochs": Parameter("epochs", int, REQUIRED),
        "rate": Parameter("rate", float, 0.1),
        "names": Parameter("names", list[str] | None, None),
    }
    assert [p.required for p in FIT.inputs.values()] == [True, False, False]
    assert FIT.name == "fit"


def test_what_is_not_annotated_is_any() -> None:
    interface = Interface.of(bare)
    assert interface.inputs == {"a": Parameter("a", Any), "b": Parameter("b", Any, None)}
    assert interface.outputs == {"o0": Any}


@pytest.mark.parametrize(
    ("function", "form", "outputs", "value"),
    [
        (fit, Form.ONE, {"o0": float}, 0.5),
        (pair, Form.TUPLE, {"o0": int, "o1": str}, (1, "1")),
        (scores, Form.NAMED, {"loss": float, "count": int}, Scores(0.5, 2)),
        (nothing, Form.NOTHING, {}, None),
        (series, Form.ONE, {"o0": tuple[int, ...]}, (1, 2)),
        (empty, Form.ONE, {"o0": tuple[()]}, ()),
    ],
)
def test_outputs_are_named_and_make_up_the_result_again(
    function: Any, form: Form, outputs: dict[str, Any], value: Any
) -> None:
    interface = Interface.of(function)
    assert (interface.form, dict(interface.outputs)) == (form, outputs)
    parts = interface.split(value)
    assert list(parts) == list(outputs)
    assert interface.join(parts) == value
    assert type(interface.join(parts)) is type(value)


def test_a_result_of_another_type_is_named() -> None:
    with pytest.raises(InputError, match=r"fit: the result: expected float, got str 'a'"):
        FIT.split("a")
    with pytest.raises(InputError, match=r"nothing: the result: expected None, got int 3"):
        Interface.of(nothing).split(3)
    with pytest.raises(InputError, match=r"pair: the result\[1\]: expected str, got int 2"):
        Interface.of(pair).split((1, 2))


@pytest.mark.parametrize(
    ("args", "kwargs", "bound"),
    [
        ((3,), {}, {"epochs": 3, "rate": 0.1, "names": None}),
        ((3, 0.5), {"names": ["a"]}, {"epochs": 3, "rate": 0.5, "names": ["a"]}),
        ((), {"names": None, "epochs": "x"}, {"epochs": "x", "rate": 0.1, "names": None}),
    ],
)
def test_a_call_is_bound_in_the_order_of_the_signature(
    args: Any, kwargs: Any, bound: dict[str, Any]
) -> None:
    found = FIT.bind(args, kwargs)
    assert found == bound
    assert list(found) == list(FIT.inputs)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"fit needs a value for 'epochs' \(int\)"),
        ((1, 2, 3), {}, "fit takes at most 2 positional arguments, got 3"),
        ((1,), {"epochs": 2}, "fit got parameter 'epochs' twice"),
        ((1,), {"rte": 2}, r"fit has no parameter 'rte'; did you mean 'rate'\?"),
        ((1,), {"zzz": 2}, "fit has no parameter 'zzz'; it takes epochs, rate, names"),
    ],
)
def test_a_call_that_does_not_fit_names_the_parameter(args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FIT.bind(args, kwargs)


def test_a_function_without_parameters_says_so() -> None:
    interface = Interface.of(scores)
    with pytest.raises(InputError, match="scores takes no positional arguments, got 1"):
        interface.bind((1,), {})
    with pytest.raises(InputError, match="scores has no parameter 'a'; it takes none"):
        interface.bind((), {"a": 1})


def test_inputs_are_checked_by_name() -> None:
    FIT.check_inputs(FIT.bind((3,), {}))
    with pytest.raises(InputError, match=r"fit: names\[1\]: expected str, got int 2"):
        FIT.check_inputs(FIT.bind((3,), {"names": ["a", 2]}))


def star(*numbers: int) -> None: ...
def stars(**options: int) -> None: ...
def only(a: int, /) -> None: ...
def unknown(a: Decimal) -> None: ...
def no_type(a: int) -> None: ...
def broken(a: int = "3") -> None: ...  # type: ignore[assignment]
def implicit(a: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013


no_type.__annotations__["a"] = "int |"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (star, r"star: parameter '\*numbers' is variadic positional"),
        (stars, r"stars: parameter '\*\*options' is variadic keyword"),
        (only, "only: parameter 'a' is positional-only"),
        (unknown, "unknown: an annotation cannot be read: name 'Decimal' is not defined"),
        (no_type, "no_type: an annotation is no type"),
        (broken, "broken: the default of a: expected int, got str '3'"),
        (implicit, r"the default of a: expected str, got None \(`str \| None`\?\)"),
    ],
)
def test_a_signature_that_cannot_be_used_names_the_parameter(function: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Interface.of(function)

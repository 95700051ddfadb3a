"""Signatures: what a task or workflow takes and gives, read once from its function."""

from __future__ import annotations

import difflib
import enum
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headway.engine.shapes import Kind, fields_of, shape_of
from headway.engine.types import check, describe
from headway.model.errors import DefinitionError, InputError

REQUIRED: Any = inspect.Parameter.empty
"""The `default` of a parameter that has none."""

_NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input: its name, its annotation (`Any` when it has none), its default or `REQUIRED`."""

    name: str
    type: Any
    default: Any = REQUIRED

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is REQUIRED


class Form(enum.Enum):
    """How the outputs make up what the function returns."""

    NOTHING = enum.auto()  # -> None
    ONE = enum.auto()
    TUPLE = enum.auto()  # -> tuple[A, B]
    NAMED = enum.auto()  # -> a NamedTuple class


@dataclass(frozen=True, slots=True)
class Interface:
    """A signature.

    Attributes:
        name: of the function, for messages.
        inputs: parameter name -> parameter, in order.
        outputs: output name -> annotation, in order: `o0`, `o1` …, or the fields of a NamedTuple.
        result: the return annotation, `Any` when there is none.
        form: how `outputs` and `result` hang together.
    """

    name: str
    inputs: Mapping[str, Parameter]
    outputs: Mapping[str, Any]
    result: Any
    form: Form
    positional: int  # how many of the inputs may be given by position

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Interface:
        """The signature of `function`.

        Raises:
            DefinitionError: it has `*args`, `**kwargs` or positional-only parameters, or an
                annotation that names something that does not exist, or a default that does not fit
                its annotation.
        """
        name = function.__name__
        hints = _hints(function)
        inputs = {}
        positional = 0
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in _NAMED:
                raise DefinitionError(
                    f"{name}: parameter {str(parameter).partition(':')[0]!r} is "
                    f"{parameter.kind.description}. The parameters of tasks and workflows go by name: "
                    "list them one by one, or take one list or dict."
                )
            positional += parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            type_ = hints.get(parameter.name, Any)
            inputs[parameter.name] = Parameter(parameter.name, type_, parameter.default)
            _check_default(name, inputs[parameter.name])
        result = hints.get("return", Any)
        form, outputs = _outputs(result)
        return cls(name, inputs, outputs, result, form, positional)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Parameter name -> value for a call, in the order of the signature, defaults filled in.

        Types are not looked at: see `check_inputs`.

        Raises:
            InputError: too many, unknown, doubled or missing arguments.
        """
        if len(args) > self.positional:
            allowed = "no" if self.positional == 0 else f"at most {self.positional}"
            raise InputError(f"{self.name} takes {allowed} positional arguments, got {len(args)}")
        given = dict(zip(self.inputs, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.inputs:
                raise InputError(self._unknown(name))
            if name in given:
                raise InputError(
                    f"{self.name} got parameter {name!r} twice: by position and by name"
                )
            given[name] = value
        missing = [p for p in self.inputs.values() if p.required and p.name not in given]
        if missing:
            names = ", ".join(f"{p.name!r} ({describe(p.type)})" for p in missing)
            raise InputError(f"{self.name} needs a value for {names}")
        return {p.name: given.get(p.name, p.default) for p in self.inputs.values()}

    def check_inputs(self, bound: Mapping[str, Any]) -> None:
        """Check every value that `bind` returned against its annotation.

        Raises:
            InputError: one does not fit; the message names the parameter.
        """
        for name, value in bound.items():
            check(value, self.inputs[name].type, f"{self.name}: {name}")

    def split(self, result: Any) -> dict[str, Any]:
        """Output name -> value, from what the function returned.

        Raises:
            InputError: it does not fit the return annotation.
        """
        check(result, self.result, f"{self.name}: the result")
        if self.form is Form.NOTHING:
            return {}
        values = [result] if self.form is Form.ONE else list(result)
        return dict(zip(self.outputs, values, strict=True))

    def join(self, outputs: Mapping[str, Any]) -> Any:
        """What the function returned, from output name -> value: the way back of `split`."""
        values = [outputs[name] for name in self.outputs]
        if self.form is Form.NOTHING:
            return None
        if self.form is Form.ONE:
            return values[0]
        return tuple(values) if self.form is Form.TUPLE else self.named._make(values)

    @property
    def named(self) -> Any:
        """The NamedTuple class of `Form.NAMED`."""
        return shape_of(self.result).cls

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.inputs, n=1)
        if close:
            hint = f"did you mean {close[0]!r}?"
        elif self.inputs:
            hint = f"it takes {', '.join(self.inputs)}"
        else:
            hint = "it takes none"
        return f"{self.name} has no parameter {name!r}; {hint}"


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"{function.__name__}: an annotation cannot be read: {error}. Annotations must be names "
            f"that {function.__module__} has at its top level before the decorator runs (not under "
            "`if TYPE_CHECKING`)."
        ) from error
    except (TypeError, SyntaxError) as error:
        raise DefinitionError(f"{function.__name__}: an annotation is no type: {error}") from error


def _check_default(name: str, parameter: Parameter) -> None:
    if parameter.required:
        return
    try:
        check(parameter.default, parameter.type, f"{name}: the default of {parameter.name}")
    except InputError as error:
        hint = f" (`{describe(parameter.type)} | None`?)" if parameter.default is None else ""
        raise DefinitionError(f"{error}{hint}") from error


def _outputs(result: Any) -> tuple[Form, dict[str, Any]]:
    shape = shape_of(result)
    if shape.kind is Kind.NONE:
        return Form.NOTHING, {}
    if shape.kind is Kind.NAMED:
        return Form.NAMED, dict(fields_of(shape.cls))
    if shape.kind is Kind.TUPLE and shape.args:
        return Form.TUPLE, {f"o{index}": type_ for index, type_ in enumerate(shape.args)}
    return Form.ONE, {"o0": result}

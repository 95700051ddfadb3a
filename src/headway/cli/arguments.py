"""The options of a task or workflow, made from its signature."""

from __future__ import annotations

import datetime as dt
import difflib
import enum
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from headway.cli import values
from headway.cli.docstrings import Sections, sections_of
from headway.cli.values import Unreadable
from headway.engine.shapes import Kind, shape_of
from headway.engine.signature import Parameter
from headway.engine.types import describe

_PREFIX = "input_"  # keeps the names of parameters apart from those of run's own options


def flag_of(parameter: Parameter) -> str:
    """A parameter's option, as help spells it."""
    name = parameter.name
    return f"--{name if name.startswith('_') else name.replace('_', '-')}"


def parameters_of(entity: Any) -> list[Parameter]:
    """The inputs of a task or workflow, in order."""
    return list(entity.interface.inputs.values())


def doc_of(entity: Any) -> Sections:
    """The docstring of a task or workflow."""
    return sections_of(inspect.getdoc(entity.function) or "")


class _Typed(click.ParamType):  # type: ignore[type-arg]  # generic in newest click only
    """A click type that reads text as an annotation."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self.name = describe(annotation)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return values.from_text(value, self.annotation)
        except Unreadable as error:
            self.fail(str(error), param, ctx)


class _InputOption(click.Option):
    """An option for one parameter; help and errors name it by one of its spellings."""

    def get_error_hint(self, ctx: click.Context | None) -> str:  # noqa: ARG002
        return f"'{self.opts[0]}'"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None:
            return None
        names = self.opts[0] + (f" / {self.secondary_opts[0]}" if self.secondary_opts else "")
        return (names if self.is_flag else f"{names} {self.metavar}"), record[1]


def command_for(name: str, entity: Any, own: Sequence[click.Parameter]) -> click.Command:
    """A click command whose options are the parameters of `entity`.

    Args:
        name: what the entity is called on the command line.
        entity: a task or workflow.
        own: options of `headway run` itself; taken where no parameter has that name.
    """
    doc, parameters = doc_of(entity), parameters_of(entity)
    named = {flag for p in parameters for flag in (flag_of(p), f"--{p.name}")}
    options: list[click.Parameter] = [
        _option(parameter, doc.arguments.get(parameter.name, ""), named) for parameter in parameters
    ]
    taken = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    options += [option for option in own if not taken & {*option.opts, *option.secondary_opts}]
    notes = list(dict.fromkeys(note for p in parameters for note in _notes(p.type)))
    return click.Command(
        name,
        params=options,
        help=doc.body or None,
        epilog="\b\n" + "\n".join(notes) if notes else None,
        context_settings={"help_option_names": ["--help"]},
    )


def _option(parameter: Parameter, about: str, others: set[str]) -> click.Option:
    name, dashed = parameter.name, flag_of(parameter)
    help_text = f"{about}  {_default(parameter)}".strip()
    names = list(dict.fromkeys((dashed, f"--{name}")))
    if values.is_flag(parameter.type):
        off = dict.fromkeys((f"--no-{dashed[2:]}", f"--no_{name}", f"--no-{name}"))
        # click takes a name after " /" for one that only switches off
        offs = [f" /{flag}" for flag in off if flag not in others]
        return _InputOption([_PREFIX + name, *names, *offs], default=None, help=help_text)
    listed = values.choices(parameter.type)
    return _InputOption(
        [_PREFIX + name, *names],
        type=_Typed(parameter.type),
        metavar=f"[{'|'.join(listed)}]" if listed else describe(parameter.type),
        help=help_text,
    )


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "[required]"
    return f"[default: {default_text(parameter)}]"


def default_text(parameter: Parameter) -> str:
    """The default of a parameter as one would type it, shortened."""
    value = parameter.default
    if value is None:
        text = "none"
    elif isinstance(value, bool) and values.is_flag(parameter.type):
        text = ("" if value else "no-") + flag_of(parameter).removeprefix("--")
    elif isinstance(value, str):
        text = value or '""'
    elif isinstance(value, enum.Enum):
        text = value.name
    else:
        text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _notes(annotation: Any) -> Iterator[str]:
    """How to type values that are no single word, for those types among the alternatives."""
    for member in values.alternatives(annotation):
        shape = shape_of(member)
        if values.is_structure(shape):
            yield "Lists, dicts and records: JSON text, or the path of a .json, .yaml or .yml file."
        elif shape.kind is Kind.BYTES:
            yield "bytes: @PATH, the content of that file."
        elif shape.kind is Kind.CLASS and shape.cls in _TIMES:
            yield _TIMES[shape.cls]


_TIMES = {
    dt.datetime: 'datetime: 2026-01-31T12:00, now, today, "now - 1d".',
    dt.date: 'date: 2026-01-31, today, "today - 1d".',
    dt.timedelta: 'timedelta: 1h30m, 90s, "1 day", P1DT6H.',
}


def inputs_from(context: click.Context, entity: Any, inputs_file: str | None) -> dict[str, Any]:
    """The inputs that were typed, over those in the inputs file. Defaults are left to the entity.

    Args:
        context: the context of the parsed command of `command_for`.
        entity: the task or workflow.
        inputs_file: a JSON or YAML file, `-` for stdin, or None.

    Raises:
        click.UsageError: the file is unreadable or does not fit, or an input is missing.
    """
    parameters = {parameter.name: parameter for parameter in parameters_of(entity)}
    given = _from_file(inputs_file, parameters, context) if inputs_file else {}
    for name in parameters:
        source = context.get_parameter_source(_PREFIX + name)
        if source is ParameterSource.COMMANDLINE:
            given[name] = context.params[_PREFIX + name]
    missing = [p for p in parameters.values() if p.required and p.name not in given]
    if missing:
        listed = ", ".join(f"{flag_of(p)} ({describe(p.type)})" for p in missing)
        raise click.UsageError(
            f"missing {'option' if len(missing) == 1 else 'options'} {listed}", context
        )
    return given


def _from_file(
    name: str, parameters: dict[str, Parameter], context: click.Context
) -> dict[str, Any]:
    source = "stdin" if name == "-" else repr(name)
    try:
        if name == "-":
            text = sys.stdin.read()
            tree = values.parse(text, "stdin", is_yaml=not text.lstrip().startswith("{"))
        else:
            tree = values.load_file(Path(name))
        if not isinstance(tree, dict):
            raise Unreadable(f"{source} must hold a mapping of inputs to values")
        given = {}
        for key, value in tree.items():
            parameter = parameters.get(str(key).replace("-", "_"))
            if parameter is None:
                raise Unreadable(_unknown(str(key), source, list(parameters)))
            try:
                given[parameter.name] = values.from_tree(value, parameter.type)
            except Unreadable as error:
                raise Unreadable(f"{source}, {key}: {error}") from None
    except (Unreadable, UnicodeDecodeError) as error:
        raise click.UsageError(f"--inputs-file: {error}", context) from None
    return given


def _unknown(key: str, source: str, names: list[str]) -> str:
    close = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the inputs are: {', '.join(names) or 'none'}"
    return f"{source} gives {key}, which is no input; {hint}"

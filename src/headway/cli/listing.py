"""What a program defines, with signatures."""

from __future__ import annotations

import enum
import shlex
import sys
from typing import Any

from headway.cli import output
from headway.cli.arguments import default_text, doc_of, parameters_of
from headway.cli.settings import Settings
from headway.engine.signature import Parameter
from headway.engine.types import describe


def show_entities(program: str, found: dict[str, Any], settings: Settings) -> None:
    """Print the tasks and workflows of a program, workflows first.

    Args:
        program: as it was typed.
        found: name -> task or workflow.
        settings: how to print.
    """
    ordered = sorted(found.items(), key=lambda item: kind_of(item[1]) != "workflow")
    if settings.as_json:
        entities = [_as_data(name, entity) for name, entity in ordered]
        output.write_json({"program": program, "entities": entities})
        return
    paint = output.Paint(settings, sys.stdout)
    for name, entity in ordered:
        inputs = ", ".join(map(_parameter, parameters_of(entity)))
        kind = paint(f"{kind_of(entity):8}", "dim")
        output.write(
            f"{kind}  {paint(name, bold=True)}({inputs}) -> {describe(entity.interface.result)}"
        )
        if summary := doc_of(entity).summary:
            output.write(f"{'':10}{paint(summary, 'dim')}")
    if not settings.quiet:
        command = f"headway run {shlex.quote(program)} {ordered[0][0]} --help"
        output.write(f"options of one: {command}", sys.stderr)


def kind_of(entity: Any) -> str:
    """`task` or `workflow`."""
    return str(entity.kind)


def _parameter(parameter: Parameter) -> str:
    text = f"{parameter.name}: {describe(parameter.type)}"
    if parameter.required:
        return text
    value = parameter.default
    shown = str(value) if isinstance(value, enum.Enum) else repr(value)
    return f"{text} = {shown if len(shown) <= 40 else shown[:39] + '…'}"


def _as_data(name: str, entity: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind_of(entity),
        "inputs": [
            {
                "name": parameter.name,
                "type": describe(parameter.type),
                "required": parameter.required,
                "default": None if parameter.required else default_text(parameter),
            }
            for parameter in parameters_of(entity)
        ],
        "outputs": {key: describe(kind) for key, kind in entity.interface.outputs.items()},
        "doc": doc_of(entity).body,
    }

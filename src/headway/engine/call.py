"""Running a task's body: plain inputs in, plain outputs out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway.engine.task import Task
from headway.engine.values import Values
from headway.model.errors import DefinitionError


def run_body(task: Task[..., Any], inputs: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Decode the inputs, call the task's function, check and encode what it returned.

    Args:
        inputs: parameter name -> plain; a parameter that is missing takes its default.

    Returns:
        Output name -> plain, durable with everything that it refers to.

    Raises:
        DefinitionError: the inputs are not those of the function (the code has changed).
        InputError: a value does not fit its annotation.
        Exception: whatever the body raises, and what `Values` raises.
    """
    interface = task.interface
    unknown = inputs.keys() - interface.inputs.keys()
    missing = [p.name for p in interface.inputs.values() if p.required and p.name not in inputs]
    if unknown or missing:
        raise DefinitionError(
            f"{interface.name} has changed since this run was planned: "
            + "; ".join(
                f"{what} {', '.join(sorted(names))}"
                for what, names in (("it takes no", unknown), ("it needs", missing))
                if names
            )
            + ". `headway resume` plans anew with the code as it is."
        )
    given = {
        name: values.decode(plain, interface.inputs[name].type, f"{interface.name}: {name}")
        for name, plain in inputs.items()
    }
    outputs = interface.split(task.function(**given))
    return {
        name: values.encode(value, interface.outputs[name], f"{interface.name}: {name}")
        for name, value in outputs.items()
    }

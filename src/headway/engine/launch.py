"""The way up: a task or workflow that is called outside any run starts one.

Starting runs is the business of `headway.runtime`, which stands above this floor and imports it. So
it is found by name, when the call happens, and not imported: the direction of imports stays one way,
and a worker that only runs bodies never loads it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from headway.engine import programs
from headway.model.errors import DefinitionError


def launch(entity: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run `entity` durably and return its value, as `headway run` would.

    Raises:
        DefinitionError: the program is only being imported now; every worker imports it, and would
            start the run again.
        TaskFailed, InputError, StorageError: see `headway.runtime.call`.
    """
    program = programs.being_imported()
    if program:
        raise DefinitionError(
            f"{entity.interface.name}(...) is called while {program} is imported, and every worker "
            'imports it. Put the call under `if __name__ == "__main__":`.'
        )
    return import_module("headway.runtime").call(entity, args, kwargs)

"""headway: Python tasks that survive being killed.

The names below are loaded when first used, so that `import headway` does no work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.checkpoint.handle import Checkpoint as Checkpoint
    from headway.engine.context import current_context as current_context
    from headway.engine.files import Directory as Directory
    from headway.engine.files import File as File
    from headway.engine.task import task as task
    from headway.engine.workflow import workflow as workflow
    from headway.model.errors import CheckpointCorrupt as CheckpointCorrupt
    from headway.model.errors import CheckpointError as CheckpointError
    from headway.model.errors import CheckpointFenced as CheckpointFenced
    from headway.model.errors import DefinitionError as DefinitionError
    from headway.model.errors import HeadwayError as HeadwayError
    from headway.model.errors import InputError as InputError
    from headway.model.errors import NonRecoverableError as NonRecoverableError
    from headway.model.errors import Preempted as Preempted
    from headway.model.errors import RecoverableError as RecoverableError
    from headway.model.errors import RunBusy as RunBusy
    from headway.model.errors import StorageDenied as StorageDenied
    from headway.model.errors import StorageError as StorageError
    from headway.model.errors import StorageFull as StorageFull
    from headway.model.errors import StorageUnavailable as StorageUnavailable
    from headway.model.errors import TaskFailed as TaskFailed
    from headway.model.errors import UntrustedState as UntrustedState
    from headway.model.settings import Backoff as Backoff
    from headway.model.settings import Steps as Steps
    from headway.standalone import open_checkpoint as open_checkpoint
    from headway.tracking import track as track

from headway.model.version import __version__ as __version__

_HOMES = {
    "headway.engine.task": ("task",),
    "headway.engine.workflow": ("workflow",),
    "headway.engine.context": ("current_context",),
    "headway.engine.files": ("File", "Directory"),
    "headway.checkpoint.handle": ("Checkpoint",),
    "headway.model.settings": ("Backoff", "Steps"),
    "headway.standalone": ("open_checkpoint",),
    "headway.tracking": ("track",),
    "headway.model.errors": (
        "HeadwayError",
        "DefinitionError",
        "InputError",
        "TaskFailed",
        "RunBusy",
        "StorageError",
        "StorageUnavailable",
        "StorageFull",
        "StorageDenied",
        "CheckpointError",
        "CheckpointCorrupt",
        "CheckpointFenced",
        "UntrustedState",
        "RecoverableError",
        "NonRecoverableError",
        "Preempted",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # one list of names, above, is enough


if not TYPE_CHECKING:  # to a type checker, a name that is not listed above is a mistake

    def __getattr__(name: str) -> Any:
        module = _HOME_OF.get(name)
        if module is None:
            raise AttributeError(f"module 'headway' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(module), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

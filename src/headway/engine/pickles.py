"""Pickle, for values of classes that headway does not know, and its trust rule.

Loading a pickle runs code that the bytes name. So it is done only in a home that nobody else can
write to, or with the key that all its records are signed with. Classes of a script are pickled under
the name that the script goes by in other processes (`engine.programs`), and found in `__main__` again
by the script itself.
"""

from __future__ import annotations

import importlib
import io
import pickle
import types
from typing import Any

from headway.engine import programs
from headway.model.errors import CheckpointCorrupt, InputError, UntrustedState


def dump(value: Any, where: str, *, trusted: bool, url: str) -> bytes:
    """`value` as a pickle.

    Raises:
        UntrustedState: it could not be loaded again from this home.
        InputError: it cannot be pickled.
    """
    kind = type(value).__qualname__
    if not trusted:
        raise UntrustedState(f"{where}: a value of class {kind} needs pickle, {_why(url)}")
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, protocol=5).dump(value)
    except RecursionError:
        raise
    except Exception as error:
        raise InputError(
            f"{where}: a value of class {kind} cannot be stored: {error}. Pass plain values, "
            "dataclasses, arrays or files, or what the value can be made from again."
        ) from error
    return buffer.getvalue()


def load(data: bytes, where: str, *, trusted: bool, url: str) -> Any:
    """The value that `dump` was given. Runs code that `data` names.

    Raises:
        UntrustedState: others can write to the home, and there is no key.
        CheckpointCorrupt: the class has changed since, or is not there any more.
    """
    if not trusted:
        raise UntrustedState(f"{where}: loading this value needs pickle, {_why(url)}")
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:
        raise CheckpointCorrupt(
            f"{where}: the stored value cannot be loaded: {type(error).__name__}: {error}. Is its "
            "class still where it was when the run began?"
        ) from error


def _why(url: str) -> str:
    return (
        f"which runs code when it is loaded, and others can write to the home {url}. Make the home "
        f"yours alone (`chmod go-w {url}`), sign what is in it (HEADWAY_KEY), or annotate the value as "
        "a dataclass, an array or plain types."
    )


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | types.FunctionType) and obj.__module__ == "__main__":
            name = programs.main_name()
            if name is not None and "<" not in obj.__qualname__:
                return _find, (name, obj.__qualname__)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == programs.main_name():
            return _find(module_name, global_name)
        return super().find_class(module_name, global_name)


def _find(module: str, qualname: str) -> Any:
    """The class or function `qualname` of a program, from `__main__` when that is the program."""
    found: Any = importlib.import_module("__main__" if module == programs.main_name() else module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found

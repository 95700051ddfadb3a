"""Which name a file of Python code goes by, in every process that runs it.

A task is found again by `module:qualname`. A script's own module is called `__main__`, which is
another module in every process; so it goes by its file's stem, as if it had been imported.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_importing: contextvars.ContextVar[str] = contextvars.ContextVar("importing", default="")


def module_name(path: Path) -> str:
    """The module name for the program file `path` (absolute).

    Its stem, unless the standard library, another module that is loaded, or the language takes that
    name; then `headway_program_` and the stem, with a digest of the path if even that is taken.
    """
    stem = path.stem
    if stem.isidentifier() and stem not in sys.stdlib_module_names and _is_free(stem, path):
        return stem
    name = "headway_program_" + re.sub(r"\W", "_", stem)
    if _is_free(name, path):
        return name
    return f"{name}_{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:8]}"


def main_file() -> Path | None:
    """The script that this process runs; None for `-m`, `-c`, a prompt or a notebook."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return None
    file = getattr(main, "__file__", None)
    if not file or not Path(file).is_file():
        return None
    return Path(file).resolve()


def main_name() -> str | None:
    """The name that other processes know `__main__` by; None when they cannot."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name)
    file = main_file()
    return None if file is None else _main_name(file)


def public_name(module: str) -> str:
    """`module`, or what other processes call it when it is `__main__`."""
    return (main_name() or module) if module == "__main__" else module


@contextlib.contextmanager
def importing(program: str) -> Iterator[None]:
    """While `program` is being imported, in this thread."""
    token = _importing.set(program)
    try:
        yield
    finally:
        _importing.reset(token)


def being_imported() -> str:
    """The program that is being imported in this thread; "" when there is none."""
    return _importing.get()


@functools.lru_cache(maxsize=64)
def _main_name(file: Path) -> str:
    # Remembered: the script may import a module of its own stem later, and must keep its name.
    return module_name(file)


def _is_free(name: str, path: Path) -> bool:
    loaded = sys.modules.get(name)
    if loaded is None:
        return True
    file = getattr(loaded, "__file__", None)
    return file is not None and Path(file).resolve() == path

"""Programs: user code, imported so that driver, keeper and worker all see the same modules."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from headway.engine import programs
from headway.engine.entity import Entity
from headway.model.errors import DefinitionError, InputError
from headway.model.program import Program

AnyEntity = Entity[..., Any]


def program_of(entity: AnyEntity) -> Program:
    """The program that `entity` was defined in, such that another process can import it.

    Raises:
        DefinitionError: it was typed at a prompt, in a notebook or in `-c`: there is no file.
    """
    name = entity.function.__module__
    if name == "__main__":
        return _main_program(entity)
    module = sys.modules.get(name)
    loader = getattr(module, "__loader__", None)
    if isinstance(loader, _Fresh):
        return _file_program(name, Path(loader.path), loader.digest)
    if module is None or not getattr(module, "__file__", None):
        raise DefinitionError(
            f"{entity.interface.name} was defined in {name!r}, which is no file that a worker could "
            "import. Put the code in a file, and run it from there."
        )
    return _module_program(module)


def load_file(path: str | os.PathLike[str]) -> tuple[ModuleType, Program]:
    """Import the program in a file, with its directory at the front of `sys.path`.

    Raises:
        InputError: there is no such file.
        DefinitionError: it cannot be imported; the message shows where it failed.
    """
    found = Path(path).resolve()
    if not found.is_file():
        raise InputError(f"there is no file {os.fspath(path)!r}")
    program = _file_program(programs.module_name(found), found, "")
    module = load(program)
    return module, refreshed(program)


def load_module(name: str) -> tuple[ModuleType, Program]:
    """Import a module by its dotted name, from the working directory or `sys.path`.

    Raises:
        InputError: there is no such module.
        DefinitionError: it cannot be imported; the message shows where it failed.
    """
    module = _import(name, (os.getcwd(),))
    return module, _module_program(module)


def load(program: Program) -> ModuleType:
    """Import a program in this process, or find it when it is there already.

    Raises:
        InputError: its file or module is not there any more.
        DefinitionError: it cannot be imported; the message shows where it failed.
    """
    if not program.path:
        return _import(program.module, program.search)
    path = Path(program.path)
    if programs.main_file() == path:
        return sys.modules["__main__"]
    loaded = sys.modules.get(program.module)
    if loaded is not None and getattr(loaded, "__file__", None) == program.path:
        return loaded
    if not path.is_file():
        raise InputError(f"the program {program.path} is not there any more")
    _put_first(program.search)
    loader = _Fresh(program.module, program.path)
    spec = ModuleSpec(program.module, loader, origin=program.path)
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    with _user_code(program.path):
        sys.modules[program.module] = module
        try:
            loader.exec_module(module)
        except BaseException:
            sys.modules.pop(program.module, None)
            raise
    return module


def refreshed(program: Program) -> Program:
    """The same program with the digest of the code as this process has it.

    Raises:
        InputError, DefinitionError: as `load`.
    """
    module = load(program)
    loader = getattr(module, "__loader__", None)
    if isinstance(loader, _Fresh):
        digest = loader.digest
    else:
        file = getattr(module, "__file__", None)
        digest = _digest(file) if file else ""
    return Program(program.module, program.path, program.search, digest)


def find_entity(name: str, program: Program) -> AnyEntity:
    """The task or workflow called `name`: `module:qualname`, or a qualname in the program itself.

    Raises:
        InputError: there is none; the message names the nearest, or those that there are.
        DefinitionError: the program cannot be imported.
    """
    main = load(program)
    module_name, _, qualname = name.rpartition(":")
    module = main if module_name in {"", program.module} else _import(module_name, ())
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not None:
        found = inspect.unwrap(found, stop=lambda each: isinstance(each, Entity))
    if isinstance(found, Entity):
        return found
    there = entities(module)
    for entity in there.values():  # `fast = task(fit)` is known by the name of `fit`
        if entity.function.__qualname__ == qualname:
            return entity
    close = difflib.get_close_matches(qualname, there, n=1)
    has = f"it has {', '.join(there)}" if there else "it has none"
    hint = f"did you mean {close[0]!r}?" if close else has
    where = program.path or program.module if module is main else module_name
    raise InputError(f"there is no task or workflow {qualname!r} in {where}; {hint}")


def entities(module: ModuleType) -> dict[str, AnyEntity]:
    """The tasks and workflows that a module has at its top level, imported ones too, in order."""
    return {name: each for name, each in vars(module).items() if isinstance(each, Entity)}


class _Fresh(SourceFileLoader):
    """Imports a file as it is now. Bytecode caches are left alone: they tell versions apart by size and
    by time in seconds, which is too coarse for code that is edited between a crash and its resume."""

    digest = ""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # importlib's signature
        source = self.get_data(self.path)
        self.digest = hashlib.sha256(source).hexdigest()
        return self.source_to_code(source, self.path)


def _digest(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read the program {file!r}: {error.strerror}") from error


def _main_program(entity: AnyEntity) -> Program:
    main = sys.modules["__main__"]
    file, name = programs.main_file(), programs.main_name()
    if name is None:
        raise DefinitionError(
            f"{entity.interface.name} was defined at a prompt, in a notebook or with -c: workers "
            "import the program from its file, and there is none. Put the code in a file, and run "
            "`python FILE` or `headway run FILE`."
        )
    if file is not None:
        return _file_program(name, file, _digest(str(file)))
    return _module_program(main, name)


def _file_program(module: str, path: Path, digest: str) -> Program:
    return Program(module, str(path), (str(path.parent),), digest)


def _module_program(module: ModuleType, name: str = "") -> Program:
    name = name or module.__name__
    if not module.__file__:  # a namespace package
        return Program(name)
    file = Path(os.path.abspath(module.__file__))
    # The directory that the top-level package is in: two up for `a.b` in `a/b.py`, three when that is
    # the package `a/b/__init__.py`.
    ups = name.count(".") + (file.stem == "__init__")
    root = file.parents[min(ups, len(file.parents) - 1)]
    search = () if root in _standing_roots() else (str(root),)
    return Program(name, "", search, _digest(str(file)))


@functools.cache
def _standing_roots() -> frozenset[Path]:
    """Directories that every interpreter of this environment searches anyway; at the front of the path
    they would hide the standard library."""
    paths = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {*site.getsitepackages(), site.getusersitepackages()}
    return frozenset(Path(path).resolve() for path in paths)


def _import(name: str, search: tuple[str, ...]) -> ModuleType:
    if name == programs.main_name() and programs.main_file() is None:
        return sys.modules["__main__"]
    _put_first(search)
    if name not in sys.modules:  # once a process: an attempt in a warm worker finds it there
        importlib.invalidate_caches()
    try:
        with _user_code(name):
            return importlib.import_module(name)
    except DefinitionError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name in _packages(name):
            raise InputError(
                f"there is no module {name!r} in {os.getcwd()} or on Python's path. A file is given "
                "as FILE.py, a module as package.module."
            ) from cause
        raise


def _packages(name: str) -> list[str]:
    """`a.b.c` -> a, a.b, a.b.c."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _put_first(search: tuple[str, ...]) -> None:
    for entry in reversed(search):
        if sys.path[:1] != [entry]:
            sys.path.insert(0, entry)


@contextmanager
def _user_code(program: str) -> Iterator[None]:
    """Turn what goes wrong in the user's code, while it is imported, into one clear error."""
    with programs.importing(program):
        try:
            yield
        except SystemExit as error:
            raise DefinitionError(
                f"{program} ended the process while it was imported (exit {error.code}). Put what it "
                'does on its own under `if __name__ == "__main__":`.'
            ) from error
        except Exception as error:
            raise DefinitionError(
                f"{program} cannot be imported:\n{_user_lines(error)}{_advice(error)}"
            ) from error


def _user_lines(error: BaseException) -> str:
    """The traceback without headway's and the import system's own frames."""
    report = traceback.TracebackException.from_exception(error, limit=None)
    own = str(Path(__file__).parents[1])
    lines = [
        frame
        for frame in report.stack
        if not frame.filename.startswith((own, "<frozen importlib"))
        and frame.filename != importlib.__file__
    ]
    report.stack = traceback.StackSummary.from_list(lines)
    report.__cause__ = report.__context__ = None
    return "".join(report.format()).rstrip()


def _advice(error: BaseException) -> str:
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "\nA file of a package runs as a module: `headway run PACKAGE.MODULE …`."
    return ""

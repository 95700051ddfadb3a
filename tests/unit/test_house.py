"""The rules of the house that no linter knows: what an import costs, what is public, how long a file is."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import headway
from headway.model import errors

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headway"
FOLDERS = ("src", "examples", "benchmarks")  # tests tell their story as long as it takes
LONGEST_FILE = 400  # lines
MOST_MODULES = 120  # that `import headway` may add to a bare Python

PUBLIC_CLASSES = [name for name in headway.__all__ if inspect.isclass(getattr(headway, name))]


def fresh(program: str, home: Path) -> str:
    """Run `program` in a new interpreter, and return what it prints."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "HEADWAY"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env={**kept, "HOME": str(home), "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(statement: str, home: Path) -> set[str]:
    """The modules that `statement` adds to a bare Python."""
    program = f"import sys; old = set(sys.modules); {statement}; print(*(set(sys.modules) - old))"
    return set(fresh(program, home).split())


def foreign(modules: set[str]) -> set[str]:
    """Those that come neither with Python nor with headway."""
    tops = {module.partition(".")[0] for module in modules}
    return tops - sys.stdlib_module_names - {"headway"}


# What an import costs


def test_importing_headway_loads_nothing_foreign_and_little_else(tmp_path: Path) -> None:
    modules = loaded_by("import headway", tmp_path)
    assert "headway" in modules
    assert foreign(modules) == set()
    assert len(modules) <= MOST_MODULES


@pytest.mark.parametrize("name", headway.__all__)
def test_a_public_name_loads_no_heavy_library(name: str, tmp_path: Path) -> None:
    """They are needed by some commands and some values, and are paid for by those."""
    heavy = {"numpy", "rich", "httpx", "yaml", "click", "pickle"}
    assert foreign(loaded_by(f"from headway import {name}", tmp_path)) & heavy == set()


def test_a_foreign_module_would_be_seen(tmp_path: Path) -> None:
    assert "yaml" in foreign(loaded_by("import yaml", tmp_path))


def test_importing_every_module_starts_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    names = [
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name != "__main__.py"
        # An adapter or a callback is imported only where its framework is; that one starts what it likes.
        and (
            path.parent.name not in {"adapters", "integrations"}
            or path.stem in {"__init__", "generators", "frames", "turns"}
        )
    ]
    program = (
        "import importlib, os, signal, threading\n"
        "def handlers(): return [signal.getsignal(s) for s in signal.valid_signals()]\n"
        "before = handlers()\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert handlers() == before, 'a signal handler was installed'\n"
        "print(*os.listdir('.'))\n"
    )
    assert fresh(program, tmp_path).strip() == ""


# What is public


@pytest.mark.parametrize("name", headway.__all__)
def test_a_public_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(headway, name)
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert own, f"headway.{name} has no docstring of its own"
    assert name in dir(headway)


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_what_a_public_class_can_do_is_documented(name: str) -> None:
    for method, value in vars(getattr(headway, name)).items():
        if not method.startswith("_") and (
            inspect.isfunction(value) or isinstance(value, property)
        ):
            assert value.__doc__, f"headway.{name}.{method} has no docstring"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tsk'"):
        headway.tsk  # type: ignore[attr-defined]  # noqa: B018  # looking is the test


def test_type_checkers_see_the_names_that_python_sees() -> None:
    """The lazy names are listed twice in `__init__.py`: for Python, and for type checkers."""
    seen: dict[str | None, str | None] = {}
    for node in ast.walk(ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for imported in node.body:
                assert isinstance(imported, ast.ImportFrom)
                seen |= {alias.asname: imported.module for alias in imported.names}
    assert sorted(map(str, seen)) == headway.__all__
    for name, module in seen.items():
        assert getattr(importlib.import_module(str(module)), str(name)) is getattr(
            headway, str(name)
        )


# The errors


def drawn_tree() -> dict[str, str]:
    """Error -> its parent, as `model/errors.py` draws them."""
    parents: dict[str, str] = {}
    path: list[str] = []  # the error last seen on each level
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: |$)", line)
        if match:
            level = len(match["branch"]) // 4
            path[level:] = [match["name"]]
            parents[match["name"]] = path[level - 1] if level else "Exception"
    return parents


def test_the_errors_are_as_drawn() -> None:
    real = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert drawn_tree() == real


def test_every_error_is_public() -> None:
    named = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert named <= set(headway.__all__)


def test_preempted_is_not_caught_by_except_exception() -> None:
    assert not issubclass(errors.Preempted, Exception)
    assert issubclass(errors.Preempted, BaseException)


# The files


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    assert len(lengths) > 50
    assert {name: n for name, n in lengths.items() if n >= LONGEST_FILE} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(ROOT).as_posix()
        for path in SOURCE.rglob("*.py")
        if path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_the_version_is_in_the_changelog() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(headway.__version__)}\]?", changes, re.MULTILINE)


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    documented = re.findall(r"^(\w+):.* ## .+$", makefile, re.MULTILINE)
    assert sorted(phony[1].split()) == sorted(documented)

"""A file of code goes by one name in every process, and so do the classes that pickles name."""

from __future__ import annotations

import importlib.machinery
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headway.engine import pickles, programs
from headway.model.errors import CheckpointCorrupt, InputError

SCRIPT = """
class Config:
    def __init__(self, size):
        self.size = size
    class Inner:
        pass

def double(number):
    return 2 * number
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """The modules and the search path are as before, whatever a test imports."""
    modules, path = dict(sys.modules), [*sys.path]
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    sys.modules.update(modules)


def as_main(path: Path, source: str = SCRIPT, name: str | None = None) -> ModuleType:
    """Make this process look like one that runs `path`, as a script or (with `name`) with -m."""
    path.write_text(source)
    main = ModuleType("__main__")
    main.__file__ = str(path)
    main.__spec__ = None if name is None else importlib.machinery.ModuleSpec(name, None)
    exec(compile(source, str(path), "exec"), vars(main))
    sys.modules["__main__"] = main
    return main


def test_a_program_goes_by_its_stem(tmp_path: Path) -> None:
    assert programs.module_name(tmp_path / "my_training.py") == "my_training"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("json.py", "headway_program_json"),
        ("pytest.py", "headway_program_pytest"),
        ("__main__.py", "headway_program___main__"),
        ("my-script.py", "headway_program_my_script"),
        ("2024.py", "headway_program_2024"),
    ],
)
def test_a_stem_that_is_taken_or_no_name_is_not_used_bare(
    tmp_path: Path, file: str, name: str
) -> None:
    assert programs.module_name(tmp_path / file) == name


def test_two_files_of_one_stem_have_two_names(tmp_path: Path) -> None:
    first = ModuleType("headway_program_json")
    first.__file__ = str(tmp_path / "one" / "json.py")
    sys.modules[first.__name__] = first
    name = programs.module_name(tmp_path / "two" / "json.py")
    assert name.startswith("headway_program_json_")
    assert programs.module_name(tmp_path / "one" / "json.py") == "headway_program_json"


def test_a_module_without_a_file_takes_its_name(tmp_path: Path) -> None:
    sys.modules["built"] = ModuleType("built")
    assert programs.module_name(tmp_path / "built.py") == "headway_program_built"


def test_a_script_goes_by_its_stem_and_keeps_it(tmp_path: Path) -> None:
    as_main(tmp_path / "my_script.py")
    assert programs.main_file() == tmp_path / "my_script.py"
    assert programs.main_name() == programs.public_name("__main__") == "my_script"
    sys.modules["my_script"] = ModuleType("my_script")  # it imports something of its own name
    assert programs.main_name() == "my_script"
    assert programs.public_name("json") == "json"


def test_a_module_that_runs_goes_by_its_dotted_name(tmp_path: Path) -> None:
    as_main(tmp_path / "train.py", name="jobs.train")
    assert (programs.main_file(), programs.main_name()) == (None, "jobs.train")


def test_a_prompt_has_no_name() -> None:
    sys.modules["__main__"] = ModuleType("__main__")
    assert (programs.main_file(), programs.main_name()) == (None, None)
    assert programs.public_name("__main__") == "__main__"
    sys.modules["__main__"].__file__ = "<stdin>"
    assert programs.main_name() is None


def test_what_is_being_imported_is_known_in_the_thread_that_imports_only() -> None:
    seen: list[str] = []
    with programs.importing("train.py"):
        assert programs.being_imported() == "train.py"
        thread = threading.Thread(target=lambda: seen.append(programs.being_imported()))
        thread.start()
        thread.join()
    assert seen == [programs.being_imported()] == [""]


def pickled(value: Any) -> bytes:
    return pickles.dump(value, "x", trusted=True, url="home")


def loaded(data: bytes) -> Any:
    return pickles.load(data, "x", trusted=True, url="home")


def test_a_class_of_a_script_is_found_by_the_script_and_by_a_worker(tmp_path: Path) -> None:
    main = as_main(tmp_path / "my_script.py")
    data = pickled([main.Config(3), main.Config.Inner, main.double])
    assert b"__main__" not in data
    assert type(loaded(data)[0]) is main.Config
    assert loaded(data)[1:] == [main.Config.Inner, main.double]

    sys.modules["__main__"] = ModuleType("__main__")  # now as a worker, which has it by its name
    sys.modules["my_script"] = worker = ModuleType("my_script")
    exec(SCRIPT, vars(worker))
    back = loaded(data)
    assert (type(back[0]), back[0].size, back[2](4)) == (worker.Config, 3, 8)
    made_there = pickled(back[0])
    assert b"my_script" in made_there

    sys.modules["__main__"] = main
    assert type(loaded(made_there)) is main.Config


def test_a_local_class_of_a_script_is_refused(tmp_path: Path) -> None:
    main = as_main(tmp_path / "my_script.py", "def make():\n class A: pass\n return A()")
    with pytest.raises(InputError, match=r"a value of class make.<locals>.A cannot be stored"):
        pickled(main.make())


def test_a_class_that_a_prompt_defined_is_pickled_under_its_own_name() -> None:
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(SCRIPT, vars(main))
    assert type(loaded(pickled(main.Config(1)))) is main.Config


def test_a_pickle_of_something_else_is_corrupt() -> None:
    with pytest.raises(CheckpointCorrupt, match="x: the stored value cannot be loaded"):
        loaded(b"not a pickle")


def test_a_value_nested_too_deeply_for_pickle_is_a_recursion_error() -> None:
    class_of = type("Deep", (), {"__reduce__": lambda self: (list, (self.inner,))})
    value: Any = None
    for _ in range(5000):
        outer = class_of()
        outer.inner = value
        value = outer
    with pytest.raises(RecursionError):
        pickled(value)

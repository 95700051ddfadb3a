"""Programs are imported so that every process has the same modules, and what fails is shown as theirs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import headway
from headway.engine import loading, programs
from headway.engine.loading import find_entity, load, load_file, load_module, program_of, refreshed
from headway.model.errors import DefinitionError, InputError
from headway.model.program import Program

SOURCE = """
from headway import task, workflow

@task
def fit(epochs: int = 1) -> int:
    return VERSION

@workflow
def train() -> int:
    return fit()

quick = fit
VERSION = 1
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


def write(path: Path, source: str = SOURCE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def forget(*names: str) -> None:
    for name in names:
        sys.modules.pop(name, None)


def test_a_file_is_imported_under_its_stem_with_its_directory_first(tmp_path: Path) -> None:
    path = write(tmp_path / "my_program.py")
    write(tmp_path / "my_helper.py", "VALUE = 3")
    module, program = load_file(path)
    assert program == Program("my_program", str(path), (str(tmp_path),), sha256(path))
    assert sys.modules["my_program"] is module
    assert (module.__name__, module.__file__) == ("my_program", str(path))
    assert sys.path[0] == str(tmp_path)
    assert __import__("my_helper").VALUE == 3
    assert load_file(str(path))[0] is module
    assert sys.path[1] != str(tmp_path)
    assert not list(tmp_path.rglob("my_program*.pyc"))


def test_the_tasks_of_a_file_are_found_by_name(tmp_path: Path) -> None:
    module, program = load_file(write(tmp_path / "my_program.py"))
    assert list(loading.entities(module)) == ["fit", "train", "quick"]
    assert module.fit.name == "my_program:fit"
    for name in ("my_program:fit", "fit", "quick"):
        assert find_entity(name, program) is module.fit
    assert find_entity("my_program:train", program) is module.train
    assert program_of(module.fit) == program_of(module.train) == program


def test_a_worker_loads_a_program_as_the_driver_did(tmp_path: Path) -> None:
    path = write(tmp_path / "json.py")
    _, program = load_file(path)
    assert program.module == "headway_program_json"
    forget(program.module)
    assert load(program).fit.name == "headway_program_json:fit"
    assert json.loads("1") == 1
    other = write(tmp_path / "other" / "json.py")
    assert load_file(other)[1].module.startswith("headway_program_json_")


def test_a_stem_that_cannot_be_a_module_works(tmp_path: Path) -> None:
    module, program = load_file(write(tmp_path / "my-program.v2.py"))
    assert program.module == "headway_program_my_program_v2"
    assert find_entity(module.fit.name, program) is module.fit


def test_edited_code_is_what_runs_even_within_a_second_and_at_the_same_size(tmp_path: Path) -> None:
    path = write(tmp_path / "my_program.py")
    stamp = os.stat(path)
    _, before = load_file(path)
    write(path, SOURCE.replace("VERSION = 1", "VERSION = 2"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert refreshed(before) == before  # this process still has the old code
    forget("my_program")
    assert load(before).VERSION == 2
    after = refreshed(before)
    assert (after.digest, after.module) == (sha256(path), before.module)
    assert after.digest != before.digest


def test_a_task_may_live_in_another_module_than_its_program(tmp_path: Path) -> None:
    write(tmp_path / "my_tasks" / "fitting.py")
    path = write(tmp_path / "my_program.py", "from my_tasks.fitting import fit, train as go")
    module, program = load_file(path)
    assert list(loading.entities(module)) == ["fit", "go"]
    assert module.fit.name == "my_tasks.fitting:fit"
    assert find_entity("my_tasks.fitting:fit", program) is module.fit
    own = program_of(module.fit)
    assert own == Program(
        "my_tasks.fitting", "", (str(tmp_path),), sha256(tmp_path / "my_tasks" / "fitting.py")
    )
    forget("my_tasks", "my_tasks.fitting", "my_program")
    sys.path.remove(str(tmp_path))
    assert find_entity("my_tasks.fitting:fit", own).name == "my_tasks.fitting:fit"


def test_a_task_is_found_under_other_names_and_decorators(tmp_path: Path) -> None:
    source = """
import functools
from headway import task

def fit() -> int: return 1
fast = task(retries=1)(fit)

def logged(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args)
    return wrapper

@logged
@task
def wrapped() -> int: return 2
"""
    module, program = load_file(write(tmp_path / "my_program.py", source))
    assert find_entity(module.fast.name, program) is module.fast
    assert find_entity("my_program:wrapped", program) is module.wrapped.__wrapped__


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_program:fti", r"'fti' in .*my_program\.py; did you mean 'fit'\?"),
        ("VERSION", r"'VERSION' in .*my_program\.py; it has fit, train, quick"),
        ("fit.inner", r"no task or workflow 'fit\.inner'"),
        ("json:loads", "'loads' in json; it has none"),
        ("no_such_module:fit", "there is no module 'no_such_module'"),
    ],
)
def test_a_name_that_is_no_task_names_the_nearest(tmp_path: Path, name: str, message: str) -> None:
    _, program = load_file(write(tmp_path / "my_program.py"))
    with pytest.raises(InputError, match=message):
        find_entity(name, program)


def test_a_module_is_imported_by_its_dotted_name_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "jobs" / "nightly" / "__init__.py")
    monkeypatch.chdir(tmp_path)
    module, program = load_module("jobs.nightly")
    assert program == Program("jobs.nightly", "", (str(tmp_path),), sha256(path))
    assert program_of(module.train) == refreshed(program) == program
    assert find_entity("jobs.nightly:fit", program) is module.fit
    assert load_module("jobs")[1] == Program("jobs")
    assert refreshed(Program("jobs")).digest == ""


def test_installed_modules_add_nothing_to_the_search_path() -> None:
    assert load_module("json")[1].search == ()
    assert load_module("pytest")[1].search == ()


@pytest.mark.parametrize("name", ["no_such_module", "json.no_such_module", "no.such.module"])
def test_a_module_that_is_not_there_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match=f"there is no module '{name}'.*FILE.py"):
        load_module(name)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*gone\.py"):
        load_file(tmp_path / "gone.py")
    with pytest.raises(InputError, match=r"the program /gone\.py is not there any more"):
        load(Program("gone", "/gone.py"))


FAILING = [
    ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ("x = 1\ny = 1 / 0", "line 2, in <module>\n    y = 1 / 0\n        ~~^~~\nZeroDivisionError"),
    ("def f(:", "SyntaxError: invalid syntax"),
    ("import sys; sys.exit(3)", "ended the process while it was imported (exit 3)"),
    ("from . import other", "`headway run PACKAGE.MODULE …`"),
    (
        "from headway import task\n@task\ndef f(*a: int): ...",
        "line 2, in <module>\n    @task\n     ^^^^\nheadway.model.errors.DefinitionError: f: parameter",
    ),
    (
        "from headway import task\n@task\ndef f() -> int: return 1\nf()",
        "f(...) is called while",
    ),
]


@pytest.mark.parametrize(("source", "message"), FAILING, ids=range(len(FAILING)))
def test_a_program_that_cannot_be_imported_shows_its_own_lines(
    tmp_path: Path, source: str, message: str
) -> None:
    path = write(tmp_path / "my_program.py", source)
    with pytest.raises(DefinitionError) as caught:
        load_file(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert message in text
    inside = Path(headway.__file__).parent
    assert f'File "{inside}' not in text
    assert "importlib" not in text
    assert "my_program" not in sys.modules
    assert programs.being_imported() == ""


def test_an_error_in_a_module_of_the_program_is_shown_with_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "my_helper.py", "import no_such_module")
    path = write(tmp_path / "my_program.py", "import my_helper")
    with pytest.raises(DefinitionError, match=r"(?s)my_program\.py.*my_helper\.py.*no_such_module"):
        load_file(path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError, match=r"my_helper cannot be imported"):
        load_module("my_helper")


def test_being_interrupted_is_passed_on(tmp_path: Path) -> None:
    path = write(tmp_path / "my_program.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_file(path)
    assert "my_program" not in sys.modules


def test_an_unreadable_source_is_an_input_error(tmp_path: Path) -> None:
    module, program = load_file(write(tmp_path / "my_program.py"))
    module.__loader__ = None
    (tmp_path / "my_program.py").unlink()
    with pytest.raises(InputError, match="cannot read the program"):
        refreshed(program)


def test_what_has_no_file_cannot_be_run(tmp_path: Path) -> None:
    built = ModuleType("built")
    sys.modules["built"] = built
    exec(SOURCE, vars(built))
    with pytest.raises(DefinitionError, match=r"fit was defined in 'built', which is no file"):
        program_of(vars(built)["fit"])


def as_main(path: Path | None, name: str | None = None) -> ModuleType:
    """Make this process look like one that runs `path`, as a script or (with `name`) with -m."""
    main = ModuleType("__main__")
    main.__spec__ = None if name is None else ModuleSpec(name, None)
    if path is not None:
        main.__file__ = str(write(path))
    sys.modules["__main__"] = main
    exec(SOURCE, vars(main))
    return main


def test_the_script_itself_is_never_imported_a_second_time(tmp_path: Path) -> None:
    main = vars(as_main(tmp_path / "my_script.py"))
    program = program_of(main["fit"])
    assert program.path == str(tmp_path / "my_script.py")
    assert load(program) is load_file(program.path)[0] is sys.modules["__main__"]
    assert find_entity("my_script:fit", program) is main["fit"]
    assert refreshed(program) == program


def test_a_module_that_runs_is_never_imported_a_second_time(tmp_path: Path) -> None:
    main = vars(as_main(tmp_path / "jobs" / "main.py", "jobs.main"))
    program = program_of(main["fit"])
    assert (program.module, program.path, program.search) == ("jobs.main", "", (str(tmp_path),))
    assert load(program) is sys.modules["__main__"]


def test_a_prompt_is_no_program() -> None:
    main = vars(as_main(None))
    with pytest.raises(DefinitionError, match="fit was defined at a prompt"):
        program_of(main["fit"])


def python(*arguments: str, cwd: Path, stdin: str | None = None) -> Any:
    """Run Python on `arguments`; the last line it prints is JSON."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


REPORT = """
if __name__ == "__main__":
    import json, sys
    from headway.engine import loading
    from headway.model.errors import DefinitionError
    try:
        program = loading.program_of(train)
        same = loading.find_entity(train.name, program) is train
        same = same and loading.load(program) is sys.modules["__main__"]
        parts = program.module, program.path, program.search, program.digest
        print(json.dumps([train.name, *parts, same]))
    except DefinitionError as error:
        print(json.dumps({"error": str(error)}))
"""


def test_a_script_is_a_program_that_a_worker_can_import_without_its_main_part(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "my_script.py", SOURCE + REPORT)
    name, module, file, search, digest, same = python("my_script.py", cwd=tmp_path)
    assert (name, module, file) == ("my_script:train", "my_script", str(path))
    assert (search, digest, same) == ([str(tmp_path)], sha256(path), True)
    program = Program(module, file, tuple(search), digest)
    assert find_entity(name, program).name == name  # here, as a worker: nothing is printed or run


def test_a_module_that_runs_goes_by_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "jobs" / "__init__.py", "")
    path = write(tmp_path / "jobs" / "main.py", SOURCE + REPORT)
    found = python("-m", "jobs.main", cwd=tmp_path)
    assert found == ["jobs.main:train", "jobs.main", "", [str(tmp_path)], sha256(path), True]


@pytest.mark.parametrize("way", ["-c", "-"])
def test_what_is_typed_at_a_prompt_is_told_to_go_into_a_file(tmp_path: Path, way: str) -> None:
    code = SOURCE + REPORT
    arguments, stdin = (["-c", code], None) if way == "-c" else (["-"], code)
    found = python(*arguments, cwd=tmp_path, stdin=stdin)
    assert "train was defined at a prompt, in a notebook or with -c" in found["error"]
    assert "Put the code in a file" in found["error"]

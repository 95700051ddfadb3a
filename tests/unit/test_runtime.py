"""Runs from end to end, with an executor that runs bodies in this process: what is kept, what is said,
and what resuming does."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from headway import compose, runtime
from headway.engine import driver, liveness, seat, session
from headway.engine.archive import read_run
from headway.engine.call import run_body
from headway.engine.changes import compare
from headway.engine.core import fold
from headway.engine.keys import cancel_key, log_key, values_prefix
from headway.engine.liveness import is_driven, lock_attempts, lock_driver
from headway.engine.loading import find_entity, load, load_file
from headway.engine.seat import taken
from headway.engine.task import Task
from headway.engine.values import Values
from headway.model.errors import (
    CheckpointCorrupt,
    DefinitionError,
    InputError,
    RunBusy,
    StorageDenied,
    StorageUnavailable,
    TaskFailed,
)
from headway.model.events import DriverStarted, NodePlan, RunCreated
from headway.model.ids import new_run_id
from headway.model.program import AttemptSpec, Message, Program, Raised, Returned
from headway.model.settings import TaskOptions
from headway.ports import AttemptKey, KeyExists
from headway.runtime import Home

PROGRAM = """
from typing import NamedTuple

from headway import task, workflow


class Pair(NamedTuple):
    low: int
    high: int


@task
def add(a: int, b: int = 1) -> int:
    print("adding", a, b)
    return a + b


@task(retries=1)
def fragile(x: int) -> int:
    from pathlib import Path
    if Path(PLACE, "broken").exists():
        raise ValueError("it is broken")
    return x * 2


@task
def both(x: int) -> Pair:
    return Pair(x, x + 1)


@workflow
def flow(n: int = 1) -> int:
    first = add(a=n)
    return add(a=fragile(x=first), b=10)


@workflow
def pair(n: int) -> Pair:
    return both(x=n)
"""


class Inline:
    """An executor whose attempts are over before `submit` returns."""

    def __init__(self) -> None:
        self.heard: list[tuple[AttemptKey, Message]] = []
        self.specs: list[AttemptSpec] = []
        self.during: Callable[[AttemptSpec], None] = lambda spec: None

    @property
    def slots(self) -> int:
        return 2

    def submit(self, spec: AttemptSpec) -> None:
        self.specs.append(spec)
        key = (spec.node, spec.attempt)
        os.makedirs(os.path.dirname(spec.log), exist_ok=True)
        Path(spec.log).write_bytes(b"output of %s\n" % spec.node.encode())
        try:
            self.during(spec)
            load(spec.program)
            task = find_entity(spec.task, spec.program)
            assert isinstance(task, Task)
            storage = compose.open_storage(spec.home)
            outputs = run_body(task, spec.inputs, Values(storage, values_prefix(spec.run)))
        except Exception as error:  # noqa: BLE001  # reported, as a worker does
            kind = type(error).__name__
            self.heard.append((key, Raised("app error", kind, str(error), "trace")))
        else:
            self.heard.append((key, Returned(outputs, clean=True)))

    def stop(self, key: AttemptKey, grace: float) -> None:
        pass

    def poll(self, timeout: float | None) -> Sequence[tuple[AttemptKey, Message]]:
        heard, self.heard = self.heard, []
        return heard

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Surviving power loss is tested elsewhere, and costs seconds."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Inline:
    inline = Inline()
    monkeypatch.setattr(compose, "make_executor", lambda jobs, lock_fd: inline)
    return inline


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return runtime.open_home(str(tmp_path / "home"))


class Program_(NamedTuple):
    path: Path
    load: Callable[[], ModuleType]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program_]:
    """A program in a file of its own; `load` imports it as it is now."""
    path = tmp_path / f"program_{tmp_path.name}.py"
    path.write_text(f"PLACE = {str(tmp_path)!r}\n{PROGRAM}")

    def fresh() -> ModuleType:
        sys.modules.pop(path.stem, None)
        return load_file(path)[0]

    before = list(sys.path)
    yield Program_(path, fresh)
    sys.modules.pop(path.stem, None)
    sys.path[:] = before


def edit(program: Program_, old: str, new: str) -> None:
    text = program.path.read_text()
    assert old in text
    program.path.write_text(text.replace(old, new))
    program.load()


@pytest.fixture
def failed(home: Home, executor: Inline, program: Program_, tmp_path: Path) -> str:
    """A run of `flow` whose second node failed."""
    (tmp_path / "broken").touch()
    report = runtime.run(home, program.load().flow, {"n": 5})
    (tmp_path / "broken").unlink()
    executor.specs.clear()
    assert report.status == "failed"
    return report.run


def test_a_workflow_runs_and_its_report_has_the_result(
    home: Home, executor: Inline, program: Program_
) -> None:
    report = runtime.run(home, program.load().flow, {"n": 4})
    assert (report.status, report.result) == ("succeeded", 20)
    assert [(node.name, node.status) for node in report.nodes] == [
        ("add", "succeeded"),
        ("fragile", "succeeded"),
        ("add-2", "succeeded"),
    ]
    assert runtime.result(home, report.run) == 20
    assert runtime.show(home, report.run) == report
    spec = executor.specs[1]
    assert (spec.inputs, spec.retries_left, spec.home) == ({"x": 5}, 1, home.url)
    assert spec.log == f"{home.url}/{log_key(report.run, 'fragile', 0)}"
    assert spec.task.endswith(":fragile")
    assert spec.program.digest


def test_defaults_are_filled_in_and_named_outputs_come_back(
    home: Home, executor: Inline, program: Program_
) -> None:
    module = program.load()
    assert runtime.run(home, module.flow, {}).result == 14
    assert runtime.run(home, module.add, {"a": 1}).result == 2
    report = runtime.run(home, module.pair, {"n": 3})
    assert report.result == {"low": 3, "high": 4}
    assert runtime.result(home, report.run) == module.Pair(3, 4)


@pytest.mark.parametrize("inputs", [{"n": "four"}, {"m": 1}])
def test_wrong_inputs_are_refused_before_anything_is_written(
    home: Home, executor: Inline, program: Program_, inputs: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        runtime.run(home, program.load().flow, inputs)
    with pytest.raises(InputError, match="1 or more"):
        runtime.run(home, program.load().flow, {}, jobs=0)
    assert home.storage.list("runs") == []


def test_a_wrong_workflow_leaves_nothing_behind(
    home: Home, executor: Inline, program: Program_
) -> None:
    edit(program, "first = add(a=n)", "first = add(a='text')")
    with pytest.raises(DefinitionError):
        runtime.run(home, program.load().flow, {})
    assert home.storage.list("runs") == []


def test_resume_runs_what_did_not_finish_and_nothing_else(
    home: Home, executor: Inline, failed: str
) -> None:
    report = runtime.resume(home)
    assert (report.run, report.status, report.result) == (failed, "succeeded", 22)
    assert [(spec.node, spec.attempt) for spec in executor.specs] == [("fragile", 2), ("add-2", 0)]
    assert report.notes == []
    executor.specs.clear()
    assert runtime.resume(home, failed) == report  # and now there is nothing left to do
    assert executor.specs == []
    with pytest.raises(InputError, match="nothing to resume"):
        runtime.resume(home)


def test_resume_with_changed_code_says_so_and_goes_on(
    home: Home, executor: Inline, program: Program_, failed: str
) -> None:
    edit(program, "return x * 2", "return x * 3")
    report = runtime.resume(home, failed)
    assert report.result == 28
    [note] = report.notes
    assert "the code has changed since the run began" in note
    assert read_run(home.storage, failed)[0].program.digest == executor.specs[0].program.digest


def test_resume_with_another_workflow_keeps_what_it_can(
    home: Home, executor: Inline, program: Program_, failed: str
) -> None:
    edit(
        program,
        "first = add(a=n)\n    return add(a=fragile(x=first), b=10)",
        "first = add(a=n, b=100)\n    return both(x=first).low",
    )
    report = runtime.resume(home, failed)
    assert report.result == 6  # of the old `add`
    assert [spec.node for spec in executor.specs] == ["both"]
    notes = "\n".join(report.notes)
    assert "add had finished before its inputs changed: its result is kept" in notes
    assert "not in the workflow any more: fragile, add-2" in notes


def test_resume_refuses_code_that_wants_inputs_nobody_gave(
    home: Home, executor: Inline, program: Program_, failed: str
) -> None:
    edit(program, "def flow(n: int = 1)", "def flow(n: int = 1, extra: int = 2)")
    with pytest.raises(InputError, match="takes extra now"):
        runtime.resume(home, failed)
    assert not is_driven(home.directory(failed))
    program.path.unlink()
    sys.modules.pop(program.path.stem)
    with pytest.raises(InputError, match="not there any more"):
        runtime.resume(home, failed)


def test_resume_forgets_a_cancel_that_was_meant_for_the_driver_before(
    home: Home, executor: Inline, failed: str
) -> None:
    home.storage.create(cancel_key(failed), b"")
    assert runtime.resume(home, failed).status == "succeeded"


def test_a_run_that_is_being_driven_is_left_alone(
    home: Home, executor: Inline, failed: str
) -> None:
    with taken(home, failed):
        with pytest.raises(RunBusy, match=f"process {os.getpid()} on this machine"):
            runtime.resume(home, failed)
        with pytest.raises(RunBusy, match=failed):
            runtime.resume(home)
        with pytest.raises(RunBusy):
            runtime.delete(home, failed)
    assert executor.specs == []
    assert runtime.show(home, failed).status == "failed"


def test_a_run_shows_as_running_exactly_while_its_driver_lives(
    home: Home, executor: Inline, program: Program_
) -> None:
    seen: list[str] = []

    def look(spec: AttemptSpec) -> None:
        seen.append(runtime.show(home, spec.run).status)
        seen.append(runtime.runs(home)[0].status)
        raise SystemExit  # the driver's process ends without another word

    executor.during = look
    with pytest.raises(SystemExit):
        runtime.run(home, program.load().flow, {})
    assert seen == ["running", "running"]
    [summary] = runtime.runs(home)
    assert summary.status == "interrupted"
    executor.during = lambda spec: None
    report = runtime.resume(home)
    assert report.status == "succeeded"
    assert [a.outcome for a in report.nodes[0].attempts] == ["killed", "succeeded"]
    with pytest.raises(InputError, match="over"):
        runtime.cancel(home, report.run)


def test_cancelling_asks_a_driver_that_lives(
    home: Home, executor: Inline, program: Program_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_LOOK_EVERY", 0.0)

    def ask(spec: AttemptSpec) -> None:
        runtime.cancel(home, spec.run)
        runtime.cancel(home, spec.run)
        assert home.storage.has(cancel_key(spec.run))

    executor.during = ask
    report = runtime.run(home, program.load().flow, {})
    assert report.status == "cancelled"
    assert [node.status for node in report.nodes] == ["succeeded", "cancelled", "cancelled"]


def test_cancelling_a_run_without_a_driver_ends_it(
    home: Home, executor: Inline, program: Program_
) -> None:
    def die(spec: AttemptSpec) -> None:
        raise SystemExit

    executor.during = die
    with pytest.raises(SystemExit):
        runtime.run(home, program.load().flow, {})
    run = runtime.find(home, None)
    runtime.cancel(home, run)
    assert runtime.show(home, run).status == "cancelled"
    with pytest.raises(InputError, match="nothing to resume"):
        runtime.resume(home)  # it was cancelled on purpose
    with pytest.raises(InputError, match="has no result: it is cancelled"):
        runtime.result(home, run)
    executor.during = lambda spec: None
    assert runtime.resume(home, run).status == "succeeded"


def test_runs_are_found_by_any_part_that_is_unique(
    home: Home, executor: Inline, program: Program_
) -> None:
    with pytest.raises(InputError, match="there are no runs"):
        runtime.find(home, None)
    add = program.load().add
    first, second = (runtime.run(home, add, {"a": n}).run for n in (1, 2))
    assert runtime.find(home, first) == first
    assert runtime.find(home, first[-4:].upper()) == first
    assert runtime.find(home, None) == max(first, second)
    with pytest.raises(InputError, match="fits 2 runs"):
        runtime.find(home, "-")
    for text in ("zzzzzzz", ""):
        with pytest.raises(InputError, match="there is no run"):
            runtime.find(home, text)
    assert {summary.run for summary in runtime.runs(home)} == {first, second}


@pytest.mark.parametrize(
    "ask", [runtime.show, runtime.resume, runtime.cancel, runtime.delete, runtime.logs]
)
def test_whoever_asks_for_a_run_that_is_not_there_is_told(
    home: Home, executor: Inline, program: Program_, ask: Callable[[Home, str], Any]
) -> None:
    run = runtime.run(home, program.load().add, {"a": 1}).run
    with pytest.raises(InputError, match="there is no run"):
        ask(home, "000000-0000")
    with pytest.raises(InputError, match="whole id"):
        ask(home, run[:-1])


def test_a_deleted_run_is_gone(home: Home, executor: Inline, program: Program_) -> None:
    run = runtime.run(home, program.load().add, {"a": 1}).run
    runtime.delete(home, run)
    assert not home.directory(run).exists()
    assert runtime.runs(home) == []


def test_a_run_whose_driver_died_in_its_first_instant_is_no_run(
    home: Home, executor: Inline, program: Program_
) -> None:
    run = runtime.run(home, program.load().add, {"a": 1}).run
    lock_driver(home.directory("zzzzzz-zzzz"), "zzzzzz-zzzz", new=True).close()
    assert runtime.find(home, None) == run
    assert [summary.run for summary in runtime.runs(home)] == [run]
    with pytest.raises(InputError, match="nothing to resume"):
        runtime.resume(home)
    runtime.delete(home, "zzzzzz-zzzz")
    assert home.storage.list("runs") == [run]


def test_a_damaged_run_is_listed_and_can_be_deleted(
    home: Home, executor: Inline, program: Program_
) -> None:
    run = runtime.run(home, program.load().add, {"a": 1}).run
    journal = home.directory(run) / "ledger" / "00000001"
    data = bytearray(journal.read_bytes())
    data[400] ^= 1
    journal.write_bytes(data)
    [summary] = runtime.runs(home)
    assert summary.status == "damaged"
    assert runtime.find(home, None) == run
    with pytest.raises(CheckpointCorrupt):
        runtime.show(home, run)
    runtime.delete(home, run)
    assert runtime.runs(home) == []


def test_logs_are_listed_by_node_and_attempt(home: Home, executor: Inline, failed: str) -> None:
    found = runtime.logs(home, failed)
    assert [(log.node, log.attempt) for log in found] == [
        ("add", 0),
        ("fragile", 0),
        ("fragile", 1),
    ]
    assert found[0].path.read_bytes() == b"output of add\n"
    assert len(runtime.logs(home, failed, "fragile")) == 2
    assert [log.attempt for log in runtime.logs(home, failed, "fragile", 1)] == [1]
    with pytest.raises(InputError, match="no node 'add-3'; it has add, fragile, add-2"):
        runtime.logs(home, failed, "add-3")


def test_an_id_that_is_taken_is_not_used_again(
    home: Home, executor: Inline, program: Program_, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = program.load().add
    taken_id = runtime.run(home, add, {"a": 1}).run
    ids = iter([taken_id, taken_id, "000000-0001"])
    monkeypatch.setattr(seat, "new_run_id", lambda now: next(ids))
    assert runtime.run(home, add, {"a": 1}).run == "000000-0001"


def test_calling_a_task_gives_its_value(
    executor: Inline, program: Program_, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "other"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=written))
    module = program.load()
    assert runtime.call(module.flow, (4,), {}) == 20
    assert runtime.call(module.pair, (), {"n": 3}) == module.Pair(3, 4)
    assert b"output of fragile\n" in written.getvalue()
    assert b"if it stops: headway resume" in written.getvalue()
    monkeypatch.setattr(sys, "stderr", None)
    assert runtime.call(module.add, (1,), {"b": 5}) == 6
    assert len(runtime.runs(runtime.open_home())) == 3
    (tmp_path / "broken").touch()
    with pytest.raises(TaskFailed, match=r"fragile failed: app error, attempt 1 \(2 of 2\)\n"):
        runtime.call(module.flow, (), {})


def test_calling_a_task_that_is_interrupted_raises_keyboard_interrupt(
    executor: Inline, program: Program_, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(sys, "stderr", None)
    executor.during = lambda spec: os.kill(os.getpid(), 15)
    with pytest.raises(KeyboardInterrupt, match="headway resume"):
        runtime.call(program.load().flow, (), {})
    assert runtime.runs(runtime.open_home())[0].status == "interrupted"


def test_a_result_that_the_code_does_not_know_any_more(
    home: Home, executor: Inline, program: Program_
) -> None:
    run = runtime.run(home, program.load().add, {"a": 1}).run
    edit(program, "def add(a: int, b: int = 1) -> int:", "def add(a: int, b: int = 1) -> Pair:")
    with pytest.raises(InputError, match="returns low, high now"):
        runtime.result(home, run)


def test_a_home_is_made_with_its_marker_and_for_its_owner_only(tmp_path: Path) -> None:
    home = runtime.open_home(f"file://{tmp_path}/deep/home")
    assert home.url == str(tmp_path / "deep" / "home")
    assert (tmp_path / "deep" / "home" / "headway.json").read_text() == '{"format":1}\n'
    assert (tmp_path / "deep" / "home").stat().st_mode & 0o777 == 0o700
    assert home.storage.trusted
    assert runtime.open_home(home.url).url == home.url


def test_the_default_home_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HEADWAY_HOME", raising=False)
    assert runtime.open_home().url == str(tmp_path / ".headway")
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "named"))
    assert runtime.open_home().url == str(tmp_path / "named")


def test_what_cannot_be_a_home_is_refused(tmp_path: Path) -> None:
    for url in ("https://bucket/x", "s3://", "s3:///x", "file://", "a\0b"):
        with pytest.raises(InputError, match="--home"):
            runtime.open_home(url)
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable):
        runtime.open_home(str(tmp_path / "file"))
    with pytest.raises(StorageUnavailable):
        runtime.open_home(str(tmp_path / "file" / "below"))
    with pytest.raises(StorageUnavailable, match="there is no home"):
        compose.open_storage(str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_a_home_of_a_newer_headway_or_with_a_damaged_marker_is_refused(tmp_path: Path) -> None:
    (tmp_path / "headway.json").write_text('{"format": 2, "more": true}')
    with pytest.raises(InputError, match="format 2"):
        runtime.open_home(str(tmp_path))
    (tmp_path / "headway.json").write_text("{")
    with pytest.raises(CheckpointCorrupt, match="not readable"):
        runtime.open_home(str(tmp_path))


def test_a_filesystem_without_exclusive_creation_is_refused(
    home: Home, executor: Inline, program: Program_, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyExists):
        home.storage.create(compose.MARKER, b"")
    monkeypatch.setattr(type(home.storage), "create", lambda self, key, data: None)
    with pytest.raises(StorageDenied, match="does not create files exclusively"):
        runtime.run(home, program.load().add, {"a": 1})
    assert executor.specs == []


def test_an_unwritable_home_is_a_storage_error(
    home: Home, executor: Inline, program: Program_, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(seat, "lock_driver", denied)
    with pytest.raises(StorageDenied, match="begin a run"):
        runtime.run(home, program.load().add, {"a": 1})
    with pytest.raises(StorageDenied, match=f"lock run {failed}"):
        runtime.resume(home, failed)
    monkeypatch.setattr(seat, "lock_driver", lock_driver)
    monkeypatch.setattr(session, "lock_attempts", denied)
    with pytest.raises(StorageDenied, match=f"lock run {failed}"):
        runtime.resume(home, failed)


def test_processes_of_a_dead_driver_are_waited_for_and_then_only_mentioned(
    home: Home, executor: Inline, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "ORPHANS", 0.01)
    orphan, gone = lock_attempts(home.directory(failed), 0.01)
    assert gone
    report = runtime.resume(home, failed)
    orphan.close()
    assert report.status == "succeeded"
    assert "processes of the driver before are still there" in report.notes[0]


def test_the_lock_of_attempts_is_waited_for(tmp_path: Path) -> None:
    first, gone = lock_attempts(tmp_path, 1.0)
    assert gone
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            first.close()

    second, gone = lock_attempts(tmp_path, 1.0, sleep)
    assert gone
    assert len(waits) == 3
    second.close()
    second.close()


def test_the_lock_of_a_driver_is_free_when_its_process_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from headway.engine.liveness import lock_driver;"
        "lock_driver(Path(sys.argv[1]), 'r'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert is_driven(tmp_path)
        with pytest.raises(RunBusy, match=f"process {child.pid}"):
            lock_driver(tmp_path, "r", sleep=lambda seconds: None)
        child.kill()
    assert not is_driven(tmp_path)
    lock_driver(tmp_path, "r").close()
    assert not is_driven(tmp_path / "nothing")


def test_a_lock_whose_file_was_removed_by_its_holder_is_nobodys(tmp_path: Path) -> None:
    first = lock_driver(tmp_path, "r")

    def removed(seconds: float) -> None:
        (tmp_path / liveness.DRIVER).unlink(missing_ok=True)
        first.close()

    with pytest.raises(RunBusy):
        lock_driver(tmp_path, "r", sleep=removed)
    lock_driver(tmp_path, "r").close()


def test_a_driver_whose_pid_is_not_known_yet_is_another_process(tmp_path: Path) -> None:
    lock = lock_driver(tmp_path, "r")
    (tmp_path / liveness.DRIVER).write_text("")
    with pytest.raises(RunBusy, match="another process"):
        lock_driver(tmp_path, "r", sleep=lambda seconds: None)
    lock.close()


def node(name: str, task: str = "m:t", outputs: tuple[str, ...] = ("o0",)) -> NodePlan:
    return NodePlan(name, task, TaskOptions(), {}, (), outputs)


def test_a_finished_node_with_another_task_or_other_outputs_is_mentioned() -> None:
    from headway.model.events import AttemptEnded, AttemptStarted

    program = Program("m", digest="d")
    plans = (node("a"), node("b"), node("c"))
    state = fold(
        [
            RunCreated("r", "m:f", program, {}, 1.0, "0", plans, {}),
            DriverStarted(1.0, 1, "h", "d"),
            AttemptStarted("a", 0, 2.0),
            AttemptEnded("a", 0, "succeeded", 3.0, {"o0": 1}),
            AttemptStarted("b", 0, 2.0),
            AttemptEnded("b", 0, "succeeded", 3.0, {"o0": 1}),
        ]
    )
    now = [node("a", "m:other"), node("b", outputs=("x", "y")), node("c", "m:other"), node("d")]
    changes = compare(state, now, {"o0": 1}, "d")
    assert [plan.name for plan in changes.replaced] == ["a", "b", "c", "d"]
    assert changes.outputs == {"o0": 1}
    assert changes.notes == (
        "a had finished before its task changed: its result is kept",
        "b had finished, but has other outputs now: it runs again",
    )
    assert compare(state, plans, {}, "d").replaced == ()
    assert compare(state, plans, {}, "d").outputs is None


def test_the_clock_and_the_executor_are_those_of_this_machine() -> None:
    clock = compose.make_clock()
    assert abs(clock.time() - __import__("time").time()) < 5
    assert clock.monotonic() <= clock.monotonic()
    executor = compose.make_executor(3)
    assert executor.slots == 3
    executor.close()
    assert new_run_id(clock.time()) > "0"

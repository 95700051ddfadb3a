"""The commands: what goes where, and which exit code. The runtime is a stand-in; programs are real."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import headway
from headway.cli import codes
from headway.cli import main as main_module
from headway.cli.main import main
from headway.cli.output import Paint
from headway.cli.settings import Settings
from headway.cli.views import _node
from headway.engine.logs import LogFile
from headway.model.errors import (
    CheckpointCorrupt,
    DefinitionError,
    HeadwayError,
    InputError,
    RunBusy,
    StorageFull,
    TaskFailed,
)
from headway.model.report import (
    AttemptReport,
    CheckpointReport,
    NodeReport,
    RunReport,
    RunSummary,
)

RUN = "1tq4zk-8f3d"
PROGRAM = '''
    """A program."""
    from headway import task, workflow
    print("imported")

    @task
    def double(n: int, label: str = "x") -> int:
        """Twice as much.

        Args:
            n: what to double.
        """
        return 2 * n

    @task
    def takes_home(home: str) -> None:
        return None

    @workflow
    def both(n: int) -> tuple[int, int]:
        """Two of them."""
        return double(n=n), double(n=n)
'''


def report(status: str = "succeeded", result: Any = None, **fields: Any) -> RunReport:
    return RunReport(RUN, "p:double", status, result, [], 1.0, 2.0, **fields)


class Runtime(SimpleNamespace):
    """What `headway.runtime` would be asked, and what it answers."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.asked: list[tuple[Any, ...]] = []
        self.answer: Callable[[Any], RunReport] = lambda _observer: report()
        self.summaries: list[RunSummary] = []
        self.files: list[Any] = []
        self.directory = home

    def open_home(self, home: str | None = None, *, create: bool = True) -> Any:
        self.asked.append(("home", home, "create") if create else ("home", home))
        place = SimpleNamespace(is_home=True)
        return SimpleNamespace(url=home or str(self.directory), storage=None, place=place)

    def run(
        self, _home: Any, entity: Any, inputs: Any, *, jobs: Any, observer: Any, say: Any
    ) -> RunReport:
        self.asked.append(("run", entity.interface.name, inputs, jobs))
        return self.answer(observer)

    def resume(
        self, _home: Any, run_id: Any, *, jobs: Any, observer: Any, say: Any, take_over: bool
    ) -> RunReport:
        self.asked.append(("resume", run_id, jobs, *(["take over"] if take_over else [])))
        if take_over:
            say("watching")
        return self.answer(observer)

    def find(self, _home: Any, text: str | None) -> str:
        self.asked.append(("find", text))
        return RUN if text is None else f"whole-{text}"

    def runs(self, _home: Any, limit: int | None = None) -> list[RunSummary]:
        return self.summaries

    def show(self, _home: Any, run_id: str) -> RunReport:
        self.asked.append(("show", run_id))
        return self.answer(None)

    def logs(self, _home: Any, run_id: str, node: Any, attempt: Any) -> list[Any]:
        self.asked.append(("logs", run_id, node, attempt))
        return self.files

    def cancel(self, _home: Any, run_id: str, say: Callable[[str], None]) -> None:
        self.asked.append(("cancel", run_id))

    def delete(self, _home: Any, run_id: str, say: Callable[[str], None]) -> None:
        self.asked.append(("delete", run_id))


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    made = Runtime(tmp_path / "home")
    monkeypatch.setitem(sys.modules, "headway.runtime", made)
    monkeypatch.setattr(headway, "runtime", made, raising=False)
    return made


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Programs are imported into this very process: take them out again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


@pytest.fixture
def program(tmp_path: Path) -> str:
    return write_program(tmp_path, "prog.py", PROGRAM)


def write_program(tmp_path: Path, name: str, source: str) -> str:
    (tmp_path / name).write_text(textwrap.dedent(source))
    return name


def test_the_result_alone_goes_to_stdout(
    program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    def says(observer: Any) -> RunReport:
        print("from the driver's process")
        observer.started(RUN)
        observer.output("double", 0, b"from the task\n")
        return report(result=14)

    runtime.answer = says
    assert main(["run", program, "double", "--n", "7"]) == 0
    assert runtime.asked == [("home", None, "create"), ("run", "double", {"n": 7}, None)]
    out, err = capsys.readouterr()
    assert out == "14\n"
    assert err.splitlines() == [
        "imported",
        "from the driver's process",
        f"run {RUN}  (if it stops: headway resume {RUN})",
        "double | from the task",
    ]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("plain words", "plain words\n"),
        (None, ""),
        (0.5, "0.5\n"),
        (True, "true\n"),
        ([1, "ä"], '[1, "ä"]\n'),
        ({"a": None}, '{"a": null}\n'),
        ({"key": "x" * 100}, '{\n  "key": "' + "x" * 100 + '"\n}\n'),
    ],
)
def test_a_result_is_printed_plainly(
    result: Any, text: str, program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime.answer = lambda _: report(result=result)
    assert main(["run", program, "double", "--n", "7", "--quiet"]) == 0
    assert capsys.readouterr().out == text


def test_json_is_one_report_with_the_documented_fields(
    program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = CheckpointReport(1, 0, 1.5, 10, "bytes")
    attempt = AttemptReport(0, "succeeded", 1.0, 2.0, [saved])
    node = NodeReport("double", "succeeded", [attempt])
    runtime.answer = lambda _: RunReport(RUN, "p:double", "succeeded", 14, [node], 1.0, 2.0)
    for words in (["run", program, "double", "--n", "7"], ["resume"], ["show"]):
        assert main([*words, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["run"], found["status"], found["result"]) == (RUN, "succeeded", 14)
        assert found["nodes"][0]["name"] == "double"
        tried = found["nodes"][0]["attempts"][0]
        assert {"number", "outcome", "started", "ended", "checkpoints"} <= tried.keys()
        assert tried["checkpoints"][0]["number"] == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--home", "h", "--jobs", "3", "run", "prog.py", "double", "--n", "7"],
        ["--home", "other", "run", "--home", "h", "-j3", "prog.py", "double", "--n", "7"],
        ["run", "prog.py", "--home", "h", "--jobs", "3", "double", "--n", "7"],
        ["run", "prog.py", "double", "--n", "7", "--home", "h", "--jobs", "3"],
    ],
)
def test_options_of_run_may_stand_anywhere(
    words: list[str], program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--jobs" in words[:3]:
        del words[2:4]  # only commands that run attempts take it
        words += ["--jobs", "3"]
    assert main(words) == 0
    assert runtime.asked == [("home", "h", "create"), ("run", "double", {"n": 7}, 3)]


def test_a_parameter_called_like_an_option_of_run_is_the_entitys_after_it(
    program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--home", "h", program, "takes_home", "--home", "mine"]) == 0
    assert runtime.asked == [("home", "h", "create"), ("run", "takes_home", {"home": "mine"}, None)]


def test_inputs_files_work_in_every_place(
    program: str, runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "i.json").write_text('{"n": 3, "label": "a"}')
    for words in (
        ["run", "--inputs-file", "i.json", program, "double"],
        ["run", program, "--inputs-file", "i.json", "double"],
        ["run", program, "double", "--inputs-file", "i.json"],
    ):
        runtime.asked.clear()
        assert main([*words]) == 0
        assert runtime.asked[1] == ("run", "double", {"n": 3, "label": "a"}, None)


def test_usage_errors_are_one_message_and_exit_code_2(
    program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", program, "double"]) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "headway: missing option --n (int)",
        "options: headway run prog.py double --help",
    ]
    assert main(["run", program, "double", "--n", "x"]) == 2
    assert "'--n': 'x' is not an int" in capsys.readouterr().err
    assert main(["run"]) == 2
    assert main(["nonsense"]) == 2
    assert main(["run", "--sha256", "00", program]) == 2
    assert "for programs that come from a URL" in capsys.readouterr().err
    assert not [entry for entry in runtime.asked if entry[0] == "run"]


def test_an_error_is_an_object_too_with_json(
    program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", program, "double", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "error": {"kind": "usage", "message": "missing option --n (int)"}
    }


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (InputError("why"), 2, "usage"),
        (DefinitionError("why"), 3, "definition"),
        (StorageFull("why"), 4, "storage"),
        (CheckpointCorrupt("why"), 4, "storage"),
        (RunBusy("why"), 5, "busy"),
        (TaskFailed("why"), 1, "failed"),
        (TaskFailed("why", outcome="cancelled"), 6, "cancelled"),
        (HeadwayError("why"), 1, "failed"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("why"), 70, "internal"),
    ],
)
def test_every_error_has_its_exit_code_and_its_kind(
    error: BaseException,
    code: int,
    kind: str,
    program: str,
    runtime: Runtime,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(observer: Any) -> RunReport:
        observer.started(RUN)
        raise error

    runtime.answer = fails
    assert main(["run", program, "double", "--n", "1", "--json"]) == code
    out, err = capsys.readouterr()
    found = json.loads(out)["error"]
    assert found["kind"] == kind
    assert found["message"] == (str(error) or "stopped by Ctrl-C")
    assert ("Traceback" in err) == (code == 70)
    assert ("go on with: headway resume" in err) == (code not in {5, 70})
    assert code in codes.MEANING


def test_debug_shows_the_traceback_of_any_error(
    program: str,
    runtime: Runtime,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADWAY_DEBUG", "1")
    assert main(["run", "none.py"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "code"), [("failed", 1), ("cancelled", 6), ("interrupted", 130)]
)
def test_a_run_that_did_not_succeed_says_so_and_how_to_go_on(
    status: str, code: int, program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime.answer = lambda _: report(status)
    assert main(["run", "-q", program, "double", "--n", "1", "--home", "h"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-2:] == [
        f"run {RUN} {status}: 0 of 0 nodes done",
        f"go on with: headway resume {RUN} --home h",
    ]
    assert main(["run", "-q", "--json", program, "double", "--n", "1"]) == code
    assert json.loads(capsys.readouterr().out)["status"] == status


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [
        (signal.SIGINT, 130, "Ctrl-C"),
        (signal.SIGTERM, 143, "SIGTERM"),
        (signal.SIGHUP, 129, "SIGHUP"),
    ],
)
def test_the_exit_code_says_which_signal_stopped_the_run(
    number: signal.Signals,
    code: int,
    name: str,
    program: str,
    runtime: Runtime,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def leaves(_observer: Any) -> RunReport:
        before = signal.signal(number, lambda *_: None)  # as the driver does
        try:
            signal.raise_signal(number)
        finally:
            signal.signal(number, before)
        return report("interrupted", error="its driver was told to leave")

    runtime.answer = leaves
    assert main(["run", program, "double", "--n", "1"]) == code
    assert f"interrupted by {name}: 0 of 0 nodes done" in capsys.readouterr().err


def test_signals_are_looked_for_in_the_main_thread_only(
    program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    import threading

    found: list[int] = []
    words = ["run", program, "double", "--n", "1"]
    thread = threading.Thread(target=lambda: found.append(main(words)))
    thread.start()
    thread.join()
    assert found == [0]


def test_without_an_entity_the_program_is_listed(
    program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", program]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "workflow  both(n: int) -> tuple[int, int]",
        "          Two of them.",
        "task      double(n: int, label: str = 'x') -> int",
        "          Twice as much.",
        "task      takes_home(home: str) -> None",
    ]
    assert "options of one: headway run prog.py both --help" in err
    assert main(["run", program, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["program"] == "prog.py"
    assert found["entities"][1] == {
        "name": "double",
        "kind": "task",
        "inputs": [
            {"name": "n", "type": "int", "required": True, "default": None},
            {"name": "label", "type": "str", "required": False, "default": "x"},
        ],
        "outputs": {"o0": "int"},
        "doc": "Twice as much.",
    }
    assert main(["run", "-q", program]) == 0
    assert "options of one" not in capsys.readouterr().err


def test_help_is_there_on_every_level(
    program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        assert "Commands:\n  run" in capsys.readouterr().out
    for words in (["run", "--help"], ["run", program, "--help"], ["run", program, "--json", "-h"]):
        assert main(words) == 0
        assert "Usage: headway run [OPTIONS] FILE|MODULE|URL" in capsys.readouterr().out
    assert main(["run", program, "double", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: headway run prog.py double [OPTIONS]" in out and "what to double" in out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"headway {headway.__version__}\n"


def test_a_module_is_found_by_its_name(
    program: str, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "prog", "double", "--n", "1"]) == 0
    assert main(["run", "no.such.module"]) == 2
    assert "there is no module 'no.such.module'" in capsys.readouterr().err


def test_what_cannot_be_run_is_told_clearly(
    program: str, runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "porg.py"]) == 2
    assert "there is no file 'porg.py'; did you mean 'prog.py'?" in capsys.readouterr().err
    assert main(["run", "./none/x.py"]) == 2
    assert "there is no file './none/x.py'\n" in capsys.readouterr().err
    assert main(["run", program, "dubble"]) == 2
    assert "has no task or workflow 'dubble'; did you mean double?" in capsys.readouterr().err
    assert main(["run", program, "zzz"]) == 2
    assert "it has: " in capsys.readouterr().err
    assert main(["run", write_program(tmp_path, "empty.py", "x = 1")]) == 3
    assert "defines no task and no workflow" in capsys.readouterr().err
    assert main(["run", write_program(tmp_path, "broken.py", "1 / 0")]) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert main(["run", write_program(tmp_path, "leaves.py", "raise SystemExit(3)")]) == 3
    assert "exit 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["resume"], [("resume", None, None)]),
        (["resume", "last"], [("find", None), ("resume", RUN, None)]),
        (["resume", "ab", "--jobs", "2"], [("find", "ab"), ("resume", "whole-ab", 2)]),
        (["show"], [("find", None), ("show", RUN)]),
        (["show", "ab"], [("find", "ab"), ("show", "whole-ab")]),
        (["logs"], [("find", None), ("logs", RUN, None, None)]),
        (
            ["logs", "last", "train", "--attempt", "2"],
            [("find", None), ("logs", RUN, "train", 2)],
        ),
        (["cancel", "ab"], [("find", "ab"), ("cancel", "whole-ab")]),
        (
            ["delete", "--yes", "ab", "last", "ab"],
            [
                ("find", "ab"),
                ("find", None),
                ("find", "ab"),
                ("delete", "whole-ab"),
                ("delete", RUN),
            ],
        ),
    ],
)
def test_a_run_is_named_by_part_of_its_id_or_last(
    words: list[str],
    asked: list[Any],
    runtime: Runtime,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words, "--home", "h"]) == 0
    assert [entry for entry in runtime.asked if entry != ("home", "h")] == asked


def test_runs_are_listed_newest_first(
    runtime: Runtime, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.cli.views.time.time", lambda: 1000.0)
    runtime.summaries = [
        RunSummary("old", "p:a", "succeeded", 100.0, 160.0, 2, 2, 3),
        RunSummary("new", "p:b", "running", 940.0, None, 12, 1, 1),
        RunSummary("mid", "p:c", "interrupted", 500.0, None, 1, 0, 1),
        RunSummary("bad", "", "damaged", 0.0, None, 0, 0, 0, "its journal is damaged"),
    ]
    assert main(["runs"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "RUN  STATUS       STARTED      TOOK    NODES  ATTEMPTS  ENTITY",
        "new  running      1m 00s ago   1m 00s   1/12         1  p:b",
        "mid  interrupted  8m 20s ago             0/1         1  p:c",
        "old  succeeded    15m 00s ago  1m 00s    2/2         3  p:a",
        "bad  damaged                                            its journal is damaged",
    ]
    assert main(["runs", "--limit", "1", "--json"]) == 0
    assert [entry["run"] for entry in json.loads(capsys.readouterr().out)] == ["new"]
    assert main(["runs", "--color", "always"]) == 0
    assert "\x1b[32msucceeded\x1b[0m    15m" in capsys.readouterr().out
    runtime.summaries = []
    assert main(["runs"]) == 0
    assert main(["runs", "-q"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"no runs in {runtime.directory}\n")


def test_show_tells_all_about_a_run(
    runtime: Runtime,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "1.log").touch()
    monkeypatch.setattr("headway.cli.views.time.time", lambda: 200.0)
    ones = [CheckpointReport(n, 0, 100.0 + n, 2048, "bytes", valid=n != 2) for n in (1, 2, 3)]
    nodes = [
        NodeReport(
            "train",
            "running",
            [
                AttemptReport(0, "killed", 100.0, 110.0, ones, "killed from outside", "/l/0.log"),
                AttemptReport(
                    1,
                    "running",
                    110.0,
                    None,
                    [CheckpointReport(4, 1, 195.0, 10, "bytes")],
                    warnings=["checkpoint 2 was skipped"],
                    log=str(tmp_path / "1.log"),
                ),
            ],
            saved=3.0,
            lost=7.0,
        ),
        NodeReport("eval", "waiting", []),
    ]
    runtime.answer = lambda _: RunReport(
        RUN, "p:w", "running", None, nodes, 100.0, None, notes=["the code has changed"]
    )
    assert main(["show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"run {RUN}  p:w  running"
    assert lines[1].endswith(", so far 1m 40s")
    assert lines[2:] == [
        "note: the code has changed",
        "",
        "train  running, 2 attempts, work saved 3s, lost 7s",
        "  attempt 0  killed after 10s, checkpoints 1–3 (last 2.0 KiB, 7s before the end), damaged: 2",
        "    killed from outside",
        "  attempt 1  running after 1m 30s, checkpoint 4 (last 10 B, 5s before now)",
        "    warning: checkpoint 2 was skipped",
        f"  log: {tmp_path / '1.log'}",
        "",
        "eval  waiting",
    ]
    runtime.answer = lambda _: report("failed", error="train: app error")
    assert main(["show"]) == 0
    out = capsys.readouterr().out
    assert "error: train: app error\n" in out and f"go on with: headway resume {RUN}" in out
    runtime.answer = lambda _: report(result={"a": 1})
    assert main(["show"]) == 0
    out = capsys.readouterr().out
    assert 'result: {"a": 1}' in out and "go on" not in out


def log_file(node: str, attempt: int, path: Path) -> Any:
    return LogFile(node, attempt, path)


def test_logs_are_printed_with_headings(
    runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0.log").write_bytes(b"one\ntwo")
    (tmp_path / "1.log").write_bytes(b"\xffthree")
    runtime.files = [
        log_file("a", 0, tmp_path / "0.log"),
        log_file("a", 1, tmp_path / "1.log"),
        log_file("b", 0, tmp_path / "none.log"),
    ]
    assert main(["logs"]) == 0
    expected = "── a, attempt 0\none\ntwo\n── a, attempt 1\n\ufffdthree\n"
    assert capsys.readouterr().out == expected
    assert main(["logs", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"node": "a", "attempt": 0, "line": "one"},
        {"node": "a", "attempt": 0, "line": "two"},
        {"node": "a", "attempt": 1, "line": "\ufffdthree"},
    ]


def test_a_followed_log_goes_on_until_the_run_is_over(
    runtime: Runtime,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "0.log"
    path.write_text("one\n")
    runtime.files = [log_file("a", 0, path)]
    statuses = iter(["running", "running", "succeeded"])
    runtime.answer = lambda _: report(next(statuses))
    slept = []

    def grows(seconds: float) -> None:
        slept.append(seconds)
        path.write_text("one\n" + "more\n" * len(slept))

    monkeypatch.setattr("headway.cli.views.time.sleep", grows)
    assert main(["logs", "--follow"]) == 0
    assert capsys.readouterr().out == "── a, attempt 0\none\nmore\nmore\n"
    assert len(slept) == 2


def test_a_run_is_taken_over_when_asked_to_and_waiting_is_told_of(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", "--take-over"]) == 0
    assert runtime.asked[-1] == ("resume", None, None, "take over")
    assert capsys.readouterr().err == "watching\n"
    assert main(["resume", "--take-over", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_cancel_and_delete_say_what_they_did(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cancel", "last"]) == 0
    assert capsys.readouterr() == ("", f"run {RUN}: cancel requested\n")
    assert main(["cancel", "last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": RUN, "cancelled": True}
    assert main(["delete", "--yes", "last"]) == 0
    assert capsys.readouterr() == ("", f"deleted {RUN}\n")
    assert main(["delete", "--yes", "last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": [RUN]}
    assert main(["cancel", "-q", "last"]) == 0
    assert main(["delete", "-q", "-y", "last"]) == 0
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "deleted"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_delete_asks_on_a_terminal(
    answer: str,
    deleted: bool,
    runtime: Runtime,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["delete", "ab"]) == (0 if deleted else 2)
    assert (("delete", "whole-ab") in runtime.asked) == deleted
    assert "Delete whole-ab with all checkpoints and logs?" in capsys.readouterr().err


def test_nobody_to_ask_and_an_end_of_input_delete_nothing(
    runtime: Runtime, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["delete", "--home", "h", "ab"]) == 2
    assert "headway delete --yes --home h whole-ab" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert main(["delete", "ab"]) == 130
    assert not [entry for entry in runtime.asked if entry[0] == "delete"]


@pytest.mark.parametrize("words", [["runs"], ["--help"], ["run", "prog.py"]])
def test_a_closed_pipe_is_quiet(
    words: list[str],
    program: str,
    runtime: Runtime,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    runtime.summaries = [RunSummary("old", "p:a", "succeeded", 1.0, 2.0, 2, 2, 3)]
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(words) == codes.BROKEN_PIPE
    # Closing flushed what was left, as the interpreter's end does, and nobody complained.
    assert "Broken" not in capfd.readouterr().err


def test_a_stderr_that_is_closed_does_not_hide_the_exit_code(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["run", "none.py"]) == 2


def test_text_that_stdout_cannot_show_is_replaced(
    program: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    runtime.answer = lambda _: report(result="grün")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["run", "-q", program, "double", "--n", "1"]) == 0
    assert raw.getvalue() == b"gr?n\n"


def test_shell_completion_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_HEADWAY_COMPLETE", "bash_source")
    assert main([]) == 0
    assert "_HEADWAY_COMPLETE=bash_complete" in capsys.readouterr().out


def test_the_arguments_of_the_process_are_the_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["headway", "--version"])
    assert main_module.main() == 0


@pytest.mark.parametrize("command", [["runs"], ["show"], ["logs"], ["resume"], ["cancel", "last"]])
def test_a_command_that_only_looks_does_not_make_a_home(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A home whose disk is not mounted must not turn into an empty one."""
    home = tmp_path / "unmounted"
    assert main(["--home", str(home), *command]) == 4
    assert "there is no home at" in capsys.readouterr().err
    assert not home.exists()


def test_show_says_when_an_early_checkpoint_was_given_up() -> None:
    plain = Paint(Settings(color="never"), sys.stdout)
    saved = CheckpointReport(4, 1, 20.0, 100, "state")
    attempts = [
        AttemptReport(0, "killed", 0.0, 10.0, []),
        AttemptReport(1, "succeeded", 10.0, 21.0, [saved]),
    ]
    shown = "\n".join(_node(NodeReport("train", "succeeded", attempts), 30.0, plain))
    assert "attempt 0  killed after 10s, no checkpoint left" in shown
    attempts[1] = AttemptReport(1, "succeeded", 10.0, 21.0, [])
    shown = "\n".join(_node(NodeReport("train", "succeeded", attempts), 30.0, plain))
    assert "left" not in shown

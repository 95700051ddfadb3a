"""What a body leaves behind: nothing of it reaches the next attempt."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.contract.bench import BODIES, Bench, alive

from headway.model.program import Died, Program, Raised, Returned


@pytest.mark.parametrize("die", [False, True])
def test_no_daemon_of_a_body_outlives_it(bench: Bench, die: bool) -> None:
    file = bench.directory / "daemon.pid"
    message = bench.end("leave_daemon", pid_file=str(file), die=die)
    assert message == (Died(-signal.SIGKILL) if die else Returned({"o0": 1}, clean=False))
    assert not alive(int(file.read_text()))


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 7), ("raise", 1)], ids=str)
def test_a_forked_child_that_runs_on_does_not_answer_for_the_worker(
    bench: Bench, how: str, code: int
) -> None:
    assert bench.value("fork_and_return", how=how) == f"parent of {code}"


def test_a_forked_child_dies_of_sigterm_like_any_process(bench: Bench) -> None:
    assert bench.value("terminate_child") == -signal.SIGTERM


def test_the_program_is_imported_once_for_attempts_that_leave_no_trace(bench: Bench) -> None:
    assert bench.value("identity") == bench.value("identity")


def test_another_version_of_the_program_gets_another_process(bench: Bench) -> None:
    spec = bench.submit("identity")
    first = bench.last(spec)
    changed = Program(BODIES.module, BODIES.path, BODIES.search, "2")
    second = bench.last(bench.submit("identity", program=changed))
    assert isinstance(first, Returned)
    assert isinstance(second, Returned)
    assert first.outputs["o0"][1] != second.outputs["o0"][1]


def test_a_worker_that_failed_is_thrown_away(bench: Bench) -> None:
    before = bench.value("identity")
    assert isinstance(bench.end("fail", how="value"), Raised)
    after = bench.value("identity")
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert not alive(before[1])


@pytest.mark.parametrize(
    "what",
    [
        *("thread", "daemon thread", "child", "directory", "environment"),
        *("handler", "umask", "timer", "limit", "stdout"),
    ],
)
def test_a_worker_that_keeps_traces_of_a_body_is_thrown_away(bench: Bench, what: str) -> None:
    message = bench.end("leave_trace", what=what)
    assert isinstance(message, Returned)
    assert not message.clean
    assert not alive(message.outputs["o0"])
    assert bench.value("leave_trace", what="nothing") != message.outputs["o0"]


def test_traces_are_found_in_a_worker_that_runs_the_same_task_again(bench: Bench) -> None:
    pid = bench.value("leave_trace", what="nothing")
    assert bench.value("leave_trace", what="nothing") == pid
    message = bench.end("leave_trace", what="umask")
    assert isinstance(message, Returned)
    assert (message.outputs["o0"], message.clean) == (pid, False)


def test_exit_handlers_run_when_a_worker_is_thrown_away(bench: Bench) -> None:
    spec = bench.submit("print_at_exit")
    assert isinstance(bench.last(spec), Returned)
    assert Path(spec.log).read_text() == "the end\n"


def test_a_body_that_closes_our_descriptors_fails_alone(bench: Bench) -> None:
    spec = bench.submit("close_descriptors")
    assert bench.last(spec) == Died(1)
    assert bench.value("double", number=1) == 2


def test_a_body_that_writes_into_our_descriptors_fails_alone(bench: Bench) -> None:
    assert bench.end("babble") == Died(-signal.SIGKILL)
    assert bench.value("double", number=1) == 2

"""What every executor promises (`ports.Executor`), with real processes."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.contract.bench import HERE, SOON, Bench, alive, is_last, until

from headway.model.errors import HeadwayError
from headway.model.outcome import Outcome
from headway.model.program import Died, Message, Program, Raised, Returned, Saved, Started, Warned
from headway.ports import AttemptKey


def test_a_body_that_returns_is_reported_with_its_outputs(bench: Bench) -> None:
    started, returned = bench.messages("double", number=21)
    assert isinstance(started, Started)
    assert started.pid != os.getpid()
    assert isinstance(returned, Returned)
    assert (returned.outputs, returned.clean) == ({"o0": 42}, True)


def test_a_body_knows_its_attempt(bench: Bench) -> None:
    home = str(bench.directory / "home")
    assert bench.value("environment") == [
        *("1tq4zk-8f3d", "environment-1", "1", home),
        *("1tq4zk-8f3d", "environment-1", "1", "3"),
    ]


def test_saved_checkpoints_are_told_in_order(bench: Bench) -> None:
    messages = bench.messages("save_twice")
    saved = [m for m in messages if isinstance(m, Saved)]
    assert [m.number for m in saved] == [1, 2]
    assert [m.size for m in saved] == [3, 3]
    assert isinstance(messages[-1], Returned)


def test_copies_of_files_go_with_a_killed_attempt(bench: Bench) -> None:
    note = bench.directory / "where"
    assert bench.end("restore_and_be_killed", note=str(note)) == Died(-signal.SIGKILL)
    copies = Path(note.read_text())
    assert copies.name.startswith("headway-")
    assert not copies.parent.exists()


@pytest.mark.parametrize(
    ("how", "outcome", "kind", "message"),
    [
        ("value", Outcome.APP_ERROR, "ValueError", "seven"),
        ("type", Outcome.APP_ERROR, "TypeError", "not that"),
        ("input", Outcome.APP_ERROR, "InputError", "wrong input"),
        ("memory", Outcome.OOM, "MemoryError", ""),
        ("recoverable", Outcome.RECOVERABLE, "RecoverableError", "once more"),
        ("hopeless", Outcome.NON_RECOVERABLE, "NonRecoverableError", "never"),
        ("fenced", Outcome.NON_RECOVERABLE, "CheckpointFenced", "a newer one"),
        ("storage", Outcome.NODE_LOST, "StorageUnavailable", "the disk is away"),
        ("preempted", Outcome.PREEMPTED, "Preempted", "told"),
        ("interrupt", Outcome.APP_ERROR, "KeyboardInterrupt", ""),
        ("strange", Outcome.APP_ERROR, "bodies.Strange", "(its message could not be made"),
        ("group", Outcome.NON_RECOVERABLE, "ExceptionGroup", "two (2 sub-exceptions)"),
    ],
)
def test_what_a_body_raises_is_reported_by_kind(
    bench: Bench, how: str, outcome: str, kind: str, message: str
) -> None:
    raised = bench.end("fail", how=how)
    assert isinstance(raised, Raised)
    assert (raised.kind, raised.type) == (outcome, kind)
    assert raised.message.startswith(message)
    assert "in fail" in raised.traceback
    assert "headway/" not in raised.traceback.replace(str(HERE), "")


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_is_an_app_error_that_names_the_code(bench: Bench, code: int) -> None:
    raised = bench.end("exit_python", code=code)
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.APP_ERROR
    assert f"sys.exit({code})" in raised.message


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_that_just_ends_is_reported_with_its_exit_code(bench: Bench, code: int) -> None:
    assert bench.end("exit_process", code=code) == Died(code)


def test_a_crash_is_reported_with_its_signal(bench: Bench) -> None:
    assert bench.end("segfault") == Died(-signal.SIGSEGV)


def test_a_kill_from_outside_is_reported_and_the_slot_goes_on(bench: Bench) -> None:
    spec, pid = bench.waiting("wait")
    os.kill(pid, signal.SIGKILL)
    assert bench.last(spec) == Died(-signal.SIGKILL)
    assert bench.value("double", number=1) == 2


def test_sigterm_from_outside_preempts_the_body(bench: Bench) -> None:
    spec, pid = bench.waiting("wait")
    os.kill(pid, signal.SIGTERM)
    raised = bench.last(spec)
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.PREEMPTED
    assert "in wait" in raised.traceback
    assert "notice.py" not in raised.traceback
    assert Path(spec.log).read_text() == "cleaned up\n"


def test_stop_lets_the_body_clean_up(bench: Bench) -> None:
    spec, pid = bench.waiting("wait")
    raised = bench.stop(spec, grace=SOON)
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.PREEMPTED
    assert Path(spec.log).read_text() == "cleaned up\n"
    assert not alive(pid)


def test_stop_while_the_program_is_being_imported_preempts_it(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'importing')!r}).touch()\n"
        "time.sleep(600)\n"
    )
    program = Program("slow", str(tmp_path / "slow.py"), (str(tmp_path),), "1")
    spec = bench.submit("double", program=program, number=1)
    until((tmp_path / "importing").exists)
    raised = bench.stop(spec, grace=SOON)
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.PREEMPTED


def test_stop_right_after_submit_is_not_lost(bench: Bench) -> None:
    for _ in range(5):
        spec = bench.submit("wait", pid_file=str(bench.directory / "unused"))
        raised = bench.stop(spec, grace=SOON)
        assert isinstance(raised, Raised)
        assert raised.kind == Outcome.PREEMPTED


@pytest.mark.parametrize("body", ["wait_stubbornly", "wait_in_c"])
def test_a_body_that_does_not_leave_is_killed_after_its_grace(bench: Bench, body: str) -> None:
    spec, pid = bench.waiting(body)
    began = time.monotonic()
    assert bench.stop(spec, grace=0.1) == Died(-signal.SIGKILL)
    assert time.monotonic() - began >= 0.1
    assert not alive(pid)


def test_a_stop_without_grace_kills_at_once(bench: Bench) -> None:
    spec, pid = bench.waiting("wait")
    assert bench.stop(spec, grace=0) == Died(-signal.SIGKILL)
    assert not alive(pid)
    assert not Path(spec.log).exists()


def test_a_second_stop_may_shorten_the_grace(bench: Bench) -> None:
    spec, _ = bench.waiting("wait_stubbornly")
    bench.executor.stop((spec.node, spec.attempt), 600.0)
    assert bench.stop(spec, grace=0.05) == Died(-signal.SIGKILL)


def test_a_body_that_finishes_when_told_has_succeeded(bench: Bench) -> None:
    spec, pid = bench.waiting("finish_when_told")
    assert bench.stop(spec, grace=SOON) == Returned({"o0": "saved"}, clean=False)
    assert not alive(pid)


@pytest.mark.parametrize("grace", [0.0, SOON])
def test_a_frozen_worker_can_be_stopped(bench: Bench, grace: float) -> None:
    spec, pid = bench.waiting("wait")
    os.kill(pid, signal.SIGSTOP)
    message = bench.stop(spec, grace=grace)
    if grace:
        assert isinstance(message, Raised)
        assert message.kind == Outcome.PREEMPTED
    else:
        assert message == Died(-signal.SIGKILL)
    assert not alive(pid)


def test_a_stop_for_an_attempt_that_is_over_changes_nothing(bench: Bench) -> None:
    first = bench.submit("identity")
    bench.finish(first)
    spec, _ = bench.waiting("wait")
    bench.executor.stop((first.node, first.attempt), 0)
    assert not any(is_last(message) for _, message in bench.executor.poll(0.05))
    bench.stop(spec, 0)


def test_interrupts_are_for_the_driver(bench: Bench) -> None:
    assert bench.value("shrug_off_interrupt") == 1


def test_all_that_a_body_writes_is_in_its_log(bench: Bench) -> None:
    spec = bench.submit("speak")
    assert isinstance(bench.last(spec), Returned)
    text = Path(spec.log).read_text()
    assert text.splitlines()[:6] == [
        "from python",
        "from stderr",
        "from a descriptor",
        "from C",
        "from a program",
        "and its stderr",
    ]
    assert "held back by C\n" in text
    assert "no newline" in text


def test_each_log_holds_the_output_of_its_attempt_alone(bench: Bench) -> None:
    first, second = bench.submit("speak"), bench.submit("speak")
    bench.finish(first, second)
    third = bench.submit("speak")
    bench.finish(third)
    texts = {Path(spec.log).read_text() for spec in (first, second, third)}
    assert len(texts) == 1


def test_a_log_that_exists_is_added_to(bench: Bench) -> None:
    spec = bench.spec("speak")
    Path(spec.log).parent.mkdir(parents=True)
    Path(spec.log).write_text("before\n")
    bench.start(spec)
    bench.finish(spec)
    assert Path(spec.log).read_text().startswith("before\nfrom python\n")


def test_an_empty_log_is_removed(bench: Bench) -> None:
    spec = bench.submit("double", number=1)
    bench.finish(spec)
    until(lambda: not Path(spec.log).parent.exists())


def test_empty_logs_of_attempts_in_a_row_are_removed(bench: Bench) -> None:
    specs = [bench.submit("double", number=number) for number in (1, 2)]
    bench.finish(*specs)
    for _ in range(5):
        specs.append(bench.submit("double", number=3))
        bench.finish(specs[-1])
    until(lambda: not any(Path(spec.log).parent.exists() for spec in specs))


def test_what_an_attempt_prints_after_silent_ones_is_in_its_own_log(bench: Bench) -> None:
    bench.value("double", number=1)
    bench.value("double", number=2)
    speaking = bench.submit("speak")
    bench.finish(speaking)
    silent = bench.submit("double", number=3)
    bench.finish(silent)
    assert Path(speaking.log).read_text().startswith("from python\n")
    until(lambda: not Path(silent.log).parent.exists())


def test_an_empty_log_that_somebody_removed_is_made_anew(bench: Bench) -> None:
    silent = bench.submit("double", number=1)
    bench.finish(silent)
    Path(silent.log).unlink(missing_ok=True)  # its directory stays
    speaking = bench.submit("speak")
    bench.finish(speaking)
    assert Path(speaking.log).read_text().startswith("from python\n")


@pytest.mark.parametrize("what", ["blocking", "file"])
def test_what_a_silent_body_does_to_its_output_is_not_handed_on(bench: Bench, what: str) -> None:
    assert bench.value("change_its_output", what=what) == "blocking"
    assert bench.value("change_its_output", what="nothing") == "blocking"
    speaking = bench.submit("speak")
    bench.finish(speaking)
    assert Path(speaking.log).read_text().startswith("from python\n")


def test_a_log_that_cannot_be_written_is_an_error_that_names_it(bench: Bench) -> None:
    spec = bench.spec("double", number=1)
    Path(spec.log).mkdir(parents=True)
    bench.start(spec)
    raised = bench.last(spec)
    assert isinstance(raised, Raised)
    assert spec.log in raised.message


def test_an_import_error_of_the_program_is_an_app_error_with_its_traceback(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere\n")
    program = Program("broken", str(tmp_path / "broken.py"), (str(tmp_path),), "1")
    spec = bench.submit("double", program=program, number=1)
    raised = bench.last(spec)
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.APP_ERROR
    assert "no_such_module_anywhere" in raised.message
    assert "broken.py" in raised.traceback
    assert "importlib" not in raised.traceback


def test_twenty_quick_attempts_in_a_row(bench: Bench) -> None:
    assert [bench.value("double", number=n) for n in range(20)] == [2 * n for n in range(20)]


def test_attempts_run_side_by_side_up_to_the_number_of_slots(bench: Bench) -> None:
    assert bench.executor.slots == 2
    (first, one), (second, two) = bench.waiting("wait"), bench.waiting("wait_stubbornly")
    assert one != two
    with pytest.raises(HeadwayError, match="all 2 slots are busy"):
        bench.submit("double", number=1)
    bench.executor.stop((first.node, first.attempt), 0)
    bench.executor.stop((second.node, second.attempt), 0)
    heard = bench.finish(first, second)
    assert all(messages[-1] == Died(-signal.SIGKILL) for messages in heard.values())


def test_an_attempt_cannot_run_twice_at_once(bench: Bench) -> None:
    spec, _ = bench.waiting("wait")
    with pytest.raises(HeadwayError, match="running already"):
        bench.executor.submit(spec)


def test_large_inputs_arrive_whole(bench: Bench) -> None:
    data = bytes(range(256)) * 200_000
    assert bench.value("digest_of", data=data) == hashlib.sha256(data).hexdigest()


def test_many_large_results_arrive_whole(bench: Bench) -> None:
    message = bench.end("many_texts")
    assert isinstance(message, Returned)
    assert [len(text) for text in message.outputs.values()] == [30_000] * 9


def test_many_messages_arrive_in_order(bench: Bench) -> None:
    messages = bench.messages("chatter", pid_file=str(bench.directory / "pid"), count=2000)
    numbers = [int(m.message.split()[0]) for m in messages if isinstance(m, Warned)]
    assert numbers == list(range(2000))
    last = messages[-1]
    assert isinstance(last, Returned)
    assert (last.outputs, last.clean) == ({"o0": 2000}, True)


def test_an_attempt_can_be_stopped_while_nobody_listens(bench: Bench) -> None:
    file = bench.directory / "pid"
    spec = bench.submit("chatter", pid_file=str(file), count=1_000_000)
    until(file.exists)
    pid = int(file.read_text())
    bench.executor.stop((spec.node, spec.attempt), 0)
    until(lambda: not alive(pid))
    assert bench.last(spec) == Died(-signal.SIGKILL)


def test_poll_returns_after_its_timeout(bench: Bench) -> None:
    began = time.monotonic()
    assert bench.executor.poll(0.05) == []
    assert time.monotonic() - began >= 0.05


def test_wake_ends_a_poll_in_progress(bench: Bench) -> None:
    heard: list[Sequence[tuple[AttemptKey, Message]]] = []
    thread = threading.Thread(target=lambda: heard.append(bench.executor.poll(None)))
    thread.start()
    bench.executor.wake()
    thread.join(SOON)
    assert heard == [[]]


def test_an_attempt_can_be_submitted_while_another_thread_polls(bench: Bench) -> None:
    heard: list[Sequence[tuple[AttemptKey, Message]]] = []
    thread = threading.Thread(target=lambda: heard.append(bench.executor.poll(None)))
    thread.start()
    spec = bench.submit("wait", pid_file=str(bench.directory / "pid"))
    thread.join(SOON)
    assert [key for key, _ in heard[0]] == [(spec.node, spec.attempt)]
    assert isinstance(heard[0][0][1], Started)


def test_close_kills_what_runs_and_can_be_repeated(fresh: Bench) -> None:
    pids = [fresh.waiting(body)[1] for body in ("wait", "wait_stubbornly")]
    fresh.executor.close()
    assert not any(map(alive, pids))
    fresh.executor.close()
    fresh.executor.wake()
    assert fresh.executor.poll(0) == []
    with pytest.raises(HeadwayError, match="closed"):
        fresh.submit("double", number=1)

"""`headway exec`: a command is a run, ends like one, and goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from headway.checkpoint.handle import Checkpoint, history_of
from headway.checkpoint.lineage import read_lineage
from headway.checkpoint.several import Directories
from headway.checkpoint.source import Item
from headway.cli import codes
from headway.commands import kept as kept_module
from headway.commands.desk import Desk, Seat, Ticket
from headway.commands.kept import Kept
from headway.commands.process import Process
from headway.commands.task import command
from headway.engine.outcome import classify
from headway.engine.report import EXEC
from headway.executors import family
from headway.model.errors import (
    CheckpointFenced,
    HeadwayError,
    InputError,
    NonRecoverableError,
)
from headway.model.outcome import Outcome
from headway.model.program import CommandEnded, Saved, Warned
from headway.model.settings import TaskOptions
from headway.testing.memory import MemoryStorage

Result = subprocess.CompletedProcess[str]


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HEADWAY")}
    return {**kept, "HEADWAY_HOME": str(folder / "home"), "COLUMNS": "120"}


def headway(folder: Path, *words: str, timeout: float = 60) -> Result:
    return subprocess.run(
        [sys.executable, "-m", "headway", *words],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def shell(folder: Path, script: str, *options: str) -> Result:
    return headway(folder, "exec", *options, "--", "sh", "-c", script)


def python(folder: Path, script: str, *options: str) -> Result:
    (folder / "script.py").write_text(textwrap.dedent(script))
    return headway(folder, "exec", *options, "--", sys.executable, "script.py")


@contextlib.contextmanager
def driven(folder: Path, *words: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """`headway exec`, once the command has printed a line."""
    child = subprocess.Popen(
        [sys.executable, "-m", "headway", "exec", *words],
        cwd=folder,
        env=environment(folder),
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert child.stderr is not None
        assert any(until in line for line in child.stderr)
        yield child
    finally:
        child.kill()
        child.communicate()


def attempts(folder: Path) -> list[dict[str, Any]]:
    (node,) = json.loads(headway(folder, "show", "--json").stdout)["nodes"]
    found: list[dict[str, Any]] = node["attempts"]
    return found


def outcomes(folder: Path) -> list[str]:
    return [attempt["outcome"] for attempt in attempts(folder)]


def gone(*pids: int) -> bool:
    """Whether processes end within a few seconds."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if not any(family.is_running(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def until(there: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if there():
            return True
        time.sleep(0.02)
    return False


# Exit codes and signals


def test_a_command_that_succeeds(tmp_path: Path) -> None:
    found = shell(tmp_path, "echo out; echo err >&2")
    assert (found.returncode, found.stdout) == (0, "")
    assert {"out", "err"} <= set(found.stderr.splitlines())
    assert outcomes(tmp_path) == ["succeeded"]
    assert headway(tmp_path, "logs").stdout.splitlines()[-2:] == ["out", "err"]


def test_a_failure_has_the_commands_own_exit_code_and_is_retried(tmp_path: Path) -> None:
    found = shell(tmp_path, "exit $((40 + HEADWAY_ATTEMPT))", "--retries", "2")
    assert found.returncode == 42
    assert "the command ended with exit code 42" in found.stderr
    assert outcomes(tmp_path) == ["app error"] * 3
    assert [attempt["code"] for attempt in attempts(tmp_path)] == [40, 41, 42]


def test_the_options_of_a_run_are_those_of_its_command_line_when_it_is_resumed(
    tmp_path: Path,
) -> None:
    assert shell(tmp_path, "exit 9", "--retries", "1").returncode == 9
    again = headway(tmp_path, "resume")
    assert again.returncode == 9
    assert outcomes(tmp_path) == ["app error"] * 4
    assert "retries=1" in again.stderr


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("KILL", "killed"), ("TERM", "preempted"), ("SEGV", "app error"), ("ABRT", "app error")],
)
def test_a_signal_is_what_it_is_for_a_worker(tmp_path: Path, name: str, outcome: str) -> None:
    found = shell(tmp_path, f"ulimit -c 0; kill -{name} $$", "--max-interruptions", "0")
    assert found.returncode == 128 + signal.Signals[f"SIG{name}"]
    assert outcomes(tmp_path) == [outcome]


def test_it_is_listed_by_its_command_line(tmp_path: Path) -> None:
    shell(tmp_path, "true " + "x" * 100)
    assert "sh -c 'true xxx" in headway(tmp_path, "runs").stdout
    assert "…" in headway(tmp_path, "show").stdout.splitlines()[0]
    assert command.name == EXEC


def test_json_has_the_report(tmp_path: Path) -> None:
    report = json.loads(shell(tmp_path, "exit 3", "--json").stdout)
    assert report["status"] == "failed"
    assert report["nodes"][0]["attempts"][0]["code"] == 3


def test_where_and_with_what_it_runs(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    script = 'echo "$WORD $PWD"; exit 1'
    found = subprocess.run(
        [sys.executable, "-m", "headway", "exec", "--env", "WORD=a=b", "sh", "-c", script],
        cwd=tmp_path / "there",
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    line = f"a=b {(tmp_path / 'there').resolve()}"
    assert line in found.stderr.splitlines()
    assert line in headway(tmp_path, "resume").stderr.splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a command"),
        (["no-such-command"], "is not there"),
        (["./plain.txt"], "chmod"),
        (["--env", "WORD", "true"], "NAME=VALUE"),
        (["--env", "HEADWAY_KEY=x", "true"], "would be written into the home"),
        (["--keep", "plain.txt", "true"], "takes a directory"),
        (["--keep", ".", "true"], "holds the working directory"),
        (["--keep", "a", "--keep", "a/b", "true"], "hold one another"),
        (["--keep", "home/x", "true"], "the home"),
        (["--every", "often", "true"], "a duration looks like"),
        (["--every", "0s", "true"], "more than 0"),
        (["\udcff"], "UTF-8"),
    ],
)
def test_what_cannot_be_run_is_refused_before_there_is_a_run(
    tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "plain.txt").write_text("")
    found = headway(tmp_path, "exec", *words)
    assert found.returncode == codes.USAGE
    assert message in " ".join(found.stderr.split())
    assert not (tmp_path / "home" / "runs").exists() or not list((tmp_path / "home/runs").iterdir())


def test_how_a_command_ended_is_classified() -> None:
    assert classify(CommandEnded(5)) == (
        Outcome.APP_ERROR, "the command ended with exit code 5", "",
    )  # fmt: skip
    assert classify(CommandEnded(-9))[:2] == (
        Outcome.KILLED, "the command was killed from outside (SIGKILL)",
    )  # fmt: skip
    assert classify(CommandEnded(-40))[:2] == (Outcome.APP_ERROR, "the command died of signal 40")
    assert classify(CommandEnded(1), "leaving")[0] is Outcome.PREEMPTED


def test_exit_codes_of_commands() -> None:
    assert codes.of_status("failed", None, 7) == 7
    assert codes.of_status("failed", None, -11) == 139
    assert codes.of_status("interrupted", signal.SIGINT, 7) == 130
    assert codes.of_status("succeeded", None, None) == 0


# Being killed


def test_the_worker_is_killed(tmp_path: Path) -> None:
    script = """
        if [ $HEADWAY_ATTEMPT = 0 ]; then
            sleep 100 & echo $$ $! > pids
            kill -KILL $PPID
            sleep 100
        fi
        echo done
    """
    found = shell(tmp_path, textwrap.dedent(script))
    assert found.returncode == 0 and "done" in found.stderr.splitlines()
    assert outcomes(tmp_path) == ["killed", "succeeded"]
    assert gone(*map(int, (tmp_path / "pids").read_text().split()))


def test_the_driver_is_killed_and_the_run_resumed(tmp_path: Path) -> None:
    script = "echo $$ > pid; [ -e gate ] || { echo waiting; sleep 100; }; echo finished"
    with driven(tmp_path, "sh", "-c", script, until="waiting") as driver:
        driver.kill()
        driver.wait()
        assert gone(int((tmp_path / "pid").read_text()))
    (tmp_path / "gate").touch()
    found = headway(tmp_path, "resume")
    assert found.returncode == 0 and "finished" in found.stderr
    assert outcomes(tmp_path) == ["killed", "succeeded"]


def test_nothing_is_left_of_a_command_that_ended(tmp_path: Path) -> None:
    script = "sleep 100 & echo $! > pids; setsid sleep 100 & echo $! >> pids"
    assert shell(tmp_path, script).returncode == 0
    assert gone(*map(int, (tmp_path / "pids").read_text().split()))


def test_sigterm_is_passed_on_and_waited_for(tmp_path: Path) -> None:
    script = "trap 'sleep 0.5; echo saved > state; exit 0' TERM; echo waiting; while :; do sleep 0.1; done"
    with driven(tmp_path, "sh", "-c", script, until="waiting") as driver:
        driver.terminate()
        assert driver.wait(20) == 143
    assert (tmp_path / "state").read_text() == "saved\n"
    assert outcomes(tmp_path) == ["preempted"]


def test_what_a_shell_started_is_waited_for_too(tmp_path: Path) -> None:
    """The shell dies of the signal at once, and the program that it waits for still has to save."""
    (tmp_path / "slow.py").write_text(
        textwrap.dedent("""
            import signal, sys, time
            from pathlib import Path

            def leave(*_):
                time.sleep(0.6)
                Path("state").write_text("saved")
                sys.exit(0)

            signal.signal(signal.SIGTERM, leave)
            print("waiting", flush=True)
            while True:
                time.sleep(0.05)
        """)
    )
    script = f"{sys.executable} slow.py; echo after"
    with driven(tmp_path, "sh", "-c", script, until="waiting") as driver:
        driver.terminate()
        assert driver.wait(20) == 143
    assert (tmp_path / "state").read_text() == "saved"


def test_a_command_that_ends_with_0_when_told_to_go_was_interrupted(tmp_path: Path) -> None:
    """Its worker is told by somebody else than its driver."""
    script = """
        [ $HEADWAY_ATTEMPT = 0 ] || exit 0
        trap 'exit 0' TERM
        kill -TERM $PPID
        while :; do sleep 0.1; done
    """
    assert shell(tmp_path, textwrap.dedent(script)).returncode == 0
    assert outcomes(tmp_path) == ["preempted", "succeeded"]


def test_a_command_that_does_not_go_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; echo $$ > pid; echo waiting; while :; do sleep 0.1; done"
    with driven(tmp_path, "sh", "-c", script, until="waiting") as driver:
        driver.terminate()
        assert driver.wait(20) == 143
    assert gone(int((tmp_path / "pid").read_text()))


# `track` in the command

SUMS = """
    import os, signal, sys, time
    from headway import track

    state = track(total=0, every=0.05)
    print("begins with", state.total)
    for i in state.range(30):
        state.total += i * i
        time.sleep(0.02)
        if os.environ["HEADWAY_ATTEMPT"] == "0" and i == 20:
            time.sleep(0.1)
            os.kill(os.getpid(), signal.{signal})
    print("result", state.total)
"""
RESULT = f"result {sum(i * i for i in range(30))}"


def begins(found: Result) -> list[int]:
    return [
        int(number) for number in re.findall(r"^begins with (\d+)$", found.stderr, re.MULTILINE)
    ]


def test_a_script_that_tracks_goes_on_after_a_kill(tmp_path: Path) -> None:
    found = python(tmp_path, SUMS.format(signal="SIGKILL"))
    assert found.returncode == 0 and RESULT in found.stderr.splitlines()
    first, second = begins(found)
    assert first == 0 and 0 < second < sum(i * i for i in range(21))
    assert outcomes(tmp_path) == ["killed", "succeeded"]
    assert attempts(tmp_path)[0]["checkpoints"]
    assert "checkpoint 1 saved" in found.stderr  # the driver hears of what another process saves


def test_at_sigterm_a_script_that_tracks_saves_at_the_boundary_and_leaves(tmp_path: Path) -> None:
    script = SUMS.replace("every=0.05", "every=1000").format(signal="SIGTERM")
    found = python(tmp_path, script)
    assert found.returncode == 0 and RESULT in found.stderr.splitlines()
    assert begins(found) == [0, sum(i * i for i in range(21))]  # nothing was lost
    assert outcomes(tmp_path) == ["preempted", "succeeded"]


def test_a_save_in_flight_at_the_end_of_a_script_becomes_durable(tmp_path: Path) -> None:
    script = """
        import os
        from headway import track
        state = track(field=os.urandom(60_000_000), every=1000)
        for i in state.range(1):
            pass
    """
    assert python(tmp_path, script).returncode == 0
    (checkpoint,) = attempts(tmp_path)[0]["checkpoints"]
    assert checkpoint["size"] >= 60_000_000


def test_outside_of_a_loop_sigterm_ends_a_script_that_tracks(tmp_path: Path) -> None:
    script = """
        import os, signal, time
        from headway import track
        state = track(total=0)
        for i in state.range(3):
            state.total += i
        print("before", flush=False)
        if os.environ["HEADWAY_ATTEMPT"] == "0":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(100)
        print("after", state.total)
    """
    found = python(tmp_path, script, "--env", "PYTHONUNBUFFERED=")
    assert found.returncode == 0
    assert found.stderr.splitlines().count("before") == 2  # what it printed is not lost
    assert outcomes(tmp_path) == ["preempted", "succeeded"]


def test_the_children_of_a_script_that_tracks_live_until_it_has_saved(tmp_path: Path) -> None:
    """As the workers of a data loader: without them the item would never be finished."""
    script = """
        import multiprocessing, os, time
        from headway import track

        def echo(pipe):
            while True:
                pipe.send(pipe.recv() + 1)

        if __name__ == "__main__":
            state = track(total=0, every=1000)
            ours, theirs = multiprocessing.Pipe()
            child = multiprocessing.get_context("fork").Process(target=echo, args=(theirs,), daemon=True)
            child.start()
            for i in state.range(8):
                print("waiting", flush=True)
                time.sleep(0.2)
                ours.send(i)
                assert ours.poll(2), "the child is gone"
                state.total += ours.recv()
            print("result", state.total)
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    with driven(tmp_path, sys.executable, "script.py", until="waiting") as driver:
        driver.terminate()
        assert driver.wait(20) == 143
    (attempt,) = attempts(tmp_path)
    assert attempt["outcome"] == "preempted" and len(attempt["checkpoints"]) == 1
    found = headway(tmp_path, "resume")
    assert "result 36" in found.stderr.splitlines()


def test_what_a_script_that_tracks_forks_can_be_terminated(tmp_path: Path) -> None:
    script = """
        import multiprocessing, time
        from headway import track

        for i in track().range(1):
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,))
            child.start()
            child.terminate()
            child.join(10)
            print("ended with", child.exitcode)
            child.kill()
    """
    assert "ended with -15" in python(tmp_path, script).stderr.splitlines()


def test_a_program_with_its_own_handler_for_sigterm_keeps_it(tmp_path: Path) -> None:
    script = """
        import os, signal
        from headway import track
        signal.signal(signal.SIGTERM, lambda *_: print("own handler"))
        for i in track().range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        print("end")
    """
    found = python(tmp_path, script)
    assert found.returncode == 0
    assert found.stderr.splitlines().count("own handler") == 2
    assert outcomes(tmp_path) == ["succeeded"]


def test_one_process_of_a_command_tracks(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from headway import track\nfor i in track().range(2): pass\nprint('tracked')"
    )
    line = f"{sys.executable} script.py"
    found = shell(tmp_path, f"{line} && {line}")
    assert found.returncode == 1
    assert found.stderr.splitlines().count("tracked") == 1
    assert "another process of this command called it first" in found.stderr


def test_the_tasks_of_a_command_have_checkpoints_of_their_own(tmp_path: Path) -> None:
    """What marks the command is not seen by the processes of a run that it starts."""
    (tmp_path / "inner.py").write_text(
        textwrap.dedent("""
            import os, subprocess, sys
            from headway import task

            @task
            def look() -> str:
                script = "from headway import track\\nfor i in track().range(1): pass\\nprint('plain')"
                done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
                return str(os.environ.get("HEADWAY_EXEC")) + done.stdout + done.stderr
        """)
    )
    found = shell(tmp_path, f"{sys.executable} -m headway run inner.py look")
    assert found.returncode == 0, found.stderr
    assert "Noneplain" in found.stderr and "track() saves nothing here" in found.stderr


TICKET = Ticket("home", "run", "node", 2, "digest", 1)


def test_a_ticket_is_taken_once_and_notes_arrive_whole(tmp_path: Path) -> None:
    heard: list[Saved | Warned] = []
    desk = Desk(tmp_path, TICKET, heard.append)
    assert desk.owner is None
    desk.forward()
    seat = Seat(tmp_path)
    assert seat.ticket == TICKET and desk.owner == os.getpid()
    with pytest.raises(HeadwayError, match="first in this attempt"):
        Seat(tmp_path)
    seat.note(Saved(1, 10, 5.0))
    with open(tmp_path / "notes", "ab") as file:
        file.write(b'{"message_kind"')  # killed in the middle
    desk.forward()
    desk.forward()
    assert heard == [Saved(1, 10, 5.0)]
    assert not desk.left
    seat.leave()
    assert desk.left


def test_notes_to_a_worker_that_is_gone_hurt_nobody(tmp_path: Path) -> None:
    place = tmp_path / "desk"
    place.mkdir()
    Desk(place, TICKET, lambda _: None)
    seat = Seat(place)
    for name in os.listdir(place):
        (place / name).unlink()
    place.rmdir()
    seat.note(Saved(1, 10, 5.0))
    seat.leave()


def test_a_command_dies_with_the_process_that_runs_it(tmp_path: Path) -> None:
    """Also where no keeper is there to kill what is left."""
    program = (
        "from headway.commands.process import Process\n"
        "Process(['sh', '-c', 'echo $$; exec sleep 100'], '.', {'PATH': '/bin:/usr/bin'})\n"
        "import time; time.sleep(100)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    assert family.is_running(pid)
    worker.kill()
    worker.wait()  # its output is not ended by that: the command has it
    assert gone(pid)
    worker.stdout.close()


def test_what_a_command_left_in_its_group_is_gone_when_it_has_ended(tmp_path: Path) -> None:
    """Before its directories are saved for the last time, and not only when the worker is."""
    script = "sleep 100 & echo $! > pid; exit 4"
    process = Process(["sh", "-c", script], str(tmp_path), dict(os.environ))
    assert process.wait(None, lambda: None, lambda: None) == 4
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_cannot_be_started_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(NonRecoverableError, match="no-such-command"):
        Process(["no-such-command"], str(tmp_path), {})


def test_options_are_kept_over_a_resume() -> None:
    options = TaskOptions(retries=4)
    assert command.with_options(options).options == options
    assert command.again([]).options == command.options


# Kept directories


def test_a_kept_directory_is_put_back_as_it_was_when_it_was_saved(tmp_path: Path) -> None:
    script = """
        mkdir -p out/inner
        cat out/inner/count 2>/dev/null
        if [ $HEADWAY_ATTEMPT = 0 ]; then
            echo one > out/inner/count
            sleep 2.5
            echo torn > out/inner/count; echo more > out/leftover
            kill -KILL $$
        fi
        echo two >> out/inner/count
    """
    found = shell(tmp_path, textwrap.dedent(script), "--keep", "out", "--every", "100ms")
    assert found.returncode == 0, found.stderr
    assert outcomes(tmp_path) == ["killed", "succeeded"]
    files = {
        p.relative_to(tmp_path): p.read_text() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert files == {Path("out/inner/count"): "one\ntwo\n"}
    verified = headway(tmp_path, "checkpoints", "verify")
    assert verified.returncode == 0 and "command.kept" in verified.stdout


def test_a_kept_directory_is_saved_at_the_end_of_an_attempt_and_put_back_elsewhere(
    tmp_path: Path,
) -> None:
    script = "mkdir -p out; echo $HEADWAY_ATTEMPT >> out/n; exit $((1 - HEADWAY_ATTEMPT))"
    assert shell(tmp_path, script, "--keep", "out").returncode == 1
    os.rename(tmp_path / "out", tmp_path / "moved")  # as on another machine
    found = headway(tmp_path, "resume")
    assert found.returncode == 0
    assert (tmp_path / "out" / "n").read_text() == "0\n1\n"


def test_a_kept_directory_is_saved_when_the_command_was_told_to_go(tmp_path: Path) -> None:
    script = "trap 'echo saved > out/state; exit 1' TERM; mkdir out; echo waiting; "
    script += "while :; do sleep 0.1; done"
    with driven(tmp_path, "--keep", "out", "sh", "-c", script, until="waiting") as driver:
        driver.terminate()
        assert driver.wait(20) == 143
    (attempt,) = attempts(tmp_path)
    assert [checkpoint["kind"] for checkpoint in attempt["checkpoints"]] == ["directory"]
    copied = headway(tmp_path, "copy", "last", str(tmp_path / "elsewhere"))
    assert copied.returncode == 0, copied.stderr


def test_what_a_script_that_tracks_wrote_before_it_left_is_kept(tmp_path: Path) -> None:
    """It died of SIGTERM, but where its state was saved, and not in the middle of a file."""
    script = """
        import os, signal
        from pathlib import Path
        from headway import track
        state = track(total=0, every=1000)
        Path("out").mkdir(exist_ok=True)
        print("found", sorted(os.listdir("out")))
        for i in state.range(4):
            Path(f"out/{i}").write_text("")
            if i == 2 and os.environ["HEADWAY_ATTEMPT"] == "0":
                os.kill(os.getppid(), signal.SIGTERM)
                while not state._tracker._leave.told:
                    pass
    """
    found = python(tmp_path, script, "--keep", "out")
    assert found.returncode == 0, found.stderr
    assert "found ['0', '1', '2']" in found.stderr.splitlines()
    assert outcomes(tmp_path) == ["preempted", "succeeded"]
    assert {c["kind"] for c in attempts(tmp_path)[0]["checkpoints"]} == {"state", "directory"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "QUIET", 0.1)


NODE = "runs/r/nodes/n.kept"


class Bench:
    """Kept directories on a storage in memory."""

    def __init__(self, folder: Path) -> None:
        self.storage = MemoryStorage()
        self.folder = folder
        self.warnings: list[str] = []
        self.attempt = 0

    @contextlib.contextmanager
    def kept(self, *names: str, every: float = 0.02) -> Iterator[Kept]:
        checkpoint = Checkpoint(self.storage, NODE, attempt=self.attempt)
        self.attempt += 1
        kept = Kept(
            checkpoint,
            [self.folder / name for name in names],
            every=every,
            aside=f"r-{self.attempt}",
            warn=lambda warned: self.warnings.append(warned.message),
        )
        try:
            yield kept
        finally:
            kept.stop()
            checkpoint.close()

    def count(self) -> int:
        return len(history_of(self.storage, NODE))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_without_a_checkpoint_directories_stay_as_they_are(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "users").write_text("own")
    with bench.kept("a", "b") as kept:
        kept.put_back()
    assert (tmp_path / "a" / "users").read_text() == "own"
    assert not (tmp_path / "b").exists()


def test_several_directories_are_one_checkpoint(bench: Bench, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "empty").mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    with bench.kept("a", "b", "missing") as kept:
        kept.last(by_itself=True)
        kept.last(by_itself=True)  # nothing changed: nothing to save
    assert bench.count() == 1
    for path in ("a/file", "b/file"):
        (tmp_path / path).write_text("changed")
    (tmp_path / "a" / "new").write_text("")
    with bench.kept("a", "b", "missing") as kept:
        kept.put_back()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "a", "a/empty", "a/file", "b", "b/empty", "b/file",
    ]  # fmt: skip
    assert [(tmp_path / name / "file").read_text() for name in ("a", "b")] == ["a", "b"]
    assert bench.warnings == []


def test_what_this_run_did_not_save_is_set_aside(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("saved")
    with bench.kept("a") as kept:
        kept.last(by_itself=True)
    (tmp_path / "a").rename(tmp_path / "old")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("somebody's")
    with bench.kept("a") as kept:
        kept.put_back()
    assert (tmp_path / "a" / "file").read_text() == "saved"
    assert (tmp_path / "a.before-r-2" / "file").read_text() == "somebody's"
    assert len(bench.warnings) == 1 and "a.before-r-2" in bench.warnings[0]


@pytest.mark.parametrize("same", [True, False])
def test_on_a_shared_disk_another_machine_knows_the_directory_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """By its inode, if something of what was saved is in it; an inode alone may be chance."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("saved")
    with bench.kept("a") as kept:
        kept.last(by_itself=True)
    (tmp_path / "a" / "file").write_text("later")
    if not same:
        (tmp_path / "a" / "file").rename(tmp_path / "a" / "foreign")
    monkeypatch.setattr(kept_module, "_machine", lambda: "another")
    with bench.kept("a") as kept:
        kept.put_back()
    assert (tmp_path / "a" / "file").read_text() == "saved"
    assert (tmp_path / "a.before-r-2").exists() is not same
    assert bool(bench.warnings) is not same


def test_putting_back_may_be_killed_anywhere(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("file", "other"):
        (tmp_path / "a" / name).mkdir(parents=True)
        (tmp_path / "a" / name / "x").write_text(name)
    with bench.kept("a") as kept:
        kept.last(by_itself=True)
    rename, calls = os.rename, 0
    for fatal in range(1, 10):
        (tmp_path / "a" / "later").write_text("to be removed")
        calls = 0

        def dying(*args: Any, fatal: int = fatal, **more: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise KeyboardInterrupt
            rename(*args, **more)

        monkeypatch.setattr(os, "rename", dying)
        with bench.kept("a") as kept, contextlib.suppress(KeyboardInterrupt):
            kept.put_back()
        monkeypatch.setattr(os, "rename", rename)
        assert calls == min(fatal, 8), "two staged, three moved out, one and two moved in"
        with bench.kept("a") as kept:
            kept.put_back()
        found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*"))
        assert found == ["a", "a/file", "a/file/x", "a/other", "a/other/x"]
    assert bench.warnings == []


def test_putting_back_into_a_new_directory_may_be_killed_anywhere(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / "a" / name).mkdir(parents=True)
    with bench.kept("a") as kept:
        kept.last(by_itself=True)
    move, calls = kept_module._move, 0
    for fatal in (1, 2, 3, 4):
        (tmp_path / "a").rename(tmp_path / f"moved-{fatal}")
        calls = 0

        def dying(source: Path, names: Sequence[str], target: Path, fatal: int = fatal) -> None:
            nonlocal calls
            for name in names:
                calls += 1
                if calls == fatal:
                    raise KeyboardInterrupt
                move(source, [name], target)

        monkeypatch.setattr(kept_module, "_move", dying)
        with bench.kept("a") as kept, contextlib.suppress(KeyboardInterrupt):
            kept.put_back()
        monkeypatch.setattr(kept_module, "_move", move)
        assert calls == min(fatal, 3)
        with bench.kept("a") as kept:
            kept.put_back()
        assert sorted(os.listdir(tmp_path / "a")) == ["one", "three", "two"]
    assert bench.warnings == []  # of what was half put back nothing is set aside


def test_read_only_directories_are_put_back(bench: Bench, tmp_path: Path) -> None:
    inner = tmp_path / "a" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("1")
    inner.chmod(0o500)
    with bench.kept("a") as kept:
        kept.last(by_itself=True)
    with bench.kept("a") as kept:
        kept.put_back()
    assert (inner / "file").read_text() == "1" and inner.stat().st_mode & 0o777 == 0o500
    inner.chmod(0o700)


@pytest.mark.usefixtures("quick")
def test_a_directory_that_is_being_written_is_never_torn(bench: Bench, tmp_path: Path) -> None:
    """A writer of two files that must agree, with pauses in between; every checkpoint has them so."""
    (tmp_path / "a").mkdir()
    stop = threading.Event()
    rounds = 0

    def write() -> None:
        nonlocal rounds
        while not stop.is_set():
            rounds += 1
            for name in ("one", "two"):
                (tmp_path / "a" / name).write_text(str(rounds))
                time.sleep(0.02)
            time.sleep(0.3 if rounds % 4 == 0 else 0)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with bench.kept("a") as kept:
            kept.start()
            assert until(lambda: bench.count() >= 5)
    finally:
        stop.set()
        writer.join()
    assert rounds > 8
    for report in history_of(bench.storage, NODE):
        assert agree(bench, report.number)


def agree(bench: Bench, number: int) -> bool:
    """Whether the two files of a checkpoint say the same."""
    (manifest,) = (
        each for each in read_lineage(bench.storage, NODE).manifests if each.number == number
    )
    one, two = (entry.data for entry in manifest.entries if entry.kind == "file")
    return one == two


def test_what_changes_while_it_is_saved_is_saved_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    for name in ("one", "two"):
        (tmp_path / "a" / name).write_text("1")
    reads = 0

    class Changing(Directories):
        def items(self) -> Iterator[Item]:
            nonlocal reads
            reads += 1
            for item in super().items():
                yield item
                if reads == 1 and item.name.endswith("/one"):
                    for name in ("one", "two"):
                        (tmp_path / "a" / name).write_text("2")

    monkeypatch.setattr(kept_module, "Directories", Changing)
    with bench.kept("a") as kept:
        kept.last(by_itself=True)
    assert (reads, bench.count()) == (2, 1)
    assert agree(bench, 1) and bench.warnings == []


@pytest.mark.usefixtures("quick")
def test_a_directory_that_is_never_quiet_is_told_of_once(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.01):
            (tmp_path / "a" / "file").write_text(str(time.monotonic()))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with bench.kept("a") as kept:
            kept.start()
            assert until(lambda: bool(bench.warnings))
            time.sleep(1.5)
    finally:
        stop.set()
        writer.join()
    assert len(bench.warnings) == 1 and "changed all the time" in bench.warnings[0]
    assert bench.count() == 0


def test_what_a_killed_command_wrote_last_is_not_trusted(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("half")
    with bench.kept("a") as kept:
        kept.last(by_itself=False)
        assert bench.count() == 0
    past = time.time() - 60
    with bench.kept("a") as kept:
        assert kept_module._newest(kept._look()) > past
        time.sleep(kept_module.QUIET + 0.1)
        kept.last(by_itself=False)  # old enough
    assert bench.count() == 1


def test_a_change_while_it_is_read_is_no_checkpoint(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    with contextlib.closing(Checkpoint(bench.storage, NODE)) as checkpoint:
        with pytest.raises(InputError, match="changed while"):
            checkpoint.save(Directories({"0": tmp_path / "a"}, lambda: False))
        assert checkpoint.history() == []
        checkpoint.save(Directories({"0": tmp_path / "a"}, lambda: True))
        assert [report.kind for report in checkpoint.history()] == ["directory"]


def test_what_cannot_be_saved_is_told_of_and_stops_nothing(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("elsewhere")
    with bench.kept("a") as kept:
        kept.last(by_itself=True)
        kept.last(by_itself=True)
    assert len(bench.warnings) == 1 and "symbolic link" in bench.warnings[0]


def test_an_attempt_that_was_given_up_hears_of_it(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with bench.kept("a") as old:
        old.put_back()
        with bench.kept("a") as new:
            new.last(by_itself=True)
        (tmp_path / "a" / "file").write_text("")
        with pytest.raises(CheckpointFenced):
            old.last(by_itself=True)
        with pytest.raises(CheckpointFenced):
            old.check()

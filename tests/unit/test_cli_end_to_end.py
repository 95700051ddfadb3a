"""The command as its users have it: a process of its own, the real runtime, real signals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.loopback import Site

PROGRAM = '''
    import sys, time
    from pathlib import Path
    from headway import RecoverableError, current_context, task, workflow

    @task(retries=3)
    def count(n: int, gate: Path | None = None) -> int:
        """Count to n, saving each step; waits at 2 until the gate is there."""
        cp = current_context().checkpoint
        at = int(cp.read() or b"0")
        print(f"starting at {at}", flush=True)
        while at < n:
            if at == 1 and current_context().attempt == 0:
                raise RecoverableError("as planned")
            while at == 2 and gate is not None and not gate.exists():
                print("waiting", flush=True)
                time.sleep(0.02)
            at += 1
            cp.write(str(at).encode())
        return at

    @task
    def fails(n: int) -> int:
        print(n, "is coming")
        raise ValueError(f"no {n}")

    @workflow
    def chain(n: int, gate: Path | None = None) -> int:
        print("tracing")
        return count(n=n, gate=gate)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prog.py").write_text(textwrap.dedent(PROGRAM))
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HEADWAY")}
    return {**kept, "HEADWAY_HOME": str(folder / "home"), "TERM": "xterm", "COLUMNS": "120"}


def headway(folder: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headway", *words],
        cwd=folder,
        env={**environment(folder), **extra},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command, once a task in it says that it waits."""
    child = subprocess.Popen(
        [sys.executable, "-m", "headway", *words],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if "waiting" in line:
                break
        yield child
    finally:
        child.kill()
        child.communicate()


@contextmanager
def followed(folder: Path) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "headway", "logs", "--follow"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def test_a_run_prints_its_result_and_tells_of_its_attempts(folder: Path) -> None:
    found = headway(folder, "run", "prog.py", "chain", "--n", "3")
    assert (found.returncode, found.stdout) == (0, "3\n")
    lines = found.stderr.splitlines()
    assert lines[0] == "tracing"
    assert "count  attempt 0 started" in lines
    assert "count  attempt 1 started (checkpoint 1)" in lines
    assert [line for line in lines if line.startswith("starting at")] == [
        "starting at 0",
        "starting at 1",
    ]
    shown = json.loads(headway(folder, "show", "--json").stdout)
    assert [a["outcome"] for a in shown["nodes"][0]["attempts"]] == ["recoverable", "succeeded"]
    assert headway(folder, "logs", "last", "count", "--attempt", "1").stdout.endswith(
        "starting at 1\n"
    )


def test_a_failure_names_outcome_log_and_the_command_that_resumes(folder: Path) -> None:
    found = headway(folder, "run", "prog.py", "fails", "--n", "7", "-q")
    assert (found.returncode, found.stdout) == (1, "")
    assert "fails failed: app error in attempt 0 (1 of 1, retries=0)" in found.stderr
    assert "ValueError: no 7" in found.stderr and "Traceback" in found.stderr
    log = re.search(r"log: (.*)", found.stderr)
    assert log is not None and Path(log[1]).read_text() == "7 is coming\n"
    command = re.search(r"go on with: headway (.*)", found.stderr)
    assert command is not None
    again = headway(folder, *command[1].split(), "--json")
    assert again.returncode == 1
    assert len(json.loads(again.stdout)["nodes"][0]["attempts"]) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_cleanly_and_resume_goes_on(
    number: signal.Signals, code: int, folder: Path
) -> None:
    gate = folder / "gate"
    with started(folder, "run", "prog.py", "chain", "--n", "4", "--gate", str(gate)) as child:
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (code, "")
    assert "interrupted by" in err and "count: checkpoint 2" in err
    assert "go on with: headway resume" in err
    gate.touch()
    found = headway(folder, "resume")
    assert (found.returncode, found.stdout) == (0, "4\n")
    assert "count  attempt 2 started (checkpoint 2)" in found.stderr


def test_a_driver_that_is_killed_is_resumed_from_the_checkpoint(folder: Path) -> None:
    gate = folder / "gate"
    with started(folder, "run", "prog.py", "chain", "--n", "4", "--gate", str(gate)) as child:
        child.kill()
    listed = json.loads(headway(folder, "runs", "--json").stdout)
    assert [entry["status"] for entry in listed] == ["interrupted"]
    gate.touch()
    found = headway(folder, "resume", listed[0]["run"][-4:])
    assert (found.returncode, found.stdout) == (0, "4\n")


def test_a_run_is_cancelled_and_followed_from_outside(folder: Path) -> None:
    words = ["run", "prog.py", "chain", "--n", "4", "--gate", str(folder / "never")]
    with started(folder, *words) as child, followed(folder) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "── count, attempt 0\n"
        busy = headway(folder, "resume", "last")
        assert busy.returncode == 5
        assert headway(folder, "cancel", "last").returncode == 0
        _, err = child.communicate(timeout=30)
        assert child.returncode == 6
        assert "cancelled" in err
        follower.communicate(timeout=30)
        assert follower.returncode == 0
    assert headway(folder, "delete", "last", "--yes").returncode == 0
    assert headway(folder, "runs").stdout == ""


def test_a_program_from_a_url_is_resumed_without_the_url(folder: Path) -> None:
    source = (folder / "prog.py").read_bytes()
    (folder / "prog.py").write_text("the user's own")
    site, gate = Site(), folder / "gate"
    try:
        url = site.file("/prog.py", source)
        words = ["run", "--yes", url, "chain", "--n", "3", "--gate", str(gate)]
        with started(folder, *words) as child:
            child.kill()
    finally:
        site.close()
    gate.touch()
    found = headway(folder, "resume")
    assert (found.returncode, found.stdout) == (0, "3\n")
    assert (folder / "prog.py").read_text() == "the user's own"


def test_on_a_terminal_the_picture_is_drawn_and_taken_away(folder: Path) -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "headway", "run", "prog.py", "chain", "--n", "3"],
        cwd=folder,
        env=environment(folder),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux tells the end of a terminal so
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert child.wait(timeout=30) == 0
    text = seen.decode()
    assert "Ctrl-C stops; it can be resumed" in text
    assert "\x1b[?25l" in text and "\x1b[?25h" in text  # the cursor is hidden, and shown again
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "starting at 1" in plain
    assert plain.rstrip().endswith("3")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, headway.cli.main\n"
        "heavy = {'rich', 'httpx', 'yaml', 'msgspec', 'numpy', 'headway.runtime', 'headway.engine'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"

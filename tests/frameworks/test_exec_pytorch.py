"""A plain PyTorch script with `track` in it under `headway exec`: killed again and again, it ends with the
weights of the script that has never heard of headway."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.counting import count
from tests.crash.nursery import MARK, descendants, survivors
from tests.docs.markdown import ROOT

pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")

pytestmark = [pytest.mark.frameworks, pytest.mark.reliability("R2", "R9")]

KILLS = 4


def script(place: Path, folder: str) -> Path:
    """An example as a user would have it, which trains for some seconds."""
    text = (ROOT / folder / "torch_digits.py").read_text()
    assert "print(train())" in text
    made = place / folder.replace("/", "_") / "plain.py"
    made.parent.mkdir()
    made.write_text(text.replace("print(train())", "print(train(epochs=300))"))
    return made


def runs(mark: str, program: Path) -> int | None:
    """The process of the script."""
    for pid in descendants(mark):
        with suppress(OSError):
            words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
            if words[1:2] == [str(program).encode()]:
                return pid
    return None


@pytest.mark.timeout(300)
def test_a_script_under_exec_ends_with_the_same_weights(tmp_path: Path) -> None:
    plain, tracked = script(tmp_path, "examples/plain"), script(tmp_path, "examples")
    alone = subprocess.run(
        [sys.executable, plain], capture_output=True, text=True, check=True, timeout=100
    )
    expected = alone.stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", expected)

    mark, log, source = str(tmp_path), tmp_path / "said", random.Random(4)

    def begin(*words: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "headway", *words],
                env={**os.environ, "HEADWAY_HOME": str(tmp_path / "home"), MARK: mark},
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def saved() -> int:
        """Number of the newest checkpoint; what is printed of them comes seconds apart."""
        done = subprocess.run(
            [sys.executable, "-m", "headway", "checkpoints", "--json"],
            env={**os.environ, "HEADWAY_HOME": str(tmp_path / "home")},
            capture_output=True,
            check=False,
        )
        rows = json.loads(done.stdout) if done.returncode == 0 else []
        return max((row["number"] for row in rows), default=0)

    def strike(run: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Kill the script some time after it has saved again."""
        before = saved()
        while saved() == before:
            assert run.poll() is None, log.read_text()
        time.sleep(source.uniform(0, 0.3))
        pid = runs(mark, tracked)
        assert pid is not None, log.read_text()
        os.kill(pid, number)

    run = begin("exec", "--retries", "5", "--", sys.executable, str(tracked))
    for turn in range(KILLS):
        strike(run, signal.SIGTERM if turn == 1 else signal.SIGKILL)
    run.kill()  # the driver too
    run.wait()
    run = begin("resume")
    assert run.wait(200) == 0, log.read_text()
    assert expected in log.read_text()
    assert log.read_text().count("checkpoint") > KILLS
    assert survivors(mark) == []
    count("R2", "SIGKILLs of frameworks", KILLS)
    count("R9", "interrupted attempts of frameworks", KILLS + 1)

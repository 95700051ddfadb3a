"""A Trainer script that nobody touched, under `headway exec --keep out`: killed, it goes on from the
directory that was put back, and ends with the weights of a training that was left alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.counting import count
from tests.crash.nursery import MARK, descendants, survivors

pytestmark = [pytest.mark.frameworks, pytest.mark.reliability("R2", "R9")]
pytest.importorskip("transformers")

SCRIPT = Path(__file__).with_name("programs") / "hf_trainer.py"


def weights(said: str) -> list[str]:
    return re.findall(r"weights (\d+ \w{64})", said)


def script_of(mark: str) -> int | None:
    """The process that runs the script."""
    for pid in descendants(mark):
        with suppress(OSError):
            words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
            if words[1:2] == [str(SCRIPT).encode()]:
                return pid
    return None


@pytest.mark.timeout(400)
def test_an_untouched_script_goes_on(tmp_path: Path) -> None:
    alone, place = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    place.mkdir()
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    undisturbed = subprocess.run(
        [sys.executable, SCRIPT], cwd=alone, env=quiet, capture_output=True, text=True, check=True
    )
    expected = weights(undisturbed.stdout)
    assert len(expected) == 1

    mark = f"{place}"
    log = tmp_path / "said"
    headway = [sys.executable, "-m", "headway"]
    command = ["exec", "--keep", "out", "--every", "0.1s", "--", sys.executable, str(SCRIPT)]

    def begin(*words: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as said:
            return subprocess.Popen(
                [*headway, *words],
                cwd=place,
                env={**quiet, "HEADWAY_HOME": str(tmp_path / "home"), MARK: mark},
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def saved() -> int:
        """How often a snapshot was made."""
        return len(re.findall(r"checkpoint \d+ saved", log.read_text()))

    def until_saved(run: subprocess.Popen[bytes]) -> None:
        before = saved()
        while saved() == before:
            assert run.poll() is None, log.read_text()
            time.sleep(0.02)

    run = begin(*command)
    until_saved(run)
    script = script_of(mark)
    assert script is not None, log.read_text()
    os.kill(script, signal.SIGKILL)
    until_saved(run)
    run.kill()
    run.wait()
    assert survivors(mark) == []
    shutil.rmtree(place / "out")  # gone on with on another machine
    run = begin("resume")
    assert run.wait(300) == 0, log.read_text()
    text = log.read_text()
    assert weights(text) == expected
    found = re.findall(r"going on from (\S+)", text)
    assert len(found) == 3, text
    assert found[0] == "None"
    assert found[2].startswith("out/checkpoint-"), text
    assert survivors(mark) == []
    count("R2", "SIGKILLs of frameworks", 2)
    count("R9", "interrupted attempts of frameworks", 2)

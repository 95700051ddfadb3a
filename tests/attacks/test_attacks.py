"""An attacker's home: whatever is in it, nothing runs, nothing is written outside, memory is bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.counting import count

pytestmark = [pytest.mark.reliability("R11"), pytest.mark.frameworks]

pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")

ROOT = Path(__file__).parents[2]
MOST_MEMORY = 1200  # MiB that a process may have grown by: its limit is 1 GiB of address space more
LEAST = {
    "state": 4000,
    "skeleton": 3500,
    "files": 1500,
    "directories": 1500,
    "bombs": 120,
    "values": 3000,
    "journal": 2000,
}
SAMPLE = {
    "state": 13,
    "skeleton": 7,
    "files": 7,
    "directories": 7,
    "bombs": 1,
    "values": 7,
    "journal": 7,
}  # primes: each question


def attacked(what: str, place: Path, share: int, shares: int) -> dict[str, object]:
    program = [sys.executable, "-m", "tests.attacks.victim", what, str(place)]
    done = subprocess.run(
        [*program, str(share), str(shares)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(("COV", "HEADWAY"))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, object] = json.loads(done.stdout)
    return report


def judge(report: dict[str, object]) -> int:
    ends = report["ends"]
    assert isinstance(ends, dict)
    assert not report["wrong"], (report["wrongs"], report["wrong"])
    assert report["canaries"] == []
    assert report["changed"] == []
    grew = report["grew"]
    assert isinstance(grew, int)
    assert grew < MOST_MEMORY
    count("R11", "attacks", sum(ends.values()))
    return sum(ends.values())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("what", LEAST)
def test_a_sample_of_hostile_records_does_nothing_but_fail(what: str, tmp_path: Path) -> None:
    shares = SAMPLE[what]
    done = judge(attacked(what, tmp_path, 0, shares))
    assert done >= LEAST[what] // shares, "fewer attacks than there were"


def test_the_guard_sees_what_must_not_be_done(tmp_path: Path) -> None:
    report = attacked("careless", tmp_path, 0, 1)
    wrong = report["wrong"]
    assert isinstance(wrong, list)
    said = "\n".join(wrong)
    for what in ("loads a pickle", "evaluates", "imports", "writes beside", "makes a directory"):
        assert what in said
    for event in ("socket.__new__", "os.system", "pickle.find_class", "ValueError"):
        assert event in said
    assert report["canaries"]
    changed = report["changed"]
    assert isinstance(changed, list)
    assert {"beside", "made"} <= set(changed)
    assert isinstance(report["grew"], int)
    assert report["grew"] >= 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", LEAST)
def test_hostile_records_do_nothing_but_fail(what: str, tmp_path: Path) -> None:
    assert judge(attacked(what, tmp_path, 0, 1)) >= LEAST[what]

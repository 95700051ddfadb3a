"""`open_checkpoint`: what a run promises, between processes that know nothing of each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headway import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointFenced,
    InputError,
    open_checkpoint,
)

JOB = """
import os, signal, sys
from headway import open_checkpoint
with open_checkpoint(sys.argv[1]) as cp:
    state = cp.load() or {"n": 0}
    for n in range(state["n"], 30):
        cp.save({"n": n + 1})
        if n == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    print(cp.load()["n"])
"""


def test_a_job_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    url = f"{tmp_path}/home/crawl"
    for dies_at in ("7", "19"):
        killed = subprocess.run([sys.executable, "-c", JOB, url, dies_at], check=False)
        assert killed.returncode == -signal.SIGKILL
    done = subprocess.run(
        [sys.executable, "-c", JOB, url, "99"], check=True, capture_output=True, text=True
    )
    assert done.stdout == "30\n"
    with open_checkpoint(url) as cp:
        assert [row.number for row in cp.history()] == list(range(1, 31))


def test_opening_takes_over(tmp_path: Path) -> None:
    url = str(tmp_path / "job")
    with open_checkpoint(url) as old:
        old.write(b"old")
        with open_checkpoint(f"file://{url}/") as new:
            with pytest.raises(CheckpointFenced):
                old.write(b"stale")
            assert new.read() == b"old"
            new.write(b"new")
    with open_checkpoint(url) as cp:
        assert cp.read() == b"new"
    with pytest.raises(CheckpointError, match="has ended"):
        cp.read()


def test_lineages_are_kept_apart(tmp_path: Path) -> None:
    with open_checkpoint(f"{tmp_path}/a") as a, open_checkpoint(f"{tmp_path}/b") as b:
        a.write(b"a")
        assert b.read() is None


def test_damage_is_warned_of_and_loss_is_an_error(tmp_path: Path) -> None:
    url = f"{tmp_path}/job"
    with open_checkpoint(url) as cp:
        cp.write(b"1" * 100_000)
        cp.write(b"2" * 100_000)
    older, newer = sorted((tmp_path / "lineages" / "job" / "packs").iterdir())
    newer.write_bytes(b"x" + newer.read_bytes()[1:])
    with open_checkpoint(url) as cp, pytest.warns(RuntimeWarning, match="checkpoint 2"):
        assert cp.read() == b"1" * 100_000
    older.unlink()
    with open_checkpoint(url) as cp, pytest.warns(RuntimeWarning), pytest.raises(CheckpointCorrupt):
        cp.read()


@pytest.mark.parametrize(
    "url", ["", "job", "/", "home/", "/h/../x y", "/h/.hidden", "/h/a b", "s3://b"]
)
def test_a_place_without_a_good_name_is_refused(url: str, tmp_path: Path) -> None:
    os.chdir(tmp_path)
    with pytest.raises(InputError, match="place of a checkpoint"), open_checkpoint(url):
        pass
    assert list(tmp_path.iterdir()) == []

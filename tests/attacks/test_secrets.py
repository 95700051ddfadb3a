"""Secrets of the environment stay there: not in the home, nor in what headway says or keeps."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.reliability("R11")

PROGRAM = """
import os
from headway import current_context, task, workflow

@task(retries=1)
def train(n: int) -> int:
    print("training")
    cp = current_context().checkpoint
    if not cp.prev_exists():
        cp.save({"n": n, "big": b"x" * 100_000})
        raise ValueError("the first attempt fails")
    return cp.load()["n"] + 1

@task
def bad(n: int) -> int:
    raise RuntimeError("this one fails")

@workflow
def whole(n: int = 1) -> int:
    return bad(n=train(n=n))
"""

SECRET = bytes(range(60, 100))
AWS = {
    "AWS_ACCESS_KEY_ID": "AKIACANARYCANARY7",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-Q7x9",
    "AWS_SESSION_TOKEN": "canary-token-Z3k1",
}


def forms() -> list[bytes]:
    """The ways in which a secret could be spelt."""
    encoded = base64.b64encode(SECRET)
    keys = [SECRET, SECRET.hex().encode(), SECRET.hex().upper().encode(), encoded.rstrip(b"=")]
    keys += [base64.urlsafe_b64encode(SECRET).rstrip(b"="), repr(SECRET).encode()]
    return [*keys, *(value.encode() for value in AWS.values())]


def test_secrets_are_in_no_file_and_no_output(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    (here / "prog.py").write_text(PROGRAM)
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "HEADWAY", "AWS"))}
    env = {
        **bare,
        **AWS,
        "HEADWAY_KEY": SECRET.hex(),
        "HEADWAY_HOME": str(home),
        "HEADWAY_DEBUG": "1",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "HOME": str(tmp_path / "user"),
    }
    said = b""

    def headway(*words: str, code: int, **more: str) -> None:
        nonlocal said
        done = subprocess.run(
            [sys.executable, "-m", "headway", *words],
            capture_output=True,
            check=False,
            cwd=here,
            env={**env, **more},
        )
        said += done.stdout + done.stderr
        assert done.returncode == code, (words, done.stdout, done.stderr)

    headway("run", "prog.py", "whole", "--n", "4", code=1)
    for words in (["runs"], ["show"], ["logs"]):
        headway(*words, code=0)
        if words != ["logs"]:
            headway(*words, "--json", code=0)
    # With wrong keys, with half of one, and with one that is no key.
    headway("resume", code=4, HEADWAY_KEY=SECRET.hex()[:70])
    headway("resume", code=2, HEADWAY_KEY=SECRET.hex()[:40])
    headway("show", code=2, HEADWAY_KEY=SECRET.hex() + "!")
    headway("resume", code=1)

    assert b"is not signed with this key" in said, "the wrong key was noticed"
    places = [home, here, tmp_path / "state", tmp_path / "user"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any("ledger" in path.parts for path in files)
    assert any(path.suffix == ".log" for path in files)
    content = {str(path): path.read_bytes() for path in files}
    content["what was said"] = said
    for where, data in content.items():
        for form in forms():
            assert form not in data, where
        assert SECRET.hex()[:40].encode() not in data, where


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_no_process_has_a_secret_among_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(
        "import glob\n"
        "from headway import task\n"
        "@task\n"
        "def look() -> list[str]:\n"
        "    found = []\n"
        "    for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "        try:\n"
        "            found.append(open(path, 'rb').read().decode('latin-1'))\n"
        "        except OSError:\n"
        "            pass\n"
        "    return [line for line in found if 'headway' in line]\n"
    )
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "HEADWAY"))}
    done = subprocess.run(
        [sys.executable, "-m", "headway", "run", "prog.py", "look", "--json"],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={**bare, "HEADWAY_KEY": SECRET.hex(), "HEADWAY_HOME": str(tmp_path / "home")},
    )
    assert b"headway" in done.stdout
    assert SECRET.hex().encode() not in done.stdout

"""The public API under two type checkers: what is right passes, what is wrong is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
API = HERE / "api.py"


def checked(*command: str) -> tuple[int, str]:
    """Exit code and output of a checker."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def mypy(file: Path, cache: Path) -> tuple[int, str]:
    """mypy as a strict user runs it."""
    return checked("mypy", "--strict", "--config-file=", "--cache-dir", str(cache), str(file))


def pyright(file: Path, scratch: Path) -> tuple[int, str]:
    """basedpyright with pyright's own strict rules."""
    config = scratch / "pyrightconfig.json"
    settings = {
        "typeCheckingMode": "strict",
        "include": [str(file)],
        "extraPaths": [str(ROOT / "src")],
        "pythonVersion": "3.11",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "reportUnusedFunction": "none",  # they are there to be read
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    return checked("basedpyright", "--project", str(config), "--pythonpath", sys.executable)


CHECKERS = [pytest.param(mypy, id="mypy"), pytest.param(pyright, id="pyright")]


@pytest.mark.parametrize("checker", CHECKERS)
def test_right_uses_pass_and_wrong_ones_are_found(checker: object, tmp_path: Path) -> None:
    assert callable(checker)
    code, output = checker(API, tmp_path)
    assert code == 0, output


MISTAKES = {
    "assert_type(bare(1), float)": "assert_type(bare(1), int)",
    'cp.write("text")': 'cp.write(b"text")',  # the ignore on that line is now without a reason
    'bare(a="1")': "bare(a=1)",
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_wrong_signature_would_be_seen(checker: object, tmp_path: Path) -> None:
    """The file is wrong in some places: a checker that lets them pass checks nothing."""
    assert callable(checker)
    text = changed = API.read_text(encoding="utf-8")
    for before, after in MISTAKES.items():
        assert text.count(before) == 1
        changed = changed.replace(before, after)
    file = tmp_path / "api.py"
    file.write_text(changed, encoding="utf-8")
    code, output = checker(file, tmp_path)
    assert code != 0, output
    for before in MISTAKES:
        line = text.count("\n", 0, text.index(before)) + 1
        assert f"api.py:{line}:" in output, before

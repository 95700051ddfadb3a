"""headway after a death: the worker's, and the driver's. Driven through its command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contestants.protocol import Measured, Round, serve

PROGRAM = str(Path(__file__).parents[1] / "programs" / "mortal.py")
PATIENCE = 60.0
SETTLE = 0.1  # seconds in which what surrounds the body comes to rest before the kill


@contextlib.contextmanager
def worker(place: Path, _: dict[str, Any]) -> Iterator[Round]:
    """Seconds from `kill -9` of a worker to the first line of the next attempt's body."""
    places = _places(place)

    def round_() -> Measured:
        here = next(places)
        with _headway(here, "run", PROGRAM, "relay", "--marks", str(here)) as driver:
            pid = _mark(here, 0, driver)["pid"]
            time.sleep(SETTLE)
            died = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            began = _mark(here, 1, driver)["began"]
            _end(driver)
        return [began - died]

    yield round_


@contextlib.contextmanager
def driver(place: Path, _: dict[str, Any]) -> Iterator[Round]:
    """Seconds from `kill -9` of a driver to the body of the node that `headway resume` goes on with;
    `resume` is typed at once, and its own start counts."""
    places = _places(place)

    def round_() -> Measured:
        here = next(places)
        with _headway(here, "run", PROGRAM, "relay", "--marks", str(here)) as first:
            _mark(here, 0, first)
            time.sleep(SETTLE)
            died = time.monotonic()
            first.kill()
            first.wait()
            with _headway(here, "resume") as second:
                began = _mark(here, 1, second)["began"]
                _end(second)
        return [began - died]

    yield round_


def _places(place: Path) -> Iterator[Path]:
    """A fresh directory for each round."""
    number = 0
    while True:
        number += 1
        here = place / f"round-{number}"
        here.mkdir()
        yield here


@contextlib.contextmanager
def _headway(here: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that is still running; it is gone when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headway", *arguments],
        env={**os.environ, "HEADWAY_HOME": str(here / "home")},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _mark(here: Path, attempt: int, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What attempt number `attempt` left, as soon as it is there."""
    path = here / f"attempt-{attempt}"
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if process.poll() is not None or time.monotonic() > until:
            raise AssertionError(f"attempt {attempt} never began ({process.returncode})")
        time.sleep(0.002)
    found: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.wait(PATIENCE) != 0:
        raise AssertionError(f"the run ended with {process.returncode}")


if __name__ == "__main__":
    serve({"worker": worker, "driver": driver})

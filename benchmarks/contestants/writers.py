"""Several processes that save a kilobyte again and again, each in a place of its own on one disk."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.contestants.files import log
from benchmarks.contestants.protocol import Measured, Round, serve

SIZE = 1024


@contextlib.contextmanager
def writers(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """`writers` processes of `tool` that make `count` saves each; seconds by the number of all saves."""
    count = options["count"]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(_writer(options["tool"], place / "home" / f"w{number}", count))
            for number in range(options["writers"])
        ]
        for process in processes:
            _hear(process)

        def round_() -> Measured:
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"\n")
                process.stdin.flush()
            spans = [_hear(process) for process in processes]
            began, ended = min(span[0] for span in spans), max(span[1] for span in spans)
            return [(ended - began) / (len(processes) * count)]

        yield round_


@contextlib.contextmanager
def _writer(tool: str, place: Path, count: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.contestants.writers", "write", tool]
    with subprocess.Popen(
        [*command, str(place), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def _hear(process: subprocess.Popen[bytes]) -> list[float]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError("a writer died")
    span: list[float] = json.loads(line)
    return span


def _write(tool: str, place: Path, count: int) -> None:
    """Be one of the writers: a line of answer for every line that is read."""
    with TOOLS[tool](place) as write:
        write(os.urandom(SIZE))
        print("[]", flush=True)
        for _ in sys.stdin:
            payloads = [os.urandom(SIZE) for _ in range(count)]
            began = time.monotonic()  # the same clock in all processes
            for payload in payloads:
                write(payload)
            print(json.dumps([began, time.monotonic()]), flush=True)


@contextlib.contextmanager
def _headway(place: Path) -> Iterator[Callable[[bytes], object]]:
    from headway import open_checkpoint

    with open_checkpoint(str(place)) as cp:
        yield cp.write


@contextlib.contextmanager
def _log(place: Path) -> Iterator[Callable[[bytes], object]]:
    place.mkdir(parents=True)
    with log(place) as write:
        yield write


TOOLS = {"headway": _headway, "log": _log}

if __name__ == "__main__":
    if sys.argv[1] == "write":
        _write(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        serve({"writers": writers})

"""Ray: tasks in sequence whose results the driver makes durable, and a task whose worker is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from benchmarks.contestants.protocol import Measured, Round, serve

ROOM = 1 << 20
PATIENCE = 60.0


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    """A cluster of this machine, on loopback, that ends with this process.

    Its sockets lie in /tmp, because a socket's path may have 107 characters and Ray needs 70.
    """
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as place:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 << 20,
            _node_ip_address="127.0.0.1",
            _temp_dir=place,
        )
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def chain(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """`tasks` tasks in sequence; seconds per task.

    Ray keeps results in memory. So that a finished task would not run again after a crash, the
    driver appends each result to a zero-filled log and calls fdatasync: the cheapest record there is.
    """
    tasks = options["tasks"]

    def _increment(x: int) -> int:
        return x + 1

    with _cluster():
        increment = ray.remote(_increment)
        fd = os.open(place / "record", os.O_CREAT | os.O_RDWR)
        os.write(fd, bytes(ROOM))
        os.fsync(fd)

        def round_() -> Measured:
            x = end = 0
            began = time.perf_counter()
            for _ in range(tasks):
                x = ray.get(increment.remote(x))
                end += os.pwrite(fd, b"%d\n" % x, end)
                os.fdatasync(fd)
            seconds = time.perf_counter() - began
            if x != tasks:
                raise AssertionError(f"the chain's result is {x}")
            return [seconds / tasks]

        yield round_
        os.close(fd)


@contextlib.contextmanager
def killed(place: Path, _: dict[str, Any]) -> Iterator[Round]:
    """A task whose worker is killed once; seconds from the kill to the next attempt's body."""

    def _body(marks: str) -> float:
        now = time.monotonic()
        first = os.path.join(marks, "pid")
        if os.path.exists(first):
            return now
        with open(first + ".new", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        os.rename(first + ".new", first)
        time.sleep(PATIENCE)
        return 0.0

    with _cluster():
        body = ray.remote(max_retries=5)(_body)
        number = 0

        def round_() -> Measured:
            nonlocal number
            number += 1
            marks = place / f"marks-{number}"
            marks.mkdir()
            future = body.remote(str(marks))
            until = time.monotonic() + PATIENCE
            while not (marks / "pid").exists():
                if time.monotonic() > until:
                    raise AssertionError("the first attempt never began")
                time.sleep(0.002)
            pid = int((marks / "pid").read_text(encoding="ascii"))
            time.sleep(0.1)
            died = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            return [ray.get(future) - died]

        yield round_


if __name__ == "__main__":
    serve({"chain": chain, "killed": killed})

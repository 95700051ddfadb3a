"""headway's runs of many trivial tasks, driven by this process and executed by its workers."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contestants.protocol import Measured, Round, serve
from headway import runtime
from headway.model.events import Event, RunEnded


class _Watcher:
    """Watches as the command line does, and notes the memory at the end of the run."""

    resident = 0

    def started(self, run_id: str) -> None:
        """Nothing to say."""

    def event(self, event: Event, state: object) -> None:  # noqa: ARG002  # the protocol
        """Look at the memory while all of the run is still in it."""
        if isinstance(event, RunEnded):
            pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
            self.resident = int(pages) * resource.getpagesize()

    def output(self, node: str, attempt: int, data: bytes) -> None:
        """Nobody listens."""


@contextlib.contextmanager
def chain(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """A run of `tasks` tasks in sequence, its workers' start included; seconds per task."""
    tasks = options["tasks"]
    os.environ["BENCH_NODES"] = str(tasks)
    from benchmarks.programs import chain as program

    home = runtime.open_home(str(place / "home"))

    def round_() -> Measured:
        return [_timed(home, program.chain, tasks, _Watcher()) / tasks]

    yield round_


@contextlib.contextmanager
def nodes(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """A run of `nodes` nodes of the given `shape`; seconds for each beyond what a run of one takes,
    and bytes of memory that the driver has at the end, and had at most."""
    count, shape = options["nodes"], options["shape"]
    os.environ["BENCH_NODES"] = str(count)
    from benchmarks.programs import chain as program

    home = runtime.open_home(str(place / "home"))
    entity = getattr(program, shape)
    _timed(home, program.single, 1, _Watcher())  # imports what a first run imports

    def round_() -> Measured:
        alone = _timed(home, program.single, 1, _Watcher())
        watcher = _Watcher()
        seconds = _timed(home, entity, count, watcher)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return [(seconds - alone) / (count - 1), watcher.resident, most]

    yield round_


def _timed(home: runtime.Home, entity: Any, nodes: int, watcher: _Watcher) -> float:
    """Seconds that a run took. Raises if it did not do what it had to."""
    began = time.perf_counter()
    report = runtime.run(home, entity, {}, observer=watcher)
    seconds = time.perf_counter() - began
    if report.status != "succeeded" or len(report.nodes) != nodes:
        raise AssertionError(f"{len(report.nodes)} nodes, {report.status}: {report.error}")
    return seconds


if __name__ == "__main__":
    serve({"chain": chain, "nodes": nodes})

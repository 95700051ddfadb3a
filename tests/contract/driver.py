"""A driver to be killed: two attempts with families of processes, in two keepers, for ever."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.contract.bench import Bench

from headway.executors.local import LocalExecutor


def main() -> None:
    directory, forked = Path(sys.argv[1]), sys.argv[2] == "forked"
    bench = Bench(LocalExecutor(2), directory)
    for number in range(2):
        bench.submit("family", pid_file=str(directory / f"{number}.pid"))
    if forked and os.fork() == 0:
        # A process that holds every descriptor of the driver, and outlives it.
        (directory / "fork.part").write_text(str(os.getpid()))
        (directory / "fork.part").rename(directory / "fork.pid")
        time.sleep(600)
    while True:
        bench.executor.poll(None)


if __name__ == "__main__":
    main()

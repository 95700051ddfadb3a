"""Workflows of many trivial tasks; `BENCH_NODES` says how many."""

from __future__ import annotations

import os

from headway import task, workflow

NODES = int(os.environ.get("BENCH_NODES", "10"))


@task
def increment(x: int) -> int:
    """As little as a task can do."""
    return x + 1


@workflow
def single(x: int = 0) -> int:
    """One of them: what starting and ending a run costs."""
    return increment(x=x)


@workflow
def chain(x: int = 0) -> int:
    """Each needs the one before."""
    for _ in range(NODES):
        x = increment(x=x)
    return x


@workflow
def wide() -> None:
    """None needs another."""
    for x in range(NODES):
        increment(x=x)

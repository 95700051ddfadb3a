"""Executors for the tests of their contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.bench import Bench

from headway.executors.local import LocalExecutor
from headway.ports import Executor

EXECUTORS = [LocalExecutor]


@pytest.fixture(params=EXECUTORS, scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """One executor for most tests: starting one takes longer than what they do with it."""
    executor = request.param(2)
    yield executor
    executor.close()


@pytest.fixture
def bench(shared: Executor, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(shared, tmp_path)
    yield bench
    bench.clear()


@pytest.fixture(params=EXECUTORS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """With an executor of its own, to be closed."""
    executor = request.param(2)
    yield Bench(executor, tmp_path)
    executor.close()

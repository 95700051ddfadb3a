"""SIGTERM and `kill -9` at random instants of a tracked loop (P14, P18): no step is torn, lost or doubled,
and the result is that of a run that was left alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.crash.striking import Target

pytestmark = pytest.mark.reliability("R2", "R9")

PROGRAM = Path(__file__).with_name("looping.py")
SAMPLE, RELEASE = 12, int(os.environ.get("HEADWAY_KILLS", "200"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tmp_path_factory.mktemp("loop"), PROGRAM, "--seed", "11", "--pace", "0.003")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
@pytest.mark.parametrize(
    "signals",
    [SAMPLE, pytest.param(RELEASE, marks=pytest.mark.slow)],
    ids=["sample", "release"],
)
@pytest.mark.timeout(3600)
def test_no_step_is_torn_or_doubled(target: Target, signals: int, number: signal.Signals) -> None:
    target.strike(number, signals)

"""SIGTERM and `kill -9` at random instants of a PyTorch training: while it waits for its loader's
processes, in a validation, in C; to the worker alone, or to the loader's processes too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.crash.striking import Target

pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")

pytestmark = [pytest.mark.frameworks, pytest.mark.reliability("R2", "R9")]

PROGRAM = Path(__file__).with_name("programs") / "torch_loop.py"
SAMPLE, RELEASE = 6, int(os.environ.get("HEADWAY_KILLS", "200"))


def loads(processes: list[int]) -> bool:
    """Whether a loader has its processes: the program is imported, and its loop has begun."""
    return len(processes) > 2


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tmp_path_factory.mktemp("loop"), PROGRAM, "--seed", "11")


@pytest.mark.parametrize("everybody", [False, True], ids=["worker", "everybody"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
@pytest.mark.parametrize(
    "signals",
    [SAMPLE, pytest.param(RELEASE, marks=pytest.mark.slow)],
    ids=["sample", "release"],
)
@pytest.mark.timeout(3600)
def test_no_step_is_torn_or_doubled(
    target: Target, signals: int, number: signal.Signals, everybody: bool
) -> None:
    target.strike(number, signals, everybody=everybody, at_work=loads)

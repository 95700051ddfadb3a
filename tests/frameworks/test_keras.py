"""Keras 3 under `track`, on each backend in a process of its own (`keras_bodies`)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.counting import count
from tests.docs.markdown import ROOT
from tests.frameworks.killing import KILLS, added_lines

pytestmark = pytest.mark.frameworks


def run(backend: str, *words: str, module: str = "keras_bodies") -> None:
    for needed in ("keras", backend):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"no {needed}: `make frameworks` installs it")
    done = subprocess.run(
        [sys.executable, "-m", f"tests.frameworks.{module}", *words],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_three_lines_are_added() -> None:
    assert len(added_lines("with_keras")) == 3


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_killed_training_ends_with_the_same_weights(backend: str) -> None:
    run(backend, "killed")
    count("R9", "interrupted attempts of frameworks", KILLS)


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_training_whose_worker_gets_sigkill_ends_with_the_same_weights(
    backend: str, tmp_path: Path
) -> None:
    run(backend, "sigkill", str(tmp_path))
    count("R9", "SIGKILLs of frameworks", 2)


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_batches_metrics_and_seeds_go_on_where_they_were(backend: str) -> None:
    run(backend, "batches")


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_what_does_not_fit_is_refused(backend: str) -> None:
    run(backend, "refused")

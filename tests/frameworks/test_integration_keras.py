"""`integrations.keras.Resume`, on each backend in a process of its own (`keras_resume_bodies`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.counting import count
from tests.frameworks.test_keras import run

pytestmark = pytest.mark.frameworks


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_killed_fit_ends_with_the_same_weights_and_history(backend: str) -> None:
    run(backend, "killed", module="keras_resume_bodies")
    count("R9", "interrupted attempts of frameworks", 8)


@pytest.mark.reliability("R9")
def test_a_fit_whose_worker_gets_sigkill_ends_with_the_same_weights(tmp_path: Path) -> None:
    run("torch", "sigkill", str(tmp_path), module="keras_resume_bodies")
    count("R9", "SIGKILLs of frameworks", 2)


def test_outside_of_a_run_and_what_is_refused(tmp_path: Path) -> None:
    run("torch", "elsewhere", str(tmp_path), module="keras_resume_bodies")

"""PyTorch under `track`: whatever instant a training ends at, it ends with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.frameworks.killing import Example, added_lines

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # of loaders with workers
]
EXAMPLE = "with_pytorch"


def example(**arguments: int) -> Example:
    torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    return Example(EXAMPLE, torch.manual_seed, **arguments)


def test_three_lines_are_added() -> None:
    assert len(added_lines(EXAMPLE)) == 3


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_training_ends_with_the_same_weights(workers: int) -> None:
    example(epochs=3, workers=workers).check()


@pytest.mark.reliability("R9")
def test_a_training_whose_worker_gets_sigkill_ends_with_the_same_weights(tmp_path: Path) -> None:
    example(epochs=4, workers=0).check_signal(tmp_path)

"""For tests: of your own tasks and storage, and of what happens to your code when a storage fails.

    assert_resumable            a task that is killed and resumed makes what it would have made
    headway.testing.memory      MemoryStorage: a home in memory
    headway.testing.faults      wrappers round a storage: fail, lose a reply, tear, delay, freeze, count
    headway.testing.storage     StorageContract: what every storage does (needs pytest)
    headway.testing.ledger      LedgerContract: what a ledger does on every storage (needs pytest)
    headway.testing.strategies  states and operations for Hypothesis (needs hypothesis)

`pip install 'headway[testing]'` brings pytest and Hypothesis. Nothing here is loaded by `import headway`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

# Where pytest runs, a failed assertion of the suites shows its values, as one in a test file does.
# This has to be said before they are imported, and must not import pytest for those without it.
if "pytest" in sys.modules:
    for _suite in ("storage", "packs", "ledger"):
        sys.modules["pytest"].register_assert_rewrite(f"headway.testing.{_suite}")


def assert_resumable(
    task: Callable[..., Any],
    inputs: Mapping[str, Any] | None = None,
    *,
    kills: int = 3,
    seed: int = 0,
) -> None:
    """Assert that a task which is killed and resumed makes what it would have made, as `headway verify`.

    It runs once undisturbed and once killed, in processes of its own and a home that is removed at the end.

    Args:
        task: a task, or a function that could be one: at the top level of a module or of a test file.
        inputs: parameter name -> value; defaults are filled in.
        kills: how often it is killed.
        seed: another choice of when.

    Raises:
        AssertionError: it does not; the message says from which step on, in what, and why that may be.
        InputError: an input is wrong, or no loop of the task is tracked.
        TaskFailed: the task failed without being killed.
    """
    # By name: verifying stands above this floor, and is loaded by those who call this alone.
    verifying = import_module("headway.verifying")
    try:
        report = verifying.verify(task, inputs or {}, kills=kills, seed=seed)
    except verifying.Stopped:
        raise KeyboardInterrupt from None
    if not report.identical:
        raise AssertionError(verifying.text_of(report))

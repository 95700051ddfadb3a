"""The examples do what they and the documentation say, and would notice if they did not."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.docs.markdown import ROOT

from headway.checkpoint.handle import Checkpoint
from headway.engine.context import Context, entered
from headway.model.errors import NonRecoverableError
from headway.testing.memory import MemoryStorage

COUNTING = str(ROOT / "examples" / "checkpoint.py")


def shell(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, in a home of its own."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=home,
        env={**os.environ, "HEADWAY_HOME": str(home / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def example(name: str) -> ModuleType:
    """An example as a module."""
    return importlib.import_module(f"examples.{name}")


# Flyte's example


def test_flytes_example_makes_four_attempts_from_0_3_6_and_9(tmp_path: Path) -> None:
    done = shell(
        tmp_path, "-m", "headway", "run", COUNTING, "checkpointing_example",
        "--n_iterations", "10", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["result"] == 9
    (node,) = report["nodes"]
    assert [each["outcome"] for each in node["attempts"]] == ["recoverable"] * 3 + ["succeeded"]
    saved = [[c["number"] for c in each["checkpoints"]] for each in node["attempts"]]
    assert saved == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10]]
    logs = shell(tmp_path, "-m", "headway", "logs", report["run"]).stdout
    starts = [line for line in logs.splitlines() if "starting at" in line]
    assert [int(line.split()[-1]) for line in starts] == [0, 3, 6, 9]


def test_flytes_example_runs_as_a_script(tmp_path: Path) -> None:
    done = shell(tmp_path, COUNTING)
    assert (done.returncode, done.stdout) == (0, "9\n"), done.stderr


def test_flytes_example_with_too_few_iterations_says_so_and_wastes_no_retry(tmp_path: Path) -> None:
    done = shell(
        tmp_path, "-m", "headway", "run", COUNTING, "checkpointing_example", "--n_iterations", "2"
    )
    assert done.returncode == 1
    assert "n_iterations is 2, and must be at least 3" in done.stderr
    assert "ZeroDivisionError" not in done.stderr
    shown = json.loads(shell(tmp_path, "-m", "headway", "show", "--json").stdout)
    assert len(shown["nodes"][0]["attempts"]) == 1


def counted(n_iterations: int, state: bytes | None, attempt: int) -> int:
    """What the body of Flyte's example returns when it finds `state`."""
    checkpoint = Checkpoint(MemoryStorage(), "runs/r/nodes/n", attempt=attempt)
    if state is not None:
        checkpoint.write(state)
    context = Context("r", "n", attempt, 0, checkpoint)
    with entered(context):
        result = example("checkpoint").use_checkpoint.function(n_iterations)
    assert isinstance(result, int)
    return result


def test_flytes_example_knows_the_answer_when_killed_after_the_last_write() -> None:
    assert counted(10, b"10", 1) == 9


@pytest.mark.parametrize("n_iterations", range(3, 40))
def test_flytes_example_fails_at_most_as_often_as_it_may(n_iterations: int) -> None:
    """Flyte's original fails four times with 5 iterations, and may only three times."""
    checkpoint = Checkpoint(MemoryStorage(), "runs/r/nodes/n")
    module = example("checkpoint")
    failures = 0
    while True:
        try:
            with entered(Context("r", "n", failures, 0, checkpoint)):
                result = module.use_checkpoint.function(n_iterations)
        except module.RecoverableError:
            failures += 1
        else:
            break
    assert result == n_iterations - 1
    assert 1 <= failures <= module.RETRIES


@pytest.mark.parametrize("n_iterations", [-1, 0, 2])
def test_flytes_example_refuses_what_it_cannot_do(n_iterations: int) -> None:
    with pytest.raises(NonRecoverableError, match="at least 3"):
        counted(n_iterations, None, 0)


# The digits


def trained(epochs: int, checkpoint: Checkpoint) -> Any:
    """The weights after `epochs`, trained from what `checkpoint` has."""
    digits = example("digits")
    data = digits.split.function(seed=1)
    with entered(Context("r", "train", 0, 0, checkpoint)):
        return digits.train.function(data.train_x, data.train_y, epochs, 1, 0.0)


def test_training_in_two_parts_gives_the_same_weights_bit_for_bit() -> None:
    whole = trained(6, Checkpoint(MemoryStorage(), "runs/r/nodes/train"))
    parts = Checkpoint(MemoryStorage(), "runs/r/nodes/train")
    half = trained(3, parts)
    rest = trained(6, parts)
    assert len(parts.history()) == 6
    assert half.coef.tobytes() != whole.coef.tobytes()
    assert rest.coef.tobytes() == whole.coef.tobytes()
    assert rest.intercept.tobytes() == whole.intercept.tobytes()


def test_the_classifier_has_learnt_something() -> None:
    digits = example("digits")
    weights = trained(20, Checkpoint(MemoryStorage(), "runs/r/nodes/train"))
    data = digits.split.function(seed=1)
    result = digits.evaluate.function(weights.coef, weights.intercept, data.test_x, data.test_y)
    assert result.accuracy > 0.9
    assert len(result.digest) == 64


# The demo: `make demo` runs it; here is what would make it fail


def attempt(outcome: str, first: int, last: int) -> dict[str, Any]:
    """One attempt of a report."""
    return {"outcome": outcome, "checkpoints": [{"number": n} for n in range(first, last + 1)]}


def story(epochs: int) -> dict[str, Any]:
    """The report of a run that went as the demo wants it."""
    attempts = [
        attempt("killed", 1, 6),
        attempt("killed", 7, 12),
        attempt("killed", 13, 18),
        attempt("succeeded", 19, epochs),
    ]
    nodes = [
        {"name": "split", "attempts": [attempt("succeeded", 1, 0)]},
        {"name": "train", "attempts": attempts},
    ]
    return {"status": "succeeded", "nodes": nodes, "result": {"accuracy": 0.9, "digest": "ab"}}


def test_the_demo_accepts_what_it_wants_to_see() -> None:
    demo = example("demo")
    report = story(demo.EPOCHS)
    demo.judge(report, report["nodes"][1]["attempts"])


@pytest.mark.parametrize("flaw", ["status", "missed kill", "lost", "twice", "again"])
def test_the_demo_fails_when_something_was_lost_or_a_kill_missed(flaw: str) -> None:
    demo = example("demo")
    report = story(demo.EPOCHS)
    split, train = report["nodes"]
    if flaw == "status":
        report["status"] = "failed"
    elif flaw == "missed kill":
        train["attempts"][1]["outcome"] = "succeeded"
    elif flaw == "lost":
        train["attempts"][1]["checkpoints"].pop()
    elif flaw == "twice":
        train["attempts"][2]["checkpoints"].insert(0, {"number": 12})
    else:
        split["attempts"].append(attempt("succeeded", 1, 0))
    with pytest.raises(demo.Broken):
        demo.judge(report, train["attempts"])


def test_the_demo_fails_when_the_results_differ() -> None:
    demo = example("demo")
    calm, rough = story(demo.EPOCHS), story(demo.EPOCHS)
    demo.compare(calm, rough)
    rough["result"]["digest"] = "ac"
    with pytest.raises(demo.Broken, match="differ"):
        demo.compare(calm, rough)


def test_the_demo_kills_only_what_it_started() -> None:
    demo = example("demo")
    assert demo.descends(os.getpid(), os.getppid())
    assert not demo.descends(os.getppid(), os.getpid())
    assert not demo.descends(1, os.getpid())

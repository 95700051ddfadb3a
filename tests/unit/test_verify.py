"""`headway verify`: finds what a loop forgets to track, says where, and is content with what is right."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headway import task, track, verifying
from headway.cli import codes
from headway.cli.main import main
from headway.engine import parting
from headway.engine.loading import find_entity, load_file
from headway.engine.parting import Trail
from headway.engine.task import Task
from headway.model.errors import InputError, TaskFailed
from headway.model.report import Difference, VerifyReport
from headway.testing import assert_resumable

HEAD = """
import itertools
import os
import random
import time

import numpy as np

from headway import task, track

"""

RIGHT = """
@task
def train(epochs: int = 3) -> list[float]:
    weights, momentum = np.zeros(4), np.zeros(4)
    state = track(weights=weights, momentum=momentum, losses=[], best=0.0)
    for _ in state.range(epochs):
        order = list(range(4))
        random.shuffle(order)
        for item in state.iterate(order):
            momentum *= 0.9
            momentum += np.random.normal(size=4) + item - weights
            weights += 0.1 * momentum
        state.best = max(state.best, float(weights.sum()))
        state.losses.append(state.best)
    return state.losses
"""

NO_GENERATOR = """
@task
def train(epochs: int = 6) -> list[float]:
    random.seed(3)
    weights = np.ones(4)
    state = track(rng=False, weights=weights)
    for _ in state.range(epochs):
        order = list(range(5))
        random.shuffle(order)
        for item in order:
            weights[item % 4] += 0.1 * weights.sum() + item
    return weights.tolist()
"""

MOMENTUM = """
@task
def train(steps: int = 8) -> float:
    weights, momentum = np.ones(4), np.zeros(4)
    state = track(weights=weights, untouched=np.ones(2))
    for step in state.range(steps):
        momentum *= 0.9
        momentum += weights - step
        weights -= 0.1 * momentum
    return float(weights[0])
"""

RESTARTED = """
@task
def train(steps: int = 8) -> float:
    batches = itertools.cycle([1.0, 2.0, 3.0, 4.0, 5.0])
    state = track(total=0.0)
    for _ in state.range(steps):
        state.total = 0.5 * state.total + next(batches)
    return state.total
"""

COUNTER = """
calls = 0


def rate() -> float:
    global calls
    calls += 1
    return 1 / calls


@task
def train(steps: int = 8) -> float:
    state = track(total=0.0)
    for _ in state.range(steps):
        state.total += rate()
    return state.total
"""

SET_ORDER = """
@task
def train() -> int:
    names = {f"name-{number}" for number in range(30)}
    state = track(total=0)
    for name in state.iterate(list(names)):
        state.total = 31 * state.total % 1_000_003 + int(name[5:])
    return state.total
"""

TIME = """
@task
def train(steps: int = 4) -> float:
    state = track(total=0.0)
    for _ in state.range(steps):
        state.total += time.time()
    return state.total
"""

UNSEEDED = """
@task
def train(steps: int = 4) -> float:
    noise = np.random.default_rng()
    state = track(total=0.0, noise=noise)
    for _ in state.range(steps):
        state.total += noise.random()
    return state.total
"""

BESIDE = """
@task
def train(steps: int = 6) -> list[int]:
    state, losses = track(total=0), []
    for step in state.range(steps):
        state.total += step
        losses.append(state.total)
    return losses
"""

SHORTER = """
@task
def train(steps: int = 8) -> int:
    state = track(total=0)
    patience = 0
    for step in state.range(steps):
        patience += 1
        state.total += step
        if patience == 6:
            break
    return state.total
"""

SLOW = """
@task
def train(steps: int = 6) -> float:
    state = track(total=0.0)
    for step in state.range(steps):
        for _ in range(20):
            state.total = 0.5 * state.total + step
            time.sleep(0.002)
    return state.total
"""

GIVES_UP = """
@task
def train(steps: int = 6) -> int:
    started = []
    state = track(total=0)
    for step in state.range(steps):
        if not started and step:
            raise RuntimeError("nothing was started")
        started.append(step)
        state.total += step
    return state.total
"""

FAILS = """
@task(retries=1)
def train(steps: int = 6) -> int:
    state = track(total=0)
    for step in state.range(steps):
        if step == 3:
            raise ValueError("no such step")
    return state.total
"""

FAILS_ONCE = """
from headway import current_context


@task(retries=1, max_interruptions=1, timeout=30)
def train(steps: int = 6) -> int:
    state = track(every=0, total=0)
    for step in state.range(steps):
        if step == 3 and current_context().attempt == 0:
            raise ValueError("a bug that shows once")
        state.total = 3 * state.total + step
    return state.total
"""


FILES = """
from headway import current_context

@task
def train(steps: int = 8) -> int:
    state = track(every=0, lines=0)
    place = current_context().checkpoint.directory("crawl")
    with open(place / "log", "a") as log:
        for step in state.range(steps):
            print("step", step, file=log, flush=FLUSHED)
            (place / "newest").write_text(f"{step}")
            state.lines += 1
    return len((place / "log").read_text().splitlines())
"""


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a verification leaves would be left here."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)


def program(folder: Path, text: str) -> Path:
    """A file with this task, of a name that no other has: modules are known by theirs."""
    file = folder / f"verified_{random.getrandbits(40):x}.py"
    file.write_text(HEAD + text, encoding="utf-8")
    return file


def verified(folder: Path, text: str, **options: Any) -> VerifyReport:
    """What is said of this task."""
    _, found = load_file(program(folder, text))
    entity = find_entity("train", found)
    assert isinstance(entity, Task)
    report = verifying.verify(entity, {}, **options)
    assert list((folder / "scratch").iterdir()) == []
    assert not (folder / "home").exists()
    assert "PYTHONHASHSEED" not in os.environ
    return report


def parted(folder: Path, text: str, **options: Any) -> Difference:
    """Where a resumed run of this task parts from the undisturbed one."""
    report = verified(folder, text, **options)
    assert not report.identical
    assert report.difference is not None
    return report.difference


# What is right


@pytest.mark.parametrize("seed", range(2))
def test_a_loop_whose_state_is_complete_is_identical(tmp_path: Path, seed: int) -> None:
    report = verified(tmp_path, RIGHT, seed=seed, kills=4)
    assert report.identical, verifying.text_of(report)
    assert report.steps == 3 * 4 + 3  # items, and turns of the loop around
    assert len(report.kills) == 4
    text = verifying.text_of(report)
    assert text.startswith("train: identical over 15 steps, killed at ")


def test_kills_within_steps_are_survived_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[float] = []
    trails: list[Trail] = []
    interrupted = verifying._Trial._interrupted

    def spied(trial: Any, plans: Any, numbers: Any) -> Any:
        found = interrupted(trial, plans, numbers)
        late.extend(plan.late for plan in plans[: found[1]] if plan.late)
        return found

    def compared(one: Trail, other: Trail) -> Any:
        trails.append(other)
        return parting.parting(one, other)

    monkeypatch.setattr(verifying._Trial, "_interrupted", spied)
    monkeypatch.setattr(
        verifying, "parting", SimpleNamespace(**vars(parting) | {"parting": compared})
    )
    report = verified(tmp_path, SLOW, kills=6)
    assert report.identical, verifying.text_of(report)
    assert len(report.kills) == 6
    assert late, "no attempt was killed within a step"
    done = [
        line.step for trail in trails for lines in trail.attempts for line in lines if line.step
    ]
    assert len(done) > len(set(done)), "no step was done twice"
    resumed = [lines[0].step for trail in trails for lines in trail.attempts[1:] if lines]
    assert any(step != "0:1" for step in resumed), "no attempt went on from a checkpoint"


def test_options_of_the_task_do_not_end_it_and_are_as_before(tmp_path: Path) -> None:
    """It may be interrupted once, and is killed three times; it fails by itself besides."""
    _, found = load_file(program(tmp_path, FAILS_ONCE))
    entity = find_entity("train", found)
    assert isinstance(entity, Task)
    before = entity.options
    report = verifying.verify(entity, {})
    assert report.identical, verifying.text_of(report)
    assert entity.options == before


def test_where_the_order_of_sets_is_fixed_it_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    _, found = load_file(program(tmp_path, SET_ORDER))
    entity = find_entity("train", found)
    assert isinstance(entity, Task)
    assert verifying.verify(entity, {}).identical
    assert os.environ["PYTHONHASHSEED"] == "7"


def test_files_in_a_working_directory_are_compared_too(tmp_path: Path) -> None:
    report = verified(tmp_path, FILES.replace("FLUSHED", "True"), kills=3)
    assert report.identical, verifying.text_of(report)


# What is wrong


def test_lines_that_were_not_flushed_are_found(tmp_path: Path) -> None:
    found = parted(tmp_path, FILES.replace("FLUSHED", "step % 2 == 1"), kills=3)
    assert found.entries == ["directory crawl/log"]
    assert "flush or close" in found.cause


def test_generators_that_are_left_out_are_found(tmp_path: Path) -> None:
    found = parted(tmp_path, NO_GENERATOR)
    assert "weights" in found.entries
    assert "rng.python (not tracked)" in found.entries
    assert "rng.numpy (not tracked)" not in found.entries  # nobody draws from it
    assert "rng=False" in found.cause
    assert found.attempt > 0


def test_momentum_that_is_not_tracked_is_found(tmp_path: Path) -> None:
    found = parted(tmp_path, MOMENTUM)
    assert found.entries == ["weights"]
    assert found.attempt > 0
    assert found.step == found.resumed + 1, "it parts with the first step after a resume"
    assert f"after item {found.step}" == found.place
    assert "momentum" in found.cause


def test_a_loader_that_begins_anew_is_found(tmp_path: Path) -> None:
    found = parted(tmp_path, RESTARTED)
    assert found.entries == ["total"]
    assert found.attempt > 0
    assert "state.iterate" in found.cause


def test_a_counter_in_a_global_is_found(tmp_path: Path) -> None:
    found = parted(tmp_path, COUNTER)
    assert found.entries == ["total"]
    assert found.attempt > 0
    assert "global" in found.cause


def test_the_order_of_a_set_is_found(tmp_path: Path) -> None:
    found = parted(tmp_path, SET_ORDER)
    assert found.entries == ["total"]
    assert "PYTHONHASHSEED" in found.cause


@pytest.mark.parametrize("text", [TIME, UNSEEDED])
def test_a_body_that_is_never_twice_the_same_is_called_that(tmp_path: Path, text: str) -> None:
    found = parted(tmp_path, text)
    assert "total" in found.entries
    assert (found.step, found.attempt) == (1, 0)
    assert "not deterministic" in found.cause
    assert "PYTHONHASHSEED" not in found.cause


def test_a_result_that_is_made_beside_the_state_is_found(tmp_path: Path) -> None:
    report = verified(tmp_path, BESIDE)
    assert report.difference is not None
    assert report.difference.step is None
    assert report.difference.entries == ["the result"]
    assert "6 steps are the same, but the result" in verifying.text_of(report)


def test_other_turns_of_a_loop_are_found(tmp_path: Path) -> None:
    found = parted(tmp_path, SHORTER)
    assert (found.step, found.entries) == (6, [])
    assert "when they break" in found.cause


def test_a_resume_that_fails_is_told_with_its_error(tmp_path: Path) -> None:
    report = verified(tmp_path, GIVES_UP)
    assert report.difference is not None
    assert "RuntimeError: nothing was started" in report.difference.error
    assert "a resumed run failed, and the undisturbed one did not" in verifying.text_of(report)


def test_the_same_seed_kills_at_the_same_steps(tmp_path: Path) -> None:
    kills = [verified(tmp_path, RIGHT, seed=seed).kills for seed in (5, 5, 6)]
    assert kills[0] == kills[1] != kills[2]


# What cannot be verified


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    return 1", "never calls track"),
        ("    state = track(a=1)\n    return sum(1 for _ in range(3))", "made no step"),
        ("    state = track(a=1)\n    return sum(state.range(0))", "made no step"),
    ],
)
def test_a_task_without_steps_is_told_so(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        verified(tmp_path, f"\n@task\ndef train() -> int:\n{body}\n")


def test_a_task_that_fails_by_itself_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(
        TaskFailed, match=r"(?s)failed without being killed.*ValueError: no such step"
    ):
        verified(tmp_path, FAILS)


def test_no_kill_is_no_verification(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--kills must be 1 or more"):
        verified(tmp_path, RIGHT, kills=0)


# The command


def test_the_command_says_identical(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(program(tmp_path, RIGHT))
    assert main(["verify", file, "train", "--epochs", "2", "--kills", "2"]) == codes.SUCCESS
    out, err = capsys.readouterr()
    assert out.startswith("train: identical over 10 steps, killed at ")
    assert "undisturbed" in err
    assert err.count("killed at step") == 2


def test_the_command_says_where_they_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(program(tmp_path, MOMENTUM))
    assert main(["verify", "--seed", "1", "--quiet", file, "train"]) == codes.DIFFERENT
    out, err = capsys.readouterr()
    first, entries, attempt, why = out.splitlines()
    assert first.startswith("train: a resumed run parts from the undisturbed one at step ")
    assert entries == "  differs: weights"
    assert attempt.startswith("  in attempt 1, which went on after step ")
    assert why.startswith("  likely cause: The state was restored")
    assert err == ""


def test_the_command_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(program(tmp_path, MOMENTUM))
    assert main(["verify", file, "train", "--steps", "5", "--json"]) == codes.DIFFERENT
    report = json.loads(capsys.readouterr().out)
    assert (report["identical"], report["steps"]) == (False, 5)
    assert report["difference"]["entries"] == ["weights"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a task after FILE; it has: train"),
        (["--json"], "name a task after FILE; it has: train"),
        (["both"], "both is a workflow, and verify looks at one task: train"),
        (["trian"], "did you mean train?"),
        (["train", "--kills", "0"], "--kills"),
    ],
)
def test_the_command_says_what_it_needs(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = (
        "\n\nfrom headway import workflow\n\n@workflow\ndef both() -> float:\n    return train()\n"
    )
    file = str(program(tmp_path, MOMENTUM + flow))
    assert main(["verify", file, *arguments]) == codes.USAGE
    assert said in capsys.readouterr().err


def test_a_command_that_is_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    endless = MOMENTUM.replace("        momentum *= 0.9\n", "        time.sleep(0.05)\n")
    arguments = [str(program(tmp_path, endless)), "train", "--steps", "10000"]
    command = subprocess.Popen(
        [sys.executable, "-m", "headway", "verify", *arguments],
        stderr=subprocess.PIPE,
    )
    with command:
        assert command.stderr is not None
        assert command.stderr.readline() == b"undisturbed\n"
        while not [*(tmp_path / "scratch").rglob("seen-1/0")]:
            time.sleep(0.01)
        command.terminate()
        command.communicate(timeout=60)
    assert command.returncode == codes.TERMINATED
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_command_runs_no_url(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "https://example.org/train.py", "train"]) == codes.USAGE
    assert "download the program first" in capsys.readouterr().err


# For tests of one's own


def drift(steps: int, forget: bool = False) -> float:
    """A plain function, which could be a task."""
    place, speed = np.zeros(3), np.zeros(3)
    named: dict[str, Any] = {} if forget else {"speed": speed}
    state = track(place=place, **named)
    for step in state.range(steps):
        speed += np.random.normal(size=3)
        place += speed + step
    return float(place.sum())


@task
def drift_task(steps: int, forget: bool = False) -> float:
    """The same as a task."""
    return drift(steps, forget)


@pytest.mark.parametrize("tested", [drift, drift_task])
def test_a_users_test_passes_and_fails(tested: Any) -> None:
    assert_resumable(tested, {"steps": 8})
    with pytest.raises(AssertionError, match=r"(?s)^drift.* parts from .*differs: place\n.*likely"):
        assert_resumable(tested, {"steps": 8, "forget": True}, kills=1, seed=3)


def test_inputs_of_a_users_test_are_checked() -> None:
    with pytest.raises(InputError, match="drift needs a value for 'steps'"):
        assert_resumable(drift)
    with pytest.raises(InputError, match="steps"):
        assert_resumable(drift, {"steps": "many"})

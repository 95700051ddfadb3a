"""`integrations.distributed`: what `dcp.save` was given is whole or absent, and is loaded exactly, into as
many ranks as there are. Those with several ranks are in `programs/dcp_ranks.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.counting import count
from tests.docs.markdown import ROOT
from tests.frameworks.killing import PREFIX, Trial

from headway import open_checkpoint
from headway.checkpoint.handle import Checkpoint
from headway.executors.failure import raised
from headway.model.errors import (
    CheckpointCorrupt,
    CheckpointError,
    HeadwayError,
    InputError,
    Preempted,
    UntrustedState,
)
from headway.model.outcome import Outcome
from headway.testing.comparing import difference
from headway.testing.memory import MemoryStorage

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
]
torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
dcp = pytest.importorskip("torch.distributed.checkpoint")


def writer(checkpoint: Checkpoint | None = None) -> Any:
    from headway.integrations.distributed import Writer

    return Writer(checkpoint)


def reader(checkpoint: Checkpoint | None = None) -> Any:
    from headway.integrations.distributed import Reader

    return Reader(checkpoint)


def state(step: int) -> dict[str, Any]:
    """All kinds of items, made anew."""
    torch.manual_seed(step)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1 * (step + 1))
    model(torch.randn(3, 6)).square().sum().backward()
    optimizer.step()
    large = torch.randn(300, 300)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "views": [large[:20], large[20:40, ::2], large.T[5]],
        "kinds": {
            str(dtype): torch.arange(5).to(dtype)
            for dtype in (
                torch.bfloat16,
                torch.bool,
                torch.complex64,
                torch.uint8,
                torch.float8_e4m3fn,
            )
        },
        "empty": torch.empty(0, 3),
        "number": torch.tensor(step),
        "step": step,
        "name": f"step {step}",
    }


def failure_of(call: Any, kind: type[BaseException] = HeadwayError) -> BaseException:
    """What DCP says went wrong on rank 0."""
    with pytest.raises(dcp.CheckpointException) as caught:
        call()
    error: BaseException = caught.value.failures[0][0]
    assert isinstance(error, kind), error
    return error


@pytest.mark.parametrize("way", ["save", "async_save"])
def test_what_was_saved_is_loaded_exactly(tmp_path: Path, way: str) -> None:
    url = str(tmp_path / "home" / "train")
    with open_checkpoint(url) as checkpoint:
        assert not reader(checkpoint).found
        for step in (1, 2):
            if way == "save":
                dcp.save(state(step), storage_writer=writer(checkpoint))
            else:
                dcp.async_save(state(step), storage_writer=writer(checkpoint)).result()
            assert len(checkpoint.history()) == step
    with open_checkpoint(url) as checkpoint:
        found = reader(checkpoint)
        assert found.found
        loaded = state(0)
        weight = loaded["model"]["0.weight"]
        dcp.load(loaded, storage_reader=found)
        assert difference(loaded, state(2)) == ""
        assert loaded["model"]["0.weight"] is weight  # in place
        part = {"step": 0}
        dcp.load(part, storage_reader=found)
        assert part == {"step": 2}


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    frozen, moving = torch.randn(4, 1 << 18), torch.randn(1 << 16)
    with open_checkpoint(str(tmp_path / "home" / "train")) as checkpoint:
        for number in range(3):
            moving += 1
            part = {"frozen": frozen, "moving": moving, "number": number}
            dcp.save(part, storage_writer=writer(checkpoint))
    held = sum(pack.stat().st_blocks * 512 for pack in (tmp_path / "home").rglob("packs/*"))
    once = frozen.nbytes + 3 * moving.nbytes
    assert frozen.nbytes < held < 1.4 * once


def test_in_a_task_it_uses_the_attempts_checkpoint() -> None:
    trial = Trial(MemoryStorage(trusted=False))

    def body(track: Any) -> int:
        found = reader()
        here = {"weights": torch.zeros(9), "step": 0}
        if found.found:
            dcp.load(here, storage_reader=found)
        for step in range(int(here["step"]), 6):
            if step == 3 and not found.found:
                trial.kill()
            here = {"weights": here["weights"] + step, "step": step + 1}
            dcp.save(here, storage_writer=writer())
        return int(here["weights"][0])

    with pytest.raises(trial.Killed):
        trial.attempt(body)
    assert trial.attempt(body) == 15


PROGRAM = """\
import sys, warnings
import torch
import torch.distributed.checkpoint as dcp
from headway import open_checkpoint
from headway.integrations.distributed import Reader, Writer

warnings.simplefilter("ignore")
torch.set_num_threads(1)
state = {"weights": torch.zeros(1 << 20), "step": 0}
with open_checkpoint(sys.argv[1]) as checkpoint:
    reader = Reader(checkpoint)
    if reader.found:
        dcp.load(state, storage_reader=reader)
    assert (state["weights"] == state["step"]).all(), "torn"
    print(state["step"], flush=True)
    for step in range(state["step"] + 1, 1000):
        state["weights"] += 1
        state["step"] = step
        if sys.argv[2] == "save":
            dcp.save(state, storage_writer=Writer(checkpoint))
        else:
            dcp.async_save(state, storage_writer=Writer(checkpoint)).result()
        print(step, flush=True)
"""


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("way", ["save", "async_save"])
def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_state(
    tmp_path: Path, way: str
) -> None:
    """It does nothing but save, so whenever it is killed, that is within a save, mostly."""
    last = 0
    for kill in range(6):
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "home" / "train"), way],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
            stdout=subprocess.PIPE,
            text=True,
        )
        with program:
            assert program.stdout is not None
            begun = int(program.stdout.readline() or -1)
            assert begun in {last, last + 1}, kill
            program.stdout.readline()
            time.sleep(0.007 * kill)
            os.kill(program.pid, signal.SIGKILL)
            said = program.stdout.read().split("\n")[:-1]
            last = int(said[-1]) if said else begun + 1
        assert program.returncode == -signal.SIGKILL
    count("R9", "SIGKILLs of frameworks", 6)


def ranks(home: Path, *action: str) -> Any:
    """Run an action of `programs/dcp_ranks.py`."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.frameworks.programs.dcp_ranks",
            str(home / "h" / "l"),
            *action,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_two_ranks_saved_is_loaded_by_one_two_and_three(tmp_path: Path) -> None:
    assert ranks(tmp_path, "resharded") == "same"


def test_all_ranks_load_the_same_checkpoint_when_the_newest_is_damaged(tmp_path: Path) -> None:
    assert ranks(tmp_path, "damaged") == [[[1, True]] * 2, ["CheckpointCorrupt"] * 2]


@pytest.mark.reliability("R9")
@pytest.mark.parametrize("seed", ["1", "2"])
def test_ranks_that_are_killed_while_they_save_leave_a_whole_state(
    tmp_path: Path, seed: str
) -> None:
    said = ranks(tmp_path, "killed", seed)
    assert said["kills"] == 12
    assert said["within a save"] >= 3
    count("R9", "SIGKILLs of frameworks", said["kills"])


@pytest.mark.reliability("R9")
def test_ranks_that_torchrun_starts_go_on_when_one_is_killed(tmp_path: Path) -> None:
    made = []
    for more in ([], ["killed"]):
        folder = tmp_path / "-".join(["ranks", *more])
        folder.mkdir()
        program = str(ROOT / "tests" / "frameworks" / "programs" / "torchrun_ranks.py")
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", program]
        done = subprocess.run(
            [sys.executable, "-m", "headway", "exec", "--retries", "4", "--",
             sys.executable, "-m", *torchrun, str(folder), *more],
            env={
                **os.environ,
                "HEADWAY_HOME": str(folder / "home"),
                "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            },
            capture_output=True, text=True, check=False, timeout=110,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        made.append((folder / "made").read_text())
        begun = sorted(each.name for each in folder.glob("attempt-*"))
        wanted = [0, 3, 6] if more else [0]
        # PyTorch aborts at times when a rank ends ("terminate called …"): one more goes on from step 9.
        steps = wanted + [9] * (len(begun) - len(wanted))
        assert begun == [f"attempt-{number}-from-{step}" for number, step in enumerate(steps)]
    assert made[0] == made[1]
    count("R9", "SIGKILLs of frameworks", 2)


# What can be wrong


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one() -> None:
    storage = MemoryStorage()
    with_both = Checkpoint(storage, PREFIX)
    for step in (1, 2):
        dcp.save({"a": torch.full((9000,), step)}, storage_writer=writer(with_both))
    with_both.close()
    packs = [key for key in storage.objects if "/packs/" in key]
    for left, key in [(1, max(packs)), (0, min(packs))]:
        storage.objects[key][7000] ^= 1
        warned: list[Any] = []
        checkpoint = Checkpoint(storage, PREFIX, on_warning=warned.append)
        if left:
            loaded = {"a": torch.zeros(9000, dtype=torch.int64)}
            dcp.load(loaded, storage_reader=reader(checkpoint))
            assert (loaded["a"] == 1).all()
        else:
            with pytest.raises(CheckpointCorrupt):
                reader(checkpoint)
        assert "damaged" in {each.kind for each in warned}
        checkpoint.close()


def test_what_is_no_data_is_refused_where_others_can_write() -> None:
    """DCP pickles what is no tensor, and its planner loads that without asking."""
    theirs = MemoryStorage(trusted=False)
    checkpoint = Checkpoint(theirs, PREFIX)
    odd = {"path": Path("a"), "step": 1}
    error = failure_of(lambda: dcp.save(odd, storage_writer=writer(checkpoint)), UntrustedState)
    assert "path is no number" in str(error)
    assert checkpoint.history() == []
    mine = MemoryStorage()
    trusted = Checkpoint(mine, PREFIX)
    dcp.save(odd, storage_writer=writer(trusted))
    loaded = {"path": None, "step": 0}
    dcp.load(loaded, storage_reader=reader(trusted))
    assert loaded == odd
    trusted.close()
    theirs.objects.update(mine.objects)
    with pytest.raises(UntrustedState, match="path is no number"):
        reader(Checkpoint(theirs, PREFIX, attempt=1))


def test_an_older_pytorch_is_not_believed_that_it_runs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = Checkpoint(MemoryStorage(trusted=False), PREFIX)
    dcp.save({"step": 1}, storage_writer=writer(checkpoint))
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(UntrustedState, match=r"PyTorch 2\.5\.1"):
        reader(checkpoint)


def test_code_in_a_forged_item_does_not_run(tmp_path: Path) -> None:
    mine = MemoryStorage()
    checkpoint = Checkpoint(mine, PREFIX)
    forged = tmp_path / "ran"
    dcp.save({"step": Runs(str(forged))}, storage_writer=writer(checkpoint))
    checkpoint.close()
    theirs = MemoryStorage(trusted=False)
    theirs.objects.update(mine.objects)
    with pytest.raises(UntrustedState):
        reader(Checkpoint(theirs, PREFIX))
    assert not forged.exists()
    dcp.load({"step": 0}, storage_reader=reader(Checkpoint(mine, PREFIX)))  # as DCP does
    assert forged.exists()


class Runs:
    """Its pickle makes a directory when it is loaded."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self._path,)


def test_what_another_way_of_saving_left_is_refused() -> None:
    checkpoint = Checkpoint(MemoryStorage(), PREFIX)
    checkpoint.save({"a": 1})
    with pytest.raises(CheckpointError, match=r"not saved by dcp\.save"):
        reader(checkpoint)
    broken: Any
    for broken in (
        {"format": 2},
        {"format": 1, "version": None, "planner": None, "entries": {}, "items": [["a", None, "a"]]},
        {
            "format": 1,
            "version": None,
            "planner": None,
            "entries": {"a": None},
            "items": [["a", 1, "b"]],
        },
    ):
        checkpoint.save({"a": 1, "_dcp": broken})
        with pytest.raises(CheckpointError, match="does not know"):
            reader(checkpoint)


def test_what_cannot_be_is_refused_in_plain_words() -> None:
    checkpoint = Checkpoint(MemoryStorage(), PREFIX)
    here = {"a": torch.zeros(2)}
    with pytest.raises(HeadwayError, match=r"Reader\(\) has no checkpoint"):
        reader()
    error = failure_of(lambda: dcp.save(here, storage_writer=writer()))
    assert "Writer() has no checkpoint" in str(error)
    with pytest.raises(InputError, match="checkpoint_id='x' says nothing"):
        dcp.save(here, checkpoint_id="x", storage_writer=writer(checkpoint))
    with pytest.raises(InputError, match="use_collectives"):
        writer(checkpoint).set_up_storage_writer(True, rank=0, use_collectives=False)
    import pickle

    with pytest.raises(InputError, match="async_checkpointer_type"):
        pickle.dumps(writer(checkpoint))
    error = failure_of(
        lambda: dcp.save({"a": torch.zeros(2).to_sparse()}, storage_writer=writer(checkpoint))
    )
    assert "a has the layout torch.sparse_coo" in str(error)
    twice = {"a": torch.zeros(1), "a[0]": "b"}
    error = failure_of(lambda: dcp.save(twice, storage_writer=writer(checkpoint)), InputError)
    assert "'a[0]'" in str(error)
    error = failure_of(lambda: dcp.load(here, storage_reader=reader(checkpoint)), AssertionError)
    assert "there is no checkpoint yet" in str(error)
    dcp.save(here, storage_writer=writer(checkpoint))
    other = {"a": torch.zeros(3)}
    error = failure_of(lambda: dcp.load(other, storage_reader=reader(checkpoint)), Exception)
    assert "mismatch" in str(error), error


def test_memory_of_a_process_that_is_gone_or_elsewhere_is_not_read() -> None:
    from dataclasses import replace

    from headway.integrations.lent import Lender, borrow

    lender = Lender()
    loan = lender.lend([memoryview(b"abc"), memoryview(b""), memoryview(bytes(100))])
    assert [bytes(part) for part in borrow(loan)] == [b"abc", b"", bytes(100)]
    for other in (
        replace(loan, token=bytes(64)),
        replace(loan, descriptor=999),
        replace(loan, process=2**22 + 1, host="far"),
        replace(loan, size=1 << 20),
    ):
        with pytest.raises(HeadwayError, match="All ranks have to run on one machine"):
            borrow(other)
    again = lender.lend([memoryview(bytes(10_000))])
    assert [len(part) for part in borrow(again)] == [10_000]
    descriptors = len(os.listdir("/proc/self/fd"))
    del lender
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1
    with pytest.raises(HeadwayError, match="of process"):
        borrow(again)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Preempted(), Outcome.PREEMPTED),
        (MemoryError(), Outcome.OOM),
        (ValueError(), Outcome.APP_ERROR),
    ],
)
def test_an_attempt_ends_as_what_dcp_wrapped_says(error: BaseException, outcome: Outcome) -> None:
    class Breaks(dcp.DefaultSavePlanner):  # type: ignore[misc,name-defined]
        def create_local_plan(self) -> Any:
            raise error

    checkpoint = Checkpoint(MemoryStorage(), PREFIX)
    with pytest.raises(dcp.CheckpointException) as caught:
        dcp.save({"a": 1}, storage_writer=writer(checkpoint), planner=Breaks())
    assert raised(caught.value).kind == outcome

"""One attempt, in this process. What needs a process of its own is in the executor's contract."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headway import worker
from headway.compose import open_storage
from headway.engine.context import in_body
from headway.executors.notice import Notice
from headway.executors.wire import Kind, receive_frame
from headway.model.errors import CheckpointError, HeadwayError
from headway.model.outcome import Outcome
from headway.model.program import (
    AttemptSpec,
    Message,
    Program,
    Raised,
    Returned,
    Saved,
    Warned,
)

PROGRAM = """
import os, signal
from pathlib import Path
from headway import current_context, task, workflow

seen = []

@task
def add(a: int, b: int = 1) -> int:
    return a + b

@task
def save() -> bytes:
    checkpoint = current_context().checkpoint
    seen.append(checkpoint)
    checkpoint.write(b"state")
    return checkpoint.read() or b""

@task
def copy(path: Path) -> str:
    seen.append(path)
    return path.read_text()

@task
def change_environment() -> None:
    os.environ["LEFT_BEHIND"] = "1"

@task
def terminated() -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    return 1

@workflow
def flow() -> int:
    return add(a=1)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a program; what an attempt changes in its process is put back."""
    open_storage(str(tmp_path / "home"), create=True)
    (tmp_path / "worker_program.py").write_text(PROGRAM)
    for name in ("HEADWAY_HOME", "HEADWAY_RUN", "HEADWAY_NODE", "HEADWAY_ATTEMPT", "LEFT_BEHIND"):
        monkeypatch.setenv(name, "before")
    monkeypatch.setattr(sys, "argv", ["before"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "worker_program", raising=False)
    # It would reap children of other tests.
    monkeypatch.setattr("headway.executors.family.has_children", lambda: False)
    return tmp_path


def spec(place: Path, task: str, **inputs: Any) -> AttemptSpec:
    path = str(place / "worker_program.py")
    return AttemptSpec(
        home=str(place / "home"),
        run="1tq4zk-8f3d",
        node="a node",
        attempt=2,
        program=Program("worker_program", path, (str(place),), "d"),
        task=f"worker_program:{task}",
        inputs=inputs,
        inputs_digest="d",
        log="",
        retries_left=1,
    )


def attempt(spec: AttemptSpec, notice: Notice | None = None) -> list[Message]:
    messages: list[Message] = []
    last = worker.attempt(spec, messages.append, notice or Notice())
    assert not in_body()
    return [*messages, last]


def test_it_starts_runs_and_returns(place: Path) -> None:
    assert attempt(spec(place, "add", a=3)) == [Returned({"o0": 4}, clean=True)]


def test_the_body_finds_its_attempt_in_the_environment(place: Path) -> None:
    attempt(spec(place, "add", a=3))
    assert os.environ["HEADWAY_HOME"] == str(place / "home")
    assert os.environ["HEADWAY_RUN"] == "1tq4zk-8f3d"
    assert os.environ["HEADWAY_NODE"] == "a node"
    assert os.environ["HEADWAY_ATTEMPT"] == "2"
    assert sys.argv == [str(place / "worker_program.py")]


def test_checkpoints_are_told_and_end_with_the_attempt(place: Path) -> None:
    saved, returned = attempt(spec(place, "save"))
    assert isinstance(saved, Saved)
    assert (saved.number, saved.size) == (1, 5)
    assert isinstance(returned, Returned)
    assert (place / "home/runs/1tq4zk-8f3d/nodes/a_node/ledger").is_dir()
    with pytest.raises(CheckpointError, match="has ended"):
        sys.modules["worker_program"].seen[0].read()


def test_warnings_about_checkpoints_are_told(place: Path) -> None:
    for _ in range(2):
        attempt(spec(place, "save"))
    log = max((place / "home/runs/1tq4zk-8f3d/nodes/a_node/ledger").iterdir())
    data = log.read_bytes()
    at = data.index(b"state")
    log.write_bytes(data[:at] + b"STATE" + data[at + 5 :])
    messages = attempt(spec(place, "save"))
    assert any(isinstance(message, Warned) for message in messages), messages


def test_copies_of_files_end_with_the_attempt(place: Path) -> None:
    from headway.engine.values import Values

    (place / "data.txt").write_text("content")
    values = Values(open_storage(str(place / "home")), "runs/1tq4zk-8f3d/values")
    plain = values.encode(place / "data.txt", Path)
    last = attempt(spec(place, "copy", path=plain))[-1]
    assert last == Returned({"o0": "content"}, clean=True)
    assert not sys.modules["worker_program"].seen[-1].exists()


def test_traces_make_the_process_unclean(place: Path) -> None:
    assert attempt(spec(place, "change_environment"))[-1] == Returned({}, clean=False)


def test_a_home_that_is_away_is_the_machines_fault(place: Path) -> None:
    away = msgspec.structs.replace(spec(place, "add", a=1), home=str(place / "nowhere"))
    (raised,) = attempt(away)
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.NODE_LOST
    assert raised.type == "StorageUnavailable"
    assert "its disk is not mounted" in raised.message


@pytest.mark.parametrize(
    ("task", "text"), [("flow", "is no task"), ("nothing", "no task or workflow 'nothing'")]
)
def test_what_is_no_task_is_refused(place: Path, task: str, text: str) -> None:
    (raised,) = attempt(spec(place, task))
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.APP_ERROR
    assert text in raised.message
    assert raised.traceback.count("File") == 0


@pytest.fixture
def notice() -> Iterator[Notice]:
    notice = Notice()
    before = signal.signal(signal.SIGTERM, notice._on_sigterm)
    yield notice
    signal.signal(signal.SIGTERM, before)


def test_sigterm_preempts_the_body(place: Path, notice: Notice) -> None:
    (raised,) = attempt(spec(place, "terminated"), notice)
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.PREEMPTED
    assert "in terminated" in raised.traceback


def test_sigterm_before_the_attempt_keeps_it_from_starting(place: Path, notice: Notice) -> None:
    signal.raise_signal(signal.SIGTERM)
    (raised,) = attempt(spec(place, "add", a=1), notice)
    assert isinstance(raised, Raised)
    assert raised.kind == Outcome.PREEMPTED


def test_an_answer_that_cannot_be_sent_is_a_failure_of_the_attempt() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        speaker = worker._Speaker(theirs, Notice())
        assert not speaker.last(Returned({"o0": 1 << 64}, clean=True))
        frame = receive_frame(ours)
    assert frame is not None
    assert frame[0] is Kind.LAST
    answer = msgspec.msgpack.decode(frame[1], type=Raised | Returned)
    assert isinstance(answer, Raised)
    assert answer.kind == Outcome.APP_ERROR


def test_a_lost_connection_is_explained() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(HeadwayError, match="close file descriptors"):
        worker._Speaker(theirs, Notice()).note(Warned("k", "m"))

"""Exceptions told to the driver. Their outcomes are in the executor's contract."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.engine.values import Values
from headway.executors.failure import raised
from headway.model.errors import (
    DefinitionError,
    InputError,
    NonRecoverableError,
    Preempted,
    RecoverableError,
)
from headway.model.outcome import Outcome
from headway.storage.local import LocalStorage


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("it did not raise")


def fail(error: BaseException) -> BaseException:
    def users_frame() -> None:
        raise error

    return caught(users_frame)


@pytest.mark.parametrize(
    ("members", "outcome"),
    [
        ([ValueError(), RecoverableError()], Outcome.RECOVERABLE),
        ([RecoverableError(), MemoryError()], Outcome.OOM),
        ([MemoryError(), ExceptionGroup("", [NonRecoverableError()])], Outcome.NON_RECOVERABLE),
        ([NonRecoverableError(), Preempted()], Outcome.PREEMPTED),
        ([ValueError(), TypeError()], Outcome.APP_ERROR),
    ],
)
def test_a_group_counts_as_its_weightiest_member(
    members: list[BaseException], outcome: Outcome
) -> None:
    assert raised(BaseExceptionGroup("several", members)).kind == outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("x"), Outcome.PREEMPTED),
        (SystemExit(3), Outcome.PREEMPTED),
        (RecoverableError("x"), Outcome.PREEMPTED),
        (Preempted("x"), Outcome.PREEMPTED),
        (NonRecoverableError("x"), Outcome.NON_RECOVERABLE),
        (MemoryError("x"), Outcome.OOM),
    ],
)
def test_what_comes_after_being_told_to_go(error: BaseException, outcome: Outcome) -> None:
    assert raised(fail(error), told=True).kind == outcome
    assert (
        raised(fail(ValueError("x")), told=True).message == "x (after the process was told to go)"
    )


def test_subclasses_count_as_their_bases() -> None:
    class Flaky(RecoverableError):
        pass

    told = raised(fail(Flaky("x")))
    assert told.kind == Outcome.RECOVERABLE
    assert told.type.endswith("test_subclasses_count_as_their_bases.<locals>.Flaky")


@pytest.mark.parametrize(
    ("code", "text"), [(3, "sys.exit(3)"), (None, "sys.exit()"), ("bye", "sys.exit('bye')")]
)
def test_sys_exit_is_named_as_it_was_called(code: object, text: str) -> None:
    assert text in raised(fail(SystemExit(code))).message


def test_frames_of_headway_are_left_out_of_errors_that_it_raises_on_purpose(
    tmp_path: Path,
) -> None:
    values = Values(LocalStorage(tmp_path), "v")
    error = caught(lambda: values.encode("text", int))
    assert isinstance(error, InputError)
    told = raised(error)
    assert "in <lambda>" in told.traceback
    assert "headway/engine" not in told.traceback


def test_frames_of_headway_stay_when_the_fault_may_be_its_own(tmp_path: Path) -> None:
    values = Values(LocalStorage(tmp_path), "v")
    values._encoder = None  # type: ignore[assignment]
    told = raised(caught(lambda: values.encode(1, int)))
    assert told.type == "AttributeError"
    assert "in <lambda>" in told.traceback
    assert "in encode" in told.traceback


def test_frames_of_headway_above_the_users_are_left_out() -> None:
    from headway.executors.notice import Notice

    def users_frame() -> None:
        with Notice().shield():
            raise ValueError("x")

    def through_headway() -> None:
        from headway.engine.programs import _main_name

        _main_name.__wrapped__(Path(sys.executable))
        users_frame()

    assert raised(caught(through_headway)).traceback.count('File "') == 3


def test_an_error_with_frames_of_headway_only_keeps_them() -> None:
    # Without a frame of the user's there is nothing else to show.
    code = compile("raise KeyError('x')", str(Path(sys.modules["headway"].__file__ or "")), "exec")
    error = caught(lambda: exec(code))
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    assert "__init__.py" in raised(error).traceback


def test_causes_and_contexts_are_shown_and_cut_too(tmp_path: Path) -> None:
    values = Values(LocalStorage(tmp_path), "v")

    def wrapped() -> None:
        try:
            values.encode("text", int)
        except InputError as error:
            raise RuntimeError("outer") from error

    def during() -> None:
        try:
            values.encode("text", int)
        except InputError:
            raise RuntimeError("outer")

    for body, words in ((wrapped, "direct cause"), (during, "During handling")):
        told = raised(caught(body))
        assert words in told.traceback
        assert "InputError" in told.traceback
        assert "headway/engine" not in told.traceback


def test_members_of_a_group_are_cut_too(tmp_path: Path) -> None:
    values = Values(LocalStorage(tmp_path), "v")
    member = caught(lambda: values.encode("text", int))
    assert isinstance(member, InputError)
    told = raised(fail(ExceptionGroup("several", [member])))
    assert "InputError" in told.traceback
    assert "headway/engine" not in told.traceback


IMPORT_BAD = """
from importlib import import_module
from headway.executors.failure import raised
try:
    import_module("bad")
except ZeroDivisionError as error:
    print(raised(error).traceback)
"""


def test_an_error_of_an_import_shows_the_users_file_and_not_the_machinery(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1 / 0\n")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_BAD],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "bad.py" in done.stdout
    assert "<frozen" not in done.stdout
    assert "importlib/" not in done.stdout


def test_a_syntax_error_shows_its_line() -> None:
    told = raised(caught(lambda: compile("a b", "prog.py", "exec")))
    assert "prog.py" in told.traceback
    assert "a b" in told.traceback


def test_long_messages_keep_their_ends() -> None:
    told = raised(fail(DefinitionError("a" * 60_000 + "b" * 60_000)))
    assert told.message.startswith("aaa")
    assert told.message.endswith("bbb")
    assert "110000 characters left out" in told.message
    assert len(told.message) < 10_100
    assert len(told.traceback) < 100_100


def test_an_exception_that_cannot_be_shown_is_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("traceback.TracebackException.from_exception", broken)
    told = raised(fail(ValueError("x")))
    assert told.message == "x"
    assert told.traceback == "(its traceback could not be made: RuntimeError)\n"

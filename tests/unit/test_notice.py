"""SIGTERM becomes `Preempted`: once, in the main thread, and not in the midst of something."""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.executors.notice import Notice
from headway.model.errors import Preempted


@pytest.fixture
def notice() -> Iterator[Notice]:
    """With SIGTERM's handler only: what `install` does besides would outlive the test. The executor's
    contract has the rest."""
    notice = Notice()
    before = signal.signal(signal.SIGTERM, notice._on_sigterm)
    yield notice
    signal.signal(signal.SIGTERM, before)


def tell() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_it_is_raised_where_it_may_interrupt(notice: Notice) -> None:
    with pytest.raises(Preempted, match="SIGTERM"), notice:
        tell()


def test_it_is_not_raised_elsewhere(notice: Notice) -> None:
    with notice:
        pass
    tell()


def import_and_wait(name: str) -> None:
    importlib.import_module(name)
    time.sleep(10)


def test_an_import_is_not_torn_in_two(
    notice: Notice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torn_in_two.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGTERM)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Preempted), notice:
        import_and_wait("torn_in_two")
    assert importlib.import_module("torn_in_two").whole


def test_the_import_of_the_program_is_interrupted(
    notice: Notice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "takes_long.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    began = time.monotonic()
    with pytest.raises(Preempted), notice, notice.importing():
        importlib.import_module("takes_long")
    assert time.monotonic() - began < 10


def test_what_a_program_imports_is_not_torn_in_two(
    notice: Notice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "within.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(0.1)\nwhole = True\n"
    )
    (tmp_path / "around.py").write_text("import time\nimport within\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Preempted), notice, notice.importing():
        importlib.import_module("around")
    assert importlib.import_module("within").whole


def test_a_program_that_caught_the_request_does_not_run(
    notice: Notice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "swallows.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGTERM)\nexcept BaseException: pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = []

    def attempt() -> None:
        with notice.importing():
            importlib.import_module("swallows")
        ran.append(True)

    with pytest.raises(Preempted), notice:
        attempt()
    assert not ran


def test_after_the_end_nothing_is_sent_again(
    notice: Notice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "told_at_its_end.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGTERM)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with notice:
        importlib.import_module("told_at_its_end")
    time.sleep(0.1)  # the signal comes once more, and nobody listens


def test_what_came_before_is_raised_on_entry(notice: Notice) -> None:
    tell()
    ran = False
    with pytest.raises(Preempted), notice:
        ran = True
    assert not ran


def test_it_is_raised_once(notice: Notice) -> None:
    with notice:
        with pytest.raises(Preempted):
            tell()
        tell()
        with notice.shield():
            tell()


def test_a_shield_holds_it_back_to_its_end(notice: Notice) -> None:
    done = []

    def shielded() -> None:
        with notice.shield():
            tell()
            done.append("all of it")

    with notice, pytest.raises(Preempted):
        shielded()
    assert done


def test_shields_nest(notice: Notice) -> None:
    done = []

    def shielded() -> None:
        with notice.shield():
            with notice.shield():
                tell()
            done.append("all of it")

    with notice, pytest.raises(Preempted):
        shielded()
    assert done


def test_a_shield_outside_holds_back_nothing_and_raises_nothing(notice: Notice) -> None:
    with notice.shield():
        tell()


def test_an_error_under_a_shield_gives_way_to_the_request(notice: Notice) -> None:
    def fails() -> None:
        with notice.shield():
            tell()
            raise OSError("the channel is gone")

    with pytest.raises(Preempted) as caught, notice:
        fails()
    assert isinstance(caught.value.__context__, OSError)


def test_shields_of_other_threads_hold_back_nothing(notice: Notice) -> None:
    shielded, over = threading.Event(), threading.Event()

    def other() -> None:
        with notice.shield():
            shielded.set()
            over.wait()

    thread = threading.Thread(target=other)
    thread.start()
    shielded.wait()
    try:
        with pytest.raises(Preempted), notice:
            tell()
    finally:
        over.set()
        thread.join()

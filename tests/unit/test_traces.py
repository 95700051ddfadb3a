"""What is compared to tell a clean worker from a used one; the kinds of traces are in the contract."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headway.executors import output
from headway.executors.traces import traces


def test_nothing_done_is_nothing_changed() -> None:
    assert traces() == traces()


def test_a_thread_is_a_trace_unless_it_is_headways_own() -> None:
    before, leave = traces(), threading.Event()
    own = threading.Thread(target=leave.wait, name="headway-store_0")
    other = threading.Thread(target=leave.wait, name="of the body")
    own.start()
    assert traces() == before
    other.start()
    assert traces() != before
    leave.set()
    own.join()
    other.join()


def test_a_removed_working_directory_is_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    before = traces()
    (tmp_path / "gone").rmdir()
    assert traces() != before


def test_a_replaced_stream_is_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    before = traces()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert traces() != before


def test_a_descriptor_that_is_not_there_is_replaced_by_nowhere() -> None:
    fd = output._copy(100_000)
    assert os.readlink(f"/proc/self/fd/{fd}") == os.devnull
    os.close(fd)


def test_flush_survives_streams_that_are_closed_missing_or_something_else() -> None:
    code = (
        "import os, sys; from headway.executors.output import flush; "
        "sys.stdout.write('kept'); sys.stdout = None; sys.stderr = object(); flush(); "
        "sys.__stdout__.close(); flush(); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"kept"


def test_a_log_whose_directory_is_removed_at_that_instant_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt's log was the last one in it, was sent to a store, and went with the directory."""

    def there_a_moment_ago(path: str) -> None:
        monkeypatch.undo()
        raise FileExistsError(path)

    monkeypatch.setattr(os, "mkdir", there_a_moment_ago)
    made = output.Output.__new__(output.Output)
    made._open(str(tmp_path / "node" / "1.log"))
    os.close(made._fd)
    assert (tmp_path / "node" / "1.log").exists()
    assert not made._alone

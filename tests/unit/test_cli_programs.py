"""Programs from a URL: agreed to first, kept in the home, and the working directory never touched."""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.loopback import Site

import headway
from headway import compose
from headway.cli import programs
from headway.cli.main import main
from headway.engine.home import Home
from headway.model.report import RunReport

SOURCE = b"""
from headway import task

@task
def fetched_task(n: int) -> int:
    return n
"""
DIGEST = hashlib.sha256(SOURCE).hexdigest()


class Runtime(SimpleNamespace):
    """Real homes, and runs that only note what they were given."""

    ran: list[Any]

    def open_home(self, home: str | None = None, *, create: bool = True) -> Any:
        storage = compose.open_storage(home or str(self.directory), create=create)
        return Home(storage, storage.url)

    def run(
        self, _home: Any, entity: Any, inputs: Any, *, jobs: Any, observer: Any, say: Any
    ) -> RunReport:
        self.ran.append((entity.function.__code__.co_filename, inputs))
        return RunReport("id", "e", "succeeded", inputs["n"], [], 1.0, 2.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    made = Runtime(ran=[], directory=tmp_path / "home")
    monkeypatch.setitem(sys.modules, "headway.runtime", made)
    monkeypatch.setattr(headway, "runtime", made, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    work = tmp_path / "work"
    work.mkdir()
    (work / "prog.py").write_text("the user's own file")
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    yield made
    sys.modules.pop("prog", None)
    assert [path.name for path in work.iterdir()] == ["prog.py"]
    assert (work / "prog.py").read_text() == "the user's own file"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_accepted_program_is_kept_in_the_home_and_run_from_there(
    site: Site, runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = site.file("/x/prog.py", SOURCE)
    assert main(["run", "--yes", url, "fetched_task", "--n", "3"]) == 0
    kept = tmp_path / "home" / "programs" / DIGEST / "prog.py"
    assert kept.read_bytes() == SOURCE
    assert runtime.ran == [(str(kept), {"n": 3})]
    out, err = capsys.readouterr()
    assert out == "3\n" and f"SHA-256 {DIGEST}, accepted by --yes" in err
    assert main(["run", "-q", url, "--sha256", DIGEST.upper(), "fetched_task", "--n", "4"]) == 0
    assert main(["run", "-q", "--yes", url, "fetched_task", "--n", "5"]) == 0
    assert len(runtime.ran) == 3
    assert capsys.readouterr() == ("4\n5\n", "")


def test_another_digest_runs_nothing(
    site: Site, runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = site.file("/prog.py", b"raise SystemExit('it ran')")
    assert main(["run", "--sha256", DIGEST, "--yes", url]) == 2
    assert "not the program you meant, or it has changed" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_without_a_terminal_the_command_that_agrees_is_named_exactly(
    site: Site,
    runtime: Runtime,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    url = site.file("/prog.py?a=1&b=2", SOURCE)
    words = ["run", "--json", url, "fetched_task", "--n", "3"]
    assert main(words) == 2
    found = re.search(r"type:\n  (headway run .*)", capsys.readouterr().err)
    assert found is not None
    assert runtime.ran == []
    command = shlex.split(found[1])
    assert command == ["headway", "run", "--sha256", DIGEST, *words[1:]]
    assert main(command[1:]) == 0
    assert len(runtime.ran) == 1


@pytest.mark.parametrize("answer", ["y\n", "n\n", "\n"])
def test_on_a_terminal_it_asks_and_shows_what_it_would_run(
    answer: str, site: Site, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.file("/there/prog.py", SOURCE)
    url = site.redirect("/go.py", "/there/prog.py")
    stderr = Terminal()
    read: list[bytes] = []

    class Reader(Terminal):
        def readline(self, *args: Any) -> str:  # type: ignore[override]
            path = re.search(r"to read it: (.*)", stderr.getvalue())
            assert path is not None
            read.append(Path(path[1]).read_bytes())
            assert Path(path[1]).parent.stat().st_mode & 0o777 == 0o700
            return super().readline(*args)

    monkeypatch.setattr(sys, "stdin", Reader(answer))
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "dumb")
    code = main(["run", url, "fetched_task", "--n", "3"])
    assert read == [SOURCE]
    assert f"SHA-256 {DIGEST}, {len(SOURCE)} bytes" in stderr.getvalue()
    assert f"in the end from {site.url}/there/prog.py" in stderr.getvalue()
    assert (code, len(runtime.ran)) == ((0, 1) if answer == "y\n" else (2, 0))
    assert (tmp_path / "home").exists() == (answer == "y\n")


def test_an_end_of_input_at_the_question_runs_nothing(
    site: Site, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["run", site.file("/prog.py", SOURCE)]) == 130
    assert runtime.ran == []


def test_the_home_of_a_url_stands_before_it(
    site: Site, runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = site.file("/prog.py", SOURCE)
    home = str(tmp_path / "other")
    late = ["run", "--yes", url, "fetched_task", "--n", "3", "--home", home]
    assert main(late) == 2
    assert "--home stands before the URL" in capsys.readouterr().err
    assert main(["run", "--yes", "--home", home, *late[2:-2]]) == 0
    assert (tmp_path / "other" / "programs" / DIGEST / "prog.py").exists()


def test_a_kept_program_that_somebody_changed_is_refused(
    site: Site, runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = site.file("/prog.py", SOURCE)
    kept = tmp_path / "home" / "programs" / DIGEST / "prog.py"
    assert main(["run", "--yes", url, "fetched_task", "--n", "3"]) == 0
    kept.chmod(0o600)
    kept.write_bytes(b"evil")
    assert main(["run", "--yes", url, "fetched_task", "--n", "3"]) == 2
    assert "is not what was fetched: somebody changed it" in capsys.readouterr().err
    assert len(runtime.ran) == 1


def test_a_program_that_cannot_be_fetched_is_one_message(
    site: Site, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--yes", site.redirect("/p.py", "https://169.254.169.254/")]) == 2
    assert "link-local" in capsys.readouterr().err
    assert main(["run", "ftp://x/p.py"]) == 2
    assert "programs come over https" in capsys.readouterr().err


def test_a_folder_that_cannot_be_listed_offers_no_similar_name(tmp_path: Path) -> None:
    assert programs._similar(tmp_path / "none" / "x.py") == ""

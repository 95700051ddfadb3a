"""`headway checkpoints` and `headway gc`: what there is, whether it is whole, and what may go (P10)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headway import open_checkpoint, runtime
from headway.checkpoint import audit as audit_module
from headway.checkpoint.audit import Audit
from headway.checkpoint.garbage import collect, look
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.space import pack_name
from headway.cli import codes
from headway.cli.main import main
from headway.compose import open_storage
from headway.engine.keys import lineage_prefix, node_prefix
from headway.engine.liveness import lock_attempts
from headway.engine.loading import load_file
from headway.engine.seat import taken
from headway.model.errors import CheckpointCorrupt, CheckpointFenced
from headway.storage.local import LocalStorage

NAME = "crawl"
PREFIX = lineage_prefix(NAME)
PROGRAM = """
from headway import current_context, task, workflow

@task
def fit(n: int) -> int:
    cp = current_context().checkpoint
    for i in range(n):
        cp.write(bytes([i]) * 50_000)
    cp.write(b"small")
    return n

@task
def idle(n: int) -> int:
    return n

@workflow
def both(n: int = 5) -> int:
    return idle(n=fit(n=n))
"""


class Home:
    """A home with a lineage in it."""

    def __init__(self, place: Path) -> None:
        self.url = str(place)
        with open_checkpoint(f"{self.url}/{NAME}") as cp:
            for number in range(5):
                cp.write(bytes([number]) * 50_000)
            cp.save({"w": np.arange(9_000), "loss": 0.5})
        self.storage: Any = open_storage(self.url)

    def packs(self) -> list[str]:
        return list(self.storage.list(f"{PREFIX}/packs"))

    def leave(self, term: int, size: int = 5_000) -> str:
        """What an attempt that was killed in a save leaves."""
        name = pack_name(term, 900)
        pack = self.storage.create_pack(f"{PREFIX}/packs/{name}")
        pack.write(bytes(size))
        pack.commit()
        return name

    def spoil(self, name: str) -> None:
        path = Path(self.url, PREFIX, "packs", name)
        path.write_bytes(b"T" + path.read_bytes()[1:])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A home with a run that has ended."""
    program = tmp_path / "prog.py"
    program.write_text(PROGRAM)
    url = str(tmp_path / "runs-home")
    monkeypatch.setenv("HEADWAY_HOME", url)
    module, _ = load_file(program)
    opened = runtime.open_home(url)
    report = runtime.run(opened, module.both, {"n": 5}, jobs=1)
    assert report.status == "succeeded"
    return SimpleNamespace(
        home=opened, url=url, run=report.run, node=node_prefix(report.run, "fit")
    )


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command; (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run


class TestAudit:
    def test_every_checkpoint_there_ever_was_has_a_row(self, home: Home) -> None:
        rows = Audit(home.storage, PREFIX, NAME).rows()
        assert [(row.number, row.state) for row in rows] == [
            (1, "dropped"),
            (2, "dropped"),
            (3, "dropped"),
            (4, "live"),
            (5, "live"),
            (6, "live"),
        ]
        assert [row.size for row in rows[:5]] == [50_000] * 5
        assert all(row.written >= row.size for row in rows)

    def test_what_a_save_shared_is_not_what_it_wrote(self, tmp_path: Path) -> None:
        folder = tmp_path / "state"
        folder.mkdir()
        (folder / "frozen").write_bytes(os.urandom(1 << 20))
        with open_checkpoint(f"{tmp_path}/home/x") as cp:
            for number in range(2):
                (folder / "hot").write_bytes(bytes([number]) * 40_000)
                cp.save(folder)
        rows = Audit(open_storage(f"{tmp_path}/home"), lineage_prefix("x"), "x").rows()
        assert rows[0].written > 1 << 20
        assert 40_000 <= rows[1].written < 50_000 < rows[1].size

    def test_a_checkpoint_without_its_pack_is_bad(self, home: Home) -> None:
        home.storage.delete(f"{PREFIX}/packs/{home.packs()[0]}")
        rows = Audit(home.storage, PREFIX, NAME).rows()
        assert [row.number for row in rows if row.state == "bad"] == [4]
        assert "is missing" in rows[3].error

    def test_verify_reads_every_byte_once(self, home: Home) -> None:
        audit = Audit(home.storage, PREFIX, NAME)
        read: list[int] = []
        assert [row.state for row in audit.verify(read.append)] == ["live"] * 3
        assert sum(read) == audit.size > 150_000
        again: list[int] = []
        with open_checkpoint(f"{home.url}/{NAME}") as cp:
            cp.save(cp.load())  # shares everything
        audit = Audit(home.storage, PREFIX, NAME)
        assert [row.number for row in audit.verify(again.append)] == [5, 6, 7]
        assert sum(again) == audit.size < sum(read)

    def test_one_flipped_byte_is_found(self, home: Home) -> None:
        home.spoil(home.packs()[1])
        rows = [*Audit(home.storage, PREFIX, NAME).verify()]
        assert [row.state for row in rows] == ["live", "bad", "live"]
        assert "fail their checksum" in rows[1].error

    def test_one_that_is_given_up_meanwhile_is_not_bad(self, home: Home) -> None:
        audit = Audit(home.storage, PREFIX, NAME)
        with open_checkpoint(f"{home.url}/{NAME}", keep=1) as cp:
            cp.write(b"x" * 50_000)
        assert {row.state for row in audit.verify()} == {"dropped"}
        assert {row.state for row in audit.rows()} == {"dropped"}


class TestGarbage:
    def test_a_clean_node_is_not_even_claimed(self, home: Home) -> None:
        before = home.storage.list(f"{PREFIX}/ledger")
        assert collect(home.storage, PREFIX).packs == ()
        assert home.storage.list(f"{PREFIX}/ledger") == before

    def test_leftovers_go_and_nothing_else_does(self, home: Home) -> None:
        kept = home.packs()
        left = [home.leave(1), pack_name(1, 901)]
        home.storage.create_pack(f"{PREFIX}/packs/{left[1]}").commit()
        found = look(home.storage, PREFIX)
        assert (found.packs, found.size) == (tuple(left), 5_000)
        assert home.packs() == sorted([*kept, *left]), "a look deletes nothing"
        assert collect(home.storage, PREFIX) == found
        assert home.packs() == kept
        assert {row.state for row in Audit(home.storage, PREFIX, NAME).verify()} == {"live"}
        with open_checkpoint(f"{home.url}/{NAME}") as cp:
            assert [row.number for row in cp.history()] == [4, 5, 6]

    def test_who_is_at_work_all_the_same_is_fenced_before_anything_goes(self, home: Home) -> None:
        with open_checkpoint(f"{home.url}/{NAME}") as cp:
            home.leave(1)
            collect(home.storage, PREFIX)
            with pytest.raises(CheckpointFenced):
                cp.write(b"y" * 50_000)
        assert {row.state for row in Audit(home.storage, PREFIX, NAME).verify()} == {"live"}

    def test_a_pack_of_somebody_who_came_later_stays(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home.leave(1)
        real = LocalStorage.list
        late: list[str] = []

        def opens_late(storage: LocalStorage, prefix: str) -> list[str]:
            if prefix.endswith("/packs") and not late and len(claims()) > before:
                late.append(home.leave(before + 2))
            return real(storage, prefix)

        def claims() -> list[str]:
            return real(home.storage, f"{PREFIX}/ledger")

        before = len(claims())
        monkeypatch.setattr(LocalStorage, "list", opens_late)
        assert collect(home.storage, PREFIX).packs == (pack_name(1, 900),)
        assert late[0] in home.packs()

    def test_a_damaged_ledger_is_left_alone(self, home: Home) -> None:
        home.leave(1)
        log = Path(home.url, PREFIX, "ledger", "00000001")
        data = bytearray(log.read_bytes())
        data[data.index(b"checkpoint")] ^= 1
        log.write_bytes(data)
        for act in (look, collect):
            with pytest.raises(CheckpointCorrupt, match="may be somebody's"):
                act(home.storage, PREFIX)

    def test_more_can_be_given_up_on_request(self, home: Home) -> None:
        found = collect(home.storage, PREFIX, keep=1)
        assert found.numbers == (4, 5)
        assert len(found.packs) == 2
        assert found.size >= 100_000
        with open_checkpoint(f"{home.url}/{NAME}") as cp:
            assert [row.number for row in cp.history()] == [6]
            assert cp.load()["loss"] == 0.5

    def test_each_of_several_inputs_keeps_its_own(self, tmp_path: Path) -> None:
        storage = LocalStorage(tmp_path)
        for attempt, inputs in enumerate(["a", "b", "a"]):
            cp = Checkpoint(storage, "n", attempt=attempt, inputs=inputs, keep="all")
            cp.write(bytes([attempt]) * 50_000)
            cp.close()
        assert collect(storage, "n", keep=1).numbers == (1,)


class TestRuns:
    def test_a_run_that_ended_is_looked_through(self, ran: SimpleNamespace, said: Said) -> None:
        storage = ran.home.storage
        pack = storage.create_pack(f"{ran.node}/packs/{pack_name(1, 900)}")
        pack.write(bytes(7_000))
        pack.commit()
        hidden = Path(ran.url, ran.node, "ledger", ".tmp-0123")
        hidden.write_bytes(bytes(3_000))
        deleted = Path(ran.url, "runs", ".tmp-deleted-1")
        (deleted / "x").mkdir(parents=True)
        (deleted / "x" / "y").write_bytes(bytes(1_000))
        before = storage.list(f"{ran.node}/packs")

        code, out, err = said("gc", "--dry-run")
        assert (code, out) == (0, "10.7 KiB can be given back\n".replace("10.7", "11"))
        assert f"{ran.run} fit: 1 pack, 6.8 KiB" in err
        assert "deleted runs: what was being written or deleted, 1000 B" in err
        assert storage.list(f"{ran.node}/packs") == before
        assert hidden.exists()

        code, out, _ = said("gc", "--json")
        assert code == 0
        assert json.loads(out)["size"] == 11_000
        assert len(storage.list(f"{ran.node}/packs")) == 3
        assert not hidden.exists()
        assert not deleted.exists()
        assert said("gc", "last", "-q")[1] == "0 B given back\n"
        assert said("checkpoints", "verify")[0] == 0

    def test_a_run_that_somebody_drives_is_passed_over(
        self, ran: SimpleNamespace, said: Said
    ) -> None:
        pack = ran.home.storage.create_pack(f"{ran.node}/packs/{pack_name(1, 900)}")
        pack.commit()
        with taken(ran.home, ran.run):
            for words in (["gc"], ["gc", "--dry-run"]):
                assert "passed over: it is being driven" in said(*words)[2]
        lock, _ = lock_attempts(ran.home.directory(ran.run), 1.0)
        assert "passed over: processes of an attempt still live" in said("gc")[2]
        assert "passed over" in said("gc", "-n")[2]
        assert ran.home.storage.has(f"{ran.node}/packs/{pack_name(1, 900)}")
        lock.close()
        assert "passed over" not in said("gc")[2]
        assert not ran.home.storage.has(f"{ran.node}/packs/{pack_name(1, 900)}")

    def test_the_table_says_what_there_is(self, ran: SimpleNamespace, said: Said) -> None:
        code, out, _ = said("checkpoints")
        lines = out.splitlines()
        assert code == 0
        assert " ".join(lines[0].split()) == "NODE NUMBER ATTEMPT KIND SIZE NEW AGE METRIC STATE"
        assert [line.split()[:4] for line in lines[1:]] == [
            ["fit", str(number), "0", "bytes"] for number in (3, 4, 5, 6)
        ]
        assert len(said("checkpoints", ran.run, "--all")[1].splitlines()) == 7
        assert said("checkpoints", "--node", "idle") == (0, "", "no checkpoints\n")
        code, out, _ = said("checkpoints", "last", "--json", "--all")
        assert [row["state"] for row in json.loads(out)] == ["dropped"] * 2 + ["live"] * 4
        code, _, err = said("checkpoints", "--node", "fitt")
        assert code == codes.USAGE
        assert "has no node 'fitt'; it has fit, idle" in err

    def test_verify_ends_with_another_code_and_says_what_is_bad(
        self, ran: SimpleNamespace, said: Said
    ) -> None:
        code, out, err = said("checkpoints", "verify")
        assert (code, err) == (0, "4 checkpoints whole\n")
        name = ran.home.storage.list(f"{ran.node}/packs")[1]
        path = Path(ran.url, ran.node, "packs", name)
        path.write_bytes(path.read_bytes()[:-1] + b"T")
        code, out, err = said("checkpoints", "verify", "last", "--node", "fit")
        assert code == codes.STORAGE
        assert "3 checkpoints whole, 1 bad" in err
        assert "bad: fit: checkpoint 4: 'data' is damaged: bytes of pack" in err
        assert out.count("bad") == 1
        path.unlink()
        assert said("checkpoints")[0] == codes.STORAGE


class TestLineages:
    def test_a_lineage_is_named_in_a_home_or_as_it_was_opened(self, home: Home, said: Said) -> None:
        for words in (["--lineage", f"{home.url}/{NAME}"], ["--home", home.url, "--lineage", NAME]):
            code, out, _ = said("checkpoints", *words)
            assert code == 0
            assert [line.split()[1] for line in out.splitlines()[1:]] == ["4", "5", "6"]
        code, _, err = said("checkpoints", "--home", home.url, "--lineage", "crawler")
        assert code == codes.USAGE
        assert "there is no lineage 'crawler'" in err
        assert "it has crawl" in err

    def test_its_garbage_goes_when_it_is_asked_for(self, home: Home, said: Said) -> None:
        home.leave(1)
        assert said("gc", "--home", home.url)[1] == "0 B given back\n"
        url = f"{home.url}/{NAME}"
        assert said("gc", "--lineage", url, "-n")[1] == "4.9 KiB can be given back\n"
        assert said("gc", "--lineage", url) == (
            0,
            "4.9 KiB given back\n",
            "crawl: 1 pack, 4.9 KiB\n",
        )
        err = said("gc", "--lineage", url, "--keep", "1")[2]
        assert "crawl: 2 checkpoints, 2 packs" in err
        assert len(home.packs()) == 1

    @pytest.mark.parametrize(
        "words",
        [
            ["checkpoints", "a", "b"],
            ["checkpoints", "verify", "a", "b"],
            ["checkpoints", "--lineage", "x", "--node", "n"],
            ["checkpoints", "last", "--lineage", "x"],
            ["checkpoints", "--home", "h", "--lineage", "h/x"],
            ["gc", "last", "--lineage", "x"],
            ["gc", "--keep", "0"],
        ],
    )
    def test_what_makes_no_sense_is_refused(self, words: list[str], said: Said) -> None:
        assert said(*words)[0] == codes.USAGE

    def test_a_bar_is_drawn_on_a_terminal(
        self, home: Home, said: Said, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        code, _, err = said("checkpoints", "verify", "--lineage", f"{home.url}/{NAME}")
        assert code == 0
        assert "verifying" in err

    def test_damage_in_the_ledger_is_told(self, home: Home, said: Said) -> None:
        log = Path(home.url, PREFIX, "ledger", "00000001")
        data = bytearray(log.read_bytes())
        data[data.index(b"checkpoint")] ^= 1
        log.write_bytes(data)
        code, _, err = said("checkpoints", "--lineage", f"{home.url}/{NAME}")
        assert code == codes.STORAGE
        assert "damaged: crawl: record 1.1" in err
        assert "passed over" in said("gc", "--lineage", f"{home.url}/{NAME}")[2]


def test_states_are_spelled_in_one_place() -> None:
    assert {audit_module.LIVE, audit_module.DROPPED, audit_module.BAD} == {"live", "dropped", "bad"}

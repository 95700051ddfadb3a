"""`headway copy`: a run is there as a whole or not at all, every byte verified, and goes on there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway import runtime
from headway.checkpoint.audit import Audit
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.checkpoint.restore import content
from headway.checkpoint.transfer import PIECE, NodePlace, copied_name, copy_node
from headway.cli import codes
from headway.cli.main import main
from headway.engine import kept
from headway.engine.journal import read_journal
from headway.engine.keys import node_prefix, values_prefix
from headway.engine.liveness import lock_attempts
from headway.engine.loading import load_file
from headway.engine.seat import taken
from headway.engine.transfer import RunPlace, copy_run, size_of
from headway.model.errors import CheckpointCorrupt, InputError, RunBusy, UntrustedState
from headway.model.manifest import Manifest
from headway.storage.local import LocalStorage
from headway.testing.memory import MemoryStorage

PROGRAM = """
import os
from headway import current_context, task, workflow

@task
def make(n: int) -> bytes:
    print("made", n)
    return os.urandom(9_000_000)

@task
def fit(data: bytes, n: int) -> int:
    cp = current_context().checkpoint
    state = cp.load() or {"n": 0, "w": bytes(100_000)}
    print("going on from", state["n"])
    for i in range(state["n"], n):
        if i == 5 and not os.path.exists(os.environ["GATE"]):
            raise RuntimeError("the gate is closed")
        cp.save({"n": i + 1, "w": bytes([i]) * 50_000 + bytes(50_000)})
    return state["n"] * 100 + n

@workflow
def both(n: int = 8) -> int:
    return fit(data=make(n=n), n=n)
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPlace:
    """A run that failed half-way, with checkpoints, a large value and logs."""
    program = tmp_path / "prog.py"
    program.write_text(PROGRAM)
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    module, _ = load_file(program)
    home = runtime.open_home(str(tmp_path / "home"))
    report = runtime.run(home, module.both, {"n": 8}, jobs=1)
    assert report.status == "failed"
    return RunPlace(home, report.run)


def at(tmp_path: Path, source: RunPlace, run: str | None = None, name: str = "other") -> RunPlace:
    return RunPlace(runtime.open_home(str(tmp_path / name)), run or source.run)


def checkpoints(place: RunPlace, node: str = "fit") -> list[tuple[int, list[bytes]]]:
    """(number, content) of each, every byte verified."""
    prefix = node_prefix(place.run, node)
    return [
        (manifest.number, whole(place.storage, prefix, manifest))
        for manifest in read_lineage(place.storage, prefix).manifests
    ]


def whole(storage: Any, prefix: str, manifest: Manifest) -> list[bytes]:
    return [
        b"".join(content(storage, f"{prefix}/packs", manifest, entry)) for entry in manifest.entries
    ]


def resumed(place: RunPlace, gate: Path) -> int:
    """The result, once the run may go on."""
    gate.touch()
    report = runtime.resume(place.home, place.run, jobs=1)
    assert report.status == "succeeded", report.error
    return int(report.result)


class TestRuns:
    @pytest.mark.parametrize("run", [None, "1tq4zk-8f3d"], ids=["same id", "another id"])
    def test_a_copy_goes_on_where_the_run_was(
        self, source: RunPlace, tmp_path: Path, run: str | None
    ) -> None:
        target = at(tmp_path, source, run)
        seen: list[int] = []
        report = copy_run(source, target, seen.append)
        assert (report.run, report.checkpoints, report.notes) == (target.run, 3, [])
        assert sum(seen) >= report.size >= 150_000
        assert size_of(source) == report.size
        assert checkpoints(target) == checkpoints(source)
        assert [number for number, _ in checkpoints(target)] == [3, 4, 5]
        (log,) = runtime.logs(target.home, target.run, "make")
        assert log.read(0) == b"made 8\n"
        assert resumed(target, tmp_path / "gate") == 508
        (shown,) = runtime.runs(target.home)
        assert (shown.run, shown.status) == (target.run, "succeeded")
        assert runtime.show(source.home, source.run).status == "failed"
        assert resumed(source, tmp_path / "gate") == 508, "the source is as it was"

    def test_a_copy_of_a_copy_goes_on_too(self, source: RunPlace, tmp_path: Path) -> None:
        second, third = at(tmp_path, source), at(tmp_path, source, name="third")
        copy_run(source, second)
        copy_run(second, third)
        assert checkpoints(third) == checkpoints(source)
        assert resumed(third, tmp_path / "gate") == 508

    def test_new_packs_do_not_meet_the_copied_ones(self, source: RunPlace, tmp_path: Path) -> None:
        target = at(tmp_path, source)
        copy_run(source, target)
        resumed(target, tmp_path / "gate")
        rows = Audit(target.storage, node_prefix(target.run, "fit"), "fit").verify()
        assert [(row.number, row.state) for row in rows] == [(n, "live") for n in (6, 7, 8)]

    def test_two_runs_in_one_place_are_refused(self, source: RunPlace, tmp_path: Path) -> None:
        target = at(tmp_path, source)
        copy_run(source, target)
        with pytest.raises(InputError, match=r"there is a run .* in .*other already"):
            copy_run(source, target)
        with pytest.raises(InputError, match="is already there"):
            copy_run(source, source)
        with pytest.raises(InputError, match="cannot be the id of a run"):
            copy_run(source, RunPlace(source.home, "my-run"))
        nowhere = RunPlace(source.home, "1tq4zk-8f3d")
        source.home.directory(nowhere.run).mkdir()
        with pytest.raises(InputError, match="there is no run 1tq4zk-8f3d"):
            copy_run(nowhere, at(tmp_path, source, "1tq4zk-9f3d"))

    def test_nobody_may_drive_it_meanwhile(self, source: RunPlace, tmp_path: Path) -> None:
        target = at(tmp_path, source)
        with taken(source.home, source.run), pytest.raises(RunBusy):
            copy_run(source, target)
        lock, _ = lock_attempts(source.home.directory(source.run), 1.0)
        with pytest.raises(RunBusy, match="processes of an attempt"):
            copy_run(source, target)
        lock.close()
        target.home.directory(target.run).mkdir(parents=True, exist_ok=True)
        with taken(target.home, target.run), pytest.raises(RunBusy):
            copy_run(source, target)

    def test_a_program_of_a_url_comes_along(
        self, source: RunPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = b"from headway import task\n\n@task\ndef f() -> int:\n    return 3\n"
        path = kept.keep(source.home, "hello.py", text)
        module, _ = load_file(path)
        report = runtime.run(source.home, module.f, {}, jobs=1)
        target = at(tmp_path, source, report.run)
        copy_run(RunPlace(source.home, report.run), target)
        first = read_journal(target.storage, target.run)[0][0]
        assert first.program.path.startswith(target.home.url)  # type: ignore[union-attr]
        assert runtime.result(target.home, target.run) == 3

    def test_a_damaged_value_is_not_passed_on(self, source: RunPlace, tmp_path: Path) -> None:
        values = Path(source.home.url, values_prefix(source.run))
        (pack,) = (values / "packs").iterdir()
        pack.write_bytes(pack.read_bytes()[:-1] + b"T")
        target = at(tmp_path, source)
        with pytest.raises(CheckpointCorrupt, match="a value of run"):
            copy_run(source, target)
        pack.unlink()
        with pytest.raises(CheckpointCorrupt, match="a value of run"):
            copy_run(source, target)
        assert runtime.runs(target.home) == []

    def test_a_signed_run_is_signed_anew_or_not_copied(
        self, source: RunPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADWAY_KEY", "5a" * 32)
        signed = at(tmp_path, source, name="signed")
        copy_run(source, signed)
        manifests = read_lineage(signed.storage, node_prefix(signed.run, "fit")).manifests
        hashes = {len(c.hash) for m in manifests for e in m.entries for c in e.chunks}
        assert hashes == {32}, "with a key, content is known by its identity"
        assert checkpoints(signed) == checkpoints(source)
        monkeypatch.delenv("HEADWAY_KEY")
        with pytest.raises(UntrustedState, match="is signed"):
            copy_run(signed, at(tmp_path, source, name="plain"))


class Stopped(BaseException):
    """The copying process is told to go, at one of its storage calls."""


def interruptions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets the call at which a copy stops; 0 is never."""
    left = [0]

    def guarded(name: str) -> Any:
        real = getattr(LocalStorage, name)

        def call(*args: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Stopped
            return real(*args, **more)

        return call

    for name in ("create", "create_log", "create_pack", "delete", "read_range", "list", "has"):
        monkeypatch.setattr(LocalStorage, name, guarded(name))

    def stop_at(call: int) -> None:
        left[0] = call

    yield stop_at


def test_wherever_a_copy_stops_it_is_nobodys_run_and_can_go_on(
    source: RunPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = checkpoints(source)
    stop_at = next(interruptions(monkeypatch))
    stopped = call = 0
    whole_at: list[int] = []
    while True:
        call += 2
        target = at(tmp_path, source, name=f"other-{call}")
        stop_at(call)
        try:
            copy_run(source, target)
        except Stopped:
            stopped += 1
        else:
            break
        finally:
            stop_at(0)
        if runtime.runs(target.home):  # it got as far as the last step
            whole_at.append(call)
        else:
            copy_run(source, target)
        assert checkpoints(target) == expected
        shutil.rmtree(target.home.url)
    assert stopped > 10
    assert len(whole_at) <= 1
    print(f"{stopped} interrupted copies, all went on")


def test_a_copy_that_is_killed_goes_on(source: RunPlace, tmp_path: Path) -> None:
    target = at(tmp_path, source)
    program = (
        "import os, signal, sys\n"
        "from headway.checkpoint import transfer\n"
        "from headway.cli.main import main\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "transfer._record = die\n"
        "main(sys.argv[1:])\n"
    )
    words = ["copy", str(source), target.home.url]
    done = subprocess.run([sys.executable, "-c", program, *words], check=False)
    assert done.returncode == -9
    before = set(target.storage.list(f"{node_prefix(target.run, 'fit')}/packs"))
    assert before, "it had got as far as the packs"
    assert runtime.runs(target.home) == []
    copy_run(source, target)
    assert set(target.storage.list(f"{node_prefix(target.run, 'fit')}/packs")) == before
    assert checkpoints(target) == checkpoints(source)


class TestNodes:
    def node(self, storage: Any, saves: int = 2, size: int = 100_000) -> NodePlace:
        cp = Checkpoint(storage, "a/node", keep="all")
        for number in range(saves):
            cp.save({"n": number, "w": np.random.default_rng(number).bytes(size)})
        cp.close()
        return NodePlace(storage, "a/node")

    def test_a_pack_larger_than_a_piece_keeps_its_layout(self, tmp_path: Path) -> None:
        source = self.node(LocalStorage(tmp_path), 1, 2 * PIECE + 12_345)
        target = NodePlace(MemoryStorage(), "b")
        copied = copy_node(source, target)
        (old,), (new,) = (
            read_lineage(place.storage, place.prefix).manifests for place in (source, target)
        )
        assert whole(source.storage, "a/node", old) == whole(target.storage, "b", new)
        assert copied.size >= 2 * PIECE

    def test_what_is_copied_already_is_read_again_and_replaced_when_it_is_wrong(self) -> None:
        source, target = self.node(MemoryStorage()), NodePlace(MemoryStorage(), "b")
        copy_node(source, target)
        store: Any = target.storage
        first, second = sorted(key for key in store.objects if "/packs/" in key)
        store.objects[first][5_000] ^= 1
        kept = bytes(store.objects[second])
        store.calls.clear()
        copy_node(source, target)
        assert [key for method, key in store.calls if method == "create_pack"] == [first]
        assert bytes(store.objects[second]) == kept
        assert {row.state for row in Audit(store, "b", "b").verify()} == {"live"}

    def test_a_damaged_checkpoint_is_left_out_and_told_of(self) -> None:
        storage = MemoryStorage()
        source = self.node(storage, 3)
        packs = sorted(key for key in storage.objects if "/packs/" in key)
        storage.objects[packs[1]][5_000] ^= 1
        target = NodePlace(MemoryStorage(), "b")
        copied = copy_node(source, target)
        assert copied.notes == ("checkpoint 2 is damaged, and was left out",)
        assert [m.number for m in read_lineage(target.storage, "b").manifests] == [1, 3]
        del storage.objects[packs[2]]
        assert copy_node(source, NodePlace(MemoryStorage(), "b")).checkpoints == 1
        storage.objects[packs[0]] = storage.objects[packs[0]][:1_000]
        with pytest.raises(CheckpointCorrupt, match="no checkpoint of a/node is whole"):
            copy_node(source, NodePlace(MemoryStorage(), "b"))

    def test_a_record_that_claims_a_pack_without_end_costs_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = MemoryStorage()
        source = self.node(storage, 1)
        real = read_lineage(storage, "a/node").manifests[0]

        def forged(chain: Any, where: str) -> Any:
            import msgspec

            from headway.checkpoint.lineage import Lineage

            (entry,) = (e for e in real.entries if e.chunks)
            far = msgspec.structs.replace(entry.chunks[0], offset=1 << 60)
            entry = msgspec.structs.replace(entry, chunks=(far,), size=far.length)
            return Lineage((msgspec.structs.replace(real, entries=(entry,)),), (), 1)

        monkeypatch.setattr("headway.checkpoint.transfer.lineage_of", forged)
        with pytest.raises(CheckpointCorrupt, match="is whole"):
            copy_node(source, NodePlace(MemoryStorage(), "b"))

    def test_a_node_that_saved_nothing_stays_empty(self) -> None:
        storage = MemoryStorage()
        cp = Checkpoint(storage, "a/node")
        cp.prev_exists()
        cp.close()
        target = NodePlace(MemoryStorage(), "b")
        assert copy_node(NodePlace(storage, "a/node"), target).checkpoints == 0
        assert read_lineage(target.storage, "b").manifests == ()

    def test_names_of_copies_are_of_the_first_term(self) -> None:
        assert copied_name("00000012-000345") == "00000001-12000345"
        assert copied_name(copied_name("00000012-000345")) == "00000001-13000345"
        with pytest.raises(CheckpointCorrupt):
            copied_name("../x")


class TestCommand:
    def said(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    def test_places_are_spelled_as_homes_and_ids(
        self, source: RunPlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        home, other = source.home.url, str(tmp_path / "b")
        code, out, err = self.said(capsys, "copy", f"{home}/last", other)
        assert (code, out) == (0, f"{other}/{source.run}\n")
        assert "copied with 3 checkpoints, " in err
        assert f"headway resume {source.run} --home {other}" in err
        code, out, _ = self.said(
            capsys, "copy", source.run, f"{other}/1tq4zk-8f3d", "--home", home, "--json"
        )
        assert code == 0
        assert json.loads(out)["run"] == "1tq4zk-8f3d"
        assert len(runtime.runs(runtime.open_home(other))) == 2
        code, _, err = self.said(capsys, "copy", f"{home}/last", other, "--home", home)
        assert code == codes.USAGE
        code, _, err = self.said(capsys, "copy", f"{home}/{source.run}", other)
        assert code == codes.USAGE
        assert "already" in err

    def test_a_bar_is_drawn_on_a_terminal(
        self,
        source: RunPlace,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        code, _, err = self.said(capsys, "copy", str(source), str(tmp_path / "b"))
        assert code == 0
        assert "copying" in err


@pytest.mark.objects
@pytest.mark.timeout(240)
def test_a_run_moves_to_a_bucket_and_back(
    source: RunPlace, tmp_path: Path, seaweed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.objects import servers

    for name, value in {
        "AWS_ACCESS_KEY_ID": servers.KEY,
        "AWS_SECRET_ACCESS_KEY": servers.SECRET,
        "AWS_ENDPOINT_URL": seaweed.endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }.items():
        monkeypatch.setenv(name, value)
    bucket = RunPlace(runtime.open_home(f"s3://{servers.BUCKET}/copy-{os.getpid()}"), source.run)
    assert copy_run(source, bucket).checkpoints == 3
    assert checkpoints(bucket) == checkpoints(source)
    back = at(tmp_path, source, name="back")
    copy_run(bucket, back)
    assert checkpoints(back) == checkpoints(source)
    (log,) = runtime.logs(back.home, back.run, "make")
    assert log.read(0) == b"made 8\n"
    assert resumed(bucket, tmp_path / "gate") == 508
    assert resumed(back, tmp_path / "gate") == 508

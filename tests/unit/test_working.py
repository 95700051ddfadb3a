"""`checkpoint.directory`: a working directory that is restored and saved with every checkpoint."""

from __future__ import annotations

import contextlib
import io
import itertools
import mmap
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.crash.mutants import Edit, Mutant, planted
from tests.stores import KINDS, fresh

from headway import InputError, open_checkpoint
from headway.checkpoint import handle, lineage, private, snapshot, working
from headway.checkpoint.audit import Audit
from headway.checkpoint.garbage import collect
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.checkpoint.restore import content
from headway.checkpoint.save import Content
from headway.checkpoint.states import StateSaves
from headway.checkpoint.transfer import NodePlace, copy_node
from headway.model.errors import (
    CheckpointCorrupt,
    CheckpointError,
    StorageError,
    StorageUnavailable,
)
from headway.model.manifest import Accompanied, Dropped, Manifest
from headway.model.settings import Keep
from headway.storage.local import LocalStorage
from headway.testing.comparing import difference
from headway.testing.faults import Fail, Killed
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/nodes/n"
LONG_AGO = 1_000_000_000


class Node:
    """A node: each attempt of it is another process, as far as its checkpoints can tell."""

    def __init__(self, storage: Any, scratch: Path, keep: Keep = None) -> None:
        self.storage = storage
        self.scratch = scratch
        self.keep = keep
        self.warnings: list[str] = []
        self._number = 0
        scratch.mkdir(exist_ok=True)

    def attempt(self, storage: Any = None) -> Checkpoint:
        """The next attempt; the one before may still be alive."""
        self._number += 1
        return handle.Checkpoint(
            storage or self.storage,
            PREFIX,
            attempt=self._number,
            scratch=self.scratch,
            keep=self.keep,
            on_warning=lambda warned: self.warnings.append(warned.kind),
        )

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        return read_lineage(self.storage, PREFIX).manifests

    def spoil(self, number: int, *, beside: bool) -> None:
        """Change a byte of what a checkpoint, of which nothing is in its record, has in a pack of its own.

        Args:
            number: of the checkpoint.
            beside: of its directories, or else of what was saved.
        """
        before = {p for m in self.manifests if m.number < number for p in m.packs}
        (manifest,) = [m for m in self.manifests if m.number == number]
        for entry in manifest.beside if beside else manifest.given:
            for chunk in entry.chunks:
                pack = manifest.packs[chunk.pack]
                if pack not in before:
                    self.storage.objects[f"{PREFIX}/packs/{pack}"][chunk.offset] ^= 1
                    return
        raise AssertionError("nothing of it is its own")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(MemoryStorage(), tmp_path / "scratch")


@pytest.fixture(params=KINDS)
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    return Node(fresh(request.param, request, tmp_path), tmp_path / "scratch")


def tree(place: Path) -> dict[str, Any]:
    """All that is in a directory: path -> (mode, content; None for a directory)."""
    return {
        path.relative_to(place).as_posix(): (
            stat.S_IMODE(path.stat().st_mode),
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(place.rglob("*"))
    }


def fill(place: Path, seed: int = 1) -> dict[str, Any]:
    """Put something of each kind into a directory; what is there then."""
    (place / "in" / "deep").mkdir(parents=True, exist_ok=True)
    (place / "void").mkdir(exist_ok=True)
    (place / "small").write_text(f"small {seed}")
    (place / "empty").touch()
    (place / "ünï").write_text("text")
    (place / "in" / "deep" / "large").write_bytes(np.random.default_rng(seed).bytes(3 << 20))
    (place / "in" / "huge").write_bytes(np.random.default_rng(7).bytes(9 << 20) + bytes([seed]))
    (place / "in" / "run.sh").write_text("#!/bin/sh\n")
    (place / "in" / "run.sh").chmod(0o755)
    (place / "void").chmod(0o750)
    return tree(place)


def old(place: Path) -> None:
    """Have all files in it look as if they were written long ago: their times can be trusted then."""
    for path in place.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content a save reads."""
    found: list[str] = []
    for module in (working, snapshot):

        def noted(path: Path, read: Callable[[Path], Any] = module.from_path) -> Any:
            found.append(path.name)
            return read(path)

        monkeypatch.setattr(module, "from_path", noted)
    return found


# What it is


def test_it_begins_empty_private_and_is_the_same_for_the_same_name(node: Node) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    assert place.is_dir() and not list(place.iterdir())
    assert place.is_relative_to(node.scratch)
    assert (
        stat.S_IMODE((node.scratch / place.relative_to(node.scratch).parts[0]).stat().st_mode)
        == 0o700
    )
    assert checkpoint.directory("crawl") == place
    assert checkpoint.directory("index") != place
    assert checkpoint.directories() == {"crawl": place, "index": checkpoint.directory("index")}


def test_it_goes_with_the_attempt(node: Node) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    (place / "locked").mkdir()
    (place / "locked" / "file").touch()
    (place / "locked").chmod(0o500)
    checkpoint.close()
    assert list(node.scratch.iterdir()) == []
    with pytest.raises(CheckpointError, match="has ended"):
        checkpoint.directory("crawl")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "a\0", "\udc80", "x" * 201, None, 3, b"a", Path("a")]
)
def test_names_that_are_none_are_refused(node: Node, name: Any) -> None:
    checkpoint = node.attempt()
    with pytest.raises(InputError, match="name of one directory"):
        checkpoint.directory(name)
    assert node.storage.calls == []


@pytest.mark.parametrize("name", ["a b", "ünï", ".hidden", "x" * 200, "a.b-c", "-", "~"])
def test_other_names_are_names(node: Node, name: str) -> None:
    checkpoint = node.attempt()
    (checkpoint.directory(name) / "file").touch()
    checkpoint.write(b"")
    assert tree(node.attempt().directory(name)).keys() == {"file"}


WAYS: dict[str, tuple[Callable[[Checkpoint, Path], Any], Callable[[Checkpoint, Path], Any]]] = {
    "write": (lambda c, _: c.write(b"x"), lambda c, _: c.read() == b"x"),
    "much": (lambda c, _: c.write(b"x" * 99_999), lambda c, _: c.read() == b"x" * 99_999),
    "reader": (
        lambda c, _: c.save(io.BytesIO(b"x" * 50_000)),
        lambda c, _: c.read() == b"x" * 50_000,
    ),
    "file": (
        lambda c, p: c.save(p / "given" / "small"),
        lambda c, _: (c.restore() or Path()).joinpath("small").read_text() == "small 3",
    ),
    "directory": (
        lambda c, p: c.save(p / "given"),
        lambda c, p: tree(c.restore(p / "restored") or Path()) == tree(p / "given"),
    ),
    "state": (
        lambda c, _: c.save({"a": 1, "w": np.arange(5)}),
        lambda c, _: difference(c.load(), {"a": 1, "w": np.arange(5)}) == "",
    ),
    "much state": (
        lambda c, _: c.save({"a": 1, "w": np.arange(99_999)}),
        lambda c, _: difference(c.load(), {"a": 1, "w": np.arange(99_999)}) == "",
    ),
    "in the background": (
        lambda c, _: c.save({"a": 1, "w": np.arange(99_999)}, wait=False).wait(),
        lambda c, _: (
            difference(
                c.load(into={"a": 5, "w": np.zeros(99_999, int)}), {"a": 1, "w": np.arange(99_999)}
            )
            == ""
        ),
    ),
    "little in the background": (
        lambda c, _: c.save({"a": 1}, wait=False).wait(),
        lambda c, _: c.load_entries({"a": 2}) == {"a": 1},
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", ["state", "directory"])
def test_every_save_has_it_and_every_load_gives_what_was_saved(
    anywhere: Node, tmp_path: Path, way: str, first: str
) -> None:
    save, same = WAYS[way]
    (tmp_path / "given").mkdir()
    fill(tmp_path / "given", 3)
    checkpoint = anywhere.attempt()
    left = fill(checkpoint.directory("crawl"))
    (checkpoint.directory("index") / "one").write_text("1")
    save(checkpoint, tmp_path)
    (report,) = checkpoint.history()
    assert report.directories == ["crawl", "index"]
    checkpoint.close()
    checkpoint = anywhere.attempt()
    if first == "state":
        assert same(checkpoint, tmp_path)
    assert tree(checkpoint.directory("crawl")) == left
    assert tree(checkpoint.directory("index")) == {"one": (0o644, b"1")}
    if first == "directory":
        assert same(checkpoint, tmp_path)
    checkpoint.close()
    assert anywhere.warnings == []


def test_a_checkpoint_has_it_as_it_was_and_nothing_else(node: Node) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    fill(place)
    checkpoint.write(b"1")
    (place / "small").unlink()
    (place / "void").rmdir()
    (place / "in").rename(place / "out")
    (place / "out" / "run.sh").chmod(0o600)
    (place / "new").write_text("new")
    place.chmod(0o710)
    left = tree(place)
    checkpoint.write(b"2")
    (place / "after").write_text("nobody saves this")
    again = node.attempt()
    place = again.directory("crawl")
    assert tree(place) == left
    assert stat.S_IMODE(place.stat().st_mode) == 0o710
    again.write(b"3")
    assert tree(node.attempt().directory("crawl")) == left


def test_without_one_checkpoints_are_what_they_always_were(node: Node) -> None:
    checkpoint = node.attempt()
    checkpoint.write(b"1")
    checkpoint.save({"a": np.arange(99_999)}, wait=False).wait()
    assert [type(manifest) for manifest in node.manifests] == [Manifest, Manifest]
    checkpoint.directory("crawl")
    checkpoint.write(b"2")
    assert type(node.manifests[-1]) is Accompanied
    assert list(node.scratch.iterdir()) != []


def test_a_headway_that_knows_nothing_of_it_refuses(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = node.attempt()
    checkpoint.directory("crawl")
    checkpoint.write(b"1")
    monkeypatch.setattr(lineage, "_DECODER", msgspec.msgpack.Decoder(Manifest | Dropped))
    with pytest.raises(CheckpointCorrupt, match="newer headway"):
        node.attempt().read()


def left_behind(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.name.startswith("headway-files-")]


def test_what_a_killed_process_left_is_removed_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    program = (
        "import sys, time; from headway import open_checkpoint\n"
        "with open_checkpoint(sys.argv[1]) as checkpoint:\n"
        "    file = checkpoint.directory('crawl') / 'locked' / 'file'\n"
        "    file.parent.mkdir(); file.touch(); file.parent.chmod(0o500)\n"
        "    print('ready', flush=True); time.sleep(100)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, f"{tmp_path}/home/{name}"],
            env={**os.environ, "TMPDIR": str(place)},
            stdout=subprocess.PIPE,
        )
        for name in ("alive", "dead")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        processes[1].kill()
        processes[1].wait()
        assert len(left_behind(place)) == 2
        monkeypatch.setattr("tempfile.tempdir", str(place))

        def use() -> list[Path]:
            with open_checkpoint(f"{tmp_path}/home/other") as checkpoint:
                checkpoint.directory("crawl")
            return left_behind(place)

        assert len(use()) == 2, "it may have been about to lock it"
        monkeypatch.setattr(private, "AGE", -1.0)
        (there,) = use()
        assert (there / "directories" / "crawl" / "locked" / "file").exists()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert use() == []


# What every attempt carries on (D4)


@pytest.mark.parametrize("wait", [True, False])
def test_an_attempt_that_does_not_ask_for_it_carries_it_on(node: Node, wait: bool) -> None:
    checkpoint = node.attempt()
    left = fill(checkpoint.directory("crawl"))
    checkpoint.write(b"1")
    node.attempt().save({"n": 2}, wait=wait).wait()
    third = node.attempt()
    assert third.load() == {"n": 2}
    third.write(b"3")
    fourth = node.attempt()
    fourth.write(b"4")  # before it is asked for
    assert tree(fourth.directory("crawl")) == left
    (fourth.directory("other") / "x").touch()
    fourth.write(b"5")
    assert node.attempt().history()[-1].directories == ["crawl", "other"]


def test_other_inputs_have_directories_of_their_own(node: Node) -> None:
    one = Checkpoint(node.storage, PREFIX, attempt=1, inputs="one", scratch=node.scratch)
    (one.directory("crawl") / "file").touch()
    one.write(b"1")
    two = Checkpoint(node.storage, PREFIX, attempt=2, inputs="two", scratch=node.scratch)
    assert tree(two.directory("crawl")) == {}


# One moment (D5)


@pytest.mark.parametrize("size", [10, 100_000, 3 << 20, 20 << 20])
def test_without_waiting_it_is_what_it_was_at_the_call(node: Node, size: int) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    (place / "a").write_bytes(b"1" * size)
    (place / "b").write_bytes(b"1" * size)
    checkpoint.save({"n": 1}, wait=False)
    checkpoint.flush()
    (place / "b").write_bytes(b"2" * size)
    with checkpoint._lock:  # the save cannot go on before this is released
        saved = checkpoint.save({"n": 2}, wait=False)
        (place / "b").write_bytes(b"3" * size)
        (place / "a").unlink()
        (place / "c").write_bytes(b"3" * size)
    saved.wait()
    again = node.attempt()
    found = tree(again.directory("crawl"))
    assert found == {"a": (0o644, b"1" * size), "b": (0o644, b"2" * size)}
    assert again.load() == {"n": 2}
    assert not (place.parents[1] / "copies").exists()


class Meddler:
    """Changes something in a directory while a save reads it, a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path, times: int) -> None:
        self.left = times
        monkeypatch.setattr(working, "_PAUSE", 0.001)
        for module in (working, snapshot):

            def read(path: Path, real: Callable[[Path], Any] = module.from_path) -> Any:
                found = list(real(path))
                if path.name == "first" and self.left:  # it has been read
                    self.left -= 1
                    (place / "first").write_text(f"first {self.left}")
                    (place / "second").write_text(f"second {self.left}")
                return found

            monkeypatch.setattr(module, "from_path", read)


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("times", [1, 3])
def test_what_changes_while_it_is_read_is_read_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, times: int, wait: bool
) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    (place / "first").write_text(f"first {times}")
    (place / "second").write_text(f"second {times}")
    meddler = Meddler(monkeypatch, place, times)
    checkpoint.save({"n": 1}, wait=wait).wait()
    assert meddler.left == 0
    found = tree(node.attempt().directory("crawl"))
    assert found == {"first": (0o644, b"first 0"), "second": (0o644, b"second 0")}


@pytest.mark.parametrize("wait", [True, False])
def test_what_changes_all_the_time_is_refused(
    node: Node, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    (place / "first").write_text("first")
    checkpoint.write(b"1")
    (place / "second").write_text("second")
    with monkeypatch.context() as patch:
        Meddler(patch, place, 1000)
        with pytest.raises(InputError, match="changed all the time"):
            checkpoint.save({"n": 2}, wait=wait)
    assert node.attempt().read() == b"1"
    assert [manifest.number for manifest in node.manifests] == [1]
    packs = {pack for manifest in node.manifests for pack in manifest.packs}
    assert {key.rpartition("/")[2] for key in node.storage.objects if "/packs/" in key} == packs


@pytest.mark.parametrize("wait", [True, False])
def test_what_is_no_file_is_refused_as_for_a_directory(node: Node, wait: bool) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    (place / "file").touch()
    (place / "link").symlink_to("file")
    with pytest.raises(InputError, match="link is a symbolic link"):
        checkpoint.save({"n": 1}, wait=wait)
    (place / "link").unlink()
    os.mkfifo(place / "pipe")
    with pytest.raises(InputError, match="pipe is not a regular file"):
        checkpoint.save({"n": 1}, wait=wait)
    (place / "pipe").unlink()
    os.close(os.open(os.fsencode(place) + b"/\xff", os.O_CREAT))
    with pytest.raises(InputError, match="not valid UTF-8"):
        checkpoint.save({"n": 1}, wait=wait)
    os.unlink(os.fsencode(place) + b"/\xff")
    checkpoint.save({"n": 1}, wait=wait).wait()


def test_a_directory_that_is_gone_is_refused(node: Node, tmp_path: Path) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    place.rmdir()
    with pytest.raises(InputError, match=r"directory\('crawl'\) gave, is no directory any more"):
        checkpoint.write(b"1")
    place.symlink_to(tmp_path)
    with pytest.raises(InputError, match="is no directory any more"):
        checkpoint.write(b"1")
    place.unlink()
    place.mkdir()
    checkpoint.write(b"1")


@pytest.mark.parametrize("change", ["nothing", "gone"])
def test_another_thread_may_save_before_the_background_does(
    node: Node, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """What the snapshot refers to is in a checkpoint that is given up meanwhile."""
    node.keep = 1
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    (place / "file").write_bytes(b"f" * 100_000)
    old(place)
    checkpoint.write(b"1")
    real = StateSaves._job

    def job(self: StateSaves, *arguments: Any) -> Callable[[], int]:
        found = real(self, *arguments)
        if change == "gone":
            (place / "file").unlink()
        checkpoint._files.write(memoryview(b"of another thread"))
        return found

    monkeypatch.setattr(StateSaves, "_job", job)
    saved = checkpoint.save({"n": 2}, wait=False)
    if change == "gone":
        with pytest.raises(InputError, match="does not exist"):
            saved.wait()
        assert tree(node.attempt().directory("crawl")) == {}
        return
    assert saved.wait() == 3
    again = node.attempt()
    assert tree(again.directory("crawl")) == {"file": (0o644, b"f" * 100_000)}
    assert again.load() == {"n": 2}


# What has not changed (D6)


@pytest.mark.parametrize("wait", [True, False])
def test_what_has_not_changed_is_not_read_and_not_written_again(
    node: Node, reads: list[str], wait: bool
) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    fill(place)
    old(place)
    checkpoint.save({"n": 0}, wait=wait).wait()
    assert len(reads) >= 6
    (packs,) = [manifest.packs for manifest in node.manifests]
    for turn in range(3):
        reads.clear()
        checkpoint.save({"n": turn}, wait=wait).wait()
        assert reads == []
    (place / "small").write_text("other")
    checkpoint.save({"n": 4}, wait=wait).wait()
    assert reads[:1] == ["small"] and set(reads) == {"small"}
    assert {manifest.packs for manifest in node.manifests} == {packs}


def test_what_was_restored_is_not_read_again(node: Node, reads: list[str]) -> None:
    checkpoint = node.attempt()
    left = fill(checkpoint.directory("crawl"))
    checkpoint.write(b"1")
    checkpoint.close()
    again = node.attempt()
    place = again.directory("crawl")
    reads.clear()
    again.write(b"2")
    assert reads == []
    (place / "small").write_text("small 2")  # as long as it was
    again.write(b"3")
    assert reads == ["small"]
    left["small"] = (0o644, b"small 2")
    assert tree(node.attempt().directory("crawl")) == left


def test_a_write_within_a_tick_of_the_clock_is_not_missed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_racy(node, monkeypatch)


def check_racy(node: Node, monkeypatch: pytest.MonkeyPatch, module: Any = snapshot) -> None:
    """The clock of the file system has ticks of a second."""

    def coarse(found: os.stat_result) -> Any:
        tick = 10**9
        written, changed = found.st_mtime_ns // tick * tick, found.st_ctime_ns // tick * tick
        return module.Mark(
            found.st_mode, found.st_dev, found.st_ino, found.st_size, written, changed
        )

    monkeypatch.setattr(module.Mark, "of", staticmethod(coarse))
    checkpoint = node.attempt()
    file = checkpoint.directory("crawl") / "file"
    for turn in range(20):
        file.write_text(f"{turn:03}")
        checkpoint.write(b"%d" % turn)
    assert node.attempt().directory("crawl").joinpath("file").read_text() == "019"


def test_writes_through_a_mapping_are_not_missed(node: Node) -> None:
    check_mapped(node)


def check_mapped(node: Node) -> None:
    """A page that is dirty already, and a file whose times do not tell."""
    checkpoint = node.attempt()
    file = checkpoint.directory("crawl") / "file"
    file.write_bytes(bytes(8192))
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 8192) as mapped:
        mapped[0] = 1  # from here on the page is dirty
        os.utime(file, (LONG_AGO, LONG_AGO))
        checkpoint.write(b"1")
        was = file.stat()
        mapped[1] = 2
        now = file.stat()
        assert (was.st_mtime_ns, was.st_ctime_ns) == (now.st_mtime_ns, now.st_ctime_ns)
        checkpoint.write(b"2")
    found = node.attempt().directory("crawl").joinpath("file").read_bytes()
    assert found[:3] == b"\1\2\0"


def test_space_follows_what_is_there(node: Node) -> None:
    """A file that stays does not hold the packs in which it was once written with others."""
    node.keep = 1
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    size = 400_000
    for turn in range(16):
        (place / f"stays-{turn}").write_bytes(np.random.default_rng(turn).bytes(1000))
        (place / "goes").write_bytes(np.random.default_rng(turn).bytes(size))
        state = {"w": np.random.default_rng(turn).random(size // 8)}
        checkpoint.save(state, wait=turn % 2 == 0).wait()
    held = sum(len(data) for key, data in node.storage.objects.items() if "/packs/" in key)
    assert held < 8 * size, (
        "twice what is needed, a pack for reuse, and what a save was late to leave"
    )
    found = node.attempt().directory("crawl")
    assert [len((found / f"stays-{turn}").read_bytes()) for turn in range(16)] == [1000] * 16


def test_small_directories_need_no_pack(node: Node) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    for turn in range(5):
        (place / f"{turn}").write_text("a line\n")
        checkpoint.write(b"%d" % turn)
    assert not any(manifest.packs for manifest in node.manifests)
    assert len(tree(node.attempt().directory("crawl"))) == 5


# What fails


def test_a_save_that_fails_leaves_the_checkpoint_before(node: Node) -> None:
    for only in ("create_pack", "append", "commit"):
        failing = Fail(node.storage, None, only=only, error=StorageUnavailable)
        checkpoint = node.attempt(failing)
        place = checkpoint.directory("crawl")
        (place / "file").write_bytes(b"1" * 50_000)
        checkpoint.write(b"1")
        (place / "file").write_bytes(b"2" * 50_000)
        failing.arm()
        with pytest.raises(StorageError):
            checkpoint.write(b"2")
        assert failing.struck == 1
        (place / "other").touch()
        checkpoint.write(b"3")
        found = tree(node.attempt().directory("crawl"))
        assert found == {"file": (0o644, b"2" * 50_000), "other": (0o644, b"")}
        (place / "other").unlink()


@pytest.mark.parametrize("way", ["write", "state", "background"])
def test_a_save_that_is_interrupted_anywhere_leaves_a_pair(tmp_path: Path, way: str) -> None:
    """By an exception out of a signal handler, say; the body catches it, and saves again, or does not."""
    for again, after in itertools.product((True, False), repeat=2):
        struck, call = True, 0
        while struck:
            call += 1
            node = Node(MemoryStorage(), tmp_path / "scratch")
            failing = Fail(node.storage, None, after=after, error=Killed)
            checkpoint = node.attempt(failing)
            file = checkpoint.directory("crawl") / "file"
            for number in (1, 2):
                file.write_bytes(b"%d" % number * 50_000)
                _save_as(checkpoint, "state", number)
            file.write_bytes(b"3" * 50_000)
            failing.arm(call)
            with contextlib.suppress(Killed):
                _save_as(checkpoint, way, 3)
            struck = failing.struck > 0
            failing.arm(None)
            if again:
                (file.parent / "other").touch()
                _save_as(checkpoint, way, 4)
            checkpoint.close()
            checkpoint = node.attempt()
            place = checkpoint.directory("crawl")
            number = _saved_as(checkpoint)
            assert number == 4 if again else number in {2, 3}
            expected = {"file": (0o644, b"%d" % min(number, 3) * 50_000)}
            assert tree(place) == (expected | {"other": (0o644, b"")} if again else expected)
            checkpoint.close()
        assert call > 4


def _save_as(checkpoint: Checkpoint, way: str, number: int) -> None:
    if way == "write":
        checkpoint.write(b"%d" % number)
    else:
        state = {"n": number, "w": np.full(9_000, number)}
        checkpoint.save(state, wait=way == "state").wait()


def _saved_as(checkpoint: Checkpoint) -> int:
    try:
        return int((checkpoint.load() or {"n": 0})["n"])
    except CheckpointError:
        return int(checkpoint.read() or b"0")


def pair(node: Node) -> None:
    """Two checkpoints, each with state and a directory in packs, all of it their own."""
    for number in (1, 2):
        checkpoint = node.attempt()
        place = checkpoint.directory("crawl")
        (place / "file").write_bytes(b"%d" % number * 99_999)
        checkpoint.save({"n": number, "w": np.full(99_999, number)})
        checkpoint.close()


def check_fallback(node: Node, *, beside: bool, first: str) -> None:
    """The newest checkpoint is damaged: both come from the one before."""
    pair(node)
    node.spoil(2, beside=beside)
    checkpoint = node.attempt()
    if first == "state":
        assert checkpoint.load()["n"] == 1
    elif first == "into":
        live: dict[str, Any] = {"n": 0, "w": np.zeros(99_999, int)}
        assert checkpoint.load(into=live)["n"] == 1
        assert live["w"][7] == 1
    elif first == "save":
        checkpoint.write(b"3")
    place = checkpoint.directory("crawl")
    assert (place / "file").read_bytes() == b"1" * 99_999
    if first != "save":
        assert checkpoint.load()["n"] == 1
    checkpoint.save({"n": 3})
    again = node.attempt()
    assert again.load() == {"n": 3}
    assert (again.directory("crawl") / "file").read_bytes() == b"1" * 99_999
    assert node.warnings == ["damaged"]


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("first", ["state", "into", "directory", "save"])
def test_both_come_from_the_same_checkpoint(node: Node, beside: bool, first: str) -> None:
    check_fallback(node, beside=beside, first=first)


def check_late_damage(node: Node) -> None:
    """The state turns out damaged when the body has the directory that belongs to it."""
    pair(node)
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    assert (place / "file").read_bytes() == b"2" * 99_999
    node.spoil(2, beside=False)
    with pytest.raises(CheckpointCorrupt, match=r"checkpoint 2 .* \(crawl\).*checkpoint 1"):
        checkpoint.load()
    with pytest.raises(CheckpointCorrupt):
        checkpoint.load()
    assert (place / "file").read_bytes() == b"2" * 99_999
    again = node.attempt()
    assert (again.directory("crawl") / "file").read_bytes() == b"1" * 99_999
    assert again.load()["n"] == 1


def test_damage_after_the_directory_was_given_mixes_nothing(node: Node) -> None:
    check_late_damage(node)


def test_when_all_are_damaged_it_says_so(node: Node) -> None:
    pair(node)
    node.spoil(2, beside=True)
    node.spoil(1, beside=True)
    with pytest.raises(CheckpointCorrupt, match="none of the 2"):
        node.attempt().directory("crawl")
    with pytest.raises(CheckpointCorrupt, match="none of the 2"):
        node.attempt().write(b"3")  # it would lose what the directories had
    assert list(node.scratch.iterdir()) == []


def test_a_store_that_does_not_answer_is_no_absence(node: Node) -> None:
    pair(node)
    failing = Fail(node.storage, None, only="read_range", error=StorageUnavailable)
    checkpoint = node.attempt(failing)
    failing.arm()
    with pytest.raises(StorageUnavailable):
        checkpoint.directory("crawl")
    assert checkpoint.directory("crawl").joinpath("file").read_bytes() == b"2" * 99_999


def test_a_load_later_on_leaves_the_directory_alone(node: Node) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    checkpoint.save({"n": 1})
    (place / "file").write_text("since")
    assert checkpoint.load() == {"n": 1}
    assert tree(place) == {"file": (0o644, b"since")}


def test_a_zombie_saves_nothing_and_changes_nothing(node: Node) -> None:
    zombie = node.attempt()
    (zombie.directory("crawl") / "file").write_text("1")
    zombie.write(b"1")
    newer = node.attempt()
    place = newer.directory("crawl")
    (zombie.directory("crawl") / "file").write_text("zombie")
    with pytest.raises(CheckpointError):
        zombie.write(b"zombie")
    assert tree(place) == {"file": (0o644, b"1")}
    newer.write(b"2")
    assert tree(node.attempt().directory("crawl")) == {"file": (0o644, b"1")}


# Homes


def test_copies_audits_and_garbage_know_of_it(node: Node, tmp_path: Path) -> None:
    pair(node)
    rows = Audit(node.storage, PREFIX, "n").rows()
    assert [(row.state, row.directories) for row in rows] == [("live", ["crawl"])] * 2
    target = LocalStorage(tmp_path)
    copied = copy_node(NodePlace(node.storage, PREFIX), NodePlace(target, PREFIX))
    assert copied.checkpoints == 2
    collect(target, PREFIX, keep=1)
    moved = Checkpoint(target, PREFIX, attempt=9, scratch=node.scratch)
    assert (moved.directory("crawl") / "file").read_bytes() == b"2" * 99_999
    assert moved.load()["n"] == 2
    node.spoil(2, beside=True)
    states = [row.state for row in Audit(node.storage, PREFIX, "n").verify()]
    assert states == ["live", "bad"]


def test_outside_of_a_run(tmp_path: Path) -> None:
    url = f"{tmp_path}/home/crawl"
    for turn in range(3):
        with open_checkpoint(url) as checkpoint:
            place = checkpoint.directory("pages")
            assert len(list(place.iterdir())) == turn == (checkpoint.load() or {"n": 0})["n"]
            (place / f"{turn}").touch()
            checkpoint.save({"n": turn + 1})
        assert not place.exists()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "_PAUSE", 0.001)


@pytest.mark.usefixtures("quick")
def test_a_thread_that_writes_all_the_time_never_gets_a_mixture_in(node: Node) -> None:
    """It counts in one file, and then in another: at no moment is the second ahead, or two behind."""
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    stop = threading.Event()

    def count(name: str, number: int) -> None:
        (place.parent / "new").write_text(f"{number}")
        (place.parent / "new").replace(place / name)

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            count("a", number)
            count("b", number)
            time.sleep(0.002)

    count("a", 0)
    count("b", 0)
    thread = threading.Thread(target=write)
    thread.start()
    saved = 0
    try:
        for turn in range(20):
            with contextlib.suppress(InputError):
                checkpoint.save({"n": turn}, wait=turn % 2 == 0).wait()
                manifest = node.manifests[-1]
                first, second = (
                    int(b"".join(content(node.storage, f"{PREFIX}/packs", manifest, entry)))
                    for entry in manifest.beside
                    if entry.kind == "file"
                )
                assert first - second in {0, 1}, (first, second)
                saved += 1
    finally:
        stop.set()
        thread.join()
    assert saved
    checkpoint.save({"n": -1})


# Faults that the tests above find

Scenario = Callable[[Node, pytest.MonkeyPatch, Any], None]


def _moment(node: Node, monkeypatch: pytest.MonkeyPatch, code: Any) -> None:
    monkeypatch.setattr(code.working, "_PAUSE", 0.001)
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    (place / "first").write_text("first 1")
    (place / "second").write_text("second 1")
    real, left = Content.add, [1]

    def add(self: Content, items: Any) -> None:
        (item,) = items
        real(self, [item])
        if item.name.endswith("first") and left.pop():
            left.append(0)
            (place / "first").write_text("first 0")
            (place / "second").write_text("second 0")

    monkeypatch.setattr(Content, "add", add)
    checkpoint.write(b"1")
    found = tree(node.attempt().directory("crawl"))
    assert found == {"first": (0o644, b"first 0"), "second": (0o644, b"second 0")}


def _copied(node: Node, _: pytest.MonkeyPatch, __: Any) -> None:
    checkpoint = node.attempt()
    place = checkpoint.directory("crawl")
    (place / "a").write_bytes(b"1" * 99_999)
    with checkpoint._lock:
        saved = checkpoint.save({"n": 1}, wait=False)
        (place / "a").write_bytes(b"2" * 99_999)
    saved.wait()
    assert (node.attempt().directory("crawl") / "a").read_bytes() == b"1" * 99_999


def _carried(node: Node, _: pytest.MonkeyPatch, __: Any) -> None:
    checkpoint = node.attempt()
    (checkpoint.directory("crawl") / "a").touch()
    checkpoint.write(b"1")
    node.attempt().write(b"2")
    assert tree(node.attempt().directory("crawl")) == {"a": (0o644, b"")}


def _comes_back(node: Node, _: pytest.MonkeyPatch, __: Any) -> None:
    """Content that no checkpoint has any more comes again."""
    node.keep = 1
    checkpoint = node.attempt()
    file = checkpoint.directory("crawl") / "file"
    for data in (b"1", b"2", b"1"):
        file.write_bytes(data * 99_999)
        checkpoint.write(data)
    assert (node.attempt().directory("crawl") / "file").read_bytes() == b"1" * 99_999


def _thin(node: Node, _: pytest.MonkeyPatch, __: Any) -> None:
    test_space_follows_what_is_there(node)


def _interrupted(node: Node, _: pytest.MonkeyPatch, __: Any) -> None:
    """The newest turns out bad later on, and filling from the one before fails, once."""
    pair(node)
    failing = Fail(node.storage, None, only="read_range", error=StorageUnavailable)
    checkpoint = node.attempt(failing)
    assert checkpoint.load()["n"] == 2
    node.spoil(2, beside=False)
    failing.arm()
    with pytest.raises(StorageUnavailable):
        checkpoint.load()
    checkpoint.write(b"3")
    assert (node.attempt().directory("crawl") / "file").read_bytes() == b"1" * 99_999


MUTANTS: list[tuple[Mutant, Scenario]] = [
    (
        Mutant(
            "what was once there is referred to",
            (
                Edit(
                    "working",
                    "known = {} if good is None else known_chunks(good.only(good.beside))",
                    "known = vars(turn).setdefault('ever', {}); "
                    "known.update({} if good is None else known_chunks(good))",
                ),
            ),
        ),
        _comes_back,
    ),
    (
        Mutant(
            "no second look",
            (Edit("working", "if before.whole or self._is_still(before):", "if True:"),),
        ),
        _moment,
    ),
    (
        Mutant("read later", (Edit("working", "        if not copy:\n", "        if True:\n"),)),
        _copied,
    ),
    (
        Mutant(
            "nothing carried on",
            (Edit("working", "if self._of is None and newest is not None", "if False"),),
        ),
        _carried,
    ),
    (
        Mutant(
            "racy files trusted",
            (Edit("snapshot", "RACY = 2_000_000_000", "RACY = -2_000_000_000"),),
        ),
        lambda node, patch, code: check_racy(node, patch, code.snapshot),
    ),
    (
        Mutant(
            "mappings not looked at", (Edit("snapshot", "and not self._is_mapped(name, mark)", ""),)
        ),
        lambda node, _, __: check_mapped(node),
    ),
    (
        Mutant(
            "not followed",
            (Edit("turn", "self._working.follow(self.storage, self.packs, manifest)", "pass"),),
        ),
        _carried,
    ),
    (
        Mutant(
            "the state is not proven",
            (
                Edit(
                    "working",
                    "turn.load(lambda manifest: _prove(turn, manifest))  # D2",
                    "turn.load(lambda _: True)  # D2",
                ),
            ),
        ),
        lambda node, _, __: check_fallback(node, beside=False, first="directory"),
    ),
    (
        Mutant("an older one is allowed", (Edit("turn", "self._working.allow(manifest)", "pass"),)),
        lambda node, _, __: check_late_damage(node),
    ),
    (
        Mutant(
            "directories after the state",
            (
                Edit(
                    "turn",
                    "                self._working.follow(self.storage, self.packs, manifest)\n",
                    "",
                ),
                Edit(
                    "turn",
                    "                value = load(manifest.only(manifest.given))\n",
                    "                value = load(manifest.only(manifest.given))\n"
                    "                with __import__('contextlib').suppress(CheckpointCorrupt):\n"
                    "                    self._working.follow(self.storage, self.packs, manifest)\n",
                ),
            ),
        ),
        lambda node, _, __: check_fallback(node, beside=True, first="state"),
    ),
    (
        Mutant(
            "thin packs referred to",
            (Edit("working", "if place[0] not in thin and fits", "if fits"),),
        ),
        _thin,
    ),
    (
        Mutant(
            "half filled is filled",
            (Edit("working", "self._names, self._of = [], None", "self._names = []"),),
        ),
        _interrupted,
    ),
]


@pytest.mark.parametrize(("mutant", "scenario"), MUTANTS, ids=[str(m) for m, _ in MUTANTS])
def test_a_fault_is_found(node: Node, tmp_path: Path, mutant: Mutant, scenario: Scenario) -> None:
    def play(code: Any, place: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handle, "Turn", code.turn.Turn)
            patch.setattr(handle, "Working", code.working.Working)
            scenario(Node(MemoryStorage(), place), patch, code)

    with planted(Mutant("none", ())) as code:
        play(code, tmp_path / "real")
    with (
        planted(mutant) as code,
        pytest.raises((AssertionError, pytest.fail.Exception, CheckpointError, OSError)),
    ):
        play(code, tmp_path / "mutant")

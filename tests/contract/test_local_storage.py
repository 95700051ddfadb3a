"""A home on a disk: the disk's faults and their names, what a kill leaves, who may write."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.model.errors import StorageDenied, StorageError, StorageFull, StorageUnavailable
from headway.ports import KeyExists, KeyMissing
from headway.storage.local import LocalStorage

KINDS = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EMFILE: StorageFull,
    errno.ENFILE: StorageFull,
    errno.ENOMEM: StorageFull,
    errno.EACCES: StorageDenied,
    errno.EPERM: StorageDenied,
    errno.EROFS: StorageDenied,
    errno.EIO: StorageUnavailable,
    errno.ESTALE: StorageUnavailable,
    errno.ENOTCONN: StorageUnavailable,
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


class Faults:
    """Makes one function of `os` fail, after `spare` calls, `times` times; counts how often it did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.struck = 0

    def strike(self, call: str, number: int, *, spare: int = 0, times: int = 1 << 30) -> None:
        before: Callable[..., Any] = getattr(os, call)
        left = [spare]

        def fault(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 and self.struck < times:
                self.struck += 1
                raise OSError(number, os.strerror(number))
            return before(*arguments, **named)

        self._patch.setattr(os, call, fault)

    def end(self) -> None:
        self._patch.undo()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def _descriptors() -> set[str]:
    gc.collect()  # what earlier tests left goes now, and not between two looks
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("number", KINDS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "link", "mkdir"])
def test_a_failed_creation_says_what_to_do_and_leaves_nothing(
    home: Path, faults: Faults, call: str, number: int
) -> None:
    storage = LocalStorage(home)
    storage.create("runs/old", b"kept")
    before = _descriptors()
    faults.strike(call, number)
    with pytest.raises(KINDS[number]) as caught:
        storage.create_log("runs/r/new", b"head", 100)
    faults.end()
    assert faults.struck
    assert type(caught.value) is KINDS[number]
    assert caught.value.errno == number
    assert isinstance(caught.value.__cause__, OSError)
    assert "runs/r/new" in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert _descriptors() == before
    assert not storage.has("runs/r/new")
    assert storage.read("runs/old") == b"kept"
    assert [path.name for path in home.rglob(".tmp-*")] == []
    storage.create_log("runs/r/new", b"head", 100).close()


def test_a_directory_that_cannot_be_flushed_may_leave_the_name_but_never_a_success(
    home: Path, faults: Faults
) -> None:
    storage = LocalStorage(home)
    storage.create("a/b", b"")
    faults.strike("fsync", errno.EIO, spare=1)  # the file's flush works, the directory's does not
    with pytest.raises(StorageUnavailable):
        storage.create("a/c", b"whole")
    faults.end()
    assert faults.struck == 1
    assert storage.read("a/c") == b"whole"
    with pytest.raises(KeyExists):
        storage.create("a/c", b"other")


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_after_a_failed_append_the_log_takes_nothing_more(
    home: Path, faults: Faults, call: str
) -> None:
    storage = LocalStorage(home)
    before = _descriptors()
    log = storage.create_log("l", b"head", 100)
    log.append(b"good")
    faults.strike(call, errno.EIO)
    with pytest.raises(StorageUnavailable, match="write l"):
        log.append(b"bad")
    faults.end()
    assert faults.struck == 1
    assert _descriptors() == before
    with pytest.raises(StorageError):
        log.append(b"worse")
    assert storage.read("l")[:8] == b"headgood"
    assert b"worse" not in storage.read("l")


def test_an_append_that_is_interrupted_is_as_final(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(fd: int) -> None:
        raise KeyboardInterrupt

    log = LocalStorage(home).create_log("l", b"", 100)
    monkeypatch.setattr(os, "fdatasync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        log.append(b"half")
    monkeypatch.undo()
    with pytest.raises(StorageError):
        log.append(b"more")


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_pack_that_could_not_be_made_durable_stays_so(
    home: Path, faults: Faults, call: str
) -> None:
    storage = LocalStorage(home)
    before = _descriptors()
    pack = storage.create_pack("p/1")
    pack.write(b"data")
    faults.strike(call, errno.ENOSPC, times=1)
    with pytest.raises(StorageFull, match="p/1"):
        pack.commit()
    assert faults.struck == 1
    with pytest.raises(StorageError):  # the second try must not succeed where the first did not
        pack.commit()
    with pytest.raises(StorageError):
        pack.write(b"x" * 2_000_000)
    pack.abort()
    assert _descriptors() == before
    assert not storage.has("p/1")


def test_a_large_piece_that_fails_spoils_the_pack(home: Path, faults: Faults) -> None:
    pack = LocalStorage(home).create_pack("p")
    faults.strike("pwrite", errno.ENOSPC, times=1)
    with pytest.raises(StorageFull):
        pack.write(b"x" * 2_000_000)
    with pytest.raises(StorageError):
        pack.commit()
    pack.abort()


def test_short_writes_go_on_where_they_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:7], at))
    storage = LocalStorage(home)
    storage.create("k", bytes(range(100)))
    assert storage.read("k") == bytes(range(100))


@pytest.mark.parametrize(
    ("call", "act"),
    [
        ("stat", lambda storage: storage.has("k")),
        ("pread", lambda storage: storage.read_range("k", 0, 1)),
        ("listdir", lambda storage: storage.list("d")),
        ("open", lambda storage: storage.settle("k", 0, b"v")),
        ("pwrite", lambda storage: storage.settle("k", 0, b"v")),
        ("fdatasync", lambda storage: storage.settle("k", 0, b"v")),
        ("rename", lambda storage: storage.delete("d")),
        ("unlink", lambda storage: storage.delete("k")),
    ],
)
def test_a_fault_while_looking_is_never_an_absence(
    home: Path, faults: Faults, call: str, act: Callable[[LocalStorage], object]
) -> None:
    storage = LocalStorage(home)
    storage.create("k", b"v")
    storage.create("d/k", b"v")
    before = _descriptors()
    faults.strike(call, errno.EIO)
    with pytest.raises(StorageUnavailable) as caught:
        act(storage)
    faults.end()
    assert faults.struck == 1
    assert not isinstance(caught.value, KeyMissing)
    assert _descriptors() == before


def test_reading_what_cannot_be_opened_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    storage = LocalStorage(home)
    storage.create("k", b"v")
    monkeypatch.setattr("builtins.open", fault)
    with pytest.raises(StorageUnavailable):
        storage.read("k")


def test_without_its_marker_nothing_is_absent_and_nothing_is_made(home: Path) -> None:
    (home / "headway.json").write_bytes(b"{}")
    storage = LocalStorage(home, marker="headway.json")
    storage.create("runs/r/a", b"a")
    with pytest.raises(KeyMissing):
        storage.read("runs/r/b")
    (home / "headway.json").unlink()
    shutil.rmtree(home / "runs")
    for look in (
        lambda: storage.read("runs/r/a"),
        lambda: storage.read_range("runs/r/a", 0, 1),
        lambda: storage.has("runs/r/a"),
        lambda: storage.list("runs"),
        lambda: storage.create("runs/r/a", b"b"),
        lambda: storage.create_log("runs/r/a", b"b", 1),
        lambda: storage.create_pack("runs/r/a"),
    ):
        with pytest.raises(StorageUnavailable, match="Is the disk mounted"):
            look()
    assert list(home.iterdir()) == []


def test_a_marker_that_cannot_be_looked_at_is_a_fault(home: Path, faults: Faults) -> None:
    (home / "headway.json").write_bytes(b"{}")
    storage = LocalStorage(home, marker="headway.json")
    faults.strike("stat", errno.EIO, spare=1)
    with pytest.raises(StorageUnavailable):
        storage.has("runs/r/a")
    assert faults.struck == 1


@pytest.mark.parametrize(
    ("mode", "trusted"), [(0o700, True), (0o755, True), (0o775, False), (0o702, False)]
)
def test_a_home_that_others_can_write_to_is_not_trusted(
    home: Path, mode: int, trusted: bool
) -> None:
    home.chmod(mode)
    assert LocalStorage(home).trusted is trusted


def test_the_home_of_another_user_is_not_trusted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert not LocalStorage(home).trusted


def test_whether_to_trust_a_home_that_is_gone_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        assert LocalStorage(tmp_path / "gone").trusted


def test_a_delete_that_is_killed_halfway_has_deleted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(home)
    for name in "abc":
        storage.create(f"runs/r/{name}", b"x")

    def killed(path: Path) -> None:
        (path / "a").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        storage.delete("runs/r")
    assert storage.list("runs") == []
    assert not storage.has("runs/r")
    storage.create("runs/r/a", b"new")
    assert storage.list("runs/r") == ["a"]


def test_a_directory_that_another_process_deleted_is_made_again(home: Path) -> None:
    one, other = LocalStorage(home), LocalStorage(home)
    one.create("runs/r/a", b"1")
    other.delete("runs/r")
    one.create("runs/r/a", b"2")
    assert other.read("runs/r/a") == b"2"


def test_what_a_killed_creation_left_is_not_listed(home: Path) -> None:
    storage = LocalStorage(home)
    storage.create("d/a", b"")
    (home / "d" / ".tmp-0123456789abcdef").write_bytes(b"half")
    assert storage.list("d") == ["a"]


def test_nothing_is_left_open(home: Path) -> None:
    storage = LocalStorage(home)
    before = _descriptors()
    storage.create("a/b/c", b"x" * 100_000)
    log = storage.create_log("l", b"", 100)
    log.append(b"x")
    storage.settle("l", 0, b"x")
    storage.read("l")
    storage.read_range("l", 0, 4)
    storage.list("a")
    storage.has("l")
    pack = storage.create_pack("p")
    pack.write(b"x" * 3_000_000)
    pack.commit()
    storage.create_pack("q").abort()
    for create in (storage.create, lambda key, data: storage.create_log(key, data, 1)):
        with pytest.raises(KeyExists):
            create("l", b"")
    log.close()
    storage.delete("a")
    assert _descriptors() == before

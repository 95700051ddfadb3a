"""Restoring into a directory that somebody else changes meanwhile, and names made to collide."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from headway.checkpoint import directory
from headway.checkpoint.handle import Checkpoint
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt, InputError, StorageError, StorageFull
from headway.model.manifest import Entry, Manifest
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.reliability("R11")

PREFIX = "runs/r/nodes/n"


def forged(*entries: Entry, packs: tuple[str, ...] = ()) -> Checkpoint:
    storage = MemoryStorage(trusted=False)
    manifest = Manifest(1, 0, "", 0.0, 0.0, "directory", 0, entries, packs)
    ledger = Ledger.open(storage, f"{PREFIX}/ledger")
    ledger.append(msgspec.msgpack.encode(manifest))
    ledger.close()
    return Checkpoint(storage, PREFIX)


def file(name: str, data: bytes = b"theirs", mode: int = 0o644) -> Entry:
    return Entry(name, "file", mode, len(data), data)


def folder(name: str) -> Entry:
    return Entry(name, "directory", 0o755)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    (place / "sub").mkdir(parents=True)
    (place / "f").write_bytes(b"mine")
    (place / "sub" / "f").write_bytes(b"mine")
    return place


def untouched(outside: Path) -> bool:
    found = {p.relative_to(outside).as_posix() for p in outside.rglob("*")}
    return found == {"f", "sub", "sub/f"} and (outside / "f").read_bytes() == b"mine"


def before(monkeypatch: pytest.MonkeyPatch, step: str, do: Callable[[], None]) -> list[str]:
    """Do something right before a step of a restore; the list says that it was done."""
    real: Any = getattr(directory, step)
    done: list[str] = []

    def wrapped(*args: Any) -> Any:
        if not done:
            done.append(step)
            do()
        return real(*args)

    monkeypatch.setattr(directory, step, wrapped)
    return done


def test_a_symlink_put_in_a_directorys_place_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outside: Path
) -> None:
    target = tmp_path / "target"
    (target / "sub").mkdir(parents=True)

    def swap() -> None:
        (target / "sub").rmdir()
        (target / "sub").symlink_to(outside / "sub")

    done = before(monkeypatch, "_move", swap)
    with pytest.raises(StorageError, match="restore into"):
        forged(folder("sub"), file("sub/f")).restore(target)
    assert done
    assert untouched(outside)
    assert (outside / "sub" / "f").read_bytes() == b"mine"


def test_a_symlink_put_in_a_files_place_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outside: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    done = before(monkeypatch, "_move", lambda: (target / "f").symlink_to(outside / "f"))
    forged(file("f")).restore(target)
    assert done
    assert untouched(outside)
    assert not (target / "f").is_symlink()
    assert (target / "f").read_bytes() == b"theirs"


def test_a_symlink_put_in_the_hidden_places_place_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outside: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()

    def swap() -> None:
        hidden = next(target.glob(".headway-restore-*"))
        hidden.rename(tmp_path / "moved")
        hidden.symlink_to(outside)

    done = before(monkeypatch, "_fill", swap)
    forged(folder("sub"), file("sub/f"), file("f")).restore(target)
    assert done
    assert untouched(outside)
    assert (target / "sub" / "f").read_bytes() == b"theirs"


def test_the_target_renamed_away_is_still_the_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outside: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()

    def swap() -> None:
        target.rename(tmp_path / "moved")
        target.symlink_to(outside)

    done = before(monkeypatch, "_move", swap)
    forged(folder("sub"), file("sub/g"), file("g")).restore(target)
    assert done
    assert untouched(outside)
    assert (tmp_path / "moved" / "sub" / "g").read_bytes() == b"theirs"


def test_a_directory_made_between_is_entered_and_never_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outside: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    done = before(monkeypatch, "_move", lambda: (target / "sub").symlink_to(outside))
    with pytest.raises(StorageError):
        forged(folder("sub"), file("sub/f")).restore(target)
    assert done
    assert untouched(outside)


def test_a_target_that_is_a_symlink_is_refused(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "target").symlink_to(outside)
    with pytest.raises(InputError, match="not a directory"):
        forged(file("f")).restore(tmp_path / "target")
    assert untouched(outside)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o107777])
def test_no_record_makes_a_file_set_uid(tmp_path: Path, mode: int) -> None:
    forged(file("f", mode=mode)).restore(tmp_path / "t")
    assert (tmp_path / "t" / "f").stat().st_mode & 0o7000 == 0


@pytest.mark.parametrize("kind", ["part", "symlink", "device", ""])
def test_an_entry_that_is_neither_file_nor_directory_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(CheckpointCorrupt):
        forged(Entry("f", kind, 0o644, 4, b"data")).restore(tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_names_that_differ_in_case_or_form_or_begin_alike_are_all_there(tmp_path: Path) -> None:
    names = ["a", "A", "ab", "a.", "\u00e9", "e\u0301", "\u212b", "\u00c5", "con", "a\u200b"]
    entries = [file(name, name.encode()) for name in names]
    nested = [folder("d"), file("d/x"), folder("D"), file("D/x"), folder("d-"), file("d-/x")]
    try:
        forged(*entries, *nested).restore(tmp_path / "t")
    except StorageError:  # a filesystem for which some of them are one: then nothing is there
        assert list((tmp_path / "t").iterdir()) == []
        return
    for name in names:
        assert (tmp_path / "t" / name).read_bytes() == name.encode()


def test_what_does_not_fit_is_refused_before_a_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SimpleNamespace(f_blocks=100, f_bavail=4, f_frsize=4096)
    monkeypatch.setattr("headway.checkpoint.directory.os.fstatvfs", lambda _: small)
    monkeypatch.setattr(directory, "_fill", lambda *_: pytest.fail("it wrote"))
    with pytest.raises(StorageFull, match="needs 20000 bytes, and there are 16384"):
        forged(file("f", b"x" * 20_000)).restore(tmp_path / "t")
    assert list((tmp_path / "t").iterdir()) == []


def test_a_pipe_in_a_packs_place_does_not_wait(tmp_path: Path) -> None:
    from headway.storage.local import LocalStorage

    (tmp_path / "runs").mkdir()
    os.mkfifo(tmp_path / "runs" / "pipe")
    (tmp_path / "runs" / "endless").symlink_to("/dev/zero")
    storage = LocalStorage(tmp_path)
    for key in ("runs/pipe", "runs/endless"):
        for read in (
            storage.read,
            storage.read_log,
            lambda key: storage.read_range(key, 0, 10),
            lambda key: storage.read_into(key, 0, memoryview(bytearray(10))),
        ):
            with pytest.raises(StorageError, match="read"):
                read(key)


def test_a_log_that_is_longer_than_any_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headway.ledger.read import read_ledger
    from headway.storage.local import LocalStorage

    storage = LocalStorage(tmp_path)
    Ledger.open(storage, "runs/r/ledger").append(b"good")
    log = tmp_path / "runs" / "r" / "ledger" / "00000001"
    os.truncate(log, 1 << 42)  # four tebibytes of nothing
    monkeypatch.setattr("headway.storage.local.LARGEST_LOG", 1 << 20)
    chain = read_ledger(storage, "runs/r/ledger")
    assert [record.payload for record in chain.records] == [b"good"]
    assert any(f"it has {(1 << 20) + 1} bytes" in damage.reason for damage in chain.damage)


def test_a_record_that_no_log_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    ledger = Ledger.open(storage, "runs/r/ledger")
    monkeypatch.setattr("headway.ledger.write.LARGEST_LOG", 1 << 20)
    with pytest.raises(InputError, match="more than a ledger takes"):
        ledger.append(bytes(1 << 20))
    ledger.append(b"small")


def test_settling_does_not_follow_a_symlink(tmp_path: Path) -> None:
    from headway.storage.local import LocalStorage

    (tmp_path / "home" / "runs").mkdir(parents=True)
    (tmp_path / "victim").write_bytes(b"0123456789")
    (tmp_path / "home" / "runs" / "log").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        LocalStorage(tmp_path / "home").settle("runs/log", 2, b"xx")
    assert (tmp_path / "victim").read_bytes() == b"0123456789"


@pytest.mark.parametrize(
    "marker",
    [b"", b"\xff\xfe", b"[" * 5000, b'{"format": 1e400}', b'{"format": "x"}', b" " * 5000, b"null"],
)
def test_a_homes_marker_is_read_and_not_believed(tmp_path: Path, marker: bytes) -> None:
    from headway.compose import open_storage

    (tmp_path / "headway.json").write_bytes(marker)
    with pytest.raises(CheckpointCorrupt, match="is not readable"):
        open_storage(str(tmp_path))


def test_a_marker_of_any_length_is_read_to_its_end_never(tmp_path: Path) -> None:
    from headway.compose import open_storage

    (tmp_path / "headway.json").write_bytes(b'{"format": 1}')
    os.truncate(tmp_path / "headway.json", 1 << 42)
    with pytest.raises(CheckpointCorrupt, match="is not readable"):
        open_storage(str(tmp_path))

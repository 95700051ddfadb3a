"""Records from an attacker: nothing is written outside, no size is believed, no code is run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from xxhash import xxh3_128_digest

from headway.checkpoint.handle import Checkpoint
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt
from headway.model.manifest import Chunk, Entry, Manifest
from headway.storage.local import LocalStorage

PREFIX = "runs/r/nodes/n"


def forged(home: Path, *entries: Entry, packs: tuple[str, ...] = ()) -> Checkpoint:
    storage = LocalStorage(home)
    manifest = Manifest(1, 0, "", 0.0, 0.0, "directory", 0, entries, packs)
    ledger = Ledger.open(storage, f"{PREFIX}/ledger")
    ledger.append(msgspec.msgpack.encode(manifest))
    ledger.close()
    return Checkpoint(storage, PREFIX)


def file(name: str, data: bytes = b"x") -> Entry:
    return Entry(name, "file", 0o644, len(data), data)


@pytest.mark.parametrize(
    "name", ["../out", "/etc/out", "a/../../out", ".", "..", "", "a//b", "a/", "x\0y", "missing/x"]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    home, target = tmp_path / "home", tmp_path / "deep" / "target"
    home.mkdir()
    with pytest.raises(CheckpointCorrupt, match="none of the 1"):
        forged(home, Entry("a", "directory", 0o755), file(name)).restore(target)
    assert not target.exists()
    assert list(tmp_path.rglob("out*")) == []


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointCorrupt):
        forged(tmp_path, file("a"), file("a")).restore(tmp_path / "t")


def test_a_file_is_no_parent(tmp_path: Path) -> None:
    with pytest.raises(CheckpointCorrupt):
        forged(tmp_path, file("a"), file("a/b")).restore(tmp_path / "t")


@pytest.mark.parametrize(
    "entry",
    [
        Entry("a", "file", 0o644, 5, b"four"),
        Entry("a", "file", 0o644, 1 << 50, None, (Chunk(b"h" * 16, 0, 0, 1 << 50),)),
        Entry("a", "file", 0o644, 7, None, (Chunk(b"h" * 16, 0, 0, 4),)),
        Entry("a", "file", 0o644, 4, None, (Chunk(b"h" * 16, 3, 0, 4),)),
        Entry("a", "file", 0o644, 4, None, (Chunk(b"h" * 16, 0, 1 << 60, 4),)),
        Entry("a", "file", 0o644, -4, None, (Chunk(b"h" * 16, 0, 0, -4),)),
        Entry("a", "file", 0o644, 4, None, (Chunk(b"h" * 16, 0, 0, 4),)),
    ],
)
def test_sizes_and_places_are_not_believed(tmp_path: Path, entry: Entry) -> None:
    pack = tmp_path / PREFIX / "packs" / "p"
    pack.parent.mkdir(parents=True)
    pack.write_bytes(b"data")
    with pytest.raises(CheckpointCorrupt):
        forged(tmp_path, entry, packs=("p",)).read()


@pytest.mark.parametrize("pack", ["../../../../secret", "/etc/passwd", "..", ".hidden"])
def test_a_pack_elsewhere_is_refused(tmp_path: Path, pack: str) -> None:
    (tmp_path / "secret").write_bytes(b"data")
    chunk = Chunk(xxh3_128_digest(b"data"), 0, 0, 4)
    entry = Entry("a", "file", 0o644, 4, None, (chunk,))
    with pytest.raises(CheckpointCorrupt):
        forged(tmp_path, entry, packs=(pack,)).read()


def test_modes_are_permission_bits_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    entry = Entry("a", "file", 0o100755, 1, b"x")
    place = forged(home, entry).restore(tmp_path / "t")
    assert place is not None
    assert (place / "a").stat().st_mode == 0o100755

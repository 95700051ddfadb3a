"""With a key, content is known by its BLAKE3, whichever way it was saved."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.checkpoint import identity
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.model.errors import UntrustedState
from headway.model.manifest import Manifest
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.reliability("R11")

PREFIX = "runs/r/nodes/n"
SIZE = 3 << 20


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> MemoryStorage:
    monkeypatch.setenv("HEADWAY_KEY", secrets.token_hex(32))
    return MemoryStorage(trusted=False)


def state(value: int) -> dict[str, Any]:
    array = np.arange(SIZE // 8)
    array[:10] = value
    return {"weights": array}


def files(checkpoint: Checkpoint, place: Path, value: int) -> None:
    (place / "f").write_bytes(bytes([value]) * SIZE)
    checkpoint.save(place)


def directory(checkpoint: Checkpoint, _: Path, value: int) -> None:
    """A file that is left alone when it has this content already: it is not read again then."""
    file = checkpoint.directory("crawl") / "file"
    data = bytes([value]) * SIZE
    if not file.exists() or file.read_bytes() != data:
        file.write_bytes(data)
    checkpoint.write(b"state")


SAVES: dict[str, Callable[[Checkpoint, Path, int], object]] = {
    "bytes": lambda checkpoint, _, value: checkpoint.write(bytes([value]) * SIZE),
    "files": files,
    "state": lambda checkpoint, _, value: checkpoint.save(state(value)),
    "directory": directory,
    "copied": lambda checkpoint, _, value: checkpoint.save(state(value), wait=False).wait(),
}


def manifests(storage: MemoryStorage) -> tuple[Manifest, ...]:
    return read_lineage(storage, PREFIX).manifests


def lengths(manifest: Manifest) -> set[int]:
    return {len(chunk.hash) for entry in manifest.entries for chunk in entry.chunks}


@pytest.mark.parametrize("save", SAVES)
def test_with_a_key_every_chunk_has_its_blake3(
    save: str, storage: MemoryStorage, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(storage, PREFIX)
    for value in (1, 2):
        SAVES[save](checkpoint, tmp_path, value)
    checkpoint.close()
    assert [lengths(m) for m in manifests(storage)] == [{identity.IDENTITY}] * 2


@pytest.mark.parametrize("save", SAVES)
def test_what_was_saved_before_there_was_a_key_is_not_referred_to(
    save: str, storage: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.trusted = True
    with monkeypatch.context() as without:
        without.delenv("HEADWAY_KEY")
        before = Checkpoint(storage, PREFIX)
        SAVES[save](before, tmp_path, 1)
        before.close()
    checkpoint = Checkpoint(storage, PREFIX)
    loaded = checkpoint.load() if save in {"state", "copied"} else checkpoint.read()
    assert loaded is not None
    for value in (1, 2):
        SAVES[save](checkpoint, tmp_path, value)
    checkpoint.close()
    found = [lengths(m) for m in manifests(storage)]
    assert found == [{identity.CHECKSUM}, {identity.IDENTITY}, {identity.IDENTITY}]


def test_a_signed_record_that_names_a_mere_checksum_is_refused(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No headway writes one; should one ever do, the packs could be forged."""
    checkpoint = Checkpoint(storage, PREFIX)
    with monkeypatch.context() as careless:
        careless.setattr("headway.checkpoint.identity.signing.configured", lambda: None)
        careless.setattr("headway.checkpoint.save.hasher", lambda: lambda view: bytes(16))
        checkpoint.write(b"x" * SIZE)
    with pytest.raises(UntrustedState, match="checksums, which do not stop a forger"):
        checkpoint.read()
    checkpoint.close()


def test_other_content_in_a_pack_is_found(storage: MemoryStorage) -> None:
    checkpoint = Checkpoint(storage, PREFIX)
    checkpoint.write(b"good" * SIZE)
    pack = next(key for key in storage.objects if "/packs/" in key)
    storage.objects[pack][100] ^= 1
    with pytest.raises(Exception, match="fail their checksum"):
        checkpoint.read()
    checkpoint.close()

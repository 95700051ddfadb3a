"""Contents of checkpoints that say which they are, in every part: a mixture of two would be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.load import state_of
from headway.checkpoint.restore import content
from headway.model.manifest import Manifest
from headway.ports import Storage
from headway.testing.comparing import difference
from headway.testing.playing import files_in

KINDS = ("small bytes", "large bytes", "files", "small state", "large state")
PACKED = {"large bytes", "files", "large state"}
"""Kinds whose content goes to packs."""
FROZEN = np.zeros(300_000, np.uint8)
"""The same in every large state, so that its chunks are referred to and not written again."""

Named = tuple[int, str]
"""(number of the save among all of a test, kind)."""


def large(number: int) -> bytes:
    """Bytes with the number at many places."""
    return (b"%06d." % number) * 6000


def files(number: int) -> dict[str, bytes]:
    """A directory's files: one that is always the same, others that are not."""
    return {"number": b"%d" % number, "same": b"s" * 40_000, "in/large": large(number)}


def state(number: int, *, small: bool) -> dict[str, Any]:
    """A typed state."""
    found: dict[str, Any] = {
        "number": number,
        "list": [number, str(number)],
        "x": np.arange(number % 5),
    }
    if not small:
        hot = np.zeros(60_000, np.int32)
        hot[number % 1000 :: 1000] = number
        found |= {"frozen": FROZEN, "hot": hot, "after": np.full(5000, number)}
    return found


def what(named: Named, place: Path) -> Any:
    """What `save` or `write` is given for it; files are made in `place`, which must be new."""
    number, kind = named
    if kind == "small bytes":
        return b"%d" % number
    if kind == "large bytes":
        return large(number)
    if kind == "files":
        for name, data in files(number).items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        return place
    return state(number, small=kind == "small state")


def check(checkpoint: Checkpoint, named: Named) -> None:
    """See that the newest checkpoint is this one, whole and nothing else."""
    number, kind = named
    if kind.endswith("bytes"):
        found = checkpoint.read()
        assert found is not None
        assert recognised(found) == named, f"read {found[:20]!r} …, and not {named}"
    elif kind == "files":
        place = checkpoint.restore()
        assert place is not None
        assert files_in(place) == files(number), f"restored another directory than {named}"
    else:
        saved = state(number, small=kind == "small state")
        differs = difference(checkpoint.load(), saved)
        assert not differs, f"loaded another state than {named}: {differs}"
        into = {**state(number + 1, small=kind == "small state"), "x": np.arange(number % 5) * 0}
        assert difference(checkpoint.load(into=into), saved) == ""


def recognised(data: bytes) -> Named:
    """Which content these bytes are; an assertion when they are none."""
    number = int(data[:6].split(b".")[0]) if len(data) > 1000 else int(data)
    if data == b"%d" % number:
        return number, "small bytes"
    assert data == large(number), f"torn or mixed: {data[:20]!r} … {data[-20:]!r}"
    return number, "large bytes"


def stored(storage: Storage, prefix: str, manifest: Manifest) -> Named:
    """Which content a checkpoint is, read as a stranger would; an assertion when it is none."""
    packs = f"{prefix}/packs"
    if manifest.kind == "state":
        found = state_of(storage, packs, manifest)
        small = "hot" not in found
        differs = difference(found, state(found["number"], small=small))
        assert not differs, differs
        return found["number"], "small state" if small else "large state"
    read = {
        entry.name: b"".join(content(storage, packs, manifest, entry))
        for entry in manifest.entries
        if entry.kind == "file"
    }
    if manifest.kind == "directory":
        number = int(read["number"])
        assert read == files(number), "a directory of two checkpoints"
        return number, "files"
    (data,) = read.values()
    return recognised(data)

"""Every call that a save makes of its storage fails: once or for good, before its effect or after it.

For each kind of save, in the background too: the right error comes to whoever waits, every earlier
checkpoint stays as it was, and once the storage works the same attempt goes on, and so does the next one
(P3, P4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.counting import count
from tests.stateful.contents import Named, check, stored, what

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.model.errors import StorageDenied, StorageError, StorageFull, StorageUnavailable
from headway.testing.faults import Count, Fail
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/nodes/n"
BEFORE: list[Named] = [(1, "large state"), (2, "files"), (3, "large state")]
SAVES = ["small bytes", "large bytes", "files", "small state", "large state", "background"]
HARMLESS = {"list", "delete", "room"}
"""Calls whose failure need not fail a save: they look for space, or give it back."""
pytestmark = pytest.mark.reliability("R4")


def save(checkpoint: Checkpoint, named: Named, place: Path) -> None:
    """Save, and wait until it is durable."""
    number, kind = named
    source: Any = what((number, "large state" if kind == "background" else kind), place)
    if isinstance(source, bytes):
        checkpoint.write(source)
    else:
        checkpoint.save(source, wait=kind != "background").wait()


def begun(storage: Any, place: Path) -> Checkpoint:
    """An attempt that has saved what is `BEFORE`."""
    checkpoint = Checkpoint(storage, PREFIX, keep="all")
    for named in BEFORE:
        save(checkpoint, named, place / str(named[0]))
    return checkpoint


def there(home: MemoryStorage) -> list[Named]:
    """The checkpoints that a stranger reads."""
    lineage = read_lineage(home, PREFIX)
    assert not [damage for damage in lineage.damage if not damage.tail]
    return [stored(home, PREFIX, manifest) for manifest in lineage.manifests]


@pytest.mark.parametrize("kind", SAVES)
def test_a_save_that_fails_anywhere_leaves_what_was_there(tmp_path: Path, kind: str) -> None:
    counted = Count(MemoryStorage())
    checkpoint = begun(counted, tmp_path / "counted")
    first = counted.struck
    save(checkpoint, (4, kind), tmp_path / "counted" / "4")
    checkpoint.close()
    calls = [call.name for call in counted.calls[first:]]
    real = "large state" if kind == "background" else kind
    struck = raised = 0
    for at, name in enumerate(calls, start=1):
        for error in (StorageUnavailable, StorageFull, StorageDenied):
            for lasting in (False, True):
                for after in (False, True):
                    place = tmp_path / f"{at}-{error.__name__}-{lasting}-{after}"
                    home = MemoryStorage()
                    storage = Fail(home, None, lasting=lasting, after=after, error=error)
                    checkpoint = begun(storage, place)
                    storage.arm(at)
                    told: BaseException | None = None
                    try:
                        save(checkpoint, (4, kind), place / "4")
                    except StorageError as found:
                        told = found
                    assert storage.struck, f"call {at} ({name}) did not come"
                    assert type(told) is error or (told is None and name in HARMLESS), (name, told)
                    storage.disarm()
                    struck, raised = struck + storage.struck, raised + (told is not None)
                    found_now = there(home)
                    assert found_now[: len(BEFORE)] == BEFORE
                    assert found_now[len(BEFORE) :] in ([(4, real)], [] if told else [(4, real)])
                    save(checkpoint, (5, "large state"), place / "5")
                    kept = [*BEFORE, *([] if told else [(4, real)]), (5, "large state")]
                    assert there(home) == kept
                    checkpoint.close()
                    following = Checkpoint(home, PREFIX, attempt=1)
                    check(following, (5, "large state"))
                    following.close()
    assert raised >= len(calls) * 6
    count("R4", "storage calls that failed in a save", struck)

"""What a program does with a home in a bucket, with a note of all that it was told, to be judged later."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from tests.objects import servers

from headway.checkpoint.handle import Checkpoint
from headway.compose import MARKER, _mark
from headway.ledger.read import read_ledger
from headway.ledger.write import Ledger
from headway.model.errors import StorageUnavailable
from headway.storage import object as object_module
from headway.storage import parts as parts_module
from headway.storage.object import Limits, ObjectStorage

LEDGER = "runs/r/ledger"
NODE = "runs/r/nodes/train"
SMALL_PART = 128 * 1024
LARGE_STATE = bytes(range(251)) * 1400  # three parts
_numbers = itertools.count()


@contextlib.contextmanager
def small_parts() -> Iterator[None]:
    """Packs of small parts, so that a short session has all kinds of requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_module, "PART", SMALL_PART)
        patch.setattr(parts_module, "PART", SMALL_PART)
        yield


def new_prefix() -> str:
    """A place in the bucket that nobody used."""
    return f"session-{next(_numbers)}"


def home(
    endpoint: str,
    prefix: str,
    *,
    timeout: float = 5,
    patience: float = 20,
    marker: bool = True,
    storage: type[ObjectStorage] = ObjectStorage,
) -> ObjectStorage:
    """A home by way of an endpoint."""
    bucket = servers.s3(endpoint, prefix, timeout=timeout)
    limits = Limits(patience=patience)
    url = f"s3://{servers.BUCKET}/{prefix}"
    return storage(bucket, url, marker=MARKER if marker else None, limits=limits)


@dataclass
class Told:
    """What a session was told.

    Attributes:
        acknowledged: records whose append returned.
        checkpoints: contents whose save returned.
        failed: what was said about those that did not return.
        done: it came to its end.
    """

    acknowledged: list[bytes] = field(default_factory=list)
    checkpoints: list[bytes] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    done: bool = False


def session(storage: ObjectStorage, told: Told) -> None:
    """Make a home, keep a journal and a node's checkpoints in it, read all of it back, delete."""
    _mark(storage)
    storage.read(MARKER)
    ledger = Ledger.open(storage, LEDGER)
    for payload in (b"one", b"two", b"three"):
        ledger.append(payload)
        told.acknowledged.append(payload)
    checkpoint = Checkpoint(storage, NODE)
    assert checkpoint.read() is None
    for content in (b"small", LARGE_STATE, b"smaller"):
        checkpoint.write(content)
        told.checkpoints.append(content)
        assert checkpoint.read() == content
    checkpoint.close()
    storage.create("runs/r/values/x", b"value")
    assert storage.read("runs/r/values/x") == b"value"
    assert storage.list("runs/r") == ["ledger", "nodes", "values"]
    storage.delete("runs/r/values")
    assert not storage.has("runs/r/values/x")
    ledger.append(b"four")
    told.acknowledged.append(b"four")
    told.done = True


def judge(storage: ObjectStorage, told: Told) -> None:
    """All that was acknowledged is there, and nothing is damaged; asked directly, without faults."""
    chain = read_ledger(storage, LEDGER)
    found = [record.payload for record in chain.records]
    assert not [damage for damage in chain.damage if not damage.tail]
    assert found[: len(told.acknowledged)] == told.acknowledged
    assert len(found) <= len(told.acknowledged) + 1  # one whose answer is still open
    with contextlib.closing(Checkpoint(storage, NODE, attempt=1)) as checkpoint:
        reports = checkpoint.history()
        assert len(reports) >= len(told.checkpoints)
        newest = checkpoint.read()
        if told.checkpoints and len(reports) == len(told.checkpoints):
            assert newest == told.checkpoints[-1]


def until_unreachable(storage: ObjectStorage, told: Told) -> None:
    """A session on a store that may go away: nothing but `StorageUnavailable` may end it."""
    try:
        session(storage, told)
    except StorageUnavailable as error:
        told.failed.append(str(error))

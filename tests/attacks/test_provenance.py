"""Copying a run does not make somebody else's pickles loadable."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.engine.blobs import PIECE
from headway.engine.provenance import refuse_pickles
from headway.engine.values import Values
from headway.ledger.write import Ledger
from headway.model.errors import UntrustedState
from headway.model.events import Event, RunEnded
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.reliability("R11")

RUN = "1tq4zk-8f3d"
PICKLE: dict[str, Any] = {"$": "pickle", "data": b"cposix\nsystem\n"}
LONG_SPELLING = b"\xdf\0\0\0\1\xda\0\1$\xdb\0\0\0\6pickle"  # the same map, as nobody writes it


def home(*, trusted: bool) -> MemoryStorage:
    return MemoryStorage(trusted=trusted)


def copied(copy: MemoryStorage, *events: Event, anybodys: bool = True, own: bool = True) -> None:
    copy.trusted = own
    refuse_pickles(home(trusted=not anybodys), copy, RUN, events)


def with_record(skeleton: bytes) -> MemoryStorage:
    made = home(trusted=True)
    Checkpoint(made, f"runs/{RUN}/nodes/n").save({"a": 1})
    manifest = read_lineage(made, f"runs/{RUN}/nodes/n").manifests[0]
    storage = home(trusted=False)
    ledger = Ledger.open(storage, f"runs/{RUN}/nodes/n/ledger")
    ledger.append(msgspec.msgpack.encode(msgspec.structs.replace(manifest, skeleton=skeleton)))
    return storage


def with_value(data: bytes) -> MemoryStorage:
    storage = home(trusted=False)
    Values(storage, f"runs/{RUN}/values")._blobs.put(data)
    return storage


def test_in_an_event() -> None:
    source = home(trusted=False)
    with pytest.raises(UntrustedState, match="holds pickles"):
        copied(source, RunEnded("succeeded", 1.0, {"o0": {"x": [PICKLE]}}))
    copied(source, RunEnded("succeeded", 1.0, {"o0": {"x": ["pickle", "$"]}}))


@pytest.mark.parametrize("skeleton", [msgspec.msgpack.encode({"a": [PICKLE]}), LONG_SPELLING])
def test_in_a_state(skeleton: bytes) -> None:
    with pytest.raises(UntrustedState, match="holds pickles"):
        copied(with_record(skeleton))
    copied(with_record(msgspec.msgpack.encode({"a": "$", "b": "pickle"})))


@pytest.mark.parametrize("size", [0, PIECE])
def test_in_a_value(size: int) -> None:
    tree = msgspec.msgpack.encode([PICKLE, bytes(size)])
    with pytest.raises(UntrustedState, match="holds pickles"):
        copied(with_value(tree))
    copied(with_value(b"a file that says $ pickle" + bytes(size)))


def test_where_they_are_loaded_anyway_or_never_they_are_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = RunEnded("succeeded", 1.0, {"o0": PICKLE})
    copied(home(trusted=True), event, anybodys=False)
    copied(home(trusted=False), event, own=False)
    monkeypatch.setenv("HEADWAY_KEY", "ab" * 32)  # what was read was signed
    copied(home(trusted=False), event)

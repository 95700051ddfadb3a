"""Pickles in a state: only when asked for, and only where nobody else can have put them."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from typing import Any

import msgspec
import numpy as np
import pytest

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointError, InputError, UntrustedState
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/nodes/n"


@dataclasses.dataclass
class Config:
    """Not data for headway: a class of the user's."""

    name: str
    sizes: list[int]


def state() -> dict[str, Any]:
    return {"config": Config("a", [1, 2]), "weights": np.arange(5), "tags": {"x", "y"}}


def opened(storage: MemoryStorage) -> Checkpoint:
    return Checkpoint(storage, PREFIX)


def test_what_is_not_data_is_refused_by_its_path_and_the_message_says_how_to_allow_it() -> None:
    with pytest.raises(InputError, match=r"config is a .*Config.*save\(state, pickle=True\)"):
        opened(MemoryStorage()).save(state())


@pytest.mark.parametrize("wait", [True, False])
def test_asked_for_it_comes_back_as_it_was(wait: bool) -> None:
    storage = MemoryStorage()
    opened(storage).save(state(), wait=wait, pickle=True).wait()
    loaded = opened(storage).load()
    assert loaded["config"] == Config("a", [1, 2])
    assert loaded["tags"] == {"x", "y"}
    assert (loaded["weights"] == np.arange(5)).all()


def test_only_what_is_not_data_is_pickled() -> None:
    storage = MemoryStorage()
    opened(storage).save({"n": 1, "w": np.arange(5), "t": (1, "x")}, pickle=True)
    skeleton = read_lineage(storage, PREFIX).manifests[0].skeleton
    assert skeleton is not None
    assert b"pickle" not in skeleton


def test_live_state_gets_it_in_its_slot() -> None:
    storage = MemoryStorage()
    opened(storage).save(state(), pickle=True)
    live: dict[str, Any] = {"config": None, "weights": np.zeros(5, dtype=int), "tags": set()}
    weights = live["weights"]
    opened(storage).load(into=live)
    assert live["config"] == Config("a", [1, 2])
    assert live["weights"] is weights


def test_where_others_can_write_none_is_made() -> None:
    storage = MemoryStorage(trusted=False)
    with pytest.raises(
        UntrustedState, match=r"config cannot be saved with pickle=True.*HEADWAY_KEY"
    ):
        opened(storage).save(state(), pickle=True)
    opened(storage).save({"only": "data"}, pickle=True)


def test_where_others_can_write_none_is_loaded_and_live_state_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = MemoryStorage()
    opened(storage).save(state(), pickle=True)
    storage.trusted = False
    monkeypatch.setattr("pickle.loads", lambda _: pytest.fail("it was loaded"))
    live: dict[str, Any] = {"config": 1, "weights": np.zeros(5, dtype=int), "tags": 2}
    for into in (None, live):
        with pytest.raises(UntrustedState, match=r"pickle=True.*chmod go-w"):
            opened(storage).load(into=into)
    assert live["config"] == 1
    assert not live["weights"].any()


def test_with_a_key_it_is_loaded_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_KEY", secrets.token_hex(32))
    storage = MemoryStorage(trusted=False)
    opened(storage).save(state(), pickle=True)
    assert opened(storage).load()["config"] == Config("a", [1, 2])
    monkeypatch.setenv("HEADWAY_KEY", secrets.token_hex(32))
    with pytest.raises(UntrustedState, match="not signed with this key"):
        opened(storage).load()


def test_an_attackers_pickle_is_not_loaded_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryStorage()
    opened(source).save(state(), pickle=True)
    record = msgspec.msgpack.encode(read_lineage(source, PREFIX).manifests[0])
    storage = MemoryStorage(trusted=False)
    Ledger.open(storage, f"{PREFIX}/ledger").append(record)
    monkeypatch.setenv("HEADWAY_KEY", secrets.token_hex(32))
    monkeypatch.setattr("pickle.loads", lambda _: pytest.fail("it was loaded"))
    with pytest.raises(UntrustedState, match="is not signed"):
        opened(storage).load()


def test_what_pickle_cannot_do_either_is_refused_by_its_path() -> None:
    with pytest.raises(InputError, match=r"a\.lock cannot be saved, not with pickle=True either"):
        opened(MemoryStorage()).save({"a": {"lock": threading.Lock()}}, pickle=True)


def test_a_class_that_is_gone_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    warned: list[Any] = []
    opened(storage).save({"config": Config("a", [])}, pickle=True)
    monkeypatch.delattr(f"{__name__}.Config")
    checkpoint = Checkpoint(storage, PREFIX, on_warning=warned.append)
    with pytest.raises(CheckpointError, match="Is its class still where it was"):
        checkpoint.load()
    assert warned == []


def test_it_is_for_mappings() -> None:
    with pytest.raises(InputError, match="is for a mapping"):
        opened(MemoryStorage()).save("file", pickle=True)

"""What cannot be captured is refused before the work begins, by its path, with what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway import adapters
from headway.checkpoint.capture import MADE, capture, restore
from headway.model.errors import InputError


def numbers() -> Iterator[int]:
    yield 1


class Optimizer:
    """One whose state_dict has something in it that is no data."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def state_dict(self) -> dict[str, Any]:
        return {"state": [0, 1, 2, self.held]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.held = state["state"][3]


NEVER = {
    "lock": (threading.Lock, "is a lock: make it anew"),
    "rlock": (threading.RLock, "is a lock: make it anew"),
    "condition": (threading.Condition, "is a lock: make it anew"),
    "thread": (threading.Thread, "is a thread: start it again"),
    "generator": (numbers, "is a generator, whose position nobody can read"),
    "module": (lambda: socket, "is a module: import it again"),
    "function": (lambda: numbers, "is a function: define it in the module"),
}


@pytest.mark.parametrize("pickles", [False, True], ids=["plain", "pickles"])
@pytest.mark.parametrize("name", NEVER)
def test_what_cannot_be_captured_is_refused_by_its_path(name: str, pickles: bool) -> None:
    make, text = NEVER[name]
    with pytest.raises(InputError) as caught:
        capture({"optimizer": Optimizer(make())}, "parts", adapters.find, pickles=pickles)
    assert str(caught.value).startswith(f"parts.optimizer.state[3] {text}")


@pytest.mark.parametrize("pickles", [False, True], ids=["plain", "pickles"])
def test_open_files_and_sockets_are_refused_by_their_path(tmp_path: Path, pickles: bool) -> None:
    with (tmp_path / "log").open("w") as file, pytest.raises(InputError) as caught:
        capture([file], "files", adapters.find, pickles=pickles)
    assert str(caught.value).startswith("files[0] is an open file: keep its name")
    with socket.socket() as made, pytest.raises(InputError) as caught:
        capture((0, made), "pair", adapters.find, pickles=pickles)
    assert str(caught.value).startswith("pair[1] is a socket: connect it again")


def test_an_object_of_a_class_of_ones_own_is_refused_without_pickles_alone() -> None:
    thing = object()
    with pytest.raises(InputError, match=r"a\.b is a builtins\.object, which headway cannot take"):
        capture({"b": thing}, "a", adapters.find)
    assert capture({"b": thing}, "a", adapters.find, pickles=True) == {"b": thing}


@pytest.mark.parametrize("room", ["os", "generators", "", "..checkpoint"])
def test_a_checkpoint_that_names_an_adapter_there_is_not_is_refused(room: str) -> None:
    with pytest.raises(
        InputError, match=r"a\[0\] was saved by an adapter that this headway does not"
    ):
        restore([], [{MADE: room}], "a", adapters.find)

"""`checkpoint.step`: computed once, whatever becomes of the attempts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway import InputError, UntrustedState, open_checkpoint
from headway.checkpoint.handle import Checkpoint
from headway.model.errors import CheckpointFenced, StorageUnavailable
from headway.testing.memory import MemoryStorage


class Calls:
    """A function that counts its calls."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.count = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return self.value if not args and not kwargs else (args, kwargs)


def attempt(storage: MemoryStorage, number: int) -> Checkpoint:
    return Checkpoint(storage, "runs/r/nodes/n", attempt=number)


def test_a_result_is_computed_once_for_all_attempts() -> None:
    storage, slow, other = MemoryStorage(), Calls({"a": np.arange(3)}), Calls(None)
    first = attempt(storage, 0)
    assert first.step("slow", slow)["a"].tolist() == [0, 1, 2]
    assert first.step("slow", slow)["a"].tolist() == [0, 1, 2]
    first.close()
    second = attempt(storage, 1)
    assert second.step("slow", slow)["a"].tolist() == [0, 1, 2]
    assert second.step("other", other, 1, x=2) == ((1,), {"x": 2})
    assert second.step("other", other) == ((1,), {"x": 2})
    assert (slow.count, other.count) == (1, 1)


def test_none_is_a_result_too() -> None:
    storage, none = MemoryStorage(), Calls(None)
    assert attempt(storage, 0).step("none", none) is None
    assert attempt(storage, 1).step("none", none) is None
    assert none.count == 1


def test_steps_are_no_checkpoints() -> None:
    storage = MemoryStorage()
    first = attempt(storage, 0)
    first.step("one", Calls(1))
    assert not first.prev_exists()
    first.save({"x": 5})
    first.step("two", Calls(2))
    assert attempt(storage, 1).load() == {"x": 5}


def test_a_step_may_have_steps_in_it() -> None:
    storage = MemoryStorage()
    first = attempt(storage, 0)
    inner = Calls(2)
    assert first.step("outer", lambda: first.step("inner", inner) + 1) == 3
    assert first.step("inner", inner) == 2
    assert inner.count == 1
    assert attempt(storage, 1).step("outer", inner) == 3


def test_what_a_function_raises_is_no_result() -> None:
    storage = MemoryStorage()

    def broken() -> int:
        raise ValueError("once")

    first = attempt(storage, 0)
    with pytest.raises(ValueError, match="once"):
        first.step("s", broken)
    assert first.step("s", Calls(4)) == 4


def test_a_result_that_was_not_saved_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, calls = MemoryStorage(), Calls(7)
    first = attempt(storage, 0)
    first.step("before", Calls(1))
    with monkeypatch.context() as patch:

        def fail(*_: Any, **__: Any) -> None:
            raise StorageUnavailable("planted")

        patch.setattr(Checkpoint, "save", fail)
        with pytest.raises(StorageUnavailable):
            first.step("s", calls)
    assert attempt(storage, 1).step("s", calls) == 7
    assert calls.count == 2


def test_an_attempt_that_was_replaced_records_nothing() -> None:
    storage = MemoryStorage()
    zombie = attempt(storage, 0)
    zombie.step("a", Calls(1))
    attempt(storage, 1).step("b", Calls(2))
    with pytest.raises(CheckpointFenced):
        zombie.step("c", Calls(3))
    assert attempt(storage, 2).step("c", Calls(4)) == 4


def test_threads_compute_a_step_once() -> None:
    checkpoint, calls = attempt(MemoryStorage(), 0), Calls(1)
    threads = [threading.Thread(target=checkpoint.step, args=("s", calls)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls.count == 1


def test_what_is_no_step_is_refused() -> None:
    checkpoint = attempt(MemoryStorage(), 0)
    with pytest.raises(InputError, match="a name and a function"):
        checkpoint.step("s", 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a name and a function"):
        checkpoint.step(len, "s")  # type: ignore[arg-type]


def test_outside_of_a_run(tmp_path: Path) -> None:
    calls = Calls([1, "two"])
    for _ in range(2):
        with open_checkpoint(f"{tmp_path}/home/crawl") as checkpoint:
            assert checkpoint.step("list", calls) == [1, "two"]
    assert calls.count == 1


def test_objects_need_a_home_of_ones_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with open_checkpoint(f"{home}/x") as checkpoint:
        assert checkpoint.step("set", Calls({1})) == {1}
    home.chmod(0o777)
    with open_checkpoint(f"{home}/x") as checkpoint, pytest.raises(UntrustedState):
        checkpoint.step("set", Calls({1}))

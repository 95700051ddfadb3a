"""Loading typed state: into fresh memory or into live state, past damage, and what is said of a mixture."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.checkpoint import fill, save, source, tensors
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.memory import Block
from headway.model.errors import CheckpointCorrupt, InputError, StorageUnavailable
from headway.ports import unseen
from headway.storage.local import LocalStorage

PREFIX = "runs/r/nodes/n"
MANY = 400


class Watched(LocalStorage):
    """Counts reads of packs, and can fail one of them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads = 0
        self.fail_at: int | None = None

    def read_into(
        self, key: str, offset: int, into: memoryview, seen: Callable[[int], None] = unseen
    ) -> int:
        self.reads += 1
        if self.reads == self.fail_at:
            raise StorageUnavailable("a planted fault")
        return super().read_into(key, offset, into, seen)


@pytest.fixture
def storage(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@pytest.fixture
def checkpoint(storage: Watched) -> Checkpoint:
    return Checkpoint(storage, PREFIX, on_warning=lambda _: None, keep=5)


def state(seed: int, size: int = 700_000) -> dict[str, Any]:
    made = np.random.default_rng(seed)
    return {"a": made.random(size), "step": seed, "b": [made.random((30, 40)), made.random(size)]}


def damage(storage: Watched, number: int, at: int) -> None:
    """Flip a bit in the `number`-th pack."""
    place = storage.path(f"{PREFIX}/packs")
    path = sorted(place.iterdir())[number]
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def same(one: Any, other: Any) -> bool:
    return bool(
        one["step"] == other["step"]
        and (one["a"] == other["a"]).all()
        and all((x == y).all() for x, y in zip(one["b"], other["b"], strict=True))
    )


def test_a_damaged_checkpoint_is_overwritten_by_the_one_before(
    storage: Watched, checkpoint: Checkpoint
) -> None:
    checkpoint.save(state(1))
    checkpoint.save(state(2))
    damage(storage, 1, 9_000_000)
    live = state(3)
    inner = live["b"][0]
    assert Checkpoint(storage, PREFIX, attempt=1, on_warning=lambda _: None).load(live) is live
    assert same(live, state(1))
    assert live["b"][0] is inner


def test_when_none_is_left_the_error_says_that_live_state_is_a_mixture(
    storage: Watched, checkpoint: Checkpoint
) -> None:
    checkpoint.save(state(1))
    damage(storage, 0, 9_000_000)
    with pytest.raises(CheckpointCorrupt, match=r"none of the 1 .*holds a mixture.*build it anew"):
        Checkpoint(storage, PREFIX, attempt=1, on_warning=lambda _: None).load(state(3))
    with pytest.raises(CheckpointCorrupt) as caught:  # nothing was touched
        Checkpoint(storage, PREFIX, attempt=2, on_warning=lambda _: None).load()
    assert "mixture" not in str(caught.value)


def test_an_older_one_that_does_not_fit_is_no_way_out_of_a_mixture(
    storage: Watched, checkpoint: Checkpoint
) -> None:
    checkpoint.save(state(1, 600_000))
    checkpoint.save(state(2))
    damage(storage, 1, 9_000_000)
    with pytest.raises(CheckpointCorrupt, match="holds a mixture"):
        Checkpoint(storage, PREFIX, attempt=1, on_warning=lambda _: None).load(state(3))


def test_a_fault_of_the_store_is_no_damage_and_says_what_became_of_live_state(
    storage: Watched, checkpoint: Checkpoint
) -> None:
    checkpoint.save(state(1))
    checkpoint.save(state(2))
    storage.reads, storage.fail_at = 0, 2
    live = state(3)
    with pytest.raises(StorageUnavailable, match="a planted fault") as caught:
        checkpoint.load(live)
    assert storage.reads >= 2
    assert "holds a mixture" in caught.value.__notes__[0]
    storage.fail_at = None
    assert same(checkpoint.load(live), state(2))  # it can be done again


def test_what_does_not_fit_is_found_before_anything_is_read(
    storage: Watched, checkpoint: Checkpoint
) -> None:
    checkpoint.save(state(1))
    live = state(3, 700_001)
    storage.reads = 0
    with pytest.raises(InputError, match=r"a is float64 of shape \(700001,\)"):
        checkpoint.load(live)
    assert storage.reads == 0
    assert same(live, state(3, 700_001))


def test_small_parts_are_read_together(storage: Watched, checkpoint: Checkpoint) -> None:
    saved = {str(n): np.full(1000 + n, n, "f4") for n in range(MANY)}
    checkpoint.save(saved)
    live = {key: np.zeros_like(array) for key, array in saved.items()}
    storage.reads = 0
    checkpoint.load(live)
    assert 0 < storage.reads <= 3
    assert all((live[key] == saved[key]).all() for key in saved)
    loaded = checkpoint.load()
    assert all((loaded[key] == saved[key]).all() for key in saved)


def test_memory_beside_the_state_is_bounded(
    storage: Watched, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most = [0], [0]

    class Counted(Block):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            held[0] += self.size
            most[0] = max(most[0], held[0])

        def close(self) -> None:
            held[0] -= self.size
            super().close()

    monkeypatch.setattr(fill, "Block", Counted)
    saved = {str(n): np.full(50_000 + n, n, "f4") for n in range(MANY)}  # 80 MB
    checkpoint.save(saved)
    live = {key: np.zeros_like(array) for key, array in saved.items()}
    checkpoint.load(live)
    assert held[0] == 0 < most[0] <= 64 << 20
    assert all((live[key] == saved[key]).all() for key in saved)


def test_other_layouts_other_keys_and_other_sizes_are_filled_too(checkpoint: Checkpoint) -> None:
    made = np.random.default_rng(1)
    saved: dict[str, Any] = {
        "rows": made.random((300, 200)),
        "columns": np.asfortranarray(made.random((300, 200))),
        "every second": made.random(5000),
        "keys": {np.float32(1.5): made.random(9), (2, np.int8(3)): "x"},
        "longer": bytearray(made.bytes(90_000)),
        "as long": bytearray(made.bytes(90_000)),
        "tuple": (made.random(10), b"b" * 100, np.float64(2.5)),
        "new": None,
        "replaced": {"x": 1},
        "zero": np.zeros((0, 3)),
    }
    saved["new"] = made.random(70_000)
    checkpoint.save(saved)
    columns = np.zeros((300, 200))
    live: dict[str, Any] = {
        "rows": np.asfortranarray(np.zeros((300, 200))),
        "columns": columns,
        "every second": np.zeros(10_000)[::2],
        "keys": {np.float32(1.5): np.zeros(9), (2, np.int8(3)): "y"},
        "longer": bytearray(5),
        "as long": bytearray(90_000),
        "tuple": (np.zeros(10), b"b" * 100, np.float64(2.5)),
        "new": None,
        "replaced": None,
        "zero": np.ones((0, 3)),
    }
    assert checkpoint.load(live) is live
    assert live["columns"] is columns
    assert live["keys"][2, np.int8(3)] == "x"
    assert (live["keys"][np.float32(1.5)] == saved["keys"][np.float32(1.5)]).all()
    for key in ("rows", "columns", "every second", "new"):
        assert (live[key] == saved[key]).all(), key
    assert live["longer"] == saved["longer"] and live["as long"] == saved["as long"]
    assert (live["tuple"][0] == saved["tuple"][0]).all()
    assert live["replaced"] == {"x": 1}
    with pytest.raises(InputError, match=r"tuple\[1\] is in a tuple"):
        checkpoint.load({**live, "tuple": (np.zeros(10), b"c" * 100, 2.5)})


@pytest.mark.frameworks
def test_a_tensor_elsewhere_gets_its_bytes_in_pieces(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")
    real = tensors.whole
    pieces = []

    class Elsewhere:
        """A flat tensor that pretends to be on another device."""

        device = torch.device("cuda")

        def __init__(self, flat: Any) -> None:
            self._flat = flat
            self.data_ptr = flat.data_ptr

        def __getitem__(self, where: slice) -> Any:
            pieces.append(where)
            return self._flat[where]

    weights = torch.randn(3_000_000)
    saved = {"w": weights, "tied": weights, "other": torch.randn(1000, 7).bfloat16()}
    checkpoint.save(saved)
    zeros = torch.zeros(3_000_000)
    live = {"w": zeros, "tied": zeros, "other": torch.zeros(1000, 7, dtype=torch.bfloat16)}
    monkeypatch.setattr(tensors, "whole", lambda *given: Elsewhere(real(*given)))
    checkpoint.load(live)
    assert torch.equal(live["w"], weights) and live["tied"] is live["w"]
    assert torch.equal(live["other"], saved["other"])
    assert len(pieces) > 2 and all(piece.stop - piece.start <= 8 << 20 for piece in pieces)
    assert sum(piece.stop - piece.start for piece in pieces) == 12_014_000  # what is tied, once


class TestLargeFiles:
    """Files that several threads read, hash and write."""

    @pytest.fixture(autouse=True)
    def smaller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(source, "LARGE_FILE", 2 << 20)
        monkeypatch.setattr(save, "_AT_ONCE", 2 << 20)

    @pytest.fixture
    def path(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("files") / "large"
        path.write_bytes(random.Random(1).randbytes((9 << 20) + 12_345))
        return path

    def test_they_come_back(self, storage: Watched, checkpoint: Checkpoint, path: Path) -> None:
        checkpoint.save(path)
        assert checkpoint.read() == path.read_bytes()

    def test_only_what_changed_is_written(
        self, storage: Watched, checkpoint: Checkpoint, path: Path
    ) -> None:
        checkpoint.save(path)
        data = bytearray(path.read_bytes())
        data[5 << 20] ^= 1
        path.write_bytes(data)
        checkpoint.save(path)
        _, second = sorted(storage.path(f"{PREFIX}/packs").iterdir())
        assert second.stat().st_size == 1 << 20
        assert checkpoint.read() == bytes(data)

    @pytest.mark.parametrize("change", ["shorter", "longer", "touched"])
    def test_one_that_changes_meanwhile_is_refused(
        self, checkpoint: Checkpoint, path: Path, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        real = source.Whole.read_into
        struck: list[int] = []

        def read_into(self: source.Whole, offset: int, into: memoryview) -> None:
            if not struck:
                struck.append(offset)
                with open(path, "r+b") as file:
                    if change == "shorter":
                        file.truncate(100)
                    else:
                        file.seek(0, 2 if change == "longer" else 0)
                        file.write(b"x")
            real(self, offset, into)

        monkeypatch.setattr(source.Whole, "read_into", read_into)
        with pytest.raises(InputError, match="changed while it was being saved"):
            checkpoint.save(path)
        assert struck
        assert not checkpoint.prev_exists()


class TestEntries:
    """Loading entry by entry, as `track` does."""

    def test_what_fits_is_filled_in_place_and_the_rest_is_made(self, storage: Watched) -> None:
        weights = np.arange(1 << 20, dtype=np.float64)
        Checkpoint(storage, "n").save({"weights": weights, "best": 3, "moments": [weights + 1]})
        live = np.zeros(1 << 20)
        found = Checkpoint(storage, "n", attempt=1).load_entries(
            {"weights": live, "best": 0, "moments": []}
        )
        assert found is not None
        assert found["weights"] is live
        assert found["best"] == 3
        assert np.array_equal(live, weights)
        assert np.array_equal(found["moments"][0], weights + 1)

    def test_loaded_again_only_what_differs_is_read(self, storage: Watched) -> None:
        state = {f"w{n}": np.random.default_rng(n).random(1 << 18) for n in range(4)}
        state["small"] = np.arange(5000.0)
        Checkpoint(storage, "n").save(state)
        live = {name: np.zeros_like(value) for name, value in state.items()}
        checkpoint = Checkpoint(storage, "n", attempt=1)
        checkpoint.load_entries(live)
        storage.reads = 0
        checkpoint.load_entries(live, again=True)
        assert storage.reads == 0
        live["w2"][-1] += 1
        live["small"][0] = -1
        checkpoint.load_entries(live, again=True)
        assert storage.reads == 2
        assert all(np.array_equal(live[name], state[name]) for name in state)

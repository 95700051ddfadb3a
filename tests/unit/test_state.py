"""Typed state: comes back as it was, or is refused by its path; nothing that is loaded runs code."""

from __future__ import annotations

import array
import collections
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given
from tests.drawing import drawn

from headway.checkpoint.fill import Target
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.inplace import Move
from headway.checkpoint.lineage import read_lineage
from headway.checkpoint.rebuild import plan, rebuild
from headway.checkpoint.state import Flattened
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt, CheckpointError, InputError
from headway.model.manifest import Manifest
from headway.storage.local import LocalStorage
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/nodes/n"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def there_and_back(state: dict[str, Any]) -> Any:
    flat = Flattened(state)
    raw = [bytes(part.data) for part in flat.parts]

    def fill(parts: Sequence[tuple[int, memoryview]]) -> None:
        for part, view in parts:
            view[:] = raw[part]

    return rebuild(flat.skeleton, [len(data) for data in raw], fill)


def put_into(live: Any, saved: Any) -> None:
    """Save, and load into live state."""
    flat = Flattened(saved if isinstance(saved, dict) else {"x": saved})
    raw = [bytes(part.data) for part in flat.parts]
    skeleton = flat.skeleton if isinstance(saved, dict) else msgspec.msgpack.encode(saved)

    def fill(targets: list[Target]) -> None:
        for target in targets:
            data = memoryview(raw[target.part])
            if target.memory is not None:
                target.memory[:] = data
            else:
                assert target.put is not None
                for at in range(0, len(data), 1000):  # pieces that know nothing of elements
                    target.put(at, memoryview(bytearray(data[at : at + 1000])))

    Move(live, plan(skeleton, [len(data) for data in raw]), fill).run()


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return bool(a.dtype == b.dtype) and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=200)
    | st.binary(max_size=200).map(bytearray)
)
keys = st.text() | st.integers() | st.booleans() | st.none() | st.just("$") | st.binary(max_size=4)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(collections.OrderedDict)
    ),
    max_leaves=20,
)


@drawn(200)
@given(st.dictionaries(st.text(), trees, max_size=4))
def test_any_tree_comes_back(state: dict[str, Any]) -> None:
    assert same(there_and_back(state), state)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(12).reshape(3, 4),
        np.arange(12).reshape(3, 4).T,
        np.arange(12)[::3],
        np.zeros((0, 5), np.int8),
        np.array(3.5),
        np.float32(1.25),
        np.array(["a", "bcd"]),
        np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", ">f8")]),
        np.array(["2026-11-23"], "datetime64[D]"),
        np.array([1 + 2j, -0.0, np.nan]),
        10**40,
        -(10**40),
        float("-inf"),
        memoryview(b"0123456789")[::2],
        array.array("d", [1.0, 2.0]),
    ],
)
def test_a_value_comes_back(value: Any) -> None:
    back = there_and_back({"x": [value]})["x"][0]
    if isinstance(value, memoryview | array.array):
        value = bytearray(value.tobytes())
    assert same(back, value)


def test_an_attribute_that_torch_needs_travels_with_an_ordered_dict() -> None:
    state = collections.OrderedDict(a=1)
    state._metadata = collections.OrderedDict({"": {"version": 2}})  # type: ignore[attr-defined]
    back = there_and_back({"net": state})["net"]
    assert back == state
    assert back._metadata == {"": {"version": 2}}


class Odd:
    def state_dict(self) -> dict[str, int]:
        return {}


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024  # the untyped one is what is tried


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, r"x\[0\]\.y is a set.*sorted list"),
        (Odd(), r"x\[0\]\.y is a .*Odd.*state_dict\(\)"),
        (Point(1, 2), r"x\[0\]\.y is a .*Point.*_asdict\(\)"),
        (np.array([object()]), r"x\[0\]\.y is a numpy.ndarray"),
        (print, r"x\[0\]\.y is a builtin_function"),
        ({frozenset(): 1}, r"x\[0\]\.y \(a key\) is a frozenset"),
    ],
)
def test_what_is_not_data_is_refused_by_its_path(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Flattened({"x": [{"y": value}]})


def test_what_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InputError, match="holds itself"):
        Flattened({"x": loop})


class TestInCheckpoints:
    @pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
    def test_state_comes_back_in_the_next_attempt(self, storage: LocalStorage, size: int) -> None:
        state = {"w": np.arange(size, dtype=np.uint8), "epoch": 3, "names": ["a", ("b", None)]}
        Checkpoint(storage, PREFIX).save(state)
        after = Checkpoint(storage, PREFIX, attempt=1)
        assert same(after.load(), state)
        assert after.history()[0].kind == "state"

    def test_there_is_nothing_to_load_yet(self, storage: LocalStorage) -> None:
        assert Checkpoint(storage, PREFIX).load() is None
        live = {"a": 1}
        assert Checkpoint(storage, PREFIX).load(live) is None
        assert live == {"a": 1}

    def test_a_damaged_part_makes_an_older_state_stand_in(self, storage: LocalStorage) -> None:
        mine = Checkpoint(storage, PREFIX)
        mine.save({"w": np.zeros(100_000)})
        mine.save({"w": np.random.default_rng(0).random(100_000)})
        pack = max(storage.path(f"{PREFIX}/packs").iterdir())
        data = bytearray(pack.read_bytes())
        data[1000] ^= 1
        pack.write_bytes(data)
        warned: list[Any] = []
        after = Checkpoint(storage, PREFIX, attempt=1, on_warning=warned.append)
        live = {"w": np.ones(100_000)}
        after.load(live)
        assert not live["w"].any()
        assert len(warned) == 1

    def test_bytes_and_state_are_not_mixed_up(self, storage: LocalStorage, tmp_path: Path) -> None:
        mine = Checkpoint(storage, PREFIX)
        mine.save({"a": 1})
        for use in (mine.read, mine.restore, lambda: mine.restore(tmp_path / "there")):
            with pytest.raises(CheckpointError, match=r"load\(\)"):
                use()
        mine.write(b"1")
        with pytest.raises(CheckpointError, match=r"Use read\(\)"):
            mine.load()
        (tmp_path / "d").mkdir()
        mine.save(tmp_path / "d")
        with pytest.raises(CheckpointError, match=r"Use restore\(\)"):
            mine.load()

    def test_a_skeleton_from_elsewhere_is_an_error(self, storage: LocalStorage) -> None:
        bad: list[Any] = [
            {"$": "call", "name": "os.system"},
            {"$": "array", "part": 7},
            {"$": "array", "part": "x"},
            {"$": "array", "part": 0, "dtype": "|O", "shape": [1]},
            {"$": "tuple"},
            {"$": "int", "hex": "zz"},
            {"$": "bytes", "part": -1},
        ]
        for attempt, plain in enumerate(bad):
            prefix = f"runs/r/nodes/bad-{attempt}"
            skeleton = msgspec.msgpack.encode({"x": plain})
            manifest = Manifest(1, 0, "", 0.0, 0.0, "state", 0, (), (), skeleton)
            Ledger.open(storage, f"{prefix}/ledger").append(msgspec.msgpack.encode(manifest))
            with pytest.raises(CheckpointCorrupt):
                Checkpoint(storage, prefix).load()


class TestInPlace:
    def test_arrays_keep_their_identity(self) -> None:
        w, b = np.zeros(3), bytearray(2)
        live = {"w": w, "deep": [{"b": b, "n": 1}], "t": (w[:1], "same")}
        put_into(
            live,
            {"w": np.ones(3), "deep": [{"b": bytearray(b"xy"), "n": 2}], "t": (np.ones(1), "same")},
        )
        assert live["w"] is w
        assert w.tolist() == [1, 1, 1]
        assert b == b"xy"
        assert live["deep"][0]["n"] == 2  # type: ignore[index]

    @pytest.mark.parametrize(
        ("loaded", "message"),
        [
            (
                {"w": np.ones(4), "n": 2},
                r"w is float64 of shape \(3,\), and float64 of shape \(4,\)",
            ),
            ({"w": np.ones(3, "f4"), "n": 2}, "w is float64 .* and float32"),
            ({"w": [1.0], "n": 2}, "and list in the checkpoint"),
            ({"w": np.ones(3)}, "other keys than the checkpoint: 'n'"),
            ([1], "the state is a dict, and a list"),
        ],
    )
    def test_what_does_not_fit_changes_nothing(self, loaded: Any, message: str) -> None:
        live = {"n": 1, "w": np.zeros(3)}
        with pytest.raises(InputError, match=message):
            put_into(live, loaded)
        assert live["n"] == 1
        assert not live["w"].any()  # type: ignore[attr-defined]

    def test_lists_must_be_as_long_and_tuples_equal(self) -> None:
        with pytest.raises(InputError, match=r"x has 1 items, and 2"):
            put_into({"x": [1]}, {"x": [1, 2]})
        with pytest.raises(InputError, match=r"x\[0\] is in a tuple"):
            put_into({"x": (1,)}, {"x": (2,)})


@pytest.mark.frameworks
class TestTensors:
    @pytest.fixture
    def torch(self) -> Any:
        return pytest.importorskip("torch", reason="no PyTorch: `make frameworks` installs it")

    @pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
    def test_every_dtype_comes_back(self, torch: Any) -> None:
        names = [n for n in dir(torch) if isinstance(getattr(torch, n), torch.dtype)]
        dtypes = {getattr(torch, n) for n in names if not n.startswith("q")}
        tried = 0
        for dtype in dtypes:
            try:
                raw = torch.frombuffer(bytearray(os.urandom(64)), dtype=torch.uint8)
                tensor = (raw % 2).to(torch.bool) if dtype is torch.bool else raw.view(dtype)
            except (RuntimeError, TypeError):
                continue  # quantized and sub-byte kinds that PyTorch itself cannot make from bytes
            back = there_and_back({"t": tensor})["t"]
            assert back.dtype == dtype
            assert bytes(back.view(torch.uint8).tolist()) == bytes(
                tensor.view(torch.uint8).tolist()
            )
            tried += 1
        assert tried >= 15

    def test_views_stay_views_of_one_storage(self, torch: Any) -> None:
        base = torch.arange(1000.0)
        state = {"a": base[10:20], "b": base.view(10, 100).t(), "alone": torch.arange(9.0)[2:4]}
        flat = Flattened(state)
        assert sorted(len(part.data) for part in flat.parts) == [8, 4000]
        back = there_and_back(state)
        assert all(torch.equal(back[name], state[name]) for name in state)
        back["a"][0] = -1
        assert back["b"][10, 0] == -1

    def test_shapes_without_values_and_parameters(self, torch: Any) -> None:
        weight = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)
        back = there_and_back({"z": torch.empty(0, 4), "s": torch.tensor(3), "w": weight})
        assert back["z"].shape == (0, 4)
        assert back["s"].item() == 3
        assert isinstance(back["w"], torch.nn.Parameter)
        assert not back["w"].requires_grad

    def test_a_model_and_its_optimizer_go_on_exactly(
        self, torch: Any, storage: LocalStorage
    ) -> None:
        def make() -> tuple[Any, Any]:
            torch.manual_seed(1)
            net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
            return net, torch.optim.Adam(net.parameters())

        def step(net: Any, optimizer: Any, number: int) -> None:
            generator = torch.Generator().manual_seed(number)
            optimizer.zero_grad()
            net(torch.randn(16, 4, generator=generator)).square().sum().backward()
            optimizer.step()

        net, optimizer = make()
        for number in range(4):
            step(net, optimizer, number)
            if number == 1:
                cp = Checkpoint(storage, PREFIX)
                cp.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": 2})
        again, its_optimizer = make()
        state = Checkpoint(storage, PREFIX, attempt=1).load()
        again.load_state_dict(state["net"])
        its_optimizer.load_state_dict(state["optimizer"])
        for number in range(state["step"], 4):
            step(again, its_optimizer, number)
        for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
            assert torch.equal(a, b)

    def test_live_tensors_are_filled_in_place(self, torch: Any, storage: LocalStorage) -> None:
        Checkpoint(storage, PREFIX).save({"w": torch.full((3,), 7.0)})
        weight = torch.nn.Parameter(torch.zeros(3))
        Checkpoint(storage, PREFIX, attempt=1).load({"w": weight})
        assert weight.tolist() == [7, 7, 7]
        with pytest.raises(InputError, match="shape"):
            Checkpoint(storage, PREFIX, attempt=2).load({"w": torch.zeros(4)})

    def test_tensors_that_are_not_raw_bytes_are_refused(self, torch: Any) -> None:
        for value, message in [
            (torch.eye(2).to_sparse(), "layout"),
            (torch.empty(2, device="meta"), "meta device"),
        ]:
            with pytest.raises(
                InputError, match=f"x {'has' if 'lay' in message else 'is'}.*{message}"
            ):
                Flattened({"x": value})

    def test_a_header_that_looks_outside_its_storage_is_an_error(self, torch: Any) -> None:
        good = {
            "$": "tensor",
            "part": 0,
            "dtype": "float32",
            "shape": [2],
            "stride": [1],
            "offset": 0,
        }
        bad = [
            {**good, "offset": 1},
            {**good, "offset": -1},
            {**good, "shape": [3]},
            {**good, "stride": [2]},
            {**good, "stride": [1, 1]},
            {**good, "shape": [-2]},
            {**good, "dtype": "Tensor"},
            {k: v for k, v in good.items() if k not in {"stride", "offset"}} | {"shape": [5]},
        ]
        for header in bad:
            with pytest.raises(CheckpointCorrupt):
                rebuild(msgspec.msgpack.encode({"x": header}), [8], lambda _parts: None)
        assert rebuild(msgspec.msgpack.encode(good), [8], lambda _parts: None).shape == (2,)


@pytest.mark.frameworks
def test_a_tensor_whose_offset_is_no_number_is_damage_in_place_too() -> None:
    torch = pytest.importorskip("torch")
    shared = torch.arange(6)
    storage = MemoryStorage()
    checkpoint = Checkpoint(storage, PREFIX)
    checkpoint.save({"a": shared, "b": shared[1:]})
    manifest = read_lineage(storage, PREFIX).manifests[0]
    tree = msgspec.msgpack.decode(manifest.skeleton or b"")
    tree["b"]["offset"] = True
    forged = MemoryStorage()
    record = msgspec.structs.replace(manifest, skeleton=msgspec.msgpack.encode(tree))
    Ledger.open(forged, f"{PREFIX}/ledger").append(msgspec.msgpack.encode(record))
    live = {"a": torch.zeros(6, dtype=torch.int64), "b": torch.zeros(5, dtype=torch.int64)}
    for into in (None, live):
        with pytest.raises(CheckpointCorrupt, match="looks outside of its storage"):
            Checkpoint(forged, PREFIX).load(into=into)

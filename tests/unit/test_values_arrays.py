"""NumPy's arrays and scalars come back exactly, as raw bytes and not as pickles."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from headway.engine.blobs import PIECE
from headway.engine.values import Values
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/values"
LARGE = 40 << 10


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def values(storage: MemoryStorage) -> Values:
    return Values(storage, PREFIX)


def there_and_back(values: Values, value: Any, annotation: Any) -> Any:
    """Through the codec and through msgpack, as a journal would have it."""
    plain = values.encode(value, annotation)
    return values.decode(msgspec.msgpack.decode(msgspec.msgpack.encode(plain)), annotation)


ARRAYS = [
    np.arange(6, dtype="<i4").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24.0).reshape(2, 3, 4)[:, ::2, 1:],
    np.array(2.5),
    np.zeros((0, 3)),
    np.array([True, False]),
    np.array([1 + 2j], dtype=">c16"),
    np.array(["a", "bcé"]),
    np.array([b"a", b"bc"]),
    np.array(["2024-01-01", "NaT"], dtype="M8[ns]"),
    np.array(
        [(1, 2.5, ("a", [1, 2]))], [("a", "i4"), ("b", "<f8"), ("c", [("d", "U3"), ("e", "i2", 2)])]
    ),
    np.zeros(3, np.dtype({"names": ["a", "b"], "formats": ["u1", "<f8"], "offsets": [0, 8]})),
    np.array([object, None], dtype=object),
    np.ma.masked_array([1, 2], [True, False]),
    np.arange(LARGE, dtype="u1"),
    np.zeros(3, np.dtype("i4", metadata={"unit": "m"})),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
def test_an_array_comes_back_with_its_class_dtype_shape_and_order(
    values: Values, array: Any
) -> None:
    back = there_and_back(values, array, np.ndarray)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    if not array.dtype.hasobject:
        assert back.tobytes() == array.tobytes()
    contiguous = array.flags.f_contiguous, array.flags.c_contiguous
    if any(contiguous):
        assert (back.flags.f_contiguous, back.flags.c_contiguous) == contiguous
    assert back.flags.writeable
    assert back.flags.owndata or type(array) is not np.ndarray or array.dtype.metadata


class Metres(np.float64):
    """A subclass of NumPy's scalar."""


def test_a_subclass_of_a_scalar_is_left_to_its_own_way_of_pickling(values: Values) -> None:
    assert values.encode(Metres(2.5))["$"] == "pickle"
    assert there_and_back(values, Metres(2.5), Any) == 2.5


def test_the_titles_of_fields_are_kept(values: Values) -> None:
    titled = np.zeros(1, [(("Title", "a"), "i4"), ("b", "f8")])
    assert there_and_back(values, titled, np.ndarray).dtype == titled.dtype


def test_a_dtype_that_its_description_loses_goes_by_pickle(
    values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np.lib.format, "dtype_to_descr", lambda dtype: "<V8")
    assert values.encode(np.zeros(2))["$"] == "pickle"


def test_values_are_encoded_without_numpy(values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy")
    assert values.encode(complex(1, 2))["$"] == "pickle"


def test_an_array_of_plain_numbers_needs_no_pickle(storage: MemoryStorage) -> None:
    storage.trusted = False
    values = Values(storage, PREFIX)
    for array in ARRAYS[:12]:
        there_and_back(values, array, NDArray[Any])
    assert there_and_back(values, np.str_("a"), Any) == "a"


def test_content_beyond_a_piece_goes_to_a_pack_and_is_kept_once(storage: MemoryStorage) -> None:
    array = np.arange(PIECE // 8 + 1000, dtype="f8")
    plain = Values(storage, PREFIX).encode(array, np.ndarray)
    assert plain == Values(storage, PREFIX).encode(array.copy(), np.ndarray)
    packs = [key for key in storage.objects if "/packs/" in key]
    assert len(packs) == 1
    assert bytes(storage.objects[packs[0]]) == array.tobytes()
    assert np.array_equal(Values(storage, PREFIX).decode(plain), array)

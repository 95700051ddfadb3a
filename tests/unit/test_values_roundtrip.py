"""Any value of any type comes back: Hypothesis draws annotations, and values that fit them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.drawing import drawn

from headway.engine.types import assignable, check, describe
from headway.engine.values import Values, digest
from headway.testing.memory import MemoryStorage

FEW = drawn(60)


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    label: str | None


@dataclasses.dataclass(frozen=True)
class Item:
    point: Point
    weights: tuple[float, ...]
    colour: Colour | None


TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)  # lone surrogates too
POINTS = st.builds(Point, st.integers(), st.none() | TEXT)
ITEMS = st.builds(
    Item,
    POINTS,
    st.lists(st.floats(allow_nan=False)).map(tuple),
    st.none() | st.sampled_from(Colour),
)
ZONES = st.none() | st.timezones() | st.just(dt.UTC)

LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, st.integers() | st.integers(-(1 << 70), 1 << 70)),
    (float, st.floats(allow_nan=False) | st.integers()),
    (str, TEXT),
    (bytes, st.binary(max_size=40)),
    (Colour, st.sampled_from(Colour)),
    (Literal["a", 1, True], st.sampled_from(["a", 1, True])),
    (Point, POINTS),
    (Item, ITEMS),
    (dt.date, st.dates()),
    (dt.timedelta, st.timedeltas()),
    (dt.datetime, st.datetimes(timezones=ZONES)),
    (dt.time, st.times()),
    (PurePosixPath, st.builds(PurePosixPath, TEXT)),
]
LIST: Any = list  # so that no type checker takes `LIST[x]` for an annotation
TUPLE: Any = tuple
SET: Any = set
FROZENSET: Any = frozenset
DICT: Any = dict
HASHABLE = [pair for pair in LEAVES if pair[0] is not Item]


def pairs(leaf: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    annotation, values = leaf
    return values.map(lambda value: (annotation, value))


def typed(depth: int) -> st.SearchStrategy[tuple[Any, Any]]:
    """(annotation, value that fits it)."""
    leaves = st.sampled_from(LEAVES).flatmap(pairs)
    if depth == 0:
        return leaves
    inner = typed(depth - 1)
    keys = st.sampled_from(HASHABLE).flatmap(
        lambda leaf: st.tuples(st.just(leaf[0]), st.sets(leaf[1], max_size=3))
    )
    return st.one_of(
        leaves,
        inner.map(lambda p: (LIST[p[0]], [p[1], p[1]])),
        inner.map(lambda p: (TUPLE[p[0], ...], (p[1],))),
        inner.map(lambda p: (p[0] | None if p[0] is not None else Any, p[1])),
        st.tuples(inner, inner).map(lambda ps: (TUPLE[ps[0][0], ps[1][0]], (ps[0][1], ps[1][1]))),
        keys.map(lambda p: (SET[p[0]], p[1])),
        keys.map(lambda p: (FROZENSET[p[0]], frozenset(p[1]))),
        st.tuples(keys, inner).map(
            lambda ps: (DICT[ps[0][0], ps[1][0]], dict.fromkeys(ps[0][1], ps[1][1]))
        ),
    )


@given(typed(3))
@FEW
def test_a_value_of_a_type_comes_back_through_the_journals_bytes(pair: tuple[Any, Any]) -> None:
    annotation, value = pair
    values = Values(MemoryStorage(), "values")
    check(value, annotation, "v")
    plain = values.encode(value, annotation)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(plain))
    back = values.decode(again, annotation)
    assert back == value
    assert type(back) is type(value)
    assert digest(values.encode(back, annotation)) == digest(plain)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXT | st.just("$") | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal, of equal classes all the way down, NaN being itself, and dicts in the same order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        ) or one != one != other  # noqa: PLR0124
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    return bool(one == other)


@given(PLAIN)
@FEW
def test_plain_data_needs_no_annotation_and_no_trust(value: Any) -> None:
    values = Values(MemoryStorage(trusted=False), "values")
    plain = values.encode(value)
    assert same(values.decode(msgspec.msgpack.decode(msgspec.msgpack.encode(plain))), value)


@given(
    arrays.arrays(
        arrays.scalar_dtypes(),
        arrays.array_shapes(min_dims=0, min_side=0, max_side=3),
    ),
    st.booleans(),
)
@FEW
def test_an_array_comes_back_without_trust(array: Any, transposed: bool) -> None:
    array = array.T if transposed else array
    values = Values(MemoryStorage(trusted=False), "values")
    back = values.decode(values.encode(array, np.ndarray), np.ndarray)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(typed(2), typed(2))
@FEW
def test_what_is_assignable_fits(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    assert assignable(one[0], one[0])
    if "Any" in repr(one[0]):  # it is assignable to everything, and its values fit where they fit
        return
    if assignable(one[0], other[0]):
        check(one[1], other[0], "v")


@given(typed(3))
@FEW
def test_a_description_reads_like_the_source(pair: tuple[Any, Any]) -> None:
    names: dict[str, Any] = {
        leaf[0].__name__: leaf[0] for leaf in LEAVES if isinstance(leaf[0], type)
    }
    assert eval(describe(pair[0]), {**names, "Literal": Literal, "Any": Any}) == pair[0]

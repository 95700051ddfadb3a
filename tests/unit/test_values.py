"""Values come back as they went, large parts go to the home, and nothing runs that is not trusted."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
import math
import os
import subprocess
import sys
import zoneinfo
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
import numpy as np
import pytest

from headway.engine.values import Values, digest
from headway.model.errors import InputError, UntrustedState
from headway.testing.memory import MemoryStorage

T = TypeVar("T")
PREFIX = "runs/r/values"
LARGE = 40 << 10


class Colour(enum.Enum):
    RED = "red"
    BLUE = ("b", 1)


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    ANN = "ann"


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Pair(NamedTuple):
    x: int
    y: float


class Movie(TypedDict):
    title: str
    colour: NotRequired[Colour]


@dataclasses.dataclass
class Leaf:
    size: int


@dataclasses.dataclass
class Tree:
    name: str
    colour: Colour = Colour.RED
    children: list[Tree] = dataclasses.field(default_factory=list)
    parts: dict[int, Leaf] = dataclasses.field(default_factory=dict)
    best: Leaf | Point | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    doubled: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "doubled", self.doubled * 2)


@dataclasses.dataclass
class Remembering:
    size: int

    def __post_init__(self) -> None:
        self.cache = [self.size]


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


@dataclasses.dataclass
class Deep(Leaf):
    depth: int = 0


class Plain:
    """A class that only pickle knows."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and other.number == self.number

    __hash__ = None  # type: ignore[assignment]


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")

SAME: list[tuple[Any, Any]] = [
    (None, None),
    (True, bool),
    (1 << 63, int),
    ((1 << 64) - 1, int),
    (1 << 64, int),
    (-(1 << 63) - 1, int),
    (-(1 << 20000), Any),
    (1 << 70, float),
    (3, float),
    (-0.0, float),
    (math.inf, float),
    ("caf\u00e9 \udcff", str),
    ("\udcff" * LARGE, str),
    ("\U0001f600" * LARGE, str),
    ("é" * (12 << 10), str),
    ("\udcff" * (9 << 10), str),
    ("x" * LARGE, Any),
    (b"\x00\xff", bytes),
    (bytes(LARGE), bytes),
    ([1, [2.5, "a"], None], Any),
    ([1, 1 << 65], list[int]),
    ((1, "a"), tuple[int, str]),
    ((), tuple[()]),
    ((1, (2, [3])), Any),
    ((1, 2), tuple[int, ...]),
    ({1, 2, 3}, set[int]),
    ({"b", "a", (1, 2)}, Any),
    (frozenset({b"a"}), frozenset[bytes]),
    ({"a": 1, "b": [2]}, Any),
    ({1: "a", (2, 3): "b"}, Any),
    ({"$": "dict", "items": [1]}, Any),
    ({"$": 1, "\udcff": 2}, dict[str, int]),
    ({"\udcff": 2}, dict[str, int]),
    ({Colour.RED: Leaf(1)}, dict[Colour, Leaf]),
    (Colour.BLUE, Colour),
    (Access.READ | Access.WRITE, Access),
    (Colour.RED, Literal[Colour.RED, "red"]),
    ("red", Literal[Colour.RED, "red"]),
    (1, Literal["1", 1]),
    (Point(1), Point),
    ([Point(1, 2.0)], list[Point]),
    (Pair(1, 2.0), Point | Pair),
    (Tree("a", Colour.BLUE, [Tree("b")], {3: Leaf(4)}, Point(1, 2.0)), Tree),
    (Tree("a", best=Leaf(2)), Tree),
    (Frozen(2.0), Frozen),
    (Remembering(3), Remembering),
    (Box(Leaf(1)), Box[Leaf]),
    (Deep(1, 2), Leaf),
    (Deep(1, 2), Leaf | Deep),
    (Leaf(1), Leaf | Deep),
    ({"title": "M", "colour": Colour.RED}, Movie),
    ({"title": "M"}, Movie),
    (dt.datetime(2024, 3, 1, 12, 30, 1, 5), dt.datetime),  # noqa: DTZ001  # naive ones too
    (dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1), dt.datetime),
    (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime | str),
    (dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=-61), "Odd")), Any),
    (dt.date(2024, 2, 29), dt.date),
    (dt.time(23, 59, 59, 999999, fold=1), dt.time),
    (dt.time(1, tzinfo=dt.timezone(dt.timedelta(hours=2))), dt.time),
    (dt.timedelta(-1, 2, 3), dt.timedelta),
    (dt.timedelta.max, Any),
    (Path("nowhere/to be found"), Path),
    (Path("nul\0byte"), Path),
    (Plain(3), Plain),
    ([Plain(3)], Any),
    (complex(1, 2), Any),
    (defaultdict(list, a=[1]), Any),
    (Leaf(1), Any),
    (Point(1), Any),
    (Colour.RED, Any),
    (Level.LOW, Any),
    (np.float32(2.5), Any),
    (np.datetime64("2024-01-01"), Any),
]


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


@pytest.mark.parametrize(("value", "annotation"), SAME, ids=range(len(SAME)))
def test_a_value_comes_back_equal_and_of_the_same_class(
    values: Values, value: Any, annotation: Any
) -> None:
    back = there_and_back(values, value, annotation)
    assert back == value
    assert type(back) is type(value)


def test_what_equality_does_not_show_comes_back_too(values: Values) -> None:
    assert math.isnan(there_and_back(values, math.nan, float))
    assert math.copysign(1, there_and_back(values, -0.0, float)) == -1
    moment = dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)
    back = there_and_back(values, moment, dt.datetime)
    assert (back.fold, back.tzinfo, back.utcoffset()) == (1, BERLIN, moment.utcoffset())
    named = there_and_back(values, dt.time(1, tzinfo=dt.timezone(dt.timedelta(0), "Z")), Any)
    assert named.tzname() == "Z"
    assert list(there_and_back(values, {"b": 1, "a": 2}, dict[str, int])) == ["b", "a"]
    frozen = there_and_back(values, Frozen(2.0), Frozen)
    assert frozen.doubled == 4.0  # not 8: `__post_init__` has done its work already
    assert there_and_back(values, Remembering(3), Remembering).cache == [3]


def test_the_annotation_decides_what_arrives(values: Values) -> None:
    assert type(there_and_back(values, np.int64(3), int)) is int
    assert type(there_and_back(values, np.float32(2.5), float)) is float
    assert type(there_and_back(values, np.True_, bool)) is bool
    assert type(there_and_back(values, Level.LOW, int)) is int
    assert there_and_back(values, {Name.ANN: Name.ANN}, dict[str, str]) == {"ann": "ann"}
    assert type(there_and_back(values, Name.ANN, str)) is str
    assert type(there_and_back(values, OrderedDict(a=1), dict[str, int])) is dict
    assert type(there_and_back(values, Point(1), tuple[int, float])) is tuple


def test_the_class_decides_where_the_annotation_does_not(values: Values) -> None:
    assert type(there_and_back(values, Name.ANN, Any)) is Name
    assert type(there_and_back(values, OrderedDict(a=1), Any)) is OrderedDict


@pytest.mark.parametrize(
    "value",
    ["x" * LARGE, bytes(LARGE), np.zeros(LARGE), Plain(0), [b"\x01" * LARGE, {"a": "y" * LARGE}]],
    ids=["str", "bytes", "array", "pickle", "nested"],
)
def test_large_leaves_are_blobs_named_by_their_content(
    values: Values, storage: MemoryStorage, value: Any
) -> None:
    if isinstance(value, Plain):
        value.number = 1 << (LARGE * 8)
    plain = values.encode(value)
    assert len(msgspec.msgpack.encode(plain)) < 1024
    for key, data in storage.objects.items():
        assert key == f"{PREFIX}/{hashlib.sha256(data).hexdigest()}"
    there = len(storage.objects)
    assert there >= 1
    assert values.encode(value) == plain
    assert Values(storage, PREFIX).encode(value) == plain
    assert len(storage.objects) == there
    assert str(values.decode(plain)) == str(value) or isinstance(value, Plain)


def test_a_large_tree_of_small_leaves_is_one_blob(values: Values, storage: MemoryStorage) -> None:
    value = {f"key {number}": [number, str(number)] for number in range(5000)}
    plain = values.encode(value, dict[str, list[Any]])
    assert plain["$"] == "tree"
    assert len(storage.objects) == 1
    assert values.decode(plain, dict[str, list[Any]]) == value
    assert values.decode([plain, 1], tuple[int, int] | list[Any]) == [value, 1]


def test_a_plain_tree_does_not_depend_on_the_process() -> None:
    program = (
        "from headway.engine.values import Values, digest\n"
        "from headway.testing.memory import MemoryStorage\n"
        "v = Values(MemoryStorage(), 'values')\n"
        "print(digest({'b': v.encode({'x', 'y', 'zz', ('q', 1)}), 'a': v.encode(frozenset('abc'))}))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_a_digest_tells_values_apart_but_not_the_order_of_parameters() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    different = [1, 1.0, "1", b"1", [1], True, None, {"a": 1}, {"a": 1, "b": None}]
    assert len({digest(plain) for plain in different}) == len(different)
    assert digest({"p": {"a": 1, "b": 2}}) != digest({"p": {"b": 2, "a": 1}})


def test_without_trust_a_pickle_is_neither_made_nor_loaded(storage: MemoryStorage) -> None:
    plain = Values(storage, PREFIX).encode(Plain(3))
    storage.trusted = False
    values = Values(storage, PREFIX)
    with pytest.raises(UntrustedState, match=r"x: loading this value needs pickle.*chmod go-w"):
        values.decode(plain, Any, "x")
    with pytest.raises(UntrustedState, match="x: a value of class Plain needs pickle"):
        values.encode(Plain(3), Any, "x")
    assert there_and_back(values, Tree("a"), Tree) == Tree("a")


def test_what_cannot_be_pickled_is_named(values: Values) -> None:
    with pytest.raises(InputError, match=r"x\[0\]: a value of class function cannot be stored"):
        values.encode([lambda: None], Any, "x")


def test_a_value_that_contains_itself_is_refused(values: Values) -> None:
    inside: list[Any] = []
    inside.append(inside)
    with pytest.raises(InputError, match="x: nested too deeply"):
        values.encode(inside, Any, "x")
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InputError, match="x: the stored value is nested too deeply"):
        values.decode(deep, Any, "x")


def test_a_value_that_does_not_fit_is_not_encoded(values: Values, storage: MemoryStorage) -> None:
    with pytest.raises(InputError, match=r"x\[1\]: expected bytes, got str 'a'"):
        values.encode([bytes(LARGE), "a"], list[bytes], "x")
    assert storage.objects == {}


CHANGED: list[tuple[Any, Any, Any, str]] = [
    (3, int, str, "x: expected str, got int 3"),
    ([1], list[int], str, "x: expected str, and the stored value is a list"),
    (
        (1, 2),
        tuple[int, int],
        tuple[int],
        r"x: expected tuple\[int\], and the stored value is a tuple",
    ),
    ((1, "a"), tuple[int, str], Point, r"x\[1\]: expected float, got str 'a'"),
    ((1,), tuple[int], Point, "x: expected Point, and the stored value is a tuple"),
    (Pair(1, 2.0), Pair, Point, "x: expected Point, and the stored value is a Pair"),
    ({1}, set[int], list[int], r"x: expected list\[int\], and the stored value is a set"),
    ({1}, set[int], dict[int, int], "x: expected dict.*, and the stored value is a set"),
    ({"a": 1}, dict[str, int], int, "x: expected int, and the stored value is a dict"),
    (None, None, list[int], r"x: expected list\[int\], and the stored value is a None"),
    (1, int, str | None, r"x: expected str \| None, and the stored value is a int"),
    (Leaf(1), Leaf, Tree, "x: expected Tree, and the stored value is a Leaf"),
    (Leaf(1), Leaf, Any, "x: the stored value is the dataclass Leaf.*annotate it"),
    (Colour.RED, Colour, Any, "x: the stored value is the enum Colour"),
    (Colour.RED, Colour, Access, "x: expected Access, and the stored value is a Colour"),
    (Plain(1), Any, Leaf, "x: expected Leaf, got Plain"),
    ("c", str, Literal["a", 1], r"x: the stored value is not \(any more\) one of"),
    ({"titel": "a"}, dict[str, str], Movie, r"x\['titel'\]: Movie has no such key"),
    ({}, dict[str, str], Movie, r"x\['title'\]: missing"),
    (dt.date(2024, 1, 1), dt.date, dt.timedelta, "x: expected timedelta, got date"),
]


@pytest.mark.parametrize(("value", "before", "after", "message"), CHANGED)
def test_a_value_of_another_type_than_the_code_has_now_is_an_input_error(
    values: Values, value: Any, before: Any, after: Any, message: str
) -> None:
    plain = values.encode(value, before)
    with pytest.raises(InputError, match=message):
        values.decode(plain, after, "x")

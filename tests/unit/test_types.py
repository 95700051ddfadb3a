"""Do values and annotations fit, and does the message say where they do not?"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
)

import numpy as np
import pytest
from numpy.typing import NDArray

from headway.engine.files import Directory, File
from headway.engine.shapes import Kind, fields_of, shape_of
from headway.engine.types import assignable, check, describe, fits
from headway.model.errors import DefinitionError, InputError

T = TypeVar("T")
Bound = TypeVar("Bound", bound=int)
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Config:
    name: str
    sizes: list[int]
    parent: Config | None = None


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Reader(Protocol):
    def read(self) -> bytes: ...


class Named(Protocol):
    name: str


FITTING: list[tuple[Any, Any]] = [
    (None, None),
    (None, type(None)),
    (True, bool),
    (np.True_, bool),
    (3, int),
    (np.int64(3), int),
    (Level.LOW, int),
    (3, float),
    (2.5, float),
    (np.float32(2.5), float),
    (np.float64(2.5), float),
    (np.int8(2), float),
    (float("nan"), float),
    ("a", str),
    (b"a", bytes),
    ([1, 2], list[int]),
    ([1, "a"], list),
    ([1], typing.List[int]),  # noqa: UP006  # people still write it
    ([[1], []], list[list[int]]),
    ((1, "a"), tuple[int, str]),
    ((), tuple[()]),
    ((1, 2, 3), tuple[int, ...]),
    ((), tuple[int, ...]),
    ((1, "a"), tuple),
    ((1, "a"), typing.Tuple),  # noqa: UP006
    ({1}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    ({"a": 1}, dict[str, int]),
    ({1: "a"}, dict),
    ({"a": 1}, Mapping[str, int]),
    ([1], Sequence[int]),
    ((1,), Sequence[int]),
    ({1}, Iterable[int]),
    ({1}, AbstractSet[int]),
    ([], Sequence),
    (None, int | None),
    (3, Optional[int]),  # noqa: UP045
    ("a", Union[int, str]),  # noqa: UP007
    ("on", Literal["on", "off"]),
    (Colour.RED, Literal[Colour.RED]),
    (Colour.RED, Colour),
    (Config("a", [1], Config("b", [])), Config),
    (Box(3), Box[int]),
    (Point(1, 2), Point),
    (Point(1), tuple),
    ({"title": "M"}, Movie),
    ({"title": "M", "year": 1931}, Movie),
    (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime),
    (dt.date(2024, 1, 1), dt.date),
    (dt.time(1, 2), dt.time),
    (dt.timedelta(1), dt.timedelta),
    (Path("a"), Path),
    (File("a"), File),
    (Directory("a"), Directory),
    (np.zeros(3), np.ndarray),
    (np.zeros(3), NDArray[np.float64]),
    (object(), Any),
    (object(), object),
    (object(), T),
    (3, Bound),
    (3, Annotated[int, [1]]),
    (3, UserId),
    (int, type[int]),
    (len, Callable[[Any], int]),
    (3, Reader),  # not runtime_checkable: nothing can be said
]

UNFITTING: list[tuple[Any, Any, str]] = [
    (1, None, "v: expected None, got int 1"),
    (1, bool, "v: expected bool, got int 1"),
    (True, int, "v: expected int, got bool True"),
    (True, float, "v: expected float, got bool True"),
    (np.True_, int, "v: expected int, got bool"),
    (np.timedelta64(1, "s"), int, "v: expected int, got timedelta64"),
    (1.0, int, "v: expected int, got float 1.0"),
    ("1", int, "v: expected int, got str '1'"),
    (1 << 5000, str, "v: expected str, got int of 5001 bits"),
    ("x" * 500, int, "v: expected int, got str '" + "x" * 58 + "…"),
    (None, int, "v: expected int, got None"),
    (b"a", str, "v: expected str, got bytes b'a'"),
    ((1,), list[int], "v: expected list[int], got tuple"),
    ([1, "a"], list[int], "v[1]: expected int, got str 'a'"),
    ([[1], ["a"]], list[list[int]], "v[1][0]: expected int, got str 'a'"),
    ((1,), tuple[int, str], "v: expected tuple[int, str], got 1 item"),
    ((1, 2), tuple[()], "v: expected tuple[()], got 2 items"),
    ((1, 2), tuple[int, str], "v[1]: expected str, got int 2"),
    ({"a": "b"}, dict[str, int], "v['a']: expected int, got str 'b'"),
    ({1: 2}, dict[str, int], "v key 1: expected str, got int 1"),
    ("abc", Sequence[str], "v: expected Sequence[str], got str 'abc'"),
    ([1], str | None, "v: expected str | None, got list"),
    ([1, "a"], list[int] | None, "v[1]: expected int, got str 'a'"),
    (["a"], list[int] | list[bytes], "v: expected list[int] | list[bytes], got list"),
    ("auto", Literal["on", "off"], "v: expected Literal['on', 'off'], got str 'auto'"),
    (1, Literal[True], "v: expected Literal[True], got int 1"),
    (Colour.BLUE, Literal[Colour.RED], "v: expected Literal[Colour.RED], got Colour Colour.BLUE"),
    ("red", Colour, "v: expected Colour, got str 'red'"),
    (Config("a", ["b"]), Config, "v.sizes[0]: expected int, got str 'b'"),  # type: ignore[list-item]
    (Config("a", [], Config(3, [])), Config, "v.parent.name: expected str, got int 3"),  # type: ignore[arg-type]
    ([Config(1, [])], list[Config], "v[0].name: expected str, got int 1"),  # type: ignore[arg-type]
    (Point("a"), Point, "v.x: expected int, got str 'a'"),  # type: ignore[arg-type]
    ((1, 2.0), Point, "v: expected Point, got tuple"),
    ([], Movie, "v: expected Movie, got list"),
    ({}, Movie, "v['title']: missing; Movie needs it"),
    ({"title": 3}, Movie, "v['title']: expected str, got int 3"),
    ({"title": "M", "yaer": 1}, Movie, "v['yaer']: not a key of Movie"),
    ([3], Movie | None, "v: expected Movie | None, got list"),
    ({"title": 3}, Movie | None, "v['title']: expected str, got int 3"),
    (Config(3, []), Config | None, "v.name: expected str, got int 3"),  # type: ignore[arg-type]
    ("2024-01-01", dt.date, "v: expected date, got str '2024-01-01'"),
    ("a", Path, "v: expected Path, got str 'a'"),
    (Path("a"), File, "v: expected File, got PosixPath"),
    ([1.0], NDArray[np.float64], "v: expected NDArray[float64], got list"),
    ("a", Bound, "v: expected Bound, got str 'a'"),
    ("a", UserId, "v: expected UserId, got str 'a'"),
]


@pytest.mark.parametrize(("value", "annotation"), FITTING)
def test_a_value_that_fits_passes(value: Any, annotation: Any) -> None:
    check(value, annotation, "v")
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation", "message"), UNFITTING)
def test_a_value_that_does_not_fit_is_named_with_its_place(
    value: Any, annotation: Any, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        check(value, annotation, "v")
    assert str(caught.value).startswith(message)
    assert not fits(value, annotation)


def test_two_classes_of_one_name_are_told_apart() -> None:
    other = dataclasses.make_dataclass("Config", [("name", str)])
    other.__module__ = "elsewhere"
    with pytest.raises(InputError, match=r"expected .*test_types\.Config, got elsewhere\.Config"):
        check(other("a"), Config, "v")


def test_a_field_that_was_never_set_is_missing() -> None:
    empty = object.__new__(Config)
    with pytest.raises(InputError, match=r"v\.name: missing from Config"):
        check(empty, Config, "v")


def test_a_value_that_contains_itself_is_refused() -> None:
    inside: list[Any] = []
    inside.append(inside)
    recursive: Any = list[Any]
    for _ in range(2000):
        recursive = list[recursive]
    with pytest.raises(InputError, match="contains itself"):
        check(inside, recursive, "v")


def test_checking_does_not_import_numpy() -> None:
    program = (
        "import sys; from headway.engine.types import fits; "
        "assert not fits('a', int) and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_annotation_that_names_nothing_is_a_definition_error() -> None:
    broken = dataclasses.make_dataclass("broken", [("a", "Nothing")])
    with pytest.raises(DefinitionError, match=r"fields of broken cannot be read.*Nothing"):
        fields_of(broken)


def test_annotations_that_say_nothing_are_any() -> None:
    assert shape_of("Forward").kind is Kind.ANY
    assert shape_of(Literal[1]).kind is Kind.LITERAL
    assert shape_of(typing.Final).kind is Kind.ANY


def test_type_aliases_are_looked_through() -> None:
    class TypeAliasType:  # stands for `type Alias = int`, which Python 3.11 cannot parse
        __name__ = "Alias"
        __value__ = int

    assert shape_of(TypeAliasType()).kind is Kind.INT
    assert describe(TypeAliasType()) == "Alias"


ASSIGNABLE: list[tuple[Any, Any]] = [
    (int, int),
    (int, float),
    (int, Any),
    (Any, int),
    (None, None),
    (None, int | None),
    (int, int | None),
    (int | None, int | str | None),
    (Literal[1, 2], int),
    (Literal["a"], Literal["a", "b"]),
    (list[int], list[float]),
    (list, list[int]),
    (list[int], Sequence[float]),
    (tuple[int, int], tuple[float, ...]),
    (tuple[int, ...], tuple[int, ...]),
    (tuple[int, str], Sequence[int | str]),
    (tuple, tuple[int, str]),
    (Point, Point),
    (Point, tuple[int, float]),
    (dict[str, int], Mapping[str, float]),
    (Movie, Movie),
    (Movie, dict[str, Any]),
    (set[int], Iterable[int]),
    (Colour, Colour),
    (Level, int),
    (dt.datetime, dt.date),
    (Config, Config),
    (Box[int], Box[int]),
    (UserId, int),
    (bool, bool),
    (Config, Named),
    (typing.OrderedDict, dict),
    (type("Mine", (list,), {}), list),
    (NDArray[np.float64], np.ndarray),
]

NOT_ASSIGNABLE: list[tuple[Any, Any]] = [
    (bool, int),
    (bool, float),
    (float, int),
    (int, bool),
    (str, int),
    (int | None, int),
    (str, Literal["a"]),
    (Literal["c"], Literal["a", "b"]),
    (list[str], list[int]),
    (list[int], tuple[int, ...]),
    (tuple[int, ...], tuple[int, int]),
    (tuple[int], tuple[int, int]),
    (tuple[int, str], Point),
    (Point, tuple[str, float]),
    (dict[str, int], dict[str, str]),
    (dict[str, Any], Movie),
    (Movie, list[str]),
    (set[int], frozenset[int]),
    (Colour, Level),
    (dt.date, dt.datetime),
    (Config, Point),
    (None, int),
    (int, None),
    (Path, File),
    (list[int], int),
    (str, np.ndarray),
]


@pytest.mark.parametrize(("source", "target"), ASSIGNABLE)
def test_an_edge_between_these_is_fine(source: Any, target: Any) -> None:
    assert assignable(source, target)


@pytest.mark.parametrize(("source", "target"), NOT_ASSIGNABLE)
def test_an_edge_between_these_is_refused(source: Any, target: Any) -> None:
    assert not assignable(source, target)


DESCRIBED: list[tuple[Any, str]] = [
    (None, "None"),
    (int, "int"),
    (Any, "Any"),
    (Optional[int], "int | None"),  # noqa: UP045
    (int | str, "int | str"),
    (list[dict[str, int]], "list[dict[str, int]]"),
    (tuple[int, ...], "tuple[int, ...]"),
    (tuple[()], "tuple[()]"),
    (tuple, "tuple"),
    (typing.List[int], "list[int]"),  # noqa: UP006
    (Literal["a", 1], "Literal['a', 1]"),
    (Literal[Colour.RED], "Literal[Colour.RED]"),
    (Colour, "Colour"),
    (dt.datetime, "datetime"),
    (Path, "Path"),
    (Callable[[int], str], "Callable[[int], str]"),
    (Annotated[int, "more"], "int"),
    (UserId, "UserId"),
    (T, "T"),
    (Box[int], "Box[int]"),
    (np.ndarray, "ndarray"),
    (NDArray[np.float64], "NDArray[float64]"),
    (NDArray[Any], "NDArray[Any]"),
    (Sequence[int], "Sequence[int]"),
    ("Forward", "Forward"),
]


@pytest.mark.parametrize(("annotation", "text"), DESCRIBED)
def test_an_annotation_is_described_as_people_write_it(annotation: Any, text: str) -> None:
    assert describe(annotation) == text


def test_unions_that_are_equal_keep_their_own_order() -> None:
    assert shape_of(int | str).args == (int, str)
    assert shape_of(str | int).args == (str, int)
    assert shape_of(list[str | int]).args[0].__args__ == (str, int)

"""Text, JSON and YAML to the values that a signature asks for."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pytest

from headway.cli.values import (
    Unreadable,
    choices,
    from_text,
    from_tree,
    is_flag,
    load_file,
    parse,
)
from headway.engine.files import Directory, File


class Color(enum.Enum):
    RED = "red-ish"
    GREEN = 2


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5
    tag: str | None = None
    total: float = dataclasses.field(init=False, default=0.0)


@dataclasses.dataclass
class Positive:
    n: int

    def __post_init__(self) -> None:
        if self.n <= 0:
            raise ValueError("n must be positive")


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Options(TypedDict):
    depth: int
    name: NotRequired[str]


Age = NewType("Age", int)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("7", int, 7),
        ("-3", int, -3),
        ("1e-3", float, 0.001),
        ("7", str, "7"),
        ("yes", bool, True),
        ("OFF", bool, False),
        ("8", Age, 8),
        ("8", Annotated[int, "doc"], 8),
        ("none", None, None),
        ("null", int | None, None),
        ("5", int | str, 5),
        ("five", int | str, "five"),
        ("5", str | int, "5"),
        ("RED", Color, Color.RED),
        ("red-ish", Color, Color.RED),
        ("2", Color, Color.GREEN),
        ("fast", Literal["fast", 3], "fast"),
        ("3", Literal["fast", 3], 3),
        ("RED", Literal[Color.RED], Color.RED),
        ("[1, 2]", list[int], [1, 2]),
        ("[1, 2]", list, [1, 2]),
        ("[1, 2]", Sequence[int], [1, 2]),
        ("[1, 1]", set[int], {1}),
        ('["a"]', frozenset[str], frozenset({"a"})),
        ("[1, 2, 3]", tuple[int, ...], (1, 2, 3)),
        ('[1, "a"]', tuple[int, str], (1, "a")),
        ('{"1": [2]}', dict[int, list[float]], {1: [2.0]}),
        ('{"a": 1}', Mapping[str, int], {"a": 1}),
        ('{"x": 1, "tag": "t"}', Point, Point(1, 0.5, "t")),
        ('[{"x": 1}]', list[Point], [Point(1)]),
        ('{"left": 1}', Pair, Pair(1)),
        ('[1, "b"]', Pair, Pair(1, "b")),
        ('{"depth": 1, "name": "n"}', Options, {"depth": 1, "name": "n"}),
        ('{"depth": 1}', Options, {"depth": 1}),
        ("[1, {}]", Any, [1, {}]),
        ("plain words", Any, "plain words"),
        ("90s", timedelta, timedelta(seconds=90)),
        ("2026-01-31", date, date(2026, 1, 31)),
        ("2026-01-31T01:00", datetime, datetime(2026, 1, 31, 1)),  # noqa: DTZ001
        ("some/where", Path, Path("some/where")),
        ("x", Path | None, Path("x")),
        ('["1h", "2 days"]', list[timedelta], [timedelta(hours=1), timedelta(days=2)]),
        ('{"k": "RED"}', dict[str, Color], {"k": Color.RED}),
        ('{"k": 2}', dict[str, Color], {"k": Color.GREEN}),
        ("[3]", list[Literal["fast", 3]], [3]),
    ],
)
def test_text_becomes_a_value_of_the_type(text: str, kind: Any, expected: Any) -> None:
    found = from_text(text, kind)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("x", int, "'x' is not an int"),
        ("1.5", int, "'1.5' is not an int"),
        ("x", float, "'x' is not a float"),
        ("maybe", bool, "'maybe' is not a bool"),
        ("x", int | float, "'x' is not an int; 'x' is not a float"),
        ("x", int | None, "'x' is not an int"),
        ("x", None, "is not a None"),
        ("BLUE", Color, "'BLUE' is not one of RED, GREEN"),
        ("slow", Literal["fast", 3], "'slow' is not one of fast, 3"),
        ("[1", list[int], "neither JSON .* nor the path of a .json"),
        ("[1]", dict[str, int], r"\[1\] is not a dict\[str, int\]"),
        ('{"a": 1}', list[int], "is not a list"),
        ('[1, "b"]', list[int], "at 1: 'b' is not an int"),
        ('["5"]', list[int], "at 0: '5' is not an int"),
        ("[true]", list[int], "at 0: true is not an int"),
        ('{"a": {"x": "?"}}', dict[str, Point], """at "a": at "x": '\\?' is not an int"""),
        ("[1, 2]", tuple[int], "has 1 items, not 2"),
        ("[[1]]", set[list[int]], "unhashable"),
        ("{}", Point, "Point needs x"),
        ('{"x": 1, "z": 2}', Point, "Point has no z; it has x, y, tag"),
        ('{"x": 1, "total": 2}', Point, "Point has no total"),
        ('{"n": -1}', Positive, "Positive: n must be positive"),
        ('[1, "b", 3]', Pair, "is not a Pair"),
        ('{"name": "n"}', Options, "Options needs depth"),
        ('{"x": 1}', dict[int, int], "at \"x\": 'x' is not an int"),
        ("soon", timedelta, "'soon' is not a timedelta: a duration looks like"),
        ("soon", datetime, "'soon' is not a datetime: a time looks like"),
        ("[7]", list[date], "at 0: 7 is not a date"),
        ("x", bytes, "@PATH"),
        ("@/no/such/file", bytes, "cannot read '/no/such/file'"),
        ("x", type("Lock", (), {}), "cannot be typed on a command line"),
        ("/no/such", File, "there is no file '/no/such'"),
        ("/no/such", Directory, "there is no directory '/no/such'"),
        ("/no/such.yaml", list[int], "cannot read '/no/such.yaml': No such file"),
        ("[" * 100_000, list[int], "neither JSON"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_place_and_the_type(
    text: str, kind: Any, message: str
) -> None:
    with pytest.raises(Unreadable, match=message):
        from_text(text, kind)


def test_structures_are_read_from_json_and_yaml_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1, 2]")
    (tmp_path / "a.yaml").write_text("x: 3\ny: 1\n")
    (tmp_path / "a.YML").write_text("- 2026-01-31\n- 2026-01-31T05:06:07\n")
    assert from_text(str(tmp_path / "a.json"), list[int]) == [1, 2]
    assert from_text(str(tmp_path / "a.yaml"), Point) == Point(3, 1.0)
    assert from_text(str(tmp_path / "a.YML"), tuple[date, datetime]) == (
        date(2026, 1, 31),
        datetime(2026, 1, 31, 5, 6, 7),  # noqa: DTZ001
    )


def test_broken_files_are_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(Unreadable, match=r"a.json' is not JSON"):
        load_file(tmp_path / "a.json")
    with pytest.raises(Unreadable, match=r"a.yaml' is not YAML"):
        load_file(tmp_path / "a.yaml")
    with pytest.raises(Unreadable, match=r"cannot read .*b.yaml"):
        load_file(tmp_path / "b.yaml")


def test_yaml_runs_no_code() -> None:
    with pytest.raises(Unreadable, match="not YAML"):
        parse("!!python/object/apply:os.getcwd []", "it", is_yaml=True)


def test_bytes_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"\x00\xff")
    assert from_text(f"@{tmp_path / 'blob'}", bytes) == b"\x00\xff"


def test_files_and_directories_must_be_there_and_of_the_right_kind(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    assert from_text(str(tmp_path / "f"), File).path == tmp_path / "f"
    assert from_text(str(tmp_path), Directory).path == tmp_path
    with pytest.raises(Unreadable, match="is not a file"):
        from_text(str(tmp_path), File)
    with pytest.raises(Unreadable, match="is not a directory"):
        from_text(str(tmp_path / "f"), Directory)


def test_arrays_are_read_from_nested_lists() -> None:
    found = from_text("[[1, 2], [3, 4]]", npt.NDArray[np.int64])
    assert isinstance(found, np.ndarray) and found.tolist() == [[1, 2], [3, 4]]
    for text in ("[[1], [2, 3]]", '["a"]'):
        with pytest.raises(Unreadable, match="not an array"):
            from_text(text, np.ndarray)


def test_in_a_tree_only_a_number_is_a_number() -> None:
    assert from_tree(5, float) == 5.0
    assert from_tree(None, int | None) is None
    for tree, kind in (("5", int), (5.0, int), (True, float), (None, str), (1, str)):
        with pytest.raises(Unreadable):
            from_tree(tree, kind)


def test_a_long_value_is_shortened_in_its_error() -> None:
    with pytest.raises(Unreadable) as caught:
        from_tree("x" * 500, int)
    assert len(str(caught.value)) < 120


def test_flags_and_choices_are_recognised_through_optional() -> None:
    assert is_flag(bool) and is_flag(bool | None) and is_flag(Annotated[bool, "doc"])
    assert not is_flag(bool | str) and not is_flag(None)
    assert choices(Color | None) == ["RED", "GREEN"]
    assert choices(Literal["a", Color.RED]) == ["a", "RED"]
    assert choices(int) is None and choices(Color | int) is None


def test_values_written_as_json_are_read_back_equal() -> None:
    value = {"a": [1, 2.5, None, True, "x"]}
    assert from_text(json.dumps(value), dict[str, Any]) == value

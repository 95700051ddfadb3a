"""Frames of pandas and Polars under `track`: values, which come back as they were."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.frameworks.killing import Example, Trial, added_lines, saved_and_restored

from headway.model.errors import InputError

pytestmark = pytest.mark.frameworks
EXAMPLE = "with_pandas"


@pytest.fixture
def pandas() -> Any:
    pytest.importorskip("pyarrow", reason="no Arrow: `make frameworks` installs it")
    return pytest.importorskip("pandas", reason="no pandas: `make frameworks` installs it")


@pytest.fixture
def polars() -> Any:
    return pytest.importorskip("polars", reason="no Polars: `make frameworks` installs it")


def test_three_lines_are_added() -> None:
    assert len(added_lines(EXAMPLE)) == 3


@pytest.mark.reliability("R9")
def test_a_killed_program_ends_with_the_same_table(pandas: Any) -> None:
    Example(EXAMPLE, np.random.seed, parts=30).check()


@pytest.mark.reliability("R9")
def test_a_program_whose_worker_gets_sigkill_ends_with_the_same_table(
    pandas: Any, tmp_path: Path
) -> None:
    Example(EXAMPLE, np.random.seed, parts=15).check_signal(tmp_path)


def table(pandas: Any) -> Any:
    times = pandas.date_range("2026-01-01", periods=3, freq="h", tz="Europe/Paris")
    return pandas.DataFrame(
        {
            "whole": np.array([1, 2, 3], np.int8),
            "real": [0.1, np.nan, -0.0],
            "text": ["a", None, "ü"],
            "kind": pandas.Categorical(["x", "y", "x"], ordered=True),
            "time": times,
            "maybe": pandas.array([1, None, 3], dtype="Int64"),
            "truth": [True, False, True],
        },
        index=pandas.MultiIndex.from_tuples([("a", 1), ("b", 2), ("c", 3)], names=["one", "two"]),
    )


def test_a_pandas_frame_comes_back(pandas: Any) -> None:
    frame = table(pandas)
    back = saved_and_restored(frame, pandas.DataFrame())
    pandas.testing.assert_frame_equal(back, frame, check_exact=True, check_freq=False)
    assert back is not frame
    empty = saved_and_restored(pandas.DataFrame({"a": [1]})[:0], frame)
    assert list(empty.columns) == ["a"]
    assert len(empty) == 0


@pytest.mark.parametrize("name", ["real", 7, None, ("a", 1)])
def test_a_pandas_series_comes_back(pandas: Any, name: Any) -> None:
    series = table(pandas)["real"].rename(name)
    back = saved_and_restored(series, pandas.Series(dtype=float))
    pandas.testing.assert_series_equal(back, series, check_exact=True)


def test_a_polars_frame_comes_back(polars: Any) -> None:
    frame = polars.DataFrame(
        {
            "whole": polars.Series([1, None, 3], dtype=polars.Int8),
            "real": [0.1, float("nan"), -0.0],
            "text": ["a", None, "ü"],
            "kind": polars.Series(["x", "y", "x"], dtype=polars.Categorical),
            "time": [dt.datetime(2026, 1, day, tzinfo=dt.UTC) for day in (1, 2, 3)],
            "list": [[1], [], [2, 3]],
            "inner": [{"a": 1}, {"a": 2}, {"a": None}],
        }
    )
    back = saved_and_restored(frame, polars.DataFrame())
    assert back.schema == frame.schema
    assert back.equals(frame)
    series = frame["list"]
    other = saved_and_restored(series, polars.Series())
    assert other.name == "list"
    assert other.equals(series)


def test_frames_in_a_list_that_is_shorter_now_come_back(pandas: Any, polars: Any) -> None:
    made = saved_and_restored([table(pandas), {"p": polars.DataFrame({"a": [1]})}], [])
    assert type(made[0]) is pandas.DataFrame
    assert made[1]["p"].equals(polars.DataFrame({"a": [1]}))


def test_a_frame_that_arrow_cannot_hold_is_refused(pandas: Any, polars: Any) -> None:
    mixed = pandas.DataFrame({"a": [1, "x", object()]})
    with pytest.raises(
        InputError, match=r"value\[0\] is a pandas\.DataFrame that Arrow cannot hold"
    ):
        Trial().attempt(lambda track: track(value=[mixed]))
    objects = polars.DataFrame({"a": [object()]})
    with pytest.raises(InputError, match=r"value is a polars\.DataFrame that Arrow cannot hold"):
        Trial().attempt(lambda track: track(value=objects))

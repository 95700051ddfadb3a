"""Durations, sizes and columns as people read them."""

from __future__ import annotations

import pytest

from headway.cli.tables import clock, columns, duration, plural, size, some


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0.00s"),
        (0.034, "0.03s"),
        (0.349, "0.35s"),
        (1.04, "1s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (200, "3m 20s"),
        (18_420, "5h 07m"),
        (183_600, "2d 03h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_clock_runs_in_whole_seconds() -> None:
    assert [clock(s) for s in (-1, 0.9, 42, 3723)] == ["0:00", "0:00", "0:42", "1:02:03"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (300 << 20, "300 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_a_size_is_in_binary_units(count: int, text: str) -> None:
    assert size(count) == text


def test_counts_and_lists_read_well() -> None:
    assert plural(1, "node") == "1 node" and plural(0, "node") == "0 nodes"
    assert some(["a", "b"]) == "a, b" and some(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_columns_are_aligned_and_coloured_by_column() -> None:
    rows = [("A", "N", "LAST"), ("long", "10", "x")]
    assert columns(rows, right=frozenset({1})) == ["A      N  LAST", "long  10  x"]
    found = columns(rows, paint=lambda i, cell: f"<{cell}>" if i == 0 else cell)
    assert found == ["<A   >  N   LAST", "<long>  10  x"]

"""Dates and durations as people type them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from headway.cli.times import day, duration, moment

NOW = datetime(2026, 3, 4, 15, 30, 20, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 day", timedelta(days=1)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("90s", timedelta(seconds=90)),
        ("1.5 hours", timedelta(minutes=90)),
        ("2 weeks, 3 days and 4 min", timedelta(days=17, minutes=4)),
        ("250ms", timedelta(milliseconds=250)),
        ("7 µs", timedelta(microseconds=7)),
        ("3 Hrs 5 SECS", timedelta(hours=3, seconds=5)),
        ("1:30:00", timedelta(hours=1, minutes=30)),
        ("0:02", timedelta(minutes=2)),
        ("P1DT6H", timedelta(days=1, hours=6)),
        ("pt0.5s", timedelta(seconds=0.5)),
        ("P2W", timedelta(weeks=2)),
        ("-1h", timedelta(hours=-1)),
        ("- P1D", timedelta(days=-1)),
    ],
)
def test_a_duration_is_read_in_the_ways_people_write_it(text: str, expected: timedelta) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "90",
        "P",
        "PT",
        "P1DT",
        "1 month",
        "P1Y",
        "1h30",
        "h",
        "one day",
        "1d x",
        "9999999999d",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='"1h30m"'):
        duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("NOW", NOW),
        ("today", NOW.replace(hour=0, minute=0, second=0)),
        ("now - 1d", NOW - timedelta(days=1)),
        ("now-P1D", NOW - timedelta(days=1)),
        ("now + 1h30m", NOW + timedelta(minutes=90)),
        ("today + 6 hours", NOW.replace(hour=6, minute=0, second=0)),
        ("2026-01-31", datetime(2026, 1, 31)),  # noqa: DTZ001  # no zone was typed
        ("2026-01-31T12:00", datetime(2026, 1, 31, 12)),  # noqa: DTZ001
        ("2026-01-31 12:00:01.5Z", datetime(2026, 1, 31, 12, 0, 1, 500_000, UTC)),
        ("2026-01-31T12:00-05:00", datetime(2026, 1, 31, 17, tzinfo=UTC)),
        ("2026-01-31 - 1d", datetime(2026, 1, 30)),  # noqa: DTZ001
        ("2026-01-31 12:00 + 90s", datetime(2026, 1, 31, 12, 1, 30)),  # noqa: DTZ001
    ],
)
def test_a_point_in_time_is_read_with_arithmetic(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


def test_now_has_the_local_time_zone() -> None:
    before = datetime.now(UTC)
    found = moment("now")
    assert before <= found <= datetime.now(UTC)
    assert found.tzinfo is not None


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "now now", "later - 1d"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='"now - 1d"'):
        moment(text, NOW)


def test_a_bad_duration_in_a_sum_is_named() -> None:
    with pytest.raises(ValueError, match="a duration looks like"):
        moment("now - soon", NOW)


def test_a_sum_outside_the_calendar_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(ValueError, match="1 to 9999"):
        moment("now + 99999999d", NOW)


def test_a_date_is_read_as_the_date_of_a_time() -> None:
    assert day("2026-01-31") == date(2026, 1, 31)
    assert day("today - 1d", NOW) == date(2026, 3, 3)
    assert type(day("now", NOW)) is date

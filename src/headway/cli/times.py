"""Dates and durations as people type them: `now - 1d`, `2026-01-31T12:00`, `1h30m`, `P1DT6H`."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

_UNITS = {
    "us": "microseconds",
    "µs": "microseconds",
    "microsecond": "microseconds",
    "ms": "milliseconds",
    "millisecond": "milliseconds",
    "s": "seconds",
    "sec": "seconds",
    "second": "seconds",
    "m": "minutes",
    "min": "minutes",
    "minute": "minutes",
    "h": "hours",
    "hr": "hours",
    "hour": "hours",
    "d": "days",
    "day": "days",
    "w": "weeks",
    "week": "weeks",
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zµ]+)\s*(?:,|and\b)?", re.IGNORECASE)
_CLOCK = re.compile(r"(\d+):(\d{2})(?::(\d{2}(?:\.\d+)?))?")
_ISO = re.compile(
    r"P(?=.)(?:(?P<weeks>\d+(?:\.\d+)?)W)?(?:(?P<days>\d+(?:\.\d+)?)D)?"
    r"(?:T(?=.)(?:(?P<hours>\d+(?:\.\d+)?)H)?(?:(?P<minutes>\d+(?:\.\d+)?)M)?"
    r"(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?",
    re.IGNORECASE,
)
# A sign in an ISO date ("2026-01-31") is no arithmetic: blanks must stand around it there.
_SUM = re.compile(
    r"(?P<base>now|today)\s*(?P<sign>[+-])\s*(?P<span>.+)"
    r"|(?P<stamp>\S+(?:\s\d\S*)?)\s+(?P<stampsign>[+-])\s+(?P<stampspan>.+)",
    re.IGNORECASE,
)


def duration(text: str) -> timedelta:
    """Read a duration: `1 day`, `1h30m`, `90s`, `1:30:00` or ISO 8601 (`P1DT6H`); `-` in front negates.

    Raises:
        ValueError: not a duration; the message says what is.
    """
    body = text.strip()
    negative = body.startswith("-")
    body = body[1:].strip() if negative else body
    try:
        span = _unsigned(body)
    except OverflowError:
        span = None
    if span is None:
        raise ValueError('a duration looks like "1 day", "1h30m", "90s" or "P1DT6H"')
    return -span if negative else span


def _unsigned(body: str) -> timedelta | None:
    if match := _ISO.fullmatch(body):
        return timedelta(**{unit: float(n) for unit, n in match.groupdict().items() if n})
    if match := _CLOCK.fullmatch(body):
        hours, minutes, seconds = match.groups(default="0")
        return timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    total, at = timedelta(), 0
    while at < len(body):
        part = _PART.match(body, at)
        unit = part and _unit(part[2].lower())
        if not part or not unit:
            return None
        total += timedelta(**{unit: float(part[1])})
        at = part.end()
    return total if body else None


def _unit(word: str) -> str | None:
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))


def moment(text: str, now: datetime | None = None) -> datetime:
    """Read a point in time: ISO 8601, `now`, `today` (midnight), and `now - 1d` or `today + P1D`.

    `now` and `today` carry the local time zone; an ISO time carries the zone that was typed, if any.

    Args:
        text: what was typed.
        now: the present, for tests.

    Raises:
        ValueError: not a point in time; the message says what is.
    """
    body = text.strip()
    if match := _SUM.fullmatch(body):
        base, sign, span = (
            match["base"] or match["stamp"],
            match["sign"] or match["stampsign"],
            match["span"] or match["stampspan"],
        )
        delta = duration(span)
        try:
            return _stamp(base, now) + (delta if sign == "+" else -delta)
        except OverflowError:
            raise ValueError("the result lies outside the years 1 to 9999") from None
    return _stamp(body, now)


def day(text: str, now: datetime | None = None) -> date:
    """Read a date: `2026-01-31`, or anything `moment` reads, whose date it then is."""
    return moment(text, now).date()


def _stamp(text: str, now: datetime | None) -> datetime:
    present = now or datetime.now().astimezone()
    match text.lower():
        case "now":
            return present
        case "today":
            return present.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            'a time looks like "2026-01-31T12:00", "now", "today" or "now - 1d"'
        ) from None

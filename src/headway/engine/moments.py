"""Dates, times and durations as plain trees. Exact: microseconds, fold, offset and zone come back."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Callable
from typing import Any

from headway.model.errors import InputError

_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,30}(/[A-Za-z0-9][A-Za-z0-9_+-]{0,30}){0,3}")
"""Names of time zones."""


def encode(value: Any) -> dict[str, Any] | None:
    """`value` as a plain tree; None when it is of another kind, a subclass, or in a time zone that
    only its own class knows."""
    kind = type(value)
    if kind is dt.timedelta:
        return {"$": "timedelta", "parts": _parts(value)}
    if kind is dt.date:
        return {"$": "date", "iso": value.isoformat()}
    if kind is not dt.datetime and kind is not dt.time:
        return None
    plain = {"$": kind.__name__, "iso": value.replace(tzinfo=None).isoformat(), "fold": value.fold}
    if value.tzinfo is None:
        return plain
    zone = _encode_zone(value.tzinfo)
    return None if zone is None else {**plain, "zone": zone}


def decode(plain: dict[str, Any]) -> Any:
    """The value that `encode` was given.

    Raises:
        InputError: its time zone is not known on this machine.
    """
    if plain["$"] == "timedelta":
        return dt.timedelta(*plain["parts"])
    if plain["$"] == "date":
        return dt.date.fromisoformat(plain["iso"])
    parse: Callable[[str], Any] = (
        dt.datetime.fromisoformat if plain["$"] == "datetime" else dt.time.fromisoformat
    )
    value = parse(plain["iso"]).replace(fold=plain["fold"])
    return value.replace(tzinfo=_decode_zone(plain["zone"])) if "zone" in plain else value


def _parts(value: dt.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _encode_zone(zone: dt.tzinfo) -> Any:
    if type(zone) is dt.timezone:
        name = zone.tzname(None)
        offset = zone.utcoffset(None)
        plain: dict[str, Any] = {"offset": _parts(offset)}
        return plain if name == dt.timezone(offset).tzname(None) else {**plain, "name": name}
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return {"key": zone.key}
    return None


def _decode_zone(plain: Any) -> dt.tzinfo:
    if "offset" in plain:
        offset = dt.timedelta(*plain["offset"])
        return dt.timezone(offset, plain["name"]) if "name" in plain else dt.timezone(offset)
    try:
        key = plain["key"]
        if _ZONE.fullmatch(key) is None:  # the package of zones is imported to look for a name
            raise zoneinfo.ZoneInfoNotFoundError(key)
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(
            f"the time zone {plain['key']!r} of a stored value is not known on this machine; "
            "`pip install tzdata` brings the zones"
        ) from error

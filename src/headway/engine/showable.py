"""A stored value as JSON: for people and scripts to look at, without running anyone's code.

Classes are shown by their parts, and what is large or opaque is described in words. It does not come
back from this; `runtime.result` decodes the value itself.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import msgspec

from headway.checkpoint import arrays
from headway.model.errors import CheckpointError, StorageError

Fetch = Callable[[str, int], bytes]
"""Reads a blob, given its digest and its size."""

MOST_ITEMS = 1_000
"""Elements up to which an array is shown as nested lists."""

MOST_BYTES = 4_096
"""Bytes up to which a byte string is shown, as base64."""

MOST_FETCHED = 16 << 20
"""Bytes of a large text or structure up to which it is fetched from the home to be shown."""


def showable(plain: Any, fetch: Fetch | None = None) -> Any:
    """The JSON form of a plain tree (`engine.values`).

    Args:
        plain: the tree.
        fetch: reads large texts and structures; without it they are described in words.
    """
    return _Shower(fetch).show(plain)


def showable_outputs(outputs: dict[str, Any], fetch: Fetch | None = None) -> Any:
    """The JSON form of the outputs of a run: None, the one value, a list (unnamed), or a dict."""
    shown = {name: showable(plain, fetch) for name, plain in outputs.items()}
    if any(name != f"o{index}" for index, name in enumerate(shown)):
        return shown
    if len(shown) > 1:
        return list(shown.values())
    return shown.get("o0")


class _Shower:
    def __init__(self, fetch: Fetch | None) -> None:
        self._fetch = fetch

    def show(self, plain: Any) -> Any:
        match plain:
            case float() if not math.isfinite(plain):  # JSON has no word for them
                return "NaN" if math.isnan(plain) else "Infinity" if plain > 0 else "-Infinity"
            case bytes():
                return _bytes(plain)
            case list():
                return [self.show(item) for item in plain]
            case dict() if "$" in plain:
                return self._tagged(plain)
            case dict():
                return {key: self.show(item) for key, item in plain.items()}
            case _:
                return plain

    def _tagged(self, plain: dict[str, Any]) -> Any:
        match plain["$"]:
            case "tuple" | "set" | "frozenset":
                return [self.show(item) for item in plain["items"]]
            case "dict":
                pairs = [(self.show(key), self.show(item)) for key, item in plain["items"]]
                if all(isinstance(key, str) for key, _ in pairs):
                    return dict(pairs)
                return [[key, item] for key, item in pairs]
            case "int":
                return int(plain["hex"], 16)
            case "tree":
                data = self._data(plain)
                return _in_words(plain) if data is None else self.show(msgspec.msgpack.decode(data))
            case "str":
                data = self._data(plain)
                return _in_words(plain) if data is None else data.decode("utf-8", "replace")
            case "bytes" if "data" in plain:
                return _bytes(plain["data"])
            case "enum":
                return plain["name"] if "name" in plain else self.show(plain["value"])
            case "dataclass":
                return {name: self.show(item) for name, item in plain["fields"].items()}
            case "datetime" | "date" | "time":
                return plain["iso"] + _zone(plain.get("zone"))
            case "timedelta":
                days, seconds, micros = plain["parts"]
                return days * 86_400 + seconds + micros / 1e6
            case "array" | "scalar":
                return _array(plain)
            case "path":
                return self.show(plain["text"] if "text" in plain else plain["content"])
            case "file" | "directory":
                return f"<{plain['$']} {plain['name'].decode('utf-8', 'replace')}>"
            case _:
                return _in_words(plain)

    def _data(self, plain: dict[str, Any]) -> bytes | None:
        """The bytes of a large leaf; None when they are not to be had, or too many."""
        if "data" in plain:
            return bytes(plain["data"])
        if self._fetch is None or plain["size"] > MOST_FETCHED:
            return None
        try:
            return self._fetch(plain["blob"], plain["size"])
        except (CheckpointError, StorageError):
            return None  # decoding the value itself says what is wrong


def _in_words(plain: dict[str, Any]) -> str:
    size = plain["size"] if "size" in plain else len(plain.get("data", b""))
    return f"<{plain['$']}{f' of {size} bytes' if size else ''}>"


def _bytes(data: bytes) -> str:
    if len(data) > MOST_BYTES:
        return f"<{len(data)} bytes>"
    return base64.b64encode(data).decode("ascii")


def _zone(zone: Any) -> str:
    if zone is None:
        return ""
    if "key" in zone:
        return f"[{zone['key']}]"
    days, seconds, _ = zone["offset"]
    minutes = (days * 86_400 + seconds) // 60
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _array(plain: dict[str, Any]) -> Any:
    data = plain.get("data")
    if data is not None and math.prod(plain["shape"]) <= MOST_ITEMS:

        def fill(target: memoryview) -> None:
            target[:] = data

        try:
            return _listed(arrays.decode(plain, len(data), fill).tolist())
        except (ImportError, CheckpointError):
            pass  # shown in words then; decoding the value itself says what is wrong
    shape = "×".join(map(str, plain["shape"])) or "one"
    return f"<{plain['$']} {shape} of {plain['dtype']}>"


def _listed(items: Any) -> Any:
    """What `tolist` gave, for JSON: complex numbers, dates and byte strings among it too."""
    if isinstance(items, list | tuple):
        return [_listed(item) for item in items]
    if items is None or isinstance(items, bool | int | float | str | bytes):
        return showable(items)
    return str(items)

"""What an attacker puts into a home: plain trees with something hostile in place of each leaf."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CANARY = "headway-canary"
"""A file of this name is made by any payload that is run, wherever it is run."""


class _Payload:
    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._place / CANARY}",)


def pickled(place: Path) -> bytes:
    """A pickle that makes the canary when it is loaded."""
    return pickle.dumps(_Payload(place))


def hostile_values(place: Path) -> list[Any]:
    """What is put in place of a leaf."""
    code = f"__import__('os').system('touch {place / CANARY}')"
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    return [
        pickled(place),
        pickled(place).decode("latin-1"),
        code,
        "builtins:eval",
        "../../../../" + CANARY,
        f"{place}/{CANARY}",
        "a\0b",
        "\x1b]0;x\x07",
        "x" * 5000,
        "",
        b"",
        None,
        True,
        -1,
        0,
        1 << 40,
        (1 << 63) - 1,
        (1 << 64) - 1,
        float("nan"),
        float("inf"),
        [],
        {},
        deep,
        [1 << 62, 1 << 62],
        [0, 1 << 62],
        [-1, -1],
        ["O"],
        [["f", code]],
        {"$": "pickle", "data": pickled(place)},
        {"$": "int", "hex": "0x1" + "0" * 100},
    ]


def paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each place in a plain tree, containers included."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from paths(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from paths(value, (*path, index))


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of `tree` with `value` at `path`."""
    made = copy.deepcopy(tree)
    place = made
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return made


def without(tree: Any, path: tuple[Any, ...]) -> Any:
    """A copy of `tree` with nothing at `path`."""
    made = copy.deepcopy(tree)
    place = made
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return made


def mutations(tree: Any, place: Path) -> Iterator[tuple[str, Any]]:
    """(what was done, the tree): every place with every hostile value, and every place gone."""
    values = hostile_values(place)
    for path in paths(tree):
        name = ".".join(map(str, path))
        for number, value in enumerate(values):
            yield f"{name}={number}:{str(value)[:20]!r}", changed(tree, path, value)
        yield f"{name} gone", without(tree, path)

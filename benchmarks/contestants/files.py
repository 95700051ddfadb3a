"""What files and SQLite can do: the limits and the usual ways to save a kilobyte for good."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.contestants.protocol import Measured, Round, serve

LOG_ROOM = 64 << 20


def each(save: Callable[[bytes], object], options: dict[str, Any]) -> Measured:
    """Seconds of `count` calls of `save` with `size` fresh bytes each, from `options`."""
    count, size = options["count"], options["size"]
    payloads = [os.urandom(size) for _ in range(count)]
    seconds = []
    for payload in payloads:
        began = time.perf_counter()
        save(payload)
        seconds.append(time.perf_counter() - began)
    return seconds


@contextlib.contextmanager
def log(place: Path) -> Iterator[Callable[[bytes], None]]:
    """One write and one fdatasync into a file that was zero-filled and made durable ahead."""
    fd = os.open(place / "log", os.O_CREAT | os.O_RDWR)
    for offset in range(0, LOG_ROOM, 1 << 20):
        os.pwrite(fd, bytes(1 << 20), offset)
    os.fsync(fd)
    end = 0

    def save(payload: bytes) -> None:
        nonlocal end
        os.pwrite(fd, payload, end % (LOG_ROOM - len(payload)))
        os.fdatasync(fd)
        end += len(payload)

    yield save
    os.close(fd)


@contextlib.contextmanager
def logged(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """What a log can do at best."""
    with log(place) as save:
        yield lambda: each(save, options)


@contextlib.contextmanager
def rename(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """The textbook: write a new file, fsync it, rename it over the old one, fsync the directory."""

    def save(payload: bytes) -> None:
        fd = os.open(place / "new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        os.write(fd, payload)
        os.fsync(fd)
        os.close(fd)
        os.rename(place / "new", place / "state")
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)

    yield lambda: each(save, options)


@contextlib.contextmanager
def sqlite(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """One INSERT, committed, in WAL mode with synchronous=FULL: durable on return."""
    connection = sqlite3.connect(place / "state.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE state (number INTEGER PRIMARY KEY, content BLOB)")

    def save(payload: bytes) -> None:
        connection.execute("INSERT INTO state (content) VALUES (?)", (payload,))

    yield lambda: each(save, options)
    connection.close()


@contextlib.contextmanager
def call(_: Path, options: dict[str, Any]) -> Iterator[Round]:
    """A bare function, called `tasks` times; seconds per call."""

    def increment(x: int) -> int:
        return x + 1

    def round_() -> Measured:
        x = 0
        began = time.perf_counter()
        for _ in range(options["tasks"]):
            x = increment(x)
        return [(time.perf_counter() - began) / options["tasks"]]

    yield round_


if __name__ == "__main__":
    serve({"log": logged, "rename": rename, "sqlite": sqlite, "call": call})

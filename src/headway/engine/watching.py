"""What `headway verify` has an attempt do beside its work: write down what the state is at each boundary of
a tracked loop, as hashes, and die where it was told to.

One file per attempt, a line per boundary. A line is one write to the end of the file; the last one may
still be torn by a kill, and is not read then.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import xxhash

from headway.checkpoint import randomness
from headway.checkpoint.capture import APART
from headway.checkpoint.loops import Frame
from headway.checkpoint.state import Flattened, below
from headway.checkpoint.track import TRACK
from headway.engine.context import Context
from headway.model.errors import InputError
from headway.model.program import Watch

UNTRACKED = " (not tracked)"
"""Behind the name of a random generator that `track(rng=False)` leaves out."""
DIRECTORY = "directory "
"""Before the path of what is in a working directory."""

_LONG = 64  # things of a list that are told apart; of a longer one, only that it differs
_PIECE = 1 << 20  # bytes of a file that are read at once
_ATOMS = (type(None), bool, int, float, str, bytes)


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is written about an attempt.

    Attributes:
        step: the boundary: "turn of the outer loop / of the one in it", each as "ordinal:items done", and
            "." behind it at the end of the outermost loop. "" when the line is of no boundary.
        names: paths in the state; None in a file where they are those of the line before.
        hashes: of what is there, in the same order, with blanks between.
        killed: the attempt ends here, by its own hand.
        tracked: `track` was called; said at the end.
    """

    step: str = ""
    names: tuple[str, ...] | None = None
    hashes: str = ""
    killed: bool = False
    tracked: bool = False

    @classmethod
    def of(cls, step: str, entries: Mapping[str, str]) -> Self:
        """The line of a boundary."""
        return cls(step, tuple(entries), " ".join(entries.values()))

    @property
    def entries(self) -> dict[str, str]:
        """Path in the state -> hash."""
        return dict(zip(self.names or (), self.hashes.split(), strict=True))


def name_of(place: list[Frame], *, end: bool) -> str:
    """The name of a boundary: see `Line`."""
    return "/".join(f"{frame.ordinal}:{frame.at}" for frame in place) + "." * end


def lines_of(file: Path) -> list[Line]:
    """What an attempt wrote; [] when it was gone before it wrote anything."""
    try:
        *whole, _ = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    lines: list[Line] = []
    names: tuple[str, ...] = ()
    for text in whole:
        line = msgspec.json.decode(text, type=Line)
        names = names if line.names is None else line.names
        # One tuple for all lines: a long run of a large model has a million names otherwise.
        lines.append(msgspec.structs.replace(line, names=names) if line.step else line)
    return lines


class Watcher:
    """Watches one attempt, from entry to exit.

    Args:
        watch: what to do.
        context: of the attempt.
    """

    def __init__(self, watch: Watch, context: Context) -> None:
        self._watch = watch
        self._context = context
        self._durable = frozenset(watch.durable)
        self._over = threading.Event()
        self._strike: threading.Thread | None = None
        self._names: tuple[str, ...] | None = None
        self._seen = 0
        self._begun = 0.0

    def __enter__(self) -> Self:
        _seed(self._watch.seed)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._watch.file, flags, 0o600)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._strike is not None:
            self._strike.join()
        self._write(Line(tracked=bool(self._context.tracked)))
        os.close(self._file)

    def see(self, place: list[Frame], end: bool, state: Mapping[str, Any]) -> None:
        """A boundary: see `track.Observe`."""
        step = name_of(place, end=end)
        files = files_of(self._context.checkpoint.directories())
        line = Line.of(step, entries_of(state) | files)
        same = line.names == self._names
        self._names = line.names
        self._write(msgspec.structs.replace(line, names=None) if same else line)
        self._seen += 1
        if self._seen == 1:
            self._begun = time.monotonic()
        if step in self._durable or step == self._watch.kill:
            self._context.checkpoint.flush()
        if step == self._watch.kill:
            self._end()

    def _end(self) -> None:
        """Die now, or some time after this step."""
        if not self._watch.late:
            self._die()
            return
        took = (time.monotonic() - self._begun) / max(1, self._seen - 1)
        self._strike = threading.Thread(
            target=self._die_later, args=(self._watch.late * took,), daemon=True
        )
        self._strike.start()

    def _die_later(self, seconds: float) -> None:
        if not self._over.wait(seconds):
            self._die()

    def _die(self) -> None:
        self._write(Line(killed=True))
        os.kill(os.getpid(), signal.SIGKILL)

    def _write(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")


def entries_of(state: Mapping[str, Any]) -> dict[str, str]:
    """Path -> hash for everything in the state of a tracked loop, the random generators, and what loops
    that know their own position say of it."""
    track = state[TRACK]
    found: dict[str, str] = {}
    for name, value in state.items():
        if name != TRACK:
            found |= _leaves(value, name)
    for level, loop in enumerate(track["loops"]):
        position = loop[4]
        if position is not None:
            found |= _leaves(position, f"loop position[{level}]")
    mark = "" if track["rng"] is not None else UNTRACKED
    for name, value in randomness.snapshot().items():
        found[f"rng.{name}{mark}"] = _hash(value)
    return found


def files_of(directories: Mapping[str, Path]) -> dict[str, str]:
    """Path -> hash for everything in the working directories."""
    found: dict[str, str] = {}
    for name, place in sorted(directories.items()):
        for path in sorted(place.rglob("*")):
            digest = xxhash.xxh3_64(f"{path.lstat().st_mode:o}".encode())
            if path.is_file():
                with open(path, "rb") as file:
                    while piece := file.read(_PIECE):
                        digest.update(piece)
            found[f"{DIRECTORY}{name}/{path.relative_to(place).as_posix()}"] = digest.hexdigest()
    return found


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if key != APART:
                yield from _leaves(inner, below(path, key))
    elif isinstance(value, list | tuple) and _has_parts(value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, _hash(value)


def _has_parts(value: list[Any] | tuple[Any, ...]) -> bool:
    return 0 < len(value) <= _LONG or any(not isinstance(inner, _ATOMS) for inner in value)


def _hash(value: Any) -> str:
    """Equal for equal content, in every process."""
    digest = xxhash.xxh3_64()
    try:
        taken = Flattened({"": value})
    except InputError:  # what is saved as a pickle
        digest.update(_pickled(value))
    else:
        digest.update(taken.skeleton)
        for part in taken.parts:
            digest.update(part.data)
    return digest.hexdigest()


def _pickled(value: Any) -> bytes:
    """Of a set, which has no order, its items' hashes in order."""
    if isinstance(value, set | frozenset):
        return "".join(sorted(map(_hash, value))).encode()
    return pickle.dumps(value)


def _seed(number: int) -> None:
    """Set the process's random generators, so that two attempts of a body that does not do so itself can be
    compared."""
    random.seed(number)
    with contextlib.suppress(ImportError):  # a body may import it only later
        import numpy.random

        numpy.random.seed(number % (1 << 32))
    torch = sys.modules.get("torch")  # by itself it begins with the same seed always
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(number)

"""Every home that a power loss can leave, from a trace of what was asked of the operating system.

The rules, which any POSIX filesystem keeps:

- A file's flush makes its bytes and its size durable, and not its name. A directory's flush makes the
  names in it durable, and not its own name in its parent.
- What was not flushed is kept or lost independently: each 512-byte sector of each write, the size, each
  cut of a file's end, and each name that was made or removed.
- After a file's flush failed, its pages count as clean: no later flush writes them, only a new write of
  the same bytes does. (A directory's failed flush is different: names go through the journal, and a
  filesystem whose journal cannot be written stops.)
- Bytes of a file that were never written, below its size, are zero.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.crash.recorder import Event

T = TypeVar("T")
SECTOR = 512
HIDDEN = ".tmp-"
Home = dict[str, bytes]
_Names = dict[str, int | None]  # in a directory: file number, None for a directory
_Change = tuple[int, bytes | None]  # of a file: bytes at an offset, None for its end there


@dataclass
class _File:
    kept: bytes = b""
    pending: list[_Change] = field(default_factory=list)
    limbo: list[_Change] = field(default_factory=list)

    def flush(self) -> None:
        for offset, data in self.pending:
            self.kept = _written(self.kept, offset, data)
            if data is None:
                continue
            # What a failed flush left behind no longer matters where it was written again.
            self.limbo = [
                (at, piece)
                for at, piece in self.limbo
                if piece is None or not (offset <= at and at + len(piece) <= offset + len(data))
            ]
        self.pending = []

    def lose(self) -> None:
        self.limbo += [piece for offset, data in self.pending for piece in _sectors(offset, data)]
        self.pending = []


def _written(old: bytes, offset: int, data: bytes | None) -> bytes:
    if data is None:
        return old[:offset]
    return old.ljust(offset, b"\0")[:offset] + data + old[offset + len(data) :]


def _sectors(offset: int, data: bytes | None) -> Iterator[_Change]:
    if data is None:
        yield offset, None
        return
    start = offset
    while start < offset + len(data):
        stop = min((start // SECTOR + 1) * SECTOR, offset + len(data))
        yield start, data[start - offset : stop - offset]
        start = stop


class Disk:
    """What is durable, and what is not yet, after some events.

    Args:
        most: of each file's and of the home's variants at one point, no more than this many are
            made: the corners, and then a sample drawn with `seed`.
    """

    def __init__(self, *, most: int, seed: int = 0) -> None:
        self._most = most
        self._random = random.Random(seed)
        self._files: dict[int, _File] = {}
        self._names: dict[str, _Names] = {"": {}}
        self._changes: dict[str, list[tuple[str, int | None, bool]]] = {"": []}

    def do(self, event: Event) -> None:
        """Take one event in."""
        if event.kind == "mkdir":
            path = f"{event.place}/{event.name}".lstrip("/")
            self._names[path], self._changes[path] = {}, []
            self._changes[event.place].append((event.name, None, True))
        elif event.kind == "create":
            self._files[event.file] = _File()
            self._changes[event.place].append((event.name, event.file, True))
        elif event.kind == "link":
            self._changes[event.place].append((event.name, event.file, True))
        elif event.kind == "unlink":
            self._changes[event.place].append((event.name, None, False))
        elif event.kind == "write":
            self._files[event.file].pending.append((event.offset, event.data))
        elif event.kind == "truncate":
            self._files[event.file].pending.append((event.offset, None))
        elif event.kind == "sync":
            self._files[event.file].flush()
        elif event.kind == "sync-failed":
            self._files[event.file].lose()
        elif event.kind == "sync-directory":
            self._names[event.place] = _applied(
                self._names[event.place], self._changes[event.place]
            )
            self._changes[event.place] = []

    def homes(self) -> Iterator[Home]:
        """The homes that a power loss can leave now."""
        trees = []
        for names in self._products([self._directories(path) for path in self._names]):
            directories = dict(zip(self._names, names, strict=True))
            tree = dict(_walk(directories, ""))
            if tree not in trees:
                trees.append(tree)
        contents = {number: self._contents(file) for number, file in self._files.items()}
        for tree in trees:
            keys = list(tree)
            for home in self._products([contents[tree[key]] for key in keys]):
                yield dict(zip(keys, home, strict=True))

    def _directories(self, path: str) -> list[_Names]:
        changes = [change for change in self._changes[path] if not change[0].startswith(HIDDEN)]
        variants: list[_Names] = []
        for kept in self._subsets(len(changes)):
            names = _applied(self._names[path], [changes[index] for index in kept])
            if names not in variants:
                variants.append(names)
        return variants

    def _contents(self, file: _File) -> list[bytes]:
        pieces = file.limbo + [
            piece for offset, data in file.pending for piece in _sectors(offset, data)
        ]
        size = max([len(file.kept), *(offset + len(data or b"") for offset, data in pieces)])
        changing = [
            (offset, data)
            for offset, data in pieces
            if data is None
            or data.strip(b"\0")
            or file.kept[offset : offset + len(data)].strip(b"\0")
        ]
        variants: dict[bytes, None] = {}
        for kept in self._subsets(len(changing)):
            content = file.kept
            for index in kept:
                content = _written(content, *changing[index])
            variants[content] = None
            variants[content.ljust(size, b"\0")] = None
        return list(variants)

    def _subsets(self, count: int) -> Iterator[tuple[int, ...]]:
        """Subsets of range(count): the empty one first, the whole last."""
        if 2**count <= self._most:
            for size in range(count + 1):
                yield from itertools.combinations(range(count), size)
            return
        every = range(count)
        yield ()
        for index in every:
            yield (index,)
            yield tuple(range(index))
            yield tuple(range(index + 1, count))
            yield tuple(other for other in every if other != index)
        for _ in range(self._most - 4 * count):
            yield tuple(index for index in every if self._random.random() < 0.5)
        yield tuple(every)

    def _products(self, choices: Sequence[Sequence[T]]) -> Iterator[tuple[T, ...]]:
        """One of each: all combinations, or the corners and a sample."""
        if math.prod(map(len, choices)) <= self._most:
            yield from itertools.product(*choices)
            return
        least, whole = [options[0] for options in choices], [options[-1] for options in choices]
        made = 0
        for corner in (least, whole):
            yield tuple(corner)
            for index, options in enumerate(choices):
                for option in options[:: max(1, len(options) // 16)]:
                    yield (*corner[:index], option, *corner[index + 1 :])
                    made += 1
        for _ in range(self._most - made):
            yield tuple(self._random.choice(options) for options in choices)


def _applied(names: _Names, changes: Sequence[tuple[str, int | None, bool]]) -> _Names:
    after = {name: file for name, file in names.items() if not name.startswith(HIDDEN)}
    for name, file, made in changes:
        if made and not name.startswith(HIDDEN):
            after[name] = file
        elif not made:
            after.pop(name, None)
    return after


def _walk(directories: dict[str, _Names], path: str) -> Iterator[tuple[str, int]]:
    for name, file in directories[path].items():
        key = f"{path}/{name}".lstrip("/")
        if file is None:
            yield from _walk(directories, key)
        else:
            yield key, file

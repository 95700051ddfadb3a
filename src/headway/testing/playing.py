"""Playing operations on a checkpoint, and checking each answer against what was saved."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.checkpoint.handle import Checkpoint
from headway.ports import Storage
from headway.testing.comparing import difference

PREFIX = "runs/played/nodes/n"
KEPT = 3
"""At least so many of the newest checkpoints stay when nothing was said of it."""


@dataclass(frozen=True, slots=True)
class Write:
    """`checkpoint.write(data)`."""

    data: bytes

    def __repr__(self) -> str:  # the bytes may be many
        return f"Write({_shown(self.data)})"


@dataclass(frozen=True, slots=True)
class SaveFiles:
    """`checkpoint.save(directory)`, of a directory with these files by relative path."""

    files: dict[str, bytes]

    def __repr__(self) -> str:
        inside = ", ".join(f"{name!r}: {_shown(data)}" for name, data in self.files.items())
        return f"SaveFiles({{{inside}}})"


def _shown(data: bytes) -> str:
    return repr(data) if len(data) <= 20 else f"{data[:10]!r} * … of {len(data)}"


@dataclass(frozen=True, slots=True)
class SaveState:
    """`checkpoint.save(state)`."""

    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """Whatever reads the newest checkpoint: `load`, `read` or `restore`."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """The next attempt. The one before is closed, or dropped as a kill drops it."""

    killed: bool


Operation = Write | SaveFiles | SaveState | Look | Reopen


def play(storage: Storage, operations: Iterable[Operation]) -> int:
    """Do `operations` on a fresh lineage of `storage`; how many there were.

    Raises:
        AssertionError: what was read is not what was saved last.
    """
    with tempfile.TemporaryDirectory(prefix="headway-") as scratch:
        player = Player(storage, Path(scratch))
        for operation in operations:
            player.do(operation)
        player.do(Reopen(killed=False))
        player.do(Look())
        player.checkpoint.close()
        return player.done


class Player:
    """Plays operations, and knows what was saved last.

    Args:
        storage: where.
        scratch: a directory for files.
        prefix: of the lineage.

    Attributes:
        checkpoint: of the newest attempt.
        done: operations so far.
    """

    def __init__(self, storage: Storage, scratch: Path, prefix: str = PREFIX) -> None:
        self._storage = storage
        self._scratch = scratch
        self._prefix = prefix
        self._attempt = 0
        self._last: Write | SaveFiles | SaveState | None = None
        self._saves = 0
        self.done = 0
        self.checkpoint = self._open()

    def do(self, operation: Operation) -> None:
        """Do one operation; check the answer of one that has one."""
        self.done += 1
        match operation:
            case Write():
                self.checkpoint.write(operation.data)
            case SaveFiles():
                self.checkpoint.save(self._written(operation.files))
            case SaveState():
                self.checkpoint.save(operation.state)
            case Look():
                self._look()
                return
            case Reopen():
                if not operation.killed:
                    self.checkpoint.close()
                self._attempt += 1
                self.checkpoint = self._open()
                return
        self._last = operation
        self._saves += 1

    def _open(self) -> Checkpoint:
        return Checkpoint(self._storage, self._prefix, attempt=self._attempt, scratch=self._scratch)

    def _written(self, files: dict[str, bytes]) -> Path:
        place = self._scratch / f"source-{self.done}"
        place.mkdir()
        for name, data in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        return place

    def _look(self) -> None:
        assert self.checkpoint.prev_exists() == (self._last is not None)
        found: Any
        match self._last:
            case None:
                found = self.checkpoint.read(), self.checkpoint.load(), self.checkpoint.restore()
                assert found == (None, None, None), "there was no checkpoint"
            case Write(data):
                assert self.checkpoint.read() == data, "other bytes than were written"
            case SaveFiles(files):
                found = self.checkpoint.restore()
                assert found is not None, "the checkpoint is gone"
                assert files_in(found) == files, "other files than were saved"
            case SaveState(state):
                differs = difference(self.checkpoint.load(), state)
                assert not differs, differs
        numbers = [report.number for report in self.checkpoint.history()]
        assert numbers[-1:] == [self._saves][: self._saves], numbers
        assert len(numbers) >= min(self._saves, KEPT)


def files_in(place: Path) -> dict[str, bytes]:
    """Relative path -> content of all files in a directory."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }

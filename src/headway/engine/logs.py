"""What attempts printed: where it is, how it is read, and how it gets into a store.

An attempt prints into a file on its machine (`engine.place`). In a home that is a directory, that file is
all there is. A store cannot be appended to; so a log goes there in pieces, each named for the byte that it
begins with: what was added is sent every minute, the rest when the attempt is over, and then the
file is removed. A log that is short, or of a short attempt, is one object.

Nothing rests on logs. They are sent beside the run, and one that cannot be sent stays where it is.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from headway.engine.keys import log_key, logs_prefix
from headway.engine.place import Place
from headway.model.errors import StorageError, StorageUnavailable
from headway.model.ids import node_key
from headway.ports import AttemptKey, KeyExists, KeyMissing, Storage

PIECE = 8 << 20
"""Bytes of the largest piece."""
SEND_EVERY = 60.0
"""Seconds after which a running attempt's log is sent on."""
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class LogFile:
    """What an attempt wrote to its standard output and error.

    Attributes:
        node, attempt: whose it is.
        path: the file on this machine, which may be gone when the home is a store.
        storage: the home when it is a store, else None.
        key: its first piece there.
    """

    node: str
    attempt: int
    path: Path
    storage: Storage | None = None
    key: str = ""

    def read(self, offset: int) -> bytes:
        """At most 1 MiB from `offset` on; b"" when there is nothing more, or nothing yet.

        Raises:
            OSError: it is there and cannot be read.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                return _named(self.path, file.fileno(), offset, 1 << 20)
        except FileNotFoundError:
            return b"" if self.storage is None else _read(self.storage, self.key, offset)


class Logs:
    """The logs of a run: where they are, for whoever looks.

    Args:
        storage: the home.
        run: which run.
    """

    def __init__(self, storage: Storage, run: str) -> None:
        self._storage = storage
        self._run = run
        self._place = Place(storage.url)
        self._names: dict[str, set[str]] = {}  # of the store, as far as they were asked for

    def find(self, node: str, attempt: int) -> LogFile | None:
        """The log of an attempt; None when it printed nothing.

        Raises:
            StorageError: the home could not be read.
        """
        path = self._place.log(self._run, node, attempt)
        if self._place.is_home:
            return LogFile(node, attempt, path) if path.exists() else None
        if path.exists() or self._is_sent(node, attempt):
            return LogFile(node, attempt, path, self._storage, log_key(self._run, node, attempt))
        return None

    def address(self, node: str, attempt: int, *, sure: bool) -> str:
        """Where the log of an attempt is: a path, or a URL; "" when a store has none.

        Args:
            node, attempt: whose.
            sure: look for this very attempt, which costs a request for a node, and not only for the
                node, which costs one in all.

        Raises:
            StorageError: the home could not be read.
        """
        path = self._place.log(self._run, node, attempt)
        if self._place.is_home or path.exists():
            return str(path)
        if node_key(node) in self._listed(logs_prefix(self._run)) and (
            not sure or self._is_sent(node, attempt)
        ):
            return f"{self._storage.url.rstrip('/')}/{log_key(self._run, node, attempt)}"
        return ""

    def _is_sent(self, node: str, attempt: int) -> bool:
        prefix, key = logs_prefix(self._run), node_key(node)
        return key in self._listed(prefix) and f"{attempt}.log" in self._listed(f"{prefix}/{key}")

    def _listed(self, prefix: str) -> set[str]:
        if prefix not in self._names:
            self._names[prefix] = set(self._storage.list(prefix))
        return self._names[prefix]


class Sender:
    """Sends the logs of one driver's attempts to a store, from a thread of its own.

    Args:
        storage: the home.
        place: where the logs are written.
        run: which run.
        every: seconds after which the log of a running attempt is sent on.
    """

    def __init__(self, storage: Storage, place: Place, run: str, every: float = SEND_EVERY) -> None:
        self._storage = storage
        self._directory = place.root / logs_prefix(run)
        self._prefix = logs_prefix(run)
        self._every = every
        self._change = threading.Condition()
        self._over: list[str] = []  # below `_directory`: to be sent to the end
        self._closing = False
        self._sent: dict[str, int] = {}  # bytes of a log that are in the store
        self._thread = threading.Thread(target=self._serve, name="headway logs", daemon=True)

    def start(self) -> None:
        """Begin, with what drivers before left on this machine."""
        self._over += self._files()
        self._thread.start()

    def over(self, key: AttemptKey) -> None:
        """An attempt is over: no process of it is left that could print."""
        with self._change:
            self._over.append(f"{node_key(key[0])}/{key[1]}.log")
            self._change.notify()

    def close(self, *, send: bool = True) -> list[Path]:
        """End, once all attempts are over, having sent what is left.

        Args:
            send: False when the store is known not to answer.

        Returns:
            The logs that could not be sent. They stay, for the next driver on this machine.
        """
        with self._change:
            self._closing = True
            self._over = sorted({*self._over, *self._files()}) if send else []
            self._change.notify()
        self._thread.join(_PATIENCE if send else 0)
        return [path for name in self._files() if _has_bytes(path := self._directory / name)]

    def _files(self) -> list[str]:
        try:
            nodes = os.listdir(self._directory)
        except OSError:
            return []
        found = []
        for node in nodes:
            try:
                names = os.listdir(self._directory / node)
            except OSError:
                continue
            found += [f"{node}/{name}" for name in names if name.endswith(".log")]
        return sorted(found)

    def _serve(self) -> None:
        while True:
            with self._change:
                if not self._over and not self._closing:
                    self._change.wait(self._every)
                over, self._over = self._over, []
                closing = self._closing
            for name in over:
                if not self._send(name, last=True) and closing:
                    return  # the store does not answer: others would be waited for as long
            if closing:
                return
            if not over:
                for name in self._files():
                    self._send(name, last=False)

    def _send(self, name: str, *, last: bool) -> bool:
        """Send what a log has beyond what was sent, and remove it after the last piece; whether that
        went well."""
        path = self._directory / name
        key = f"{self._prefix}/{name}"
        try:
            with path.open("rb") as file:
                while piece := _named(path, file.fileno(), self._sent.get(name, 0), PIECE):
                    self._put(key, name, piece)
            if last and self._sent.pop(name, 0):  # an empty one may be the next attempt's by now
                path.unlink()
                path.parent.rmdir()
        except StorageError:
            return False
        except OSError:
            pass  # it printed nothing; or the directory has logs of other attempts
        return True

    def _put(self, key: str, name: str, piece: bytes) -> None:
        at = self._sent.get(name, 0)
        try:
            self._storage.create(key if at == 0 else f"{key}.{at:016d}", piece)
            self._sent[name] = at + len(piece)
        except KeyExists:  # a driver before sent some of it, or a reply was lost
            self._sent[name] = _length(self._storage, key)
            if self._sent[name] <= at:
                raise StorageUnavailable(f"{key} is there, and is not listed") from None


def _named(path: Path, fd: int, offset: int, most: int) -> bytes:
    """What an open log has from `offset` on, if `path` is still its name: a log that stays empty is
    handed on to the next attempt, under another name (`executors.output`).

    Raises:
        FileNotFoundError: it has no such name any more.
    """
    data = os.pread(fd, most, offset)
    ours, there = os.fstat(fd), path.stat()
    return data if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino) else b""


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:  # gone at this instant
        return False


def _pieces(storage: Storage, key: str) -> list[tuple[int, str]]:
    """(first byte, key) of the pieces of a log in a store, in order."""
    prefix, _, name = key.rpartition("/")
    found = []
    for other in storage.list(prefix):
        first, _, at = other.partition(f"{name}.")
        if other == name:
            found.append((0, key))
        elif not first and at.isdecimal():
            found.append((int(at), f"{prefix}/{other}"))
    return sorted(found)


def _length(storage: Storage, key: str) -> int:
    """Bytes of a log that are in the store."""
    pieces = _pieces(storage, key)
    return pieces[-1][0] + len(storage.read(pieces[-1][1])) if pieces else 0


def _read(storage: Storage, key: str, offset: int) -> bytes:
    for at, piece in reversed(_pieces(storage, key)):
        if at <= offset:
            try:
                return storage.read_range(piece, offset - at, 1 << 20)
            except KeyMissing:
                return b""
    return b""

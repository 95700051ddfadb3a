"""Writers that keep a few checkpoints, and the judge of what they leave: every checkpoint that a reader
finds has to be whole, whoever deleted what, and whenever that stopped.

The real `Turn` is driven at its lowest level, on a recorded disk (`recorder`, `crashstates`), or on a store
in memory whose packs behave like files: an open one can be written to after it was unlinked, and one whose
space is used again is the same space.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.actors import Violation
from tests.crash.crashstates import Home
from tests.crash.jobs import known_by
from tests.crash.mutants import Code
from tests.crash.recorder import Recorder
from xxhash import xxh3_128_digest

from headway.checkpoint.lineage import read_lineage
from headway.checkpoint.restore import content
from headway.checkpoint.retain import Rule
from headway.model.errors import CheckpointCorrupt, CheckpointFenced, StorageError
from headway.model.manifest import Chunk, Entry, Manifest
from headway.testing.memory import MemoryStorage

NODE = "runs/r/nodes/n"
PACKS = f"{NODE}/packs"


def noise(name: str, size: int) -> bytes:
    """Bytes in which no sector is zero, and which say what they are."""
    return (f"{name}." * size).encode()[:size]


def save(turn: Any, storage: Any, name: str, size: int) -> Manifest:
    """Make a checkpoint of `size` new bytes, and of one chunk of the checkpoint before."""
    began, old = 0.0, turn.good
    key = turn.new_pack()
    pack = storage.create_pack(key, size=size, reuse=turn.spare_pack())
    data = noise(name, size)
    try:
        pack.write(data[: size // 2])
        pack.write(data[size // 2 :])
        pack.commit()
    except BaseException:
        pack.abort()
        raise
    packs = [key.rpartition("/")[2]]
    cut = size // 2
    chunks = [
        Chunk(xxh3_128_digest(data[:cut]), 0, 0, cut),
        Chunk(xxh3_128_digest(data[cut:]), 0, cut, size - cut),
    ]
    if old is not None:
        shared = old.entries[0].chunks[0]
        packs.append(old.packs[shared.pack])
        chunks.append(Chunk(shared.hash, 1, shared.offset, shared.length))
    total = sum(chunk.length for chunk in chunks)
    entry = Entry("data", "file", 0o644, total, None, tuple(chunks))
    made: Manifest = turn.commit(began, "bytes", total, (entry,), tuple(packs))
    return made


def turn_of(code: Code, storage: Any, attempt: int, keep: int) -> Any:
    """A turn on the node."""
    return code.turn.Turn(
        storage,
        NODE,
        attempt=attempt,
        inputs="i",
        on_saved=lambda _: None,
        on_warning=lambda _: None,
        rule=Rule(keep),
    )


def verify(storage: Any, manifest: Manifest) -> None:
    """Read all of a checkpoint."""
    for entry in manifest.entries:
        try:
            for _ in content(storage, PACKS, manifest, entry):
                pass
        except CheckpointCorrupt as error:
            raise Violation(f"a checkpoint that is there cannot be read: {error}") from error


def live(storage: Any) -> list[Manifest]:
    """The checkpoints that a reader finds, all verified."""
    lineage = read_lineage(storage, NODE)
    lost = [damage for damage in lineage.damage if not damage.tail]
    if lost:
        raise Violation(f"a crash is taken for damage: {lost}")
    for manifest in lineage.manifests:
        verify(storage, manifest)
    return list(lineage.manifests)


# On a disk that loses power


@dataclass
class KeepingJob:
    """An attempt that saves a few times, for `jobs.recorded`."""

    attempt: int
    sizes: tuple[int, ...]
    keep: int

    def run(self, code: Code, root: Path, recorder: Recorder) -> None:
        storage = code.local.LocalStorage(root)
        turn = turn_of(code, storage, self.attempt, self.keep)
        try:
            turn.opened()
        except StorageError:
            return
        for number, size in enumerate(self.sizes):
            try:
                made = save(turn, storage, f"{self.attempt}-{number}", size)
            except StorageError:
                continue
            recorder.ack(("saved", made.number))
        turn.close()


@dataclass
class KeepingJudge:
    """Looks at homes after a power loss. Those that are the same are looked at once."""

    homes: int = 0
    deleted: int = 0
    _seen: set[bytes] = field(default_factory=set)

    def look(self, home: Home, told: tuple[Any, ...]) -> None:
        self.homes += 1
        key = known_by(home, told)
        if key in self._seen:
            return
        self._seen.add(key)
        storage = MemoryStorage()
        storage.objects = {name: bytearray(data) for name, data in home.items()}
        found = live(storage)
        acked = [what for kind, what in told if kind == "saved"]
        if acked and (not found or found[-1].number < acked[-1]):
            raise Violation(f"acknowledged {acked}, found {[m.number for m in found]}")
        self.deleted += len(acked) > len(found)


# In memory, one operation at a time


class Inodes(MemoryStorage):
    """Packs are files: see the module."""

    def create_pack(self, key: str, *, size: int = 0, reuse: str | None = None) -> Any:
        with self.at("create_pack", key):
            if reuse is not None and reuse in self.objects:
                self.objects[key] = self.objects.pop(reuse)
            else:
                self._new(key, b"")
            return _Inode(self, key)


class _Inode:
    def __init__(self, storage: Inodes, key: str) -> None:
        self._storage = storage
        self._key = key
        self._file = storage.objects[key]
        self._size = 0

    def write(self, data: bytes | memoryview) -> int:
        with self._storage.at("write", self._key):
            at, self._size = self._size, self._size + len(data)
            self._file[at : self._size] = data
            return at

    def commit(self) -> None:
        with self._storage.at("commit", self._key):
            del self._file[self._size :]

    def abort(self) -> None:
        with self._storage.at("abort", self._key):
            self._storage.objects.pop(self._key, None)


class Turnstile(Inodes):
    """One actor's way to a shared store, an operation at a time."""

    def __init__(self, shared: Inodes) -> None:
        super().__init__()
        self.objects = shared.objects
        self.go = threading.Semaphore(0)
        self.stands = threading.Semaphore(0)
        self.free = False

    def at(self, method: str, key: str) -> threading.RLock:
        if not self.free:
            self.stands.release()
            self.go.acquire()
        return super().at(method, key)


class Actor:
    """A writer in a thread of its own that goes on only when it is let.

    Args:
        shared: the store.
        body: what it does, with its own way to the store.
    """

    def __init__(self, shared: Inodes, body: Callable[[Any], None]) -> None:
        self.storage = Turnstile(shared)
        self.error: BaseException | None = None
        self.ended = False
        self._body = body
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.storage.stands.acquire()

    def step(self, most: int) -> int:
        """Let it do up to so many operations; how many it did."""
        done = 0
        while done < most and not self.ended:
            self.storage.go.release()
            self.storage.stands.acquire()
            done += 1
        return done

    def finish(self) -> None:
        """Let it go to its end."""
        self.storage.free = True
        self.storage.go.release()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._body(self.storage)
        except (CheckpointFenced, StorageError):
            pass  # a zombie is told
        except BaseException as error:  # noqa: BLE001  # raised in the test's own thread
            self.error = error
        finally:
            self.ended = True
            self.storage.stands.release()

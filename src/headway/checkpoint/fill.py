"""Reading the parts of a state into memory: in parallel, in large ranges, every byte verified.

The chunks of a part that lie one behind the other in a pack are one read, straight into the memory where
they belong. What is too small for a read of its own is read together with its neighbours in the pack, and
copied from there: on a disk that saves system calls, on an object store requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from headway.checkpoint.cache import name_of, open_cache
from headway.checkpoint.hands import spread
from headway.checkpoint.identity import verify
from headway.checkpoint.memory import Block
from headway.checkpoint.restore import checked, corrupt, placed
from headway.model.errors import CheckpointCorrupt
from headway.model.manifest import Chunk, Entry, Manifest
from headway.ports import ALIGN, KeyMissing, Storage, unseen

_AT_ONCE = 8 << 20  # bytes that one thread reads at once
_SMALL = 512 << 10  # what has fewer is read with its neighbours
_GAP = 64 << 10  # bytes that nobody needs and that are read rather than read round

Put = Callable[[int, memoryview], None]
"""Takes the bytes of a part from an offset on; they are changed once it has returned."""


Seen = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a part goes: into `memory`, or by `put` where there is no such memory."""

    part: int
    memory: memoryview | None = None
    put: Put | None = None


@dataclass(slots=True)
class _Run:
    """Chunks that lie one behind the other in a pack and in a part, from byte `start` of it on; of
    compressed ones, each alone. `length` is what they take in the pack."""

    target: Target
    entry: Entry
    pack: str
    offset: int
    start: int
    chunks: list[Chunk]
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def alone(self) -> bool:
        """Whether it is worth a read of its own, straight into place."""
        return self.length >= _SMALL and not self.chunks[0].codec


class _Check:
    """Verifies the chunks of a run, as their bytes arrive: they are in the processor's cache then."""

    def __init__(self, manifest: Manifest, run: _Run, memory: memoryview) -> None:
        self._manifest = manifest
        self._entry = run.entry
        self._memory = memory
        self._rest = iter(run.chunks)
        self._next = next(self._rest, None)
        self._at = 0

    def __call__(self, there: int) -> None:
        """Verify what is whole of the first `there` bytes."""
        while self._next is not None and self._at + self._next.length <= there:
            self._verify(self._at + self._next.length)

    def end(self, there: int) -> None:
        """Verify all of them; what did not arrive fails."""
        while self._next is not None:
            self._verify(min(self._at + self._next.length, there))

    def _verify(self, end: int) -> None:
        assert self._next is not None
        checked(self._manifest, self._entry, self._next, self._memory[self._at : end])
        self._at, self._next = end, next(self._rest, None)


_Reading = Callable[[_Run, int, memoryview, Seen], int]


class _Missed(Exception):
    """It is not in the cache."""


class Filler:
    """Fills memory from one checkpoint.

    Args:
        storage, packs: where its packs are.
        manifest: the checkpoint.
        look: look at what memory holds before it is filled; what is there already is not read.
    """

    def __init__(
        self, storage: Storage, packs: str, manifest: Manifest, *, look: bool = False
    ) -> None:
        self._look = look
        self._storage = storage
        self._packs = packs
        self._manifest = manifest
        self._cache = open_cache() if storage.remote else None
        self._spare: list[Block] = []  # lists are safe to pop from and append to in threads

    def fill(self, targets: Sequence[Target]) -> None:
        """Read and verify all of what the targets need. On an error what they hold is undefined.

        Raises:
            CheckpointCorrupt: a chunk is missing, too short, or not what was saved.
            StorageError: the store could not be read: says nothing about the checkpoint.
        """
        runs = [run for target in targets for run in self._runs(target)]
        loads: list[list[_Run]] = [[run] for run in runs if run.alone]
        loads += _together([run for run in runs if not run.alone])
        try:
            spread(self._load, loads, self._readers(loads))
        finally:
            for block in self._spare:
                block.close()
            self._spare.clear()

    def _readers(self, loads: list[list[_Run]]) -> int:
        """Threads for them: what the pack is read with that most of them are in."""
        packs = Counter(load[0].pack for load in loads)
        most = packs.most_common(1)
        return self._storage.readers(f"{self._packs}/{most[0][0]}") if most else 1

    def _runs(self, target: Target) -> Iterator[_Run]:
        manifest = self._manifest
        entry = manifest.entries[target.part]
        if entry.data is not None:
            _give(target, 0, memoryview(entry.data))
            return
        run: _Run | None = None
        at = 0
        for chunk in entry.chunks:
            pack = placed(manifest, entry, chunk)
            plain = not chunk.codec and not (run is not None and run.chunks[0].codec)
            goes_on = run is not None and run.pack == pack and run.end == chunk.offset
            if run is not None and goes_on and run.length + chunk.length <= _AT_ONCE and plain:
                run.chunks.append(chunk)
                run.length += chunk.length
            else:
                if run is not None:
                    yield run
                run = _Run(target, entry, pack, chunk.offset, at, [chunk], chunk.held)
            at += chunk.length
        if run is not None:
            yield run

    def _load(self, runs: list[_Run]) -> None:
        if self._look:
            runs = [run for run in runs if not _holds(run)]
            if not runs:
                return
        cache = self._cache
        if cache is None:
            self._take(runs, self._read)
            return
        name = name_of(chunk.hash for run in runs for chunk in run.chunks)

        def kept(_: _Run, __: int, into: memoryview, ___: Seen) -> int:
            if not cache.get(name, into):
                raise _Missed
            return len(into)

        try:
            self._take(runs, kept)
        except _Missed:
            self._take(runs, self._read, lambda data: cache.put(name, data))
        except CheckpointCorrupt:  # only what is kept here is known to be wrong
            cache.drop(name)
            self._take(runs, self._read, lambda data: cache.put(name, data))

    def _take(
        self,
        runs: list[_Run],
        read: _Reading,
        keep: Callable[[memoryview], None] | None = None,
    ) -> None:
        """Read and verify runs that one read brings; `keep` is shown what was read then."""
        first = runs[0]
        memory = first.target.memory
        if first.alone and memory is not None:
            into = memory[first.start : first.start + first.length]
            check = _Check(self._manifest, first, into)
            check.end(read(first, first.offset, into, check))
            if keep is not None:
                keep(into)
            return
        start = first.offset // ALIGN * ALIGN
        length = max(run.end for run in runs) - start
        block = self._block(length)
        got = read(first, start, block.view[:length], unseen)
        for run in runs:
            found = block.view[run.offset - start : min(run.end - start, got)]
            _give(run.target, run.start, memoryview(self._check(run, found)))
        if keep is not None:
            keep(block.view[:got])
        self._spare.append(block)

    def _read(self, run: _Run, offset: int, into: memoryview, seen: Seen) -> int:
        try:
            return self._storage.read_into(f"{self._packs}/{run.pack}", offset, into, seen)
        except KeyMissing:
            raise corrupt(self._manifest, run.entry, f"pack {run.pack} is missing") from None

    def _check(self, run: _Run, found: memoryview) -> bytes | memoryview:
        """The plain bytes of a run, verified."""
        if run.chunks[0].codec:
            return checked(self._manifest, run.entry, run.chunks[0], found)
        _Check(self._manifest, run, found).end(len(found))
        return found

    def _block(self, size: int) -> Block:
        try:
            block = self._spare.pop()
        except IndexError:
            return Block(max(size, _AT_ONCE))
        if block.size >= size:
            return block
        block.close()
        return Block(size)


def _holds(run: _Run) -> bool:
    """Whether the memory that a run is for has its bytes already."""
    memory, at = run.target.memory, run.start
    if memory is None:
        return False
    for chunk in run.chunks:
        if not verify(memory[at : at + chunk.length], chunk.hash):
            return False
        at += chunk.length
    return True


def _together(runs: list[_Run]) -> list[list[_Run]]:
    """Small runs, grouped by what one read of a pack may bring."""
    loads: list[list[_Run]] = []
    end = 0
    for run in sorted(runs, key=lambda run: (run.pack, run.offset)):
        load = loads[-1] if loads else []
        near = bool(load) and load[0].pack == run.pack and run.offset <= end + _GAP
        if near and run.end - load[0].offset <= _AT_ONCE - ALIGN:
            load.append(run)
            end = max(end, run.end)
        else:
            loads.append([run])
            end = run.end
    return loads


def _give(target: Target, start: int, data: memoryview) -> None:
    if target.memory is not None:
        target.memory[start : start + len(data)] = data
    elif target.put is not None:
        target.put(start, data)


def sized(manifest: Manifest) -> list[int]:
    """Bytes of each part. A size is only what a record says, so it is compared with what the record says
    of the chunks before memory is made for it.

    Raises:
        CheckpointCorrupt: they contradict each other.
    """
    for entry in manifest.entries:
        for chunk in entry.chunks:
            placed(manifest, entry, chunk)
        held = len(entry.data) if entry.data is not None else sum(c.length for c in entry.chunks)
        if entry.size != held:
            raise corrupt(manifest, entry, "its size is not what its record says")
    return [entry.size for entry in manifest.entries]

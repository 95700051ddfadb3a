"""Jobs that write a home, and the judge of what a power loss left of it.

The storage's real calls are recorded (`recorder`), every home that a power loss can leave is made from
them (`crashstates`), and the real reader and writer are let loose on each.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from tests.crash.actors import Violation
from tests.crash.crashstates import Disk, Home
from tests.crash.mutants import Code
from tests.crash.recorder import Event, Killed, Recorder, allocating, recording

from headway.model.errors import StorageError
from headway.ports import ALIGN
from headway.testing.memory import MemoryStorage

NODE = "runs/r/nodes/n"
LEDGER = f"{NODE}/ledger"
ROOM = 4000
STRAIGHT = 4096  # so that a piece of a page and more has a place and a write of its own
GATHER = 8192


def _noise(name: str, size: int) -> bytes:
    """Bytes in which no sector is zero, and which say what they are."""
    return (f"{name}." * size).encode()[:size]


def _packed(key: str, size: int) -> bytes:
    """What a pack of `size` bytes of content has to look like."""
    content = _noise(key, size)
    if size - 300 >= STRAIGHT:
        return content[:300].ljust(ALIGN, b"\0") + content[300:]
    return content


@dataclass
class Job:
    """What a process does to a home: objects, packs, and records that name packs.

    Attributes:
        name: prefix of all that it makes.
        records: bytes of each record; a negative one has a pack of so many bytes.
        recycles: each pack takes the space of the one before, once a record says that nobody needs
            that any more.
        pack_first, drop_first: as it must be. False: a mutant of this test's own, the record before the
            pack, or that record after the space was taken.
    """

    name: str
    records: tuple[int, ...]
    recycles: bool = False
    pack_first: bool = True
    drop_first: bool = True

    def run(self, code: Code, root: Path, recorder: Recorder) -> None:
        storage = code.local.LocalStorage(root)
        with _reported():
            key = f"runs/r/values/{self.name}"
            storage.create(key, _noise(key, 1000))
            recorder.ack(("object", key))
        try:
            ledger = code.write.Ledger.open(
                storage, LEDGER, room=ROOM, new_writer=lambda: _noise(self.name, 16)
            )
        except StorageError:
            return
        recorder.ack(("opened", tuple(record.payload for record in ledger.chain.records)))
        older = ""
        for number, size in enumerate(self.records):
            with _reported():
                pack = f"{NODE}/packs/{self.name}{number}" if size < 0 else ""
                payload = f"{self.name}{number}:{pack}:".encode() + _noise("r", abs(size))
                reuse = older if pack and self.recycles else ""
                drop = f"drop {reuse}::".encode()
                if reuse and self.drop_first:
                    ledger.append(drop)
                    recorder.ack(("record", drop))
                older = "" if reuse else older  # whatever becomes of it
                if pack and self.pack_first:
                    self._write(storage, pack, -size, reuse)
                if reuse and not self.drop_first:
                    ledger.append(drop)
                ledger.append(payload)
                recorder.ack(("record", payload))
                if pack and not self.pack_first:
                    self._write(storage, pack, -size)
                older = pack or older
        ledger.close()

    @staticmethod
    def _write(storage: Any, key: str, size: int, reuse: str = "") -> None:
        pack = storage.create_pack(key, size=size if size > 6000 else 0, reuse=reuse or None)
        try:
            pack.write(_noise(key, size)[:300])
            pack.write(_noise(key, size)[300:])
            pack.commit()
        except StorageError:
            pack.abort()
            raise


class _reported:
    """Storage errors are what a caller may get; it goes on with the next thing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, StorageError)


@functools.lru_cache(maxsize=1 << 14)
def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


@functools.lru_cache(maxsize=1 << 10)
def _said(told: tuple[Any, ...]) -> bytes:
    return _digest(repr(told).encode())


def known_by(home: Home, told: tuple[Any, ...]) -> bytes:
    """Equal for equal homes of which the same was told: a million of them are seen, and not kept."""
    parts = sorted(name.encode() + b"\0" + _digest(data) for name, data in home.items())
    return _digest(b"".join(parts) + _said(told))


@dataclass
class Judge:
    """Looks at homes. Those that are the same are looked at once.

    Attributes:
        homes: how many were made.
    """

    code: Code
    homes: int = 0
    _seen: set[bytes] = field(default_factory=set)
    _chains: dict[bytes, list[bytes]] = field(default_factory=dict)

    @property
    def different(self) -> int:
        return len(self._seen)

    def look(self, home: Home, told: tuple[Any, ...]) -> None:
        self.homes += 1
        key = known_by(home, told)
        if key in self._seen:
            return
        self._seen.add(key)
        for kind, what in told:
            if kind == "object" and home.get(what) != _noise(what, 1000):
                raise Violation(f"{what} was acknowledged and is {home.get(what)!r:.80}")
        for name in home:
            if name.startswith("runs/r/values/") and home[name] != _noise(name, 1000):
                raise Violation(f"{name} is visible and not whole: {home[name]!r:.80}")
        logs = {name: data for name, data in home.items() if name.startswith(LEDGER)}
        place = known_by(logs, ())
        chain = self._chains.get(place)
        if chain is None:
            chain = self._chains[place] = self._go_on(logs)
        acked = [what for kind, what in told if kind == "record"]
        if [payload for payload in chain if payload in acked] != acked:
            raise Violation(f"acknowledged {_short(acked)}, found {_short(chain)}")
        for kind, what in told:
            if kind == "opened" and tuple(chain[: len(what)]) != what:
                raise Violation(f"given {_short(what)}, found {_short(chain)}")
        dropped = {payload[5:].split(b":")[0] for payload in chain if payload.startswith(b"drop ")}
        for payload in chain:
            self._whole(home, payload, dropped)

    def _go_on(self, logs: Home) -> list[bytes]:
        """The chain; and what the next writer makes of it."""
        storage = MemoryStorage()
        storage.objects = {key: bytearray(data) for key, data in logs.items()}
        chain = self._read(storage)
        ledger = self.code.write.Ledger.open(storage, LEDGER, room=ROOM)
        if [record.payload for record in ledger.chain.records] != chain:
            raise Violation("opening sees another chain than reading")
        ledger.append(b"after")
        if self._read(storage) != [*chain, b"after"]:
            raise Violation("what is appended after the crash is not the end of the chain")
        return chain

    def _read(self, storage: Any) -> list[bytes]:
        chain = self.code.read.read_ledger(storage, LEDGER)
        for damage in chain.damage:
            if not damage.tail:
                raise Violation(f"a crash is taken for damage: {damage}")
        return [record.payload for record in chain.records]

    @staticmethod
    def _whole(home: Home, payload: bytes, dropped: set[bytes]) -> None:
        name, pack, text = payload.split(b":", 2)
        if text != _noise("r", len(text)) or not name:
            raise Violation(f"a torn record is taken for a good one: {payload[:40]!r}")
        if not pack or pack in dropped:
            return
        if home.get(pack.decode()) != _packed(pack.decode(), len(text)):
            raise Violation(f"record {name!r} names a pack that is not there, or not whole")


def _short(payloads: Any) -> str:
    return "[" + " ".join(payload.split(b":")[0].decode() for payload in payloads) + "]"


@dataclass
class Plan:
    """How far to go.

    Attributes:
        most: homes per instant; more are sampled.
        pairs: how many pairs of jobs.
        record_first: a fault of the caller's: the record is appended before its pack is written.
        drop_last: another one: a pack's space is taken before a record says that nobody needs it.
    """

    most: int
    pairs: int = 2
    record_first: bool = False
    drop_last: bool = False


PAIRS = (
    (Job("a", (300, -2600, 900)), Job("b", (40, -3300, 30, 2000))),  # b's last begins a new term
    (Job("a", (-5200, -700), recycles=True), Job("b", (-5000, 1200))),
    (Job("a", (3600, 3600)), Job("b", (-9000, 3500, -8))),
    (Job("a", (-4000, -4000)), Job("b", (1, 2, 3500, 3500, 3500))),
    (Job("a", (3700,)), Job("b", (3700, -7000, 3700))),
)


def crash(events: list[Event], start: int, judge: Any, plan: Plan) -> None:
    """Cut the power after each event from `start` on."""
    disk = Disk(most=plan.most)
    told: tuple[Any, ...] = ()
    for index, event in enumerate(events):
        if event.kind == "ack":
            told += (event.what,)
        else:
            disk.do(event)
        if index >= start and (event.kind != "sync" or index == len(events) - 1):
            for home in disk.homes():
                judge.look(home, told)


def run_all(code: Code, root: Path, judge: Judge, plan: Plan) -> None:
    """Power losses while one job follows the other: undisturbed; after the first was killed, at any of
    its calls; and with any flush of either failing."""
    for careful, second in PAIRS[: plan.pairs]:
        first = replace(careful, pack_first=not plan.record_first, drop_first=not plan.drop_last)
        events, calls, flushes = recorded(code, root, first, second)
        crash(events, 0, judge, plan)
        for die_at in range(calls):
            events, _, _ = recorded(code, root, first, second, die_at=die_at)
            crash(events, deaths(events), judge, plan)
        for fail_at in range(flushes):
            events, _, _ = recorded(code, root, first, second, fail_at=fail_at)
            crash(events, 0, judge, plan)


def recorded(
    code: Code,
    root: Path,
    first: Any,
    second: Any,
    *,
    die_at: int | None = None,
    fail_at: int | None = None,
) -> tuple[list[Event], int, int]:
    """(trace, calls of the first job, flushes of both)."""
    with (
        _fresh(root),
        recording(root, die_at=die_at, fail_at=fail_at) as recorder,
        _small_packs(code, recorder),
    ):
        try:
            first.run(code, root, recorder)
        except Killed:
            recorder.ack(("killed", ""))
        calls = recorder.calls
        recorder.revive()
        second.run(code, root, recorder)
        return recorder.events, calls, recorder.flushes


@contextlib.contextmanager
def _small_packs(code: Code, recorder: Recorder) -> Iterator[None]:
    """Packs in which a few thousand bytes take all the ways that gigabytes take elsewhere."""
    small = {"_STRAIGHT": STRAIGHT, "_GATHER": GATHER, "_AHEAD": GATHER}
    with mock.patch.dict(vars(code.packs), {**small, "allocate": allocating(recorder)}):
        yield


def deaths(events: list[Event]) -> int:
    return next(index for index, event in enumerate(events) if event.what == ("killed", ""))


class _fresh:
    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> None:
        self._root.mkdir()

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._root)

"""A process that reads an attacker's home under guard: `python -m tests.attacks.victim WHAT DIRECTORY`.

Prints one JSON object: how often each end was seen, and what was wrong.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import itertools
import json
import os
import pickle
import re
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from tests.attacks.guard import Guard
from tests.attacks.hostile import CANARY, mutations, pickled
from xxhash import xxh3_128_digest

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.engine.archive import read_run
from headway.engine.keys import ledger_prefix
from headway.engine.report import report_of
from headway.engine.values import Values
from headway.ledger.write import Ledger
from headway.model.events import (
    AttemptEnded,
    AttemptStarted,
    AttemptWarned,
    CheckpointSaved,
    DriverStarted,
    NodePlan,
    RunCreated,
    RunEnded,
    RunNoted,
)
from headway.model.manifest import Manifest
from headway.model.program import Program
from headway.model.settings import TaskOptions
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/nodes/n"
EXTRA = 1 << 30  # bytes of address space beyond what the process has when it begins
SLOW = 20  # seconds of CPU that no attack may take
Case = tuple[str, Callable[[], Any]]

plain = msgspec.msgpack.encode
_trees = msgspec.msgpack.Decoder()


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Config:
    name: str
    colour: Colour


def home_with(records: list[bytes], objects: dict[str, bytes] | None = None) -> MemoryStorage:
    """A home that others can write to, its ledger well-formed, its records an attacker's."""
    storage = MemoryStorage(trusted=False)
    ledger = Ledger.open(storage, f"{PREFIX}/ledger", room=1 << 16)
    for record in records:
        ledger.append(record)
    ledger.close()
    for key, data in (objects or {}).items():
        storage.objects[key] = bytearray(data)
    return storage


def using(storage: MemoryStorage, target: Path, live: Any = None) -> Iterator[Case]:
    """Everything that can be asked of a checkpoint."""

    def opened(ask: Callable[[Checkpoint], Any]) -> Callable[[], Any]:
        def act() -> Any:
            checkpoint = Checkpoint(storage, PREFIX, scratch=target.parents[1] / "scratch")
            try:
                return ask(checkpoint)
            finally:
                checkpoint.close()

        return act

    yield "load", opened(lambda checkpoint: checkpoint.load())
    yield "read", opened(lambda checkpoint: checkpoint.read())
    yield "restore", opened(lambda checkpoint: checkpoint.restore(target))
    yield "save", opened(lambda checkpoint: checkpoint.write(b"next"))
    yield "directory", opened(lambda checkpoint: checkpoint.directory("crawl"))
    if live is not None:
        yield "into", opened(lambda checkpoint: checkpoint.load(into=live()))


def a_state() -> dict[str, Any]:
    import numpy as np
    import torch

    shared = torch.arange(24, dtype=torch.float32)
    return {
        "weights": np.arange(6000, dtype="<f8").reshape(60, 100),
        "named": np.zeros(3, dtype=[("a", "<i4"), ("b", "<M8[ns]", (2,))]),
        "scalar": np.float32(3),
        "fortran": np.asfortranarray(np.ones((3, 4))),
        "views": [shared, shared[::2], shared.view(4, 6).t()],
        "parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
        "blob": b"b" * 100,
        "buffer": bytearray(b"c" * 70),
        "big": 1 << 100,
        "tuple": (1, "two", None),
        "dict": {1: 2, (3, 4): 5.0},
        "ordered": collections.OrderedDict(a=1),
    }


def written(save: Callable[[Checkpoint], Any]) -> tuple[Any, dict[str, bytes]]:
    """(plain tree of the manifest, the other objects) of a real checkpoint."""
    storage = MemoryStorage()
    checkpoint = Checkpoint(storage, PREFIX)
    save(checkpoint)
    checkpoint.close()
    manifest: Manifest = read_lineage(storage, PREFIX).manifests[-1]
    packs = {key: bytes(data) for key, data in storage.objects.items() if "/packs/" in key}
    return _trees.decode(plain(manifest)), packs


def fields_of_a_state(place: Path) -> Iterator[tuple[str, MemoryStorage]]:
    tree, packs = written(lambda checkpoint: checkpoint.save(a_state()))
    for name, mutant in mutations(tree, place):
        yield f"record {name}", home_with([plain(mutant)], packs)


def skeletons(place: Path) -> Iterator[tuple[str, MemoryStorage]]:
    tree, packs = written(lambda checkpoint: checkpoint.save(a_state()))
    for name, mutant in mutations(_trees.decode(tree["skeleton"]), place):
        yield f"skeleton {name}", home_with([plain({**tree, "skeleton": plain(mutant)})], packs)


def fields_of_files(place: Path) -> Iterator[tuple[str, MemoryStorage]]:
    source = place / "source"
    (source / "sub").mkdir(parents=True)
    (source / "small").write_bytes(pickled(place))
    (source / "sub" / "large").write_bytes(b"x" * 40_000)
    tree, packs = written(lambda checkpoint: checkpoint.save(source))
    for name, mutant in mutations(tree, place):
        yield f"record {name}", home_with([plain(mutant)], packs)


def fields_of_directories(place: Path) -> Iterator[tuple[str, MemoryStorage]]:
    def save(checkpoint: Checkpoint) -> None:
        crawl = checkpoint.directory("crawl")
        (crawl / "sub").mkdir()
        (crawl / "small").write_bytes(pickled(place))
        (crawl / "sub" / "large").write_bytes(b"x" * 40_000)
        checkpoint.write(b"state")

    tree, packs = written(save)
    for name, mutant in mutations(tree, place):
        yield f"record {name}", home_with([plain(mutant)], packs)


def bombs(place: Path) -> Iterator[tuple[str, MemoryStorage]]:
    """Little on the disk, and much declared."""
    mib = bytes(1 << 20)
    chunk = [xxh3_128_digest(mib), 0, 0, 1 << 20]
    base = {
        "record": "checkpoint", "number": 1, "attempt": 0, "inputs": "", "time": 0.0, "cost": 0.0,
        "kind": "state", "size": 0, "packs": ["p"], "entries": [], "skeleton": None,
    }  # fmt: skip
    packs = {f"{PREFIX}/packs/p": mib}

    def state(skeleton: bytes, *sizes: int) -> MemoryStorage:
        entries = [
            {"name": "x", "kind": "part", "mode": 0, "size": size, "chunks": [chunk] * (size >> 20)}
            for size in sizes
        ]
        record = {**base, "entries": entries, "skeleton": skeleton}
        return home_with([plain(record)], packs)

    def array(size: int, part: int = 0) -> dict[str, Any]:
        return {"$": "array", "part": part, "dtype": "|u1", "shape": [size], "order": "C"}

    for size in (2 << 30, 8 << 30):
        yield f"one array of {size}", state(plain({"a": array(size)}), size)
        yield f"bytes of {size}", state(plain({"a": {"$": "bytes", "part": 0}}), size)
        tensor = {"$": "tensor", "part": 0, "dtype": "uint8", "shape": [size]}
        yield f"a tensor of {size}", state(plain({"a": tensor}), size)
        file: dict[str, Any] = {"name": "f", "kind": "file", "mode": 0o644, "size": size}
        file["chunks"] = [chunk] * (size >> 20)
        record = {**base, "kind": "bytes", "entries": [file]}
        yield f"a file of {size}", home_with([plain(record)], packs)
    yield from compressed(base)
    many = [array(64 << 20) for _ in range(200)]
    yield "one part, 200 times", state(plain({"a": many}), 64 << 20)
    strided = {"$": "tensor", "part": 0, "dtype": "uint8", "stride": [0, 0], "offset": 0}
    yield (
        "strides of nothing",
        state(plain({"a": {**strided, "shape": [1 << 40, 1 << 40]}}), 1 << 20),
    )
    yield "a shape of no size", state(plain({"a": {**array(0), "shape": [0, 1 << 62, 1 << 62]}}), 0)
    yield (
        "empty dicts",
        state(b"\x81\xa1a\xdd" + (9 << 20).to_bytes(4, "big") + b"\x80" * (9 << 20)),
    )
    for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"):
        yield f"declared {head!r}", state(b"\x81\xa1a" + head + b"\xff\xff\xff\xff")
        yield f"a record {head!r}", home_with([head + b"\xff\xff\xff\xff"])
    yield "deep lists", state(b"\x81\xa1a" + b"\x91" * 1_000_000 + b"\xc0")
    yield "deep maps", state(b"\x81\xa1a" * 500_000 + b"\xc0")
    yield "a deep unknown field", home_with([b"\x81\xa1z" + b"\x91" * 1_000_000 + b"\xc0"])
    hexed = {"$": "int", "hex": "0x" + "f" * (20 << 20)}
    yield "a number of 10 MiB", state(plain({"a": hexed}))
    yield "a number that is none", state(plain({"a": {"$": "int", "hex": "9" * 100_000}}))
    for dtype in (
        "O",
        "|O8",
        "(2000000000,)f8",
        "f8,O",
        "V2147483647",
        "<U536870911",
        "x" * 100_000,
    ):
        yield f"dtype {dtype[:20]}", state(plain({"a": {**array(1), "dtype": dtype}}), 1 << 20)
    nested: Any = "<f8"
    for _ in range(5000):
        nested = [["f", nested]]
        if _ == 300:
            yield "a dtype 300 deep", state(plain({"a": {**array(1), "dtype": nested}}), 1 << 20)


def compressed(base: dict[str, Any]) -> Iterator[tuple[str, MemoryStorage]]:
    """A few kilobytes that are much once they are decompressed."""
    import zstandard

    zeros = bytes(64 << 20)
    frame = zstandard.ZstdCompressor().compress(zeros)
    bomb = zstandard.ZstdCompressor().compress(bytes(256 << 20))
    long = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    wide = zstandard.ZstdCompressor(compression_params=long).compress(bytes(1 << 20))
    packs = {f"{PREFIX}/packs/p": frame, f"{PREFIX}/packs/b": bomb, f"{PREFIX}/packs/w": wide}
    names = ["p", "b", "w"]
    whole: list[Any] = [xxh3_128_digest(zeros), 0, 0, 64 << 20, len(frame), 1]
    cases: list[tuple[str, list[list[Any]]]] = [
        ("much", [whole] * 128),
        ("more than it says", [[xxh3_128_digest(bytes(1 << 20)), 1, 0, 1 << 20, len(bomb), 1]]),
        ("less than it says", [[xxh3_128_digest(zeros), 2, 0, 64 << 20, len(wide), 1]]),
        ("a wide window", [[xxh3_128_digest(bytes(1 << 20)), 2, 0, 1 << 20, len(wide), 1]]),
        ("an unknown codec", [[*whole[:5], 7]]),
        ("no frame", [[bytes(16), 0, 9, 1000, 1000, 4]]),
        ("an impossible length", [[bytes(16), 0, 0, 1 << 40, len(frame), 1]]),
    ]
    for what, chunks in cases:
        size = sum(chunk[3] for chunk in chunks)
        skeleton = {"a": {"$": "bytes", "part": 0}}
        entry = {"name": "x", "kind": "part", "mode": 0, "size": size, "chunks": chunks}
        record = {**base, "packs": names, "entries": [entry], "skeleton": plain(skeleton)}
        yield f"compressed, {what}", home_with([plain(record)], packs)


def values(place: Path) -> Iterator[Case]:
    """Values of a run, each field of them hostile."""
    import datetime as dt
    import zoneinfo

    import numpy as np

    from headway import File

    (place / "file").write_bytes(b"content")
    storage = MemoryStorage(trusted=True)
    encoder = Values(storage, "runs/r/values")
    when = dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC"))
    value: dict[str, Any] = {
        "array": np.arange(5), "large": np.zeros(10_000), "big": 1 << 90, "tuple": (1, 2),
        "when": when, "took": dt.timedelta(1), "keys": {1: 2}, "path": Path("x"),
        "file": File(place / "file"),
    }  # fmt: skip
    tree = encoder.encode(value)
    typed = encoder.encode(Config("a", Colour.RED), Config)
    storage.trusted = False
    for base, type_ in ((tree, Any), (tree, dict), (typed, Config)):
        for name, mutant in mutations(base, place):
            readable = _trees.decode(plain(mutant))

            def decode(readable: Any = readable, type_: Any = type_) -> None:
                reader = Values(storage, "runs/r/values", place / "scratch")
                found = reader.decode(readable, type_)
                if isinstance(found, dict) and isinstance(found.get("file"), File):
                    Path(found["file"]).read_bytes()

            yield f"{type_} {name}", decode
    bomb = {"$": "array", "dtype": "<f8", "shape": [1 << 30], "blob": "0" * 64, "size": 8 << 30}
    for number, fresh in enumerate((bomb, {"$": "tree", "blob": "0" * 64, "size": 1 << 40})):
        yield f"bomb {number}", lambda fresh=fresh: Values(storage, "v").decode(fresh)  # type: ignore[misc]
    counted = {"$": "array", "dtype": "|u1", "shape": [8 << 30], "data": 8 << 30}
    yield "bytes(8 GiB)", lambda: Values(storage, "v").decode({"$": "bytes", "data": 8 << 30})
    yield "an array of bytes(8 GiB)", lambda: Values(storage, "v").decode(counted)


def journals(place: Path) -> Iterator[Case]:
    """A run's journal, looked at as `headway show` does."""
    inputs = {"x": {"$": "value", "value": {"$": "tuple", "items": [1, "two"]}}}
    node = NodePlan("train", "m:train", TaskOptions(), inputs, (), ("o0",))
    program = Program("m", "/nowhere/m.py", ("/nowhere",), "0" * 64)
    run = "1tq4zk-8f3d"
    events: list[Any] = [
        RunCreated(run, "m:train", program, {"x": 1}, 1.0, "0.1.0", (node,), {"o0": 1}),
        DriverStarted(2.0, 7, "host", "0" * 64),
        AttemptStarted("train", 0, 3.0, "digest"),
        CheckpointSaved("train", 0, 1, 100, 4.0),
        AttemptWarned("train", 0, "damaged", "message", 5.0),
        AttemptEnded("train", 0, "app error", 6.0, None, "error", "traceback"),
        AttemptStarted("train", 1, 7.0, "digest"),
        AttemptEnded("train", 1, "succeeded", 8.0, {"o0": {"$": "bytes", "data": b"x"}}),
        RunNoted("note", 9.0),
        RunEnded(
            "succeeded",
            10.0,
            {"o0": {"$": "array", "dtype": "<f8", "shape": [1], "data": bytes(8)}},
        ),
    ]
    trees = [_trees.decode(plain(event)) for event in events]
    for name, mutant in mutations(trees, place):
        if not isinstance(mutant, list):
            continue
        records = [plain(event) for event in mutant]

        def look(records: list[bytes] = records) -> bytes:
            storage = MemoryStorage(trusted=False)
            ledger = Ledger.open(storage, ledger_prefix(run), room=1 << 16)
            ledger.append(*records)
            ledger.close()
            state, notes = read_run(storage, run)
            return msgspec.json.encode(report_of(state, storage, alive=False, notes=notes))

        yield f"journal {name}", look


def careless(place: Path) -> Iterator[Case]:
    """What headway must not do: the guard has to see each."""
    yield "loads a pickle", lambda: pickle.loads(pickled(place))
    yield "evaluates", lambda: eval("1 + 1")
    yield "imports", lambda: __import__("antigravity_is_not_there")
    yield "writes beside", lambda: (place / "beside").write_bytes(b"x")
    yield "makes a directory", (place / "made").mkdir
    yield "connects", lambda: __import__("socket").socket().close()
    yield "starts", lambda: os.system("true")
    yield "a traceback", lambda: int("x")
    yield "takes memory", lambda: b"x" * (EXTRA // 2)


HOMES = {
    "state": fields_of_a_state,
    "skeleton": skeletons,
    "files": fields_of_files,
    "directories": fields_of_directories,
    "bombs": bombs,
}


OTHERS = {"values": values, "journal": journals, "careless": careless}


def cases(what: str, place: Path, target: Path) -> Iterator[Case]:
    if what in OTHERS:
        yield from OTHERS[what](place)
        return
    live = a_state if what == "skeleton" else None
    for name, storage in HOMES[what](place):
        for asked, act in using(storage, target, live):
            # A file of 8 GiB that is restored is 8 GiB on the disk, as its record says.
            if name.startswith("a file of") and asked == "restore":
                continue
            if what != "skeleton" or asked in {"load", "into"}:
                yield f"{name}: {asked}", act
        shutil.rmtree(target, ignore_errors=True)


def main() -> None:
    what, place = sys.argv[1], Path(sys.argv[2])
    share, shares = int(sys.argv[3]), int(sys.argv[4])
    warnings.simplefilter("ignore")
    (place / "scratch").mkdir()
    target = place / "deep" / "target"
    target.parent.mkdir()
    warm_up(place, what)
    before = outside(place)
    guard = Guard([target, place / "scratch", Path("/dev/null")])
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA, resource.RLIM_INFINITY))
    start = most_memory()
    ends: collections.Counter[str] = collections.Counter()
    wrong = []
    for name, act in itertools.islice(cases(what, place, target), share, None, shares):
        began = time.process_time()
        ended, events = guard.watch(act)
        if time.process_time() - began > SLOW:
            wrong.append(f"{name}: took {time.process_time() - began:.1f} s")
        ends[ended.split(",")[0].split(":")[0]] += 1
        if events or ("HeadwayError" not in ended and ended != "returned"):
            wrong.append(f"{name}: {ended} {events}")
    found = [str(path) for path in place.rglob(CANARY)] + [CANARY] * os.path.exists(CANARY)
    after = {k: v for k, v in outside(place).items() if not k.startswith("source")}
    kept = {k: v for k, v in before.items() if after.get(k) != v}
    report = {
        "ends": ends,
        "wrong": wrong[:20],
        "wrongs": len(wrong),
        "canaries": found,
        "changed": [*kept, *(after.keys() - before.keys() - {"file"})],
        "grew": (most_memory() - start) >> 10,
    }
    print(json.dumps(report))


def most_memory() -> int:
    """KiB that this program ever had; what `getrusage` says is its parent's, when that had more."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1])


def warm_up(place: Path, what: str) -> None:
    """Load what is loaded at first use, so that every import under guard is the attacker's."""
    tree, packs = written(lambda checkpoint: checkpoint.save(a_state()))
    for _, act in using(home_with([plain(tree)], packs), place / "scratch" / "t", a_state):
        with contextlib.suppress(Exception):
            act()
    (place / "w").mkdir()
    more = OTHERS[what](place / "w") if what in {"values", "journal"} else iter(())
    for _, act in itertools.islice(more, 500):
        with contextlib.suppress(Exception):
            act()
    shutil.rmtree(place / "w")


def outside(place: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is beside the target: names, modes, times and content."""
    found = {}
    for path in sorted(place.rglob("*")):
        inner = path.relative_to(place).as_posix()
        if inner.startswith(("deep/target", "scratch")):
            continue
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[inner] = status.st_mode, len(content), content
    return found


if __name__ == "__main__":
    main()

"""Bytes changed at random: records, manifests, skeletons and packs never crash, hang or pass for others.

Two kinds. *Damage* leaves the checksums alone: whatever is accepted must be what was written. *Forgery*
puts the checksums right again, as an attacker would: then anything may come out that is data, or a typed
error. Every round has a seed of its own, so a failure says how to have it again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from tests.counting import count
from tests.crash.damaged import PREFIX, Shelf, look, small_ledger

from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import lineage_of, read_lineage
from headway.checkpoint.load import state_of
from headway.checkpoint.rebuild import rebuild
from headway.checkpoint.state import Flattened
from headway.engine.values import Values
from headway.ledger.read import Chain, Record, read_ledger
from headway.ledger.record import CLAIM_SIZE, Claim, Kind, Seal, encode_frame, ledger_name
from headway.model.errors import HeadwayError
from headway.model.manifest import Manifest
from headway.testing.memory import MemoryStorage

pytestmark = pytest.mark.reliability("R6")

NODE = "runs/r/nodes/n"
SAMPLE = 5_000  # rounds of each kind in the ordinary suite, four kinds
LONG = 250_000
INTERESTING = (
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xc0",
    b"\xc1",
    b"\x91",
    b"\x81",
    b"\xdd",
    b"\xff" * 8,
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four changes of the kinds that find bugs."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(made) + 1)
        size = rng.choice((1, 1, 2, 4, 8, 40))
        match rng.randrange(7):
            case 0 if at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            case 1:
                made[at : at + size] = rng.randbytes(size)
            case 2:
                del made[at : at + size]
            case 3:
                made[at:at] = rng.choice(INTERESTING) * size
            case 4:
                source = rng.randrange(len(made) + 1)
                made[at:at] = made[source : source + size]
            case 5:
                made[at : at + 1] = rng.choice(INTERESTING)
            case _:
                del made[at:]
    return bytes(made)


Round = Callable[[random.Random], str]
"""One round: says how it ended."""


def damaged_ledgers() -> Round:
    logs, good = small_ledger()
    keys = sorted(logs)

    def play(rng: random.Random) -> str:
        key = rng.choice(keys)
        changed = {**logs, key: mutated(logs[key], rng)}
        if changed[key] == logs[key]:
            return "the same"
        chain = look(changed, good, complete=False)  # raises when a record was made up
        return "damage seen" if chain.damage else "harmless"

    return play


def forged_ledgers() -> Round:
    """Payloads of seals and records, and claims, with right checksums."""
    seal = msgspec.msgpack.encode(Seal())
    body = msgspec.msgpack.encode([b"one", b"two" * 20])

    def play(rng: random.Random) -> str:
        claim = Claim(
            1, ledger_name(PREFIX), rng.randbytes(16), 2000, rng.choice((0, 1, 2**32 - 1))
        )
        data, link = claim.encode(), claim.link
        frames = [(Kind.SEAL, seal), *[(Kind.DATA, body)] * rng.randrange(3)]
        touched = rng.randrange(len(frames))
        for seq, (kind, payload) in enumerate(frames):
            content = mutated(payload, rng) if seq == touched else payload
            frame, link = encode_frame(claim, kind, seq, link, content)
            data += frame
        shelf: Any = Shelf({f"{PREFIX}/00000001": data.ljust(CLAIM_SIZE + 2000, b"\0")})
        return "damage seen" if read_ledger(shelf, PREFIX).damage else "accepted"

    return play


def _checkpoint() -> tuple[MemoryStorage, Manifest, dict[str, Any]]:
    storage = MemoryStorage()
    state = {
        "weights": np.arange(9000, dtype="<f4"),
        "names": ["a", ("b", 1 << 70)],
        "blob": b"x" * 100,
        "nested": {1: {"$": 2.5}},
    }
    checkpoint = Checkpoint(storage, NODE)
    checkpoint.save(state)
    checkpoint.close()
    return storage, read_lineage(storage, NODE).manifests[0], state


def forged_manifests() -> Round:
    storage, manifest, _ = _checkpoint()
    encoded = msgspec.msgpack.encode(manifest)

    def play(rng: random.Random) -> str:
        chain = Chain((Record(1, 1, mutated(encoded, rng)),))
        try:
            found = lineage_of(chain, "fuzzed").manifests
            for each in found:
                state_of(storage, f"{NODE}/packs", each)
        except HeadwayError as error:
            return type(error).__name__
        return "accepted"

    return play


def forged_skeletons() -> Round:
    flat = Flattened(_checkpoint()[2])
    raw = [bytes(part.data) for part in flat.parts]

    def fill(parts: Sequence[tuple[int, memoryview]]) -> None:
        for part, view in parts:
            view[:] = raw[part]

    def play(rng: random.Random) -> str:
        try:
            rebuild(mutated(flat.skeleton, rng), [len(part) for part in raw], fill)
        except HeadwayError as error:
            return type(error).__name__
        return "accepted"

    return play


def damaged_packs() -> Round:
    storage, manifest, state = _checkpoint()
    key = next(key for key in storage.objects if "/packs/" in key)
    good = bytes(storage.objects[key])

    def play(rng: random.Random) -> str:
        storage.objects[key] = bytearray(mutated(good, rng))
        try:
            found = state_of(storage, f"{NODE}/packs", manifest)
        except HeadwayError as error:
            return type(error).__name__
        assert (found["weights"] == state["weights"]).all(), "other content passed for this"
        return "harmless"

    return play


KINDS: list[Callable[[], Round]] = [
    damaged_ledgers,
    forged_ledgers,
    forged_manifests,
    forged_skeletons,
    damaged_packs,
]


def played(kind: Callable[[], Round], rounds: int, first: int = 0) -> Counter[str]:
    play = kind()
    ends: Counter[str] = Counter()
    for seed in range(first, first + rounds):
        try:
            ends[play(random.Random(seed))] += 1
        except Exception as error:
            error.add_note(f"{kind.__name__}, seed {seed}")
            raise
    return ends


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_a_sample_of_changed_bytes_is_data_or_a_typed_error(kind: Callable[[], Round]) -> None:
    ends = played(kind, SAMPLE)
    assert ends.total() == SAMPLE
    assert len(ends) > 1, f"every round ended alike, so they tested nothing: {ends}"
    count("R6", "changed records, manifests, skeletons and packs", ends.total())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_changed_bytes_are_data_or_a_typed_error(kind: Callable[[], Round]) -> None:
    ends = played(kind, LONG, SAMPLE)
    assert ends.total() == LONG
    count("R6", "changed records, manifests, skeletons and packs", ends.total())


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["<f8", "|O8", "0x1f", "float32", "C", "F"])
)
KINDS_OF_NODE = st.sampled_from(
    [
        "int",
        "tuple",
        "dict",
        "ordered",
        "bytes",
        "buffer",
        "array",
        "scalar",
        "tensor",
        "pickle",
        "path",
        "file",
        "directory",
        "enum",
        "dataclass",
        "datetime",
        "date",
        "time",
        "timedelta",
        "tree",
        "complex",
        "set",
    ]
)
FIELDS = st.sampled_from(
    [
        "part",
        "hex",
        "items",
        "notes",
        "dtype",
        "shape",
        "order",
        "stride",
        "offset",
        "data",
        "blob",
        "size",
        "name",
        "mode",
        "entries",
        "iso",
        "parts",
        "fold",
        "zone",
        "class",
        "fields",
        "text",
        "content",
        "requires_grad",
        "parameter",
    ]
)


def _trees(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    tagged = st.builds(
        lambda kind, fields: {"$": kind, **fields},
        KINDS_OF_NODE,
        st.dictionaries(FIELDS, inner, max_size=6),
    )
    return (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | tagged
    )


TREES = st.recursive(LEAVES, _trees, max_leaves=12)


@settings(max_examples=400, deadline=None)
@given(TREES)
def test_any_tree_is_a_state_or_a_typed_error(tree: Any) -> None:
    def fill(parts: Sequence[tuple[int, memoryview]]) -> None:
        for _, view in parts:
            view[:] = bytes(len(view))

    try:
        rebuild(msgspec.msgpack.encode(tree), [8, 0, 64], fill)
    except HeadwayError:
        pass


@settings(max_examples=400, deadline=None)
@given(TREES)
def test_any_tree_is_a_value_or_a_typed_error(tree: Any) -> None:
    values = Values(MemoryStorage(trusted=False), "runs/r/values")
    try:
        values.decode(msgspec.msgpack.decode(msgspec.msgpack.encode(tree)))
    except HeadwayError:
        pass
    finally:
        values.close()

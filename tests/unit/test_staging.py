"""The copy of a state, and what it says has changed."""

from __future__ import annotations

import importlib
import itertools
import random
import sys

import pytest

from headway.checkpoint import staging
from headway.checkpoint.memory import HUGE, Block, address, equal
from headway.checkpoint.renew import GRAIN
from headway.checkpoint.staging import PIECE, Layout, Staging
from headway.checkpoint.state import Part
from headway.ports import ALIGN

SIZES = [0, 1, 63, 100, ALIGN - 1, ALIGN, ALIGN + 1, GRAIN + 5, PIECE, PIECE + GRAIN + 777, 3]
OTHERS = bytes((byte + 1) % 256 for byte in range(256))


def state(seed: int = 0) -> list[bytearray]:
    return [bytearray(random.Random(seed + i).randbytes(size)) for i, size in enumerate(SIZES)]


def parts(memory: list[bytearray]) -> list[Part]:
    return [Part(f"part {i}", memoryview(data)) for i, data in enumerate(memory)]


def copied(captured: staging.Captured) -> list[bytes]:
    layout = captured.layout
    return [
        bytes(captured.memory[at : at + size])
        for at, size in zip(layout.starts, layout.sizes, strict=True)
    ]


def test_a_copy_holds_every_byte_and_says_nothing_about_changes_at_first() -> None:
    memory = state()
    captured = Staging().capture(parts(memory))
    assert copied(captured) == memory
    assert captured.changed is None
    assert captured.memory.nbytes == captured.layout.total


def test_parts_of_a_page_and_more_begin_on_a_page() -> None:
    layout = Layout.of(parts(state()))
    ends = [0]
    for start, size in zip(layout.starts, layout.sizes, strict=True):
        assert start % (ALIGN if size >= ALIGN else 64) == 0
        assert start >= ends[-1]
        ends.append(start + size)
    assert layout.total >= ends[-1] and layout.total % ALIGN == 0


def test_what_did_not_change_is_not_named() -> None:
    memory, room = state(), Staging()
    room.capture(parts(memory))
    again = room.capture(parts(memory))
    assert again.changed == [[] for _ in SIZES]
    assert copied(again) == memory


@pytest.mark.parametrize("numpy", [True, False], ids=["numpy", "without numpy"])
@pytest.mark.parametrize("seed", range(5))
def test_all_that_changed_is_named_and_copied(
    monkeypatch: pytest.MonkeyPatch, seed: int, numpy: bool
) -> None:
    importlib.import_module("numpy")
    if not numpy:
        monkeypatch.delitem(sys.modules, "numpy")
    dice, memory, room = random.Random(seed), state(), Staging()
    room.capture(parts(memory))
    for _ in range(4):
        truth = [bytearray(size) for size in SIZES]
        for _ in range(dice.choice([0, 1, 5, 60])):
            part = dice.choice([i for i, size in enumerate(SIZES) if size])
            start = dice.randrange(SIZES[part])
            end = min(SIZES[part], start + dice.choice([1, 9, 2048, ALIGN, 3 * GRAIN]))
            memory[part][start:end] = memory[part][start:end].translate(OTHERS)
            truth[part][start:end] = b"\1" * (end - start)
        captured = room.capture(parts(memory))
        assert copied(captured) == memory
        assert captured.changed is not None
        for runs, wanted, size in zip(captured.changed, truth, SIZES, strict=True):
            assert runs == sorted(runs)
            assert all(0 <= start < end <= size for start, end in runs)
            assert all(one[1] < other[0] for one, other in itertools.pairwise(runs))
            for start, end in runs:
                wanted[start:end] = bytes(end - start)
            assert not any(wanted)


def test_a_few_rows_that_changed_are_named_to_the_page() -> None:
    memory, room = state(), Staging()
    room.capture(parts(memory))
    room.capture(parts(memory))  # from here on the piece is known to change little
    memory[8][5 * ALIGN + 100] ^= 1
    memory[8][GRAIN * 3] ^= 1
    captured = room.capture(parts(memory))
    assert captured.changed is not None
    assert captured.changed[8] == [
        (5 * ALIGN, 6 * ALIGN),
        (3 * GRAIN, 3 * GRAIN + ALIGN),
    ]


def test_a_copy_that_was_interrupted_is_no_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, room = state(), Staging()
    room.capture(parts(memory))

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(staging, "renew", interrupted)
        with pytest.raises(KeyboardInterrupt):
            room.capture(parts(memory))
    captured = room.capture(parts(memory))
    assert captured.changed is None
    assert copied(captured) == memory


def test_other_parts_are_no_basis_either() -> None:
    memory, room = state(), Staging()
    room.capture(parts(memory))
    memory[3] += b"longer"
    assert room.capture(parts(memory)).changed is None


def test_memory_made_ready_is_used_and_given_back() -> None:
    memory, room = state(), Staging()
    room.prepare(Layout.of(parts(memory)))
    assert copied(room.capture(parts(memory))) == memory
    room.prepare(Layout.of(parts(memory)))
    room.close()
    assert copied(room.capture(parts(memory))) == memory


def test_a_block_is_whole_pages_of_zeros() -> None:
    block = Block(5)
    assert block.size == HUGE
    assert block.address % ALIGN == 0
    assert not any(block.view[:ALIGN])
    block.make_ready(0, HUGE * 5)
    block.close()


def test_no_memory_says_what_to_do_instead() -> None:
    with pytest.raises(MemoryError, match="needs no copy"):
        Block(1 << 60)


def test_an_address_is_found_of_memory_that_cannot_be_written() -> None:
    data = bytes(range(200))
    view = memoryview(data)
    assert address(view[7:]) == address(view) + 7
    assert equal(address(view), address(memoryview(bytearray(data))), 200)
    assert address(view[:0]) == 0

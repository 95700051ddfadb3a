"""The part of `StorageContract` that is about packs: files of chunk data, written by several threads."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from headway.ports import ALIGN, LARGE, Storage


def noise(size: int, *, seed: int = 0) -> bytes:
    """Bytes in which a piece that is out of place does not go unseen."""
    return random.Random(seed).randbytes(size)


class PackContract:
    """See `headway.testing.storage.StorageContract`, which has it in it."""

    def test_a_pack_says_where_each_piece_begins(self, storage: Storage) -> None:
        big = noise(1_280_000)
        pack = storage.create_pack("packs/1")
        view = memoryview(b"view")[1:]
        pieces: list[bytes | memoryview] = [b"small", b"", big, view, big[:100_000], b"end"]
        offsets = [pack.write(piece) for piece in pieces]
        pack.commit()
        stored = storage.read("packs/1")
        end = 0
        for offset, piece in zip(offsets, pieces, strict=True):
            assert offset >= end
            assert not any(stored[end:offset])
            assert len(piece) < LARGE or offset % ALIGN == 0
            end = offset + len(piece)
            assert stored[offset:end] == piece
        assert not any(stored[end:])
        assert storage.read_range("packs/1", offsets[3], 3) == b"iew"
        assert storage.list("packs") == ["1"]

    def test_a_pack_of_many_small_pieces(self, storage: Storage) -> None:
        pack = storage.create_pack("p")
        pieces = [bytes([number % 256]) * 70_000 for number in range(40)]
        offsets = [pack.write(piece) for piece in pieces]
        pack.commit()
        stored = storage.read("p")
        for offset, piece in zip(offsets, pieces, strict=True):
            assert stored[offset : offset + len(piece)] == piece

    def test_what_a_pack_was_given_can_be_changed_afterwards(self, storage: Storage) -> None:
        pack = storage.create_pack("p")
        offsets = []
        for size in (100, 100_000, 5_000_000):
            data = bytearray(b"b" * size)
            offsets.append(pack.write(memoryview(data)))
            data[:] = b"a" * size
        pack.commit()
        for offset, size in zip(offsets, (100, 100_000, 5_000_000), strict=True):
            assert storage.read_range("p", offset, size) == b"b" * size

    def test_threads_write_to_one_pack(self, storage: Storage) -> None:
        pack = storage.create_pack("p", size=40 * 70_000)
        pieces = [bytes([number]) * (70_000 if number % 3 else 300) for number in range(40)]
        with ThreadPoolExecutor(4) as pool:
            offsets = list(pool.map(pack.write, pieces))
        pack.commit()
        stored = storage.read("p")
        for offset, piece in zip(offsets, pieces, strict=True):
            assert stored[offset : offset + len(piece)] == piece

    def test_a_pack_may_take_the_place_of_one_that_nobody_needs(self, storage: Storage) -> None:
        for key, size, reuse in (("a", 200_000, None), ("b", 90_000, "a"), ("c", 900_000, "b")):
            data = noise(size, seed=size)
            pack = storage.create_pack(key, reuse=reuse)
            assert not storage.has(reuse or "other")
            at = pack.write(data)
            pack.commit()
            assert storage.read_range(key, at, size) == data
            assert storage.list("") == [key]
            assert len(storage.read(key)) < size + 2 * LARGE  # nothing of the old one is left

    def test_what_cannot_be_reused_is_no_fault(self, storage: Storage) -> None:
        pack = storage.create_pack("a", reuse="was/never/there")
        pack.write(b"x")
        pack.commit()
        assert storage.read("a")[:1] == b"x"

    def test_a_piece_of_a_pack_is_measured_in_bytes(self, storage: Storage) -> None:
        pack = cast("Any", storage.create_pack("p"))
        numbers = memoryview(bytearray(80)).cast("d")
        assert len(numbers) == 10
        assert pack.write(numbers) == 0
        assert pack.write(b"x") == 80
        pack.commit()
        assert storage.read("p")[80:81] == b"x"

    def test_an_aborted_pack_gives_its_space_back(self, storage: Storage) -> None:
        pack = storage.create_pack("p/1")
        pack.write(b"x" * 3_000_000)
        pack.abort()
        pack.abort()
        assert storage.list("p") == []
        storage.create_pack("p/1").abort()

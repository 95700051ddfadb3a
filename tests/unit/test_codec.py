"""Fewer bytes for a slow link."""

from __future__ import annotations

import builtins
import random
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import zstandard

from headway.checkpoint import codec
from headway.checkpoint.codec import WIDTHS, Damaged, Thrift, expand, shrink
from headway.model.errors import InputError


def weights(count: int = 200_000) -> memoryview:
    found: Any = (np.random.default_rng(0).standard_normal(count) * 0.02).astype("f4")
    return memoryview(found.view("u1"))


@pytest.mark.parametrize("width", sorted(WIDTHS))
@pytest.mark.parametrize("length", [1, 7, 8, 4096, 100_003])
@pytest.mark.parametrize("numpy", [True, False], ids=["numpy", "without numpy"])
def test_what_is_shrunk_is_expanded(
    monkeypatch: pytest.MonkeyPatch, width: int, length: int, numpy: bool
) -> None:
    data = random.Random(length).randbytes(length)
    with monkeypatch.context() as patch:
        if not numpy:
            patch.delitem(sys.modules, "numpy")
        stored = shrink(memoryview(data), width)
    assert bytes(expand(stored, width, length)) == data
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "numpy")
        assert bytes(expand(stored, width, length)) == data


def test_planes_are_why_weights_get_smaller() -> None:
    data = weights()
    assert len(shrink(data, 4)) < 0.9 * len(data) < len(shrink(data, 1))


@pytest.mark.parametrize("wrong", [-1, 1, 1 << 40])
def test_only_as_many_bytes_are_made_as_the_record_says(wrong: int) -> None:
    stored = shrink(memoryview(bytes(50_000)), 1)
    with pytest.raises(Damaged, match=r"more or fewer|impossible"):
        expand(stored, 1, 50_000 + wrong)


def test_a_bomb_makes_no_more_than_its_record_says() -> None:
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(1 << 27))
    assert len(bomb) < 20_000
    tracemalloc.start()
    with pytest.raises(Damaged):
        expand(bomb, 1, 1000)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("stored", [b"", b"no zstd", shrink(memoryview(bytes(5000)), 1)[:-3]])
def test_what_is_not_zstd_is_damage(stored: bytes) -> None:
    with pytest.raises(Damaged):
        expand(stored, 1, 5000)


def test_a_codec_of_the_future_is_damage_with_a_reason() -> None:
    with pytest.raises(Damaged, match="does not know"):
        expand(b"", 3, 5)


def test_a_local_disk_gets_the_bytes_as_they_are() -> None:
    assert not Thrift(remote=False).pays(memoryview(bytes(100_000)), 1)


def test_a_link_that_is_not_known_yet_is_taken_for_slow() -> None:
    assert Thrift(remote=True).pays(memoryview(bytes(100_000)), 1)


def test_what_does_not_get_smaller_is_left_alone() -> None:
    noise = memoryview(random.Random(0).randbytes(100_000))
    assert not Thrift(remote=True).pays(noise, 1)


def test_a_fast_link_is_not_made_to_wait() -> None:
    thrift = Thrift(remote=True)
    thrift.sent(1 << 30, 0.001)
    assert not thrift.pays(weights(), 4)
    slow = Thrift(remote=True)
    slow.sent(1 << 20, 100.0)
    assert slow.pays(weights(), 4)
    slow.sent(10, 1e-9)  # too little to tell
    assert slow.pays(weights(), 4)


def test_without_zstandard_nothing_is_compressed_and_reading_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = shrink(memoryview(bytes(5000)), 1)
    real = builtins.__import__

    def none(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "zstandard":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", none)
    assert not Thrift(remote=True).pays(memoryview(bytes(5000)), 1)
    with pytest.raises(InputError, match="pip install"):
        expand(stored, 1, 5000)


def test_plain_is_no_width() -> None:
    assert codec.PLAIN not in WIDTHS

"""Fewer bytes for a slow link: zstd over byte planes, where a probe and the link's speed say that it pays.

Dense weights hardly compress as they are, but the bytes of one place in each number do: signs and
exponents lie together, and repeat. So the bytes of numbers of `width` bytes are sorted into `width` planes
first. A local disk is faster than any of this, and gets the bytes as they are.

The plain length of a piece stands in its record, and its hash is that of the plain bytes. Decompression
makes exactly that many bytes and no more, whatever a frame says of itself, with a window of at most 8 MiB.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from headway.model.errors import InputError

PLAIN = 0
"""Codec of bytes as they are; every other codec is the width of the numbers whose planes were made."""
WIDTHS = frozenset({1, 2, 4, 8})
_SAMPLE = 256 << 10
_LEVEL = 1
_WORTH = 0.9  # of its size: what compresses less is left alone
_WINDOW = 8 << 20
_LARGEST = 64 << 20  # plain bytes of a piece
_WEIGHT = 0.3  # of the newest measurement


class Damaged(Exception):
    """The bytes are not what `shrink` makes."""


def shrink(view: memoryview, width: int) -> bytes:
    """The compressed bytes of numbers of `width` bytes each."""
    import zstandard

    return bytes(zstandard.ZstdCompressor(level=_LEVEL).compress(_planes(view, width)))


def expand(stored: bytes, codec: int, length: int) -> bytes | memoryview:
    """What `shrink` made `stored` of.

    Args:
        stored: bytes of a pack.
        codec: the width.
        length: of the plain bytes, as the record says.

    Raises:
        Damaged: it is not so.
        InputError: zstandard is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise InputError(
            "the checkpoint is compressed, and zstandard is not installed here: "
            "pip install 'headway[object]'"
        ) from error
    if codec not in WIDTHS:
        raise Damaged(f"it is compressed in a way that this headway does not know: {codec!r}")
    if not 0 < length <= _LARGEST:
        raise Damaged("its record says an impossible length")
    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(stored)
    try:
        plain = reader.read(length)
        more = reader.read(1)
    except zstandard.ZstdError as error:
        raise Damaged(f"it cannot be decompressed: {error}") from None
    if len(plain) != length or more:
        raise Damaged("it has more or fewer bytes than its record says")
    return _unplaned(plain, codec)


class Thrift:
    """Whether compressing pays on the way to one store, from what was measured on it.

    Guesses are of speed only: a wrong one costs time, and nothing else.

    Args:
        remote: whether there is a link at all.
    """

    def __init__(self, *, remote: bool) -> None:
        self._on = remote and _have_zstd()
        self._link = 0.0  # bytes a second; 0: not known yet
        self._speed = 0.0  # of compressing, on one thread

    def pays(self, view: memoryview, width: int) -> bool:
        """Probe the beginning of a piece."""
        if not self._on:
            return False
        sample = view[:_SAMPLE]
        began = time.perf_counter()
        kept = len(shrink(sample, width)) / len(sample)
        self._speed = _mean(self._speed, len(sample) / max(time.perf_counter() - began, 1e-6))
        return kept < _WORTH and (not self._link or 1 / self._speed < (1 - kept) / self._link)

    def sent(self, size: int, seconds: float) -> None:
        """So many bytes went over the link in that time."""
        if size >= _SAMPLE:
            self._link = _mean(self._link, size / max(seconds, 1e-6))


def _mean(old: float, new: float) -> float:
    return new if not old else old + _WEIGHT * (new - old)


def _have_zstd() -> bool:
    try:
        import zstandard
    except ImportError:
        return False
    return bool(zstandard)


def _planes(view: memoryview, width: int) -> bytes | memoryview:
    """First the first byte of each number, then the second of each, and so on; then what is left over."""
    if width == 1:
        return view
    numbers = len(view) // width
    whole, rest = view[: numbers * width], view[numbers * width :]
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        return bytes(numpy.frombuffer(whole, "u1").reshape(numbers, width).T.tobytes() + rest)
    return b"".join([*(bytes(whole[at::width]) for at in range(width)), bytes(rest)])


def _unplaned(plain: bytes, width: int) -> bytes | memoryview:
    if width == 1:
        return plain
    numbers = len(plain) // width
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        planes = numpy.frombuffer(plain, "u1", numbers * width).reshape(width, numbers)
        return bytes(planes.T.tobytes() + plain[numbers * width :])
    made = bytearray(plain)
    for at in range(width):
        made[at : numbers * width : width] = plain[at * numbers : (at + 1) * numbers]
    return bytes(made)

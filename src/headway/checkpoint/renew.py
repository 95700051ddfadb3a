"""Making a copy equal to its source, and saying what was not: at the speed of the copy.

Three speeds. A piece of which everything changed last time is recognised by a few sampled pages, and
copied blindly. Where NumPy is in use anyway, two MiB at a time are compared word by word, and the pages
that differ are copied in one go. Else stretches are halved until the pages that differ are found.

Only what is reported as changed is written into the copy: whatever another thread does to the source
meanwhile, the rest of the copy is what it was.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from dataclasses import dataclass
from typing import Any

from headway.checkpoint.memory import copy, equal
from headway.ports import ALIGN

Run = tuple[int, int]
"""[start, end) within a part."""

GRAIN = 256 << 10
"""Bytes that are compared at once, and halved where they differ."""
_STRETCH = (
    2 << 20
)  # that NumPy compares at once: what is compared is still in the cache to be copied
_STEP = 512 << 10  # bytes of one copy: the C library is slower with more
_WORD = 8
_local = threading.local()


@dataclass(slots=True)
class Share:
    """A stretch of a part that one thread copies.

    Attributes:
        part, offset, length: where it is.
        dense: all of it changed last time.
        hot: something of it did.
    """

    part: int
    offset: int
    length: int
    dense: bool = True
    hot: bool = False


def duplicate(target: int, source: int, length: int) -> None:
    """Copy bytes between two addresses."""
    for at in range(0, length, _STEP):
        copy(target + at, source + at, min(_STEP, length - at))


def renew(share: Share, target: int, source: int) -> list[Run]:
    """Make the copy of a share equal to its source; what was not, in whole pages, in order.

    Args:
        share: which.
        target, source: addresses of the copy's bytes and of the live ones.
    """
    found = _Found(share.offset)
    if share.dense and _all_differ(target, source, share.length):
        found.take(0, share.length, target, source)
    else:
        numpy: Any = sys.modules.get("numpy")
        if numpy is not None and source % _WORD == 0:
            _by_words(numpy, share, found, target, source)
        else:
            for at in range(0, share.length, GRAIN):
                _by_halves(found, at, min(GRAIN, share.length - at), target, source)
    share.dense = found.changed == share.length
    share.hot = found.changed > 0
    return found.runs


def extend(runs: list[Run], start: int, end: int) -> None:
    """Add a run that is not before the others."""
    if runs and runs[-1][1] == start:
        runs[-1] = runs[-1][0], end
    else:
        runs.append((start, end))


class _Found:
    """Runs of a share that begins at `base` of its part."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.runs: list[Run] = []
        self.changed = 0

    def note(self, at: int, length: int) -> None:
        extend(self.runs, self.base + at, self.base + at + length)
        self.changed += length

    def take(self, at: int, length: int, target: int, source: int) -> None:
        """Note a stretch and copy it."""
        self.note(at, length)
        duplicate(target + at, source + at, length)


def _all_differ(target: int, source: int, length: int) -> bool:
    """Whether a few pages spread over the bytes have all changed: then most likely all have."""
    if length <= ALIGN:
        return not equal(target, source, length)
    last = (length - 1) // ALIGN * ALIGN
    places = (0, last // 3 // ALIGN * ALIGN, 2 * last // 3 // ALIGN * ALIGN, last)
    return not any(equal(target + at, source + at, min(ALIGN, length - at)) for at in places)


def _by_halves(found: _Found, at: int, length: int, target: int, source: int) -> None:
    if equal(target + at, source + at, length):
        return
    if length <= ALIGN or _all_differ(target + at, source + at, length):
        found.take(at, length, target, source)
        return
    half = (length // 2 + ALIGN - 1) // ALIGN * ALIGN
    _by_halves(found, at, half, target, source)
    _by_halves(found, at + half, length - half, target, source)


def _by_words(numpy: Any, share: Share, found: _Found, target: int, source: int) -> None:
    whole = share.length // ALIGN * ALIGN
    ours, theirs = _pages(numpy, target, whole), _pages(numpy, source, whole)
    differ = getattr(_local, "differ", None)
    if differ is None:
        differ = _local.differ = numpy.empty((_STRETCH // ALIGN, ALIGN // _WORD), bool)
    for at in range(0, whole, _STRETCH):
        size = min(_STRETCH, whole - at)
        if not share.hot and equal(target + at, source + at, size):
            continue
        if _all_differ(target + at, source + at, size):
            found.take(at, size, target, source)
            continue
        first, count = at // ALIGN, size // ALIGN
        words = differ[:count]
        numpy.not_equal(ours[first : first + count], theirs[first : first + count], out=words)
        eights = words.view(numpy.uint64)
        pages = numpy.flatnonzero(numpy.bitwise_or.reduce(eights, axis=1))
        if not len(pages):
            continue
        ours[first : first + count][pages] = theirs[first : first + count][pages]
        cuts = numpy.flatnonzero(numpy.diff(pages) > 1)
        starts = numpy.concatenate((pages[:1], pages[cuts + 1])).tolist()
        ends = numpy.concatenate((pages[cuts], pages[-1:])).tolist()
        for start, end in zip(starts, ends, strict=True):
            found.note(at + start * ALIGN, (end + 1 - start) * ALIGN)
    if whole < share.length:
        _by_halves(found, whole, share.length - whole, target, source)


def _pages(numpy: Any, address: int, length: int) -> Any:
    words = (ctypes.c_uint64 * (length // _WORD)).from_address(address)
    return numpy.ctypeslib.as_array(words).reshape(-1, ALIGN // _WORD)

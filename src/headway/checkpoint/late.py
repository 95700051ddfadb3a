"""Copying a state while the body goes on: parts that change only at announced moments are copied late.

An optimizer changes parameters, and what it remembers of them, in its step; forward and backward only
read them. So their copy may be made beside the next pass, if the next step waits for it (`ports.Steady`).

Whoever changes such memory at another moment would get a mixture into the checkpoint. Two things are
looked at before a copy counts: the marks of the owner (PyTorch counts the changes of each tensor), and a
word of every 64 KiB, read when the save begins and again in the copy. If they differ, nothing is saved.
Neither sees a change of a few numbers that goes round the counters (through `.data`, or NumPy): which is
why a user has to ask for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from headway.checkpoint.memory import address
from headway.checkpoint.staging import Captured
from headway.checkpoint.state import Flattened
from headway.model.errors import CheckpointError
from headway.ports import Steady

_SMALL = 64 << 10  # bytes of a part that is not worth it
_STRIDE = 64 << 10  # bytes from one sample to the next
_WORD = 8


class StateMoved(CheckpointError):
    """What is steady changed while it was copied."""


class Late:
    """The parts of a state that are copied late, as they are now.

    Args:
        flat: the state.
        owners: who announces changes.

    Attributes:
        parts: numbers of those that belong to the owners.
    """

    def __init__(self, flat: Flattened, owners: Sequence[Steady]) -> None:
        parts = flat.parts
        spans = sorted(span for owner in owners for span in owner.memory())
        self.parts = frozenset(
            number
            for number, part in enumerate(parts)
            if len(part.data) >= _SMALL and _within(spans, part.data)
        )
        self._flat: Flattened | None = flat  # its memory has to stay until it is copied
        self._owners = owners
        self._marks = [owner.marks() for owner in owners]
        self._samples = {number: _sample(parts[number].data) for number in self.parts}

    def check(self, captured: Captured) -> None:
        """Of the whole copy: nothing changed since this was made.

        Raises:
            StateMoved: something did.
        """
        self._flat = None
        if [owner.marks() for owner in self._owners] != self._marks:
            raise _moved("what an optimizer owns")
        layout = captured.layout
        for number, sample in self._samples.items():
            start = layout.starts[number]
            copied = captured.memory[start : start + layout.sizes[number]]
            if _sample(copied) != sample:
                raise _moved(layout.names[number])


def _moved(what: str) -> StateMoved:
    return StateMoved(
        f"{what} changed before the optimizer's next step, while it was copied: this state is not saved. "
        "If the body does that again and again (weights that are exchanged for a validation, say), leave "
        "overlap=True out"
    )


def _sample(data: memoryview) -> bytes:
    whole = len(data) // _WORD * _WORD
    return data[:whole].cast("Q")[:: _STRIDE // _WORD].tobytes()


def _within(spans: Sequence[tuple[int, int]], data: memoryview) -> bool:
    """Whether memory lies in one of sorted spans that do not overlap, or are the same."""
    start = address(data)
    at = bisect_right(spans, (start, 1 << 64)) - 1
    return at >= 0 and start + len(data) <= spans[at][1]

"""Giving live state the values of a saved one: what is compared, what is read where it is, and what is
set at the end.

Everything is compared before anything is changed. Arrays and tensors whose memory is laid out as it was
saved are read straight into it; those that are on another device get their bytes in pieces; and what is
laid out in another way goes through a temporary of its own size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from headway.checkpoint import arrays, tensors
from headway.checkpoint.fill import Target
from headway.checkpoint.memory import address
from headway.checkpoint.rebuild import Stored, finished, memory_of, stored_in, with_keys
from headway.checkpoint.state import below, shown
from headway.model.errors import InputError

_TEMPORARY = 16 << 20  # bytes of temporaries at once; a single larger one is alone

Fill = Callable[[list[Target]], None]
"""Reads parts to where they go."""


class Move:
    """What makes live state equal to a planned tree (`rebuild.plan`).

    Args:
        live: the state.
        planned: the tree.
        fill: reads parts.

    Raises:
        InputError: structures, shapes or dtypes differ, or something in a tuple would have to change; the
            message says where. Nothing was changed.
    """

    def __init__(self, live: Any, planned: Any, fill: Fill) -> None:
        self._fill = fill
        self._straight: list[Target] = []
        self._places: set[tuple[int, int]] = set()
        self._fresh: list[Stored] = []
        self._by_copy: list[tuple[Stored, Callable[[Any], None]]] = []
        self._last: list[Callable[[], None]] = []
        self._equal: list[tuple[str, Any, Any]] = []
        with_keys(planned, lambda leaves: self._fill(_targets(leaves)))
        self._match(live, planned, "")
        self._compare()

    def run(self) -> None:
        """Do it. When `fill` raises, live state is a mixture of what it was and what was saved."""
        self._fill(self._straight + _targets(self._fresh))
        self._copy()
        for act in self._last:
            act()

    def _compare(self) -> None:
        """What is in tuples has to be equal already; some of that has to be read to be known."""
        self._fill(_targets([leaf for _, _, new in self._equal for leaf in stored_in(new)]))
        for path, old, new in self._equal:
            value = finished(new)
            if old != value:
                raise InputError(f"{shown(path)} is in a tuple, and cannot become {value!r}")

    def _copy(self) -> None:
        """Fill temporaries, a few at a time, and copy from them."""
        rest = iter(self._by_copy)
        for first in rest:
            batch, size = [first], first[0].size
            while size < _TEMPORARY and (more := next(rest, None)) is not None:
                batch.append(more)
                size += more[0].size
            self._fill(_targets([leaf for leaf, _ in batch]))
            for leaf, copy in batch:
                copy(leaf.value())

    def _match(self, live: Any, new: Any, path: str) -> None:
        """Note what makes `live`, a container, equal to `new`."""
        slots: list[Any]
        if isinstance(live, dict) and isinstance(new, dict):
            if live.keys() != new.keys():
                only = ", ".join(sorted(map(repr, live.keys() ^ new.keys())))
                raise InputError(f"{shown(path)} has other keys than the checkpoint: {only}")
            slots = list(new)
        elif isinstance(live, list | tuple) and type(live) is type(new):
            if len(live) != len(new):
                raise InputError(
                    f"{shown(path)} has {len(live)} items, and {len(new)} in the checkpoint"
                )
            slots = list(range(len(new)))
        else:
            raise InputError(
                f"{shown(path)} is a {type(live).__name__}, and a {_kind(new)} in the checkpoint"
            )
        for slot in slots:
            self._match_one(live, slot, new[slot], below(path, slot))

    def _match_one(self, live: Any, slot: Any, new: Any, path: str) -> None:
        old = live[slot]
        if tensors.is_tensor(old) or arrays.is_live(old):
            kind = "tensor" if tensors.is_tensor(old) else "array"
            same = isinstance(new, Stored) and new.kind == kind
            if not same or tuple(old.shape) != new.shape or old.dtype != new.dtype:
                raise InputError(
                    f"{shown(path)} is {_form(old)}, and {_form(new)} in the checkpoint"
                )
            (self._tensor if kind == "tensor" else self._array)(old, new)
        elif isinstance(old, bytearray) and isinstance(new, Stored) and new.kind == "buffer":
            if len(old) == new.size:
                self._into(new, memoryview(old))
            else:
                self._by_copy.append((new, lambda value: old.__setitem__(slice(None), value)))
        elif isinstance(old, dict | list | tuple) and isinstance(new, dict | list | tuple):
            self._match(old, new, path)
        elif isinstance(live, tuple):
            if isinstance(new, Stored) and new.kind in {"array", "tensor"}:
                raise InputError(f"{shown(path)} is in a tuple, and cannot become {_form(new)}")
            self._equal.append((path, old, new))
        else:
            self._fresh += stored_in(new)
            self._last.append(lambda: live.__setitem__(slot, finished(new)))

    def _tensor(self, old: Any, new: Stored) -> None:
        flat = tensors.whole(old, new.header, new.size)
        if flat is None:
            self._by_copy.append((new, lambda value: tensors.copy_into(old, value)))
        elif flat.device.type == "cpu":
            self._into(new, tensors.memory(flat))
        elif new.size and (new.part, flat.data_ptr()) not in self._places:
            self._places.add((new.part, flat.data_ptr()))
            self._straight.append(
                Target(new.part, put=lambda start, data: tensors.put(flat, start, data))
            )

    def _array(self, old: Any, new: Stored) -> None:
        order = new.header.get("order", "C")
        if old.flags.c_contiguous if order == "C" else old.flags.f_contiguous:
            self._into(new, arrays.memory(old))
        else:
            self._by_copy.append((new, lambda value: old.__setitem__(..., value)))

    def _into(self, new: Stored, memory: memoryview) -> None:
        place = new.part, address(memory)
        if memory.nbytes and place not in self._places:
            self._places.add(place)
            self._straight.append(Target(new.part, memory))


def _targets(leaves: list[Stored]) -> list[Target]:
    return list(itertools.starmap(Target, memory_of(iter(leaves))))


def _kind(value: Any) -> str:
    return value.kind if isinstance(value, Stored) else type(value).__name__


def _form(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return _kind(value) if dtype is None else f"{dtype} of shape {tuple(value.shape)}"

"""Putting a state together again from its skeleton and its parts; the counterpart of `state`.

First comes the tree, with a `Stored` in the place of everything whose bytes are in a part. So what there
is can be compared with live state, and memory can be made or found for all of it, before any of it is
read; and all of it can be read at once.
"""

from __future__ import annotations

import collections
import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from headway.checkpoint import arrays, tensors
from headway.checkpoint.memory import huge
from headway.checkpoint.pickled import Pickles
from headway.ledger import available
from headway.model.errors import CheckpointCorrupt, CheckpointError, HeadwayError

Fill = Callable[[Sequence[tuple[int, memoryview]]], None]
"""Writes the bytes of parts into the memory that it is given with each."""

_BUFFERS = {"bytes", "buffer", "pickle"}
_HEX = re.compile(r"-?0x[0-9a-f]+")
_SWELLS = 100  # bytes of memory that one of a skeleton can become: an empty dict is one byte there


class Stored:
    """An array, a scalar, a tensor or a buffer that has yet to be read.

    Attributes:
        header: what the skeleton says of it; `header["$"]` is its kind.
        part: the part that holds its bytes.
        size: how many.
    """

    def __init__(
        self,
        header: dict[str, Any],
        size: int,
        shared: dict[int, Any],
        pickles: Pickles | None = None,
    ) -> None:
        self._pickles = pickles
        self.header = header
        self.part: int = header["part"]
        self.size = size
        self._shared = shared  # by part: the storages that several tensors look into
        self._held: Any = None
        self.dtype, self.shape = self._form()

    @property
    def kind(self) -> str:
        """bytes, buffer, pickle, array, scalar or tensor."""
        return str(self.header["$"])

    def _form(self) -> tuple[Any, tuple[int, ...]]:
        if self.kind in _BUFFERS:
            return None, ()
        if self.kind == "tensor":
            return tensors.form(self.header, self.size)
        return arrays.form(self.header, self.size)

    def memory(self) -> memoryview | None:
        """Memory of its own, to be filled with the part; None when another one's is the same, or when
        there is nothing to fill."""
        if self.kind in _BUFFERS:
            self._held = bytearray(self.size)
            found = memoryview(self._held)
        elif self.kind == "tensor":
            if "stride" in self.header:
                self._held = self._shared.get(self.part)
                if self._held is not None:
                    return None
            self._held = tensors.empty(self.header, self.size)
            if "stride" in self.header:
                self._shared[self.part] = self._held
            found = tensors.memory(self._held)
        else:
            self._held = arrays.empty(self.header, self.size)
            found = arrays.memory(self._held)
        return huge(found) if self.size else None

    def value(self) -> Any:
        """What it is, once that memory is filled."""
        held, self._held = self._held, None
        match self.kind:
            case "bytes":
                return bytes(held)
            case "pickle":
                assert self._pickles is not None
                return self._pickles.load(memoryview(held))
            case "tensor":
                return tensors.view(self.header, held)
            case "scalar":
                return held[()]
            case _:
                return held


def plan(skeleton: bytes, sizes: Sequence[int], pickles: Pickles | None = None) -> Any:
    """The state, with `Stored` leaves.

    Args:
        skeleton: from `state.Flattened`.
        sizes: bytes of each part.
        pickles: loads those that are in it; without it there must be none.

    Raises:
        CheckpointCorrupt: skeleton and parts do not belong together.
        CheckpointError: there is no memory for it.
        UntrustedState: there are pickles in it, which others can have put there.
    """
    available.require(len(skeleton) * _SWELLS, "the state of a checkpoint")
    with _readable():
        return _Planning(sizes, pickles).value(msgspec.msgpack.decode(skeleton))


def rebuild(
    skeleton: bytes, sizes: Sequence[int], fill: Fill, pickles: Pickles | None = None
) -> Any:
    """The state; arguments and errors as for `plan`, and those of `fill`."""
    available.require(sum(sizes), "the state of a checkpoint")
    tree = plan(skeleton, sizes, pickles)
    with _readable():
        parts = memory_of(stored_in(tree))
    fill(parts)
    with _readable():
        return finished(tree)


def memory_of(leaves: Iterator[Stored]) -> list[tuple[int, memoryview]]:
    """Make memory for leaves; (part, memory) of all that has to be filled."""
    return [
        (leaf.part, memory) for leaf in leaves for memory in [leaf.memory()] if memory is not None
    ]


def stored_in(tree: Any) -> Iterator[Stored]:
    """All leaves of a planned tree that have yet to be read, keys of dicts included."""
    if isinstance(tree, Stored):
        yield tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from stored_in(key)
            yield from stored_in(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from stored_in(value)


def finished(tree: Any) -> Any:
    """A planned tree whose leaves were all filled, as the state that it stands for."""
    if isinstance(tree, Stored):
        return tree.value()
    if isinstance(tree, list):
        tree[:] = [finished(value) for value in tree]
    elif isinstance(tree, tuple):
        return tuple(finished(value) for value in tree)
    elif isinstance(tree, dict):
        items = [(finished(key), finished(value)) for key, value in tree.items()]
        tree.clear()
        tree.update(items)
    return tree


def with_keys(tree: Any, fill: Callable[[list[Stored]], None]) -> None:
    """Put keys of dicts that have to be read, such as NumPy scalars, into a planned tree."""
    found = list(_dicts_with_stored_keys(tree))
    if found:
        fill([leaf for keyed in found for key in keyed for leaf in stored_in(key)])
    for keyed in found:
        items = [(finished(key), value) for key, value in keyed.items()]
        keyed.clear()
        with _readable():
            keyed.update(items)


def _dicts_with_stored_keys(tree: Any) -> Iterator[dict[Any, Any]]:
    if isinstance(tree, dict):
        if any(True for key in tree for _ in stored_in(key)):
            yield tree
        for value in tree.values():
            yield from _dicts_with_stored_keys(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _dicts_with_stored_keys(value)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """What goes wrong here has one cause: no save has made this record."""
    try:
        yield
    except HeadwayError:
        raise
    except MemoryError as error:
        raise CheckpointError("there is no memory for the state of a checkpoint") from error
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        OverflowError,
    ) as error:
        raise CheckpointCorrupt(f"the record of a state cannot be read: {error!r}") from error


class _Planning:
    def __init__(self, sizes: Sequence[int], pickles: Pickles | None) -> None:
        self._sizes = sizes
        self._pickles = pickles
        self._shared: dict[int, Any] = {}
        self._named: dict[int, bool] = {}

    def value(self, plain: Any) -> Any:
        if isinstance(plain, list):
            return [self.value(item) for item in plain]
        if not isinstance(plain, dict):
            return plain
        tag = plain.get("$")
        if tag is None:
            return {key: self.value(value) for key, value in plain.items()}
        match tag:
            case "int":
                if _HEX.fullmatch(plain["hex"]) is None:
                    raise CheckpointCorrupt("a state holds a number that is none")
                return int(plain["hex"], 16)
            case "tuple":
                return tuple(self.value(item) for item in plain["items"])
            case "dict" | "ordered":
                items = [(self.value(key), self.value(value)) for key, value in plain["items"]]
                return dict(items) if tag == "dict" else _ordered(items, self.value(plain["notes"]))
            case "bytes" | "buffer" | "tensor" | "array" | "scalar":
                shared = tag == "tensor" and "stride" in plain
                return Stored(plain, self._size(plain["part"], shared=shared), self._shared)
            case "pickle" if self._pickles is not None:
                self._pickles.allow("the state has values in it that were saved with pickle=True")
                size = self._size(plain["part"], shared=False)
                return Stored(plain, size, self._shared, self._pickles)
            case _:
                raise CheckpointCorrupt(
                    f"a state holds a {tag!r}, which this headway does not know"
                )

    def _size(self, part: Any, *, shared: bool) -> int:
        if type(part) is not int or not 0 <= part < len(self._sizes):
            raise CheckpointCorrupt("a state names a part that its checkpoint does not have")
        # Several tensors look into one storage. Else a few bytes of a record could ask for any memory.
        if part in self._named and not (shared and self._named[part]):
            raise CheckpointCorrupt("a state names a part twice")
        self._named[part] = shared
        return self._sizes[part]


def _ordered(items: list[tuple[Any, Any]], notes: Any) -> Any:
    made = collections.OrderedDict(items)
    if notes is not None:
        vars(made)["_metadata"] = notes
    return made

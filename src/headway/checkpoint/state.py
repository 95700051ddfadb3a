"""Typed state as data: a tree of plain values, and its arrays and tensors as raw bytes beside it.

`flatten` takes a mapping apart into a *skeleton* (msgpack) and *parts* (contiguous bytes with a path).
`rebuild` puts it together again. There is no fallback codec: what is none of the kinds below is refused
by its path, so that nothing which is loaded can run code; unless who saves asks for pickles of it.

    None, bool, int of any size, float, str, bytes, list, tuple; dict and OrderedDict with keys of
    these kinds; NumPy arrays and scalars; PyTorch tensors and parameters of any dtype, those that share
    memory included; bytearray, memoryview and array.array come back as bytearray.

In the skeleton a map with the key "$" stands for what msgpack does not have, `{"$": kind, …}`; a dict of
the user's with that key, or with keys other than strings, is written as one of these.
"""

from __future__ import annotations

import array
import collections
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from headway.checkpoint import arrays, tensors
from headway.checkpoint.pickled import Pickles
from headway.model.errors import InputError

_ATOMS = {type(None), bool, float, str}
_DICTS = {dict, collections.OrderedDict}
_BUFFERS = {bytearray, memoryview, array.array}
_INT64 = range(-(1 << 63), 1 << 64)
_INLINE = 64  # bytes that stay in the skeleton
_DEEPEST = 200  # containers in containers; Python's own limit would come as a RecursionError


@dataclass(frozen=True, slots=True)
class Part:
    """Raw bytes of an array, a tensor's storage or a buffer; `name` is its path in the state, `width` the
    bytes of one number."""

    name: str
    data: memoryview
    width: int = 1


class Flattened:
    """A state taken apart. The parts are views of its live memory: do not change it while they are read.

    Args:
        state: the mapping.
        pickles: makes pickles of what is not data; without it that is refused.

    Raises:
        InputError: something in the state is not data; the message says where.
    """

    def __init__(self, state: Mapping[str, Any], pickles: Pickles | None = None) -> None:
        self._pickles = pickles
        self.parts: list[Part] = []
        self._alive: list[Any] = []  # what the parts' memory belongs to
        self._sharing = collections.Counter(
            tensors.storage_key(tensor) for tensor in _tensors(state) if tensor.numel()
        )
        self._storages: dict[tuple[str, int], int] = {}
        self.skeleton = msgspec.msgpack.encode(self._value(dict(state), "", 0))

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(len(part.data) for part in self.parts)

    def _part(self, path: str, data: memoryview, owner: Any, width: int = 1) -> int:
        self.parts.append(Part(path, data, width))
        self._alive.append(owner)
        return len(self.parts) - 1

    def _value(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is int:
            return value if value in _INT64 else {"$": "int", "hex": hex(value)}
        if kind is bytes and len(value) <= _INLINE:
            return value
        if kind is bytes or kind in _BUFFERS:
            view = memoryview(value)
            if not view.c_contiguous:
                view = memoryview(view.tobytes())
            tag = "bytes" if kind is bytes else "buffer"
            return {"$": tag, "part": self._part(path, view.cast("B"), value)}
        if kind in _DICTS or kind in {list, tuple}:
            if depth > _DEEPEST:
                raise InputError(
                    f"{shown(path)} is nested more than {_DEEPEST} deep, or holds itself"
                )
            return self._container(value, path, depth + 1)
        if tensors.is_tensor(value):
            return self._tensor(value, path)
        found = arrays.encode(value)
        if found is not None:
            return {**found[0], "part": self._part(path, found[1], value, _width(value))}
        if self._pickles is not None:
            return self._pickle(self._pickles, value, path)
        raise InputError(_refusal(value, path))

    def _pickle(self, pickles: Pickles, value: Any, path: str) -> Any:
        data = pickles.dump(value, shown(path))
        return {"$": "pickle", "part": self._part(path, memoryview(data), data)}

    def _container(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, list | tuple):
            items = [self._value(item, f"{path}[{i}]", depth) for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"$": "tuple", "items": items}
        names = all(type(key) is str for key in value)
        plain = {key: self._value(v, below(path, key), depth) for key, v in value.items()}
        ordered = type(value) is collections.OrderedDict
        if names and not ordered and "$" not in plain:
            return plain
        items = [[self._value(k, f"{path} (a key)", depth), v] for k, v in plain.items()]
        if not ordered:
            return {"$": "dict", "items": items}
        # PyTorch keeps the versions of a module's buffers in an attribute of its state_dict.
        notes = getattr(value, "_metadata", None)
        return {
            "$": "ordered",
            "items": items,
            "notes": self._value(notes, f"{path}._metadata", depth),
        }

    def _tensor(self, tensor: Any, path: str) -> Any:
        why = tensors.refusal(tensor)
        if why is not None:
            if self._pickles is not None:
                return self._pickle(self._pickles, tensor, path)
            raise InputError(f"{shown(path)} {why}")
        key = tensors.storage_key(tensor)
        shared = self._sharing[key] > 1
        if shared and key in self._storages:
            header, _ = tensors.plain(tensor, shared=True)
            return {**header, "part": self._storages[key]}
        header, raw = tensors.plain(tensor, shared=shared)
        part = self._part(path, tensors.memory(raw), raw, tensor.element_size())
        if shared:
            self._storages[key] = part
        return {**header, "part": part}


def _width(array: Any) -> int:
    """Bytes of one number of an array; 1 for records and other dtypes that are not numbers."""
    return int(array.dtype.itemsize) if array.dtype.kind in "iuf" else 1


def _tensors(value: Any, depth: int = 0) -> Iterator[Any]:
    if tensors.is_tensor(value):
        if tensors.refusal(value) is None:
            yield value
    elif isinstance(value, Mapping) and depth <= _DEEPEST:
        for inner in value.values():
            yield from _tensors(inner, depth + 1)
    elif type(value) in {list, tuple} and depth <= _DEEPEST:
        for inner in value:
            yield from _tensors(inner, depth + 1)


def below(path: str, key: Any) -> str:
    if type(key) is not str:
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def shown(path: str) -> str:
    return path or "the state"


def _refusal(value: Any, path: str) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if callable(getattr(value, "state_dict", None)):
        cure = "save its state_dict()"
    elif hasattr(value, "_asdict"):
        cure = "save its _asdict()"
    elif isinstance(value, set | frozenset):
        cure = "save it as a sorted list"
    else:
        cure = "save the numbers, strings and arrays that it is made of"
    return (
        f"{shown(path)} is a {kind}, which is not data that can be saved without pickle: {cure}, or allow "
        "pickles with save(state, pickle=True)"
    )

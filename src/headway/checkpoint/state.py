"""Typed state as data: a tree of plain values, and its arrays and tensors as raw bytes beside it.

`flatten` takes a mapping apart into a *skeleton* (msgpack) and *parts* (contiguous bytes with a path).
`rebuild` puts it together again. There is no fallback codec: what is none of the kinds below is refused
by its path, so that nothing which is loaded can run code.

    None, bool, int of any size, float, str, bytes, list, tuple; dict and OrderedDict with keys of
    these kinds; NumPy arrays and scalars; PyTorch tensors and parameters of any dtype, those that share
    memory included; bytearray, memoryview and array.array come back as bytearray.

In the skeleton a map with the key "$" stands for what msgpack does not have, `{"$": kind, …}`; a dict of
the user's with that key, or with keys other than strings, is written as one of these.
"""

from __future__ import annotations

import array
import collections
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from headway.checkpoint import arrays, tensors
from headway.ledger import available
from headway.model.errors import CheckpointCorrupt, CheckpointError, HeadwayError, InputError

_ATOMS = {type(None), bool, float, str}
_DICTS = {dict, collections.OrderedDict}
_BUFFERS = {bytearray, memoryview, array.array}
_INT64 = range(-(1 << 63), 1 << 64)
_INLINE = 64  # bytes that stay in the skeleton
_HEX = re.compile(r"-?0x[0-9a-f]+")
_SWELLS = (
    100  # bytes of memory that a byte of a skeleton can become: an empty dict is one byte there
)
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)
_DEEPEST = 200  # containers in containers; Python's own limit would come as a RecursionError


@dataclass(frozen=True, slots=True)
class Part:
    """Raw bytes of an array, a tensor's storage or a buffer; `name` is its path in the state."""

    name: str
    data: memoryview


class Flattened:
    """A state taken apart. The parts are views of its live memory: do not change it while they are read.

    Raises:
        InputError: something in the state is not data; the message says where.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
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

    def _part(self, path: str, data: memoryview, owner: Any) -> int:
        self.parts.append(Part(path, data))
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
                    f"{_shown(path)} is nested more than {_DEEPEST} deep, or holds itself"
                )
            return self._container(value, path, depth + 1)
        if tensors.is_tensor(value):
            return self._tensor(value, path)
        found = arrays.encode(value)
        if found is not None:
            return {**found[0], "part": self._part(path, found[1], value)}
        raise InputError(_refusal(value, path))

    def _container(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, list | tuple):
            items = [self._value(item, f"{path}[{i}]", depth) for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"$": "tuple", "items": items}
        names = all(type(key) is str for key in value)
        plain = {key: self._value(v, _below(path, key), depth) for key, v in value.items()}
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
            raise InputError(f"{_shown(path)} {why}")
        key = tensors.storage_key(tensor)
        shared = self._sharing[key] > 1
        if shared and key in self._storages:
            header, _ = tensors.plain(tensor, shared=True)
            return {**header, "part": self._storages[key]}
        header, raw = tensors.plain(tensor, shared=shared)
        part = self._part(path, tensors.memory(raw), raw)
        if shared:
            self._storages[key] = part
        return {**header, "part": part}


Fill = Callable[[int, memoryview], None]
"""Writes the bytes of a part into the memory that it is given."""


def rebuild(skeleton: bytes, sizes: list[int], fill: Fill) -> Any:
    """The state.

    Args:
        skeleton: from `Flattened`.
        sizes: bytes of each part.
        fill: reads a part.

    Raises:
        CheckpointCorrupt: skeleton and parts do not belong together.
    """
    return _Rebuilding(sizes, fill).state(skeleton)


class _Rebuilding:
    def __init__(self, sizes: list[int], fill: Fill) -> None:
        self._sizes = sizes
        self._fill = fill
        self._storages: dict[int, Any] = {}
        self._given: set[int] = set()

    def state(self, skeleton: bytes) -> Any:
        available.require(sum(self._sizes) + len(skeleton) * _SWELLS, "the state of a checkpoint")
        try:
            return self._value(msgspec.msgpack.decode(skeleton))
        except MemoryError as error:
            raise CheckpointError("there is no memory for the state of a checkpoint") from error
        except HeadwayError:
            raise
        except _UNREADABLE as error:
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise CheckpointCorrupt(f"the record of a state cannot be read: {why}") from error

    def _value(self, plain: Any) -> Any:
        if isinstance(plain, list):
            return [self._value(item) for item in plain]
        if not isinstance(plain, dict):
            return plain
        tag = plain.get("$")
        if tag is None:
            return {key: self._value(value) for key, value in plain.items()}
        match tag:
            case "int":
                if _HEX.fullmatch(plain["hex"]) is None:
                    raise CheckpointCorrupt("a state holds a number that is none")
                return int(plain["hex"], 16)
            case "tuple":
                return tuple(self._value(item) for item in plain["items"])
            case "dict" | "ordered":
                items = [(self._value(key), self._value(value)) for key, value in plain["items"]]
                return (
                    dict(items) if tag == "dict" else _ordered(items, self._value(plain["notes"]))
                )
            case "bytes" | "buffer":
                return self._buffer(plain["part"], bytes if tag == "bytes" else bytearray)
            case "tensor":
                return self._tensor(plain)
            case "array" | "scalar":
                part = plain["part"]
                return arrays.decode(plain, self._size(part), lambda view: self._fill(part, view))
            case _:
                raise CheckpointCorrupt(
                    f"a state holds a {tag!r}, which this headway does not know"
                )

    def _size(self, part: Any) -> int:
        if type(part) is not int or not 0 <= part < len(self._sizes):
            raise CheckpointCorrupt("a state names a part that its checkpoint does not have")
        if part in self._given:  # or a few bytes of a record could ask for any amount of memory
            raise CheckpointCorrupt("a state names a part twice")
        self._given.add(part)
        return self._sizes[part]

    def _buffer(self, part: int, kind: type[bytes | bytearray]) -> bytes | bytearray:
        data = bytearray(self._size(part))
        if data:
            self._fill(part, memoryview(data))
        return data if kind is bytearray else bytes(data)

    def _tensor(self, header: dict[str, Any]) -> Any:
        part = header["part"]
        filled = self._storages.get(part)
        if filled is None:
            filled = tensors.empty(header, self._size(part))
            memory = tensors.memory(filled)
            if memory:
                self._fill(part, memory)
            if "stride" in header:
                self._storages[part] = filled
        return tensors.view(header, filled)


def put_into(live: Any, loaded: Any) -> None:
    """Give live state the values of loaded state, arrays and tensors in place.

    Everything is compared first: when something does not fit, nothing was changed.

    Raises:
        InputError: structures, shapes or dtypes differ; the message says where.
    """
    moves: list[Callable[[], None]] = []
    _match(live, loaded, "", moves)
    for move in moves:
        move()


def _match(live: Any, loaded: Any, path: str, moves: list[Callable[[], None]]) -> None:
    """Note in `moves` what makes `live`, a container, equal to `loaded`."""
    if isinstance(live, dict) and isinstance(loaded, dict):
        if live.keys() != loaded.keys():
            only = ", ".join(sorted(map(repr, live.keys() ^ loaded.keys())))
            raise InputError(f"{_shown(path)} has other keys than the checkpoint: {only}")
        slots: list[Any] = list(loaded)
    elif isinstance(live, list | tuple) and type(live) is type(loaded):
        if len(live) != len(loaded):
            raise InputError(
                f"{_shown(path)} has {len(live)} items, and {len(loaded)} in the checkpoint"
            )
        slots = list(range(len(loaded)))
    else:
        raise InputError(
            f"{_shown(path)} is a {type(live).__name__}, and a {type(loaded).__name__} in the checkpoint"
        )
    for slot in slots:
        _match_one(live, loaded, slot, _below(path, slot), moves)


def _match_one(
    live: Any, loaded: Any, slot: Any, path: str, moves: list[Callable[[], None]]
) -> None:
    old, new = live[slot], loaded[slot]
    if tensors.is_tensor(old) or _is_array(old):
        same = type(new) is type(old) or (tensors.is_tensor(old) and tensors.is_tensor(new))
        if not same or tuple(old.shape) != tuple(new.shape) or old.dtype != new.dtype:
            raise InputError(f"{_shown(path)} is {_form(old)}, and {_form(new)} in the checkpoint")
        if tensors.is_tensor(old):
            moves.append(lambda: tensors.copy_into(old, new))
        else:
            moves.append(lambda: old.__setitem__(..., new))
    elif isinstance(old, bytearray) and isinstance(new, bytearray):
        moves.append(lambda: old.__setitem__(slice(None), new))
    elif isinstance(old, dict | list | tuple) and isinstance(new, dict | list | tuple):
        _match(old, new, path, moves)
    elif isinstance(live, tuple):
        if old != new:
            raise InputError(f"{_shown(path)} is in a tuple, and cannot become {new!r}")
    else:
        moves.append(lambda: live.__setitem__(slot, new))


def _is_array(value: Any) -> bool:
    return (
        type(value).__module__ == "numpy"
        and hasattr(value, "__array_interface__")
        and (hasattr(value, "flags") and value.flags.writeable)
    )


def _form(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{dtype} of shape {tuple(shape or ())}"


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


def _ordered(items: list[tuple[Any, Any]], notes: Any) -> Any:
    made = collections.OrderedDict(items)
    if notes is not None:
        vars(made)["_metadata"] = notes
    return made


def _below(path: str, key: Any) -> str:
    if type(key) is not str:
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def _shown(path: str) -> str:
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
    return f"{_shown(path)} is a {kind}, which is not data that can be saved without pickle: {cure}"

"""Plain trees back to Python values: the annotation says which class is made, the data never does."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from headway.checkpoint import arrays
from headway.engine import contents, moments, pickles
from headway.engine.blobs import Blob, Blobs
from headway.engine.contents import Scratch
from headway.engine.encode import TAG
from headway.engine.files import Directory, File, Stored
from headway.engine.shapes import Kind, Shape, fields_of, shape_of
from headway.engine.types import check, describe, literal_index, typed_dict_item
from headway.ledger import available
from headway.ledger.signing import trusts
from headway.model.errors import CheckpointCorrupt, InputError

_MOMENTS = {"datetime", "date", "time", "timedelta"}
_COLLECTIONS: dict[Kind, tuple[str, Callable[[list[Any]], Any]]] = {
    Kind.SERIES: ("tuple", tuple),
    Kind.SET: ("set", set),
    Kind.FROZENSET: ("frozenset", frozenset),
}
_BY_TAG: dict[str, Any] = {
    "dict": dict,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "int": int,
    "str": str,
    "bytes": bytes,
}


class Decoder:
    """Plain trees to values; blobs are read from `blobs`, copies of files are made in `scratch`."""

    def __init__(self, blobs: Blobs, scratch: Scratch) -> None:
        self._blobs = blobs
        self._scratch = scratch

    def decode(self, plain: Any, type_: Any, where: str) -> Any:
        """The value of annotation `type_` that `plain` stands for.

        Raises:
            InputError: it stands for a value of another type (the code has changed).
            UntrustedState, CheckpointCorrupt, StorageError: see `Values.decode`.
        """
        tag = plain.get(TAG) if isinstance(plain, dict) else None
        if tag == "tree":
            tree = msgspec.msgpack.decode(self._content(plain))
            return self.decode(tree, type_, where)
        shape = shape_of(type_)
        if shape.kind is Kind.UNION:
            return self._union(plain, type_, shape, where)
        if tag == "pickle":
            storage = self._blobs.storage
            data = self._content(plain)
            value = pickles.load(data, where, trusted=trusts(storage), url=storage.url)
            check(value, type_, where)
            return value
        match shape.kind:
            case Kind.ANY:
                return self._by_tag(plain, tag, where)
            case Kind.CLASS:
                value = self._by_tag(plain, tag, where)
                check(value, type_, where)
                return value
            case Kind.LIST if isinstance(plain, list):
                return self._items(plain, shape.args[0], where)
            case Kind.SERIES | Kind.SET | Kind.FROZENSET if tag == _COLLECTIONS[shape.kind][0]:
                make = _COLLECTIONS[shape.kind][1]
                return make(self._items(plain["items"], shape.args[0], where))
            case Kind.TUPLE if tag == "tuple" and len(plain["items"]) == len(shape.args):
                return tuple(self._each(plain["items"], shape.args, where))
            case Kind.NAMED if tag == "tuple":
                return self._named(plain, type_, shape, where)
            case Kind.DICT if isinstance(plain, dict):
                return self._dict(plain, type_, shape, where)
            case Kind.TYPED_DICT if isinstance(plain, dict):
                return self._typed_dict(plain, type_, shape, where)
            case Kind.LITERAL:
                return self._literal(plain, type_, shape, where)
            case Kind.ENUM if tag == "enum" and plain["class"] == shape.cls.__qualname__:
                return self._enum(plain, type_, shape, where)
            case Kind.DATACLASS if tag == "dataclass":
                if plain["class"] == shape.cls.__qualname__:
                    return self._dataclass(plain["fields"], type_, shape, where)
            case Kind.NONE | Kind.BOOL | Kind.INT | Kind.FLOAT | Kind.STR | Kind.BYTES:
                value = self._scalar(plain, tag)
                if value is not _NO:
                    check(value, type_, where)
                    return value
        raise _unlike(plain, type_, where)

    def _scalar(self, plain: Any, tag: Any) -> Any:
        if not isinstance(plain, dict):
            return _NO if isinstance(plain, list) else plain
        if tag == "int":
            return int(plain["hex"], 16)
        if tag == "str":
            return self._content(plain).decode("utf-8", "surrogatepass")
        if tag == "bytes":
            return self._content(plain)
        return _NO

    def _by_tag(self, plain: Any, tag: Any, where: str) -> Any:
        """A value whose annotation says nothing: only what needs no class of the user's."""
        if isinstance(plain, list):
            return self._items(plain, Any, where)
        if not isinstance(plain, dict):
            return plain
        if tag is None:
            return self.decode(plain, dict, where)
        if tag in _BY_TAG:
            return self.decode(plain, _BY_TAG[tag], where)
        if tag in _MOMENTS:
            return moments.decode(plain)
        if tag in {"array", "scalar"}:
            return self._array(plain)
        if tag == "path":
            if "content" in plain:
                return self._scratch.copy(plain["content"], self._blobs)
            return Path(self.decode(plain["text"], str, where))
        if tag in {"file", "directory"}:
            fetch = self._scratch.copy
            name = contents.stored_name(plain)
            stored = Stored(self._blobs, plain, name, lambda: fetch(plain, self._blobs))
            return File.from_home(stored) if tag == "file" else Directory.from_home(stored)
        if tag in {"enum", "dataclass"}:
            raise InputError(
                f"{where}: the stored value is the {tag} {plain['class']}, and the code does not say "
                "so any more: annotate it with its class"
            )
        raise CheckpointCorrupt(f"{where}: a stored value has the unknown kind {tag!r}")

    def _content(self, plain: dict[str, Any]) -> bytes:
        if "data" in plain:
            data = plain["data"]
            if not isinstance(data, bytes):  # of a number, bytes() would make that many
                raise CheckpointCorrupt("a stored value has content that is no bytes")
            return data
        blob = _blob(plain)
        available.require(blob.size, "a stored value")
        return self._blobs.get(blob)

    def _array(self, plain: dict[str, Any]) -> Any:
        if "data" not in plain:
            blob = _blob(plain)
            available.require(blob.size, "a stored array")
            return arrays.decode(plain, blob.size, lambda view: self._blobs.fill(blob, view))
        data = plain["data"]

        def fill(view: memoryview) -> None:
            view[:] = data

        return arrays.decode(plain, len(data), fill)

    def _items(self, plains: list[Any], type_: Any, where: str) -> list[Any]:
        return [self.decode(item, type_, f"{where}[{i}]") for i, item in enumerate(plains)]

    def _each(self, plains: list[Any], types: Iterable[Any], where: str) -> list[Any]:
        pairs = enumerate(zip(plains, types, strict=True))
        return [self.decode(item, type_, f"{where}[{i}]") for i, (item, type_) in pairs]

    def _union(self, plain: Any, type_: Any, shape: Shape, where: str) -> Any:
        problem: InputError | None = None
        for member in shape.args:
            try:
                return self.decode(plain, member, where)
            except InputError as error:  # not this member
                problem = error
        raise _unlike(plain, type_, where) from problem

    def _named(self, plain: Any, type_: Any, shape: Shape, where: str) -> Any:
        fields = fields_of(shape.cls)
        label = plain.get("class", shape.cls.__qualname__)  # a workflow's tuple has no class
        if label != shape.cls.__qualname__ or len(plain["items"]) != len(fields):
            raise _unlike(plain, type_, where)
        return shape.cls._make(self._each(plain["items"], fields.values(), where))

    def _dict(self, plain: Any, type_: Any, shape: Shape, where: str) -> Any:
        key_type, value_type = shape.args
        return {
            self.decode(key, key_type, f"{where} key"): self.decode(
                item, value_type, f"{where}[{key!r}]"
            )
            for key, item in _pairs(plain, type_, where)
        }

    def _typed_dict(self, plain: Any, type_: Any, shape: Shape, where: str) -> Any:
        types = fields_of(shape.cls)
        value = {}
        for key, item in _pairs(plain, type_, where):
            name = self.decode(key, str, f"{where} key")
            if name not in types:
                raise InputError(f"{where}[{name!r}]: {describe(type_)} has no such key (any more)")
            value[name] = self.decode(item, typed_dict_item(types[name]), f"{where}[{name!r}]")
        check(value, type_, where)
        return value

    def _literal(self, plain: Any, type_: Any, shape: Shape, where: str) -> Any:
        for allowed in shape.args:
            try:
                value = self.decode(plain, type(allowed), where)
            except InputError:  # not of this one's class
                continue
            index = literal_index(value, shape)
            if index is not None:
                return shape.args[index]
        raise InputError(f"{where}: the stored value is not (any more) one of {describe(type_)}")

    def _enum(self, plain: Any, type_: Any, shape: Shape, where: str) -> Any:
        try:
            if issubclass(shape.cls, enum.Flag):
                return shape.cls(self.decode(plain["value"], int, where))
            return shape.cls[plain["name"]]
        except (KeyError, ValueError) as error:
            what = plain.get("name", plain.get("value"))
            raise InputError(
                f"{where}: {describe(type_)} has no member {what!r} (any more)"
            ) from error

    def _dataclass(self, plains: Any, type_: Any, shape: Shape, where: str) -> Any:
        types = fields_of(shape.cls)
        unknown = plains.keys() - types.keys()
        if unknown:
            raise InputError(
                f"{where}: the stored {describe(type_)} has {', '.join(sorted(unknown))}, which the "
                "class has no more"
            )
        # Not through `__init__`: the fields are restored as they were, `__post_init__` is not run on
        # them a second time.
        value = object.__new__(shape.cls)
        for field in dataclasses.fields(shape.cls):
            if field.name in plains:
                item = self.decode(plains[field.name], types[field.name], f"{where}.{field.name}")
            elif field.default is not dataclasses.MISSING:
                item = field.default
            elif field.default_factory is not dataclasses.MISSING:
                item = field.default_factory()
            else:
                raise InputError(f"{where}.{field.name}: not in the stored {describe(type_)}")
            object.__setattr__(value, field.name, item)
        return value


def _blob(plain: dict[str, Any]) -> Blob:
    digest, size = plain["blob"], plain["size"]
    if type(digest) is not str or type(size) is not int or size < 0:
        raise CheckpointCorrupt("a stored value refers to content that cannot be")
    return Blob(digest, size)


def _pairs(plain: dict[str, Any], type_: Any, where: str) -> Iterable[Any]:
    """Plain keys and items of the plain form of a dict."""
    if TAG not in plain:
        return plain.items()
    if plain[TAG] != "dict":
        raise _unlike(plain, type_, where)
    items: Iterable[Any] = plain["items"]
    return items


def _unlike(plain: Any, type_: Any, where: str) -> InputError:
    if isinstance(plain, dict):
        found = plain.get("class") or plain.get(TAG, "dict")
    else:
        found = "None" if plain is None else type(plain).__name__
    return InputError(f"{where}: expected {describe(type_)}, and the stored value is a {found}")


_NO = object()

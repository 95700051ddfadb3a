"""Python values to plain trees, directed by annotations; `engine.decode` is the way back.

A plain tree is made of None, bool, int (64 bit), float, str (valid Unicode), bytes, list, and dict with
str keys. Anything else is a dict with the key "$", which says what it is; the tags are listed in
`docs/design/values.md`. Large leaves are blobs (`engine.blobs`).

What a value becomes follows from its annotation, and from its class where the annotation is `Any`.
Coming back, the annotation alone says which class is made: data never names code. Only pickle does,
under its trust rule, for instances of classes that are not what the annotation says exactly.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from headway.checkpoint import arrays
from headway.engine import contents, moments, pickles
from headway.engine.blobs import Blobs
from headway.engine.files import Directory, File
from headway.engine.shapes import Kind, Shape, fields_of, shape_of
from headway.engine.types import fits, typed_dict_item
from headway.ledger.signing import trusts

TAG = "$"
_LOWEST, _HIGHEST = -(1 << 63), (1 << 64) - 1  # what msgpack's integers reach
_PACK = msgspec.msgpack.Encoder()


def plain_tuple(items: list[Any]) -> dict[str, Any]:
    """The plain form of a tuple of plain items."""
    return {TAG: "tuple", "items": items}


def plain_dict(items: dict[str, Any]) -> dict[str, Any]:
    """The plain form of a dict with str keys and plain values."""
    if TAG in items or not all(map(_is_unicode, items)):
        return _pairs([[_text(key), value] for key, value in items.items()])
    return items


def pack(plain: Any) -> bytes:
    """The bytes of a plain tree; a dict's order is part of them."""
    return _PACK.encode(plain)


class Encoder:
    """Values to plain trees; large leaves go to `blobs`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def encode(self, value: Any, type_: Any, where: str) -> Any:
        """The plain tree of `value`, which fits `type_` (`types.check` has been asked)."""
        shape = shape_of(type_)
        match shape.kind:
            case Kind.UNION:
                return self.encode(value, _member(value, shape), where)
            case Kind.NONE:
                return None
            case Kind.BOOL:
                return bool(value)
            case Kind.INT:
                return self._int(int(value))
            case Kind.FLOAT:
                return self._int(value) if type(value) is int else float(value)
            case Kind.STR:
                return self._str(str.__str__(value))
            case Kind.BYTES:
                return self._bytes(bytes(value))
            case Kind.LIST:
                return self._items(value, shape.args[0], where)
            case Kind.SERIES:
                return plain_tuple(self._items(value, shape.args[0], where))
            case Kind.TUPLE:
                return plain_tuple(self._each(value, shape.args, where))
            case Kind.SET | Kind.FROZENSET:
                return self._set(value, shape, where)
            case Kind.DICT:
                return self._dict(value, shape, where)
            case Kind.TYPED_DICT:
                return plain_dict(self._typed_dict(value, shape, where))
            case Kind.LITERAL:
                return self.encode(value, type(value), where)
            case Kind.ENUM if type(value) is shape.cls:
                return self._enum(value)
            case Kind.NAMED if type(value) is shape.cls:
                items = self._each(value, fields_of(shape.cls).values(), where)
                return {**plain_tuple(items), "class": shape.cls.__qualname__}
            case Kind.DATACLASS if type(value) is shape.cls and _is_only_fields(value):
                return self._dataclass(value, where)
            case _:
                return self._by_class(value, where)

    def _by_class(self, value: Any, where: str) -> Any:
        """The plain tree of a value whose annotation says nothing about it."""
        known = _KNOWN.get(type(value))
        if known is not None:
            return self.encode(value, known, where)
        if isinstance(value, Path):
            return self._path(value, where)
        if type(value) is File or type(value) is Directory:
            return self._kept(value, where)
        moment = moments.encode(value)
        if moment is not None:
            return moment
        array = arrays.encode(value)
        if array is not None:
            header, raw = array
            return {**header, **self._content(raw)}
        storage = self._blobs.storage
        data = pickles.dump(value, where, trusted=trusts(storage), url=storage.url)
        return {TAG: "pickle", **self._content(data)}

    def _int(self, value: int) -> Any:
        return value if _LOWEST <= value <= _HIGHEST else {TAG: "int", "hex": hex(value)}

    def _str(self, value: str) -> Any:
        if len(value) * 4 <= contents.INLINE:
            return value if _is_unicode(value) else _text(value)
        data = value.encode("utf-8", "surrogatepass")
        if len(data) <= contents.INLINE:
            return value if _is_unicode(value) else _text(value)
        return {TAG: "str", **self._content(data)}

    def _bytes(self, value: bytes) -> Any:
        return value if len(value) <= contents.INLINE else {TAG: "bytes", **self._content(value)}

    def _content(self, data: bytes | memoryview) -> dict[str, Any]:
        if len(data) <= contents.INLINE:
            return {"data": bytes(data)}
        blob = self._blobs.put(data)
        return {"blob": blob.digest, "size": blob.size}

    def _items(self, values: Iterable[Any], type_: Any, where: str) -> list[Any]:
        if shape_of(type_).kind not in _LEAVES:
            return [self.encode(item, type_, f"{where}[{i}]") for i, item in enumerate(values)]
        return [  # long lists of plain numbers and short strings take the quick way
            item if _is_leaf(item) else self.encode(item, type_, f"{where}[{i}]")
            for i, item in enumerate(values)
        ]

    def _each(self, values: Iterable[Any], types: Iterable[Any], where: str) -> list[Any]:
        pairs = enumerate(zip(values, types, strict=True))
        return [self.encode(item, type_, f"{where}[{i}]") for i, (item, type_) in pairs]

    def _set(self, value: Any, shape: Shape, where: str) -> Any:
        # A set's order changes from process to process; its plain form must not.
        items = sorted(self._items(value, shape.args[0], where), key=pack)
        return {TAG: "set" if shape.kind is Kind.SET else "frozenset", "items": items}

    def _dict(self, value: Any, shape: Shape, where: str) -> Any:
        key_type, value_type = shape.args
        if all(type(key) is str for key in value):
            return plain_dict(
                {k: self.encode(item, value_type, f"{where}[{k!r}]") for k, item in value.items()}
            )
        return _pairs(
            [
                [
                    self.encode(key, key_type, f"{where} key"),
                    self.encode(item, value_type, f"{where}[{key!r}]"),
                ]
                for key, item in value.items()
            ]
        )

    def _typed_dict(self, value: Any, shape: Shape, where: str) -> dict[str, Any]:
        types = fields_of(shape.cls)
        return {
            key: self.encode(item, typed_dict_item(types[key]), f"{where}[{key!r}]")
            for key, item in value.items()
        }

    def _enum(self, value: Any) -> Any:
        plain = {TAG: "enum", "class": type(value).__qualname__}
        if isinstance(value, enum.Flag):  # a combination has no name of its own
            return {**plain, "value": self._int(value.value)}
        return {**plain, "name": value.name}

    def _dataclass(self, value: Any, where: str) -> Any:
        fields = {
            name: self.encode(getattr(value, name), type_, f"{where}.{name}")
            for name, type_ in fields_of(type(value)).items()
        }
        return {TAG: "dataclass", "class": type(value).__qualname__, "fields": fields}

    def _path(self, value: Path, where: str) -> Any:
        if contents.is_content(value):
            return {TAG: "path", "content": contents.store(value, self._blobs, where)}
        return {TAG: "path", "text": self._str(str(value))}

    def _kept(self, value: File | Directory, where: str) -> Any:
        stored = value.stored
        if stored is not None and stored.owner is self._blobs:
            return stored.plain  # nobody has looked at it: the home's copy goes on as it is
        kind = "file" if isinstance(value, File) else "directory"
        return contents.store(value.path, self._blobs, where, only=kind)


def _member(value: Any, shape: Shape) -> Any:
    """The member of a union that says most about `value`: its own class before a base class."""
    members = [member for member in shape.args if fits(value, member)]
    exact = [
        m for m in members if (shape_of(m).cls or _CLASS_OF.get(shape_of(m).kind)) is type(value)
    ]
    return (exact or members or [Any])[0]


def _is_only_fields(value: Any) -> bool:
    """Whether a dataclass instance is its fields and nothing else (no attributes of `__post_init__`,
    which would be lost)."""
    names = {field.name for field in dataclasses.fields(value)}
    return names.issuperset(getattr(value, "__dict__", ()))


def _is_leaf(value: Any) -> bool:
    """Whether `value` is its own plain form, seen at a glance."""
    kind = type(value)
    if kind is int:
        return bool(_LOWEST <= value <= _HIGHEST)
    return kind is float or kind is bool or (kind is str and value.isascii() and len(value) < 256)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates: file names that are not UTF-8
        return False
    return True


def _text(text: str) -> Any:
    if _is_unicode(text):
        return text
    return {TAG: "str", "data": text.encode("utf-8", "surrogatepass")}


def _pairs(items: list[Any]) -> dict[str, Any]:
    return {TAG: "dict", "items": items}


_LEAVES = {Kind.ANY, Kind.BOOL, Kind.INT, Kind.FLOAT, Kind.STR}
_KNOWN: dict[type, Any] = {
    type(None): type(None),
    bool: bool,
    int: int,
    float: float,
    str: str,
    bytes: bytes,
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    dict: dict,
}
_CLASS_OF: dict[Kind, type] = {shape_of(known).kind: cls for cls, known in _KNOWN.items()}

"""Text and JSON or YAML trees to the Python values that a signature asks for.

Text is what one option got on the command line, a tree is what a file holds. They differ in one
thing: in a tree `"5"` is a string and never an int, since a tree can say what it means.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import types
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any, NotRequired, Union, get_args, get_origin

from headway.cli import times
from headway.engine.files import Directory, File
from headway.engine.shapes import Kind, Shape, bare, fields_of, shape_of
from headway.engine.types import describe, literal_index, typed_dict_item

_MISSING = object()
_YES = frozenset({"true", "yes", "on", "1"})
_NO = frozenset({"false", "no", "off", "0"})
_PLAIN = {Kind.BOOL: bool, Kind.INT: int, Kind.FLOAT: float, Kind.STR: str}
_ITEMS: dict[Kind, Callable[[Iterable[Any]], Any]] = {
    Kind.LIST: list,
    Kind.SET: set,
    Kind.FROZENSET: frozenset,
    Kind.SERIES: tuple,
    Kind.TUPLE: tuple,
}
_RECORDS = {Kind.DATACLASS, Kind.NAMED, Kind.TYPED_DICT}


class Unreadable(ValueError):
    """The text or tree gives no value of the type; the message is for the user."""


def is_structure(shape: Shape) -> bool:
    """Whether a value is typed as JSON, or as the path of a JSON or YAML file."""
    return shape.kind in {*_ITEMS, *_RECORDS, Kind.DICT} or _is_array(shape)


def alternatives(annotation: Any) -> list[Any]:
    """What a Union or Optional is made of, None left out; any other type is its only one."""
    members = _members(annotation) if shape_of(annotation).kind is Kind.UNION else (annotation,)
    return [member for member in members if shape_of(member).kind is not Kind.NONE]


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a Union as they were written. Shapes are remembered by equality, and the order
    in `int | str` is the one thing about it that equality does not see."""
    written = bare(annotation)
    is_union = get_origin(written) in {Union, types.UnionType}
    return get_args(written) if is_union else shape_of(annotation).args


def is_flag(annotation: Any) -> bool:
    """Whether the type is bool, or bool or None: an option that takes no value."""
    members = alternatives(annotation)
    return bool(members) and all(shape_of(member).kind is Kind.BOOL for member in members)


def choices(annotation: Any) -> list[str] | None:
    """What can be typed for an Enum or a Literal (or their Optional); None for other types."""
    members = alternatives(annotation)
    shape = shape_of(members[0]) if len(members) == 1 else None
    if shape is None:
        return None
    if shape.kind is Kind.LITERAL:
        return [str(getattr(value, "name", value)) for value in shape.args]
    return list(shape.cls.__members__) if shape.kind is Kind.ENUM else None


def from_text(text: str, annotation: Any) -> Any:
    """The value of type `annotation` that `text` stands for.

    Raises:
        Unreadable: it stands for none, or its file cannot be read.
    """
    shape = shape_of(annotation)
    kind = shape.kind
    if kind is Kind.UNION:
        return _first(text, annotation, from_text)
    if kind is Kind.STR:
        return text
    if kind is Kind.ANY:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    if kind is Kind.BOOL and text.lower() in _YES | _NO:
        return text.lower() in _YES
    if kind in {Kind.INT, Kind.FLOAT}:
        try:
            return _PLAIN[kind](text)
        except ValueError:
            raise _unlike(text, annotation) from None
    if kind is Kind.NONE and text.lower() in {"none", "null"}:
        return None
    if is_structure(shape):
        return from_tree(_load(text), annotation)
    return _worded(text, annotation)


def from_tree(tree: Any, annotation: Any) -> Any:
    """The value of type `annotation` that a JSON or YAML tree stands for.

    Raises:
        Unreadable: it stands for none; the message says at which item.
    """
    shape = shape_of(annotation)
    kind = shape.kind
    if kind is Kind.UNION:
        return _first(tree, annotation, from_tree)
    if kind is Kind.ANY or (kind is Kind.NONE and tree is None):
        return tree
    if kind is Kind.FLOAT and type(tree) is int:
        return float(tree)
    if kind in _PLAIN and type(tree) is _PLAIN[kind]:
        return tree
    if kind is Kind.CLASS and type(tree) is shape.cls and isinstance(tree, dt.date):
        return tree  # YAML has dates of its own
    if kind is Kind.LITERAL and (index := literal_index(tree, shape)) is not None:
        return shape.args[index]
    if kind is Kind.ENUM:
        for member in shape.cls:
            if type(member.value) is type(tree) and member.value == tree:
                return member
    if is_structure(shape):
        return _structure(tree, annotation, shape)
    if isinstance(tree, str) and kind not in _PLAIN and kind is not Kind.NONE:
        return _worded(tree, annotation)
    raise _unlike(tree, annotation)


def _first(given: Any, annotation: Any, read: Callable[[Any, Any], Any]) -> Any:
    reasons: dict[str, None] = {}
    for member in _members(annotation):
        try:
            return read(given, member)
        except Unreadable as error:
            if shape_of(member).kind is not Kind.NONE:
                reasons[str(error)] = None
    raise Unreadable("; ".join(reasons))


def _worded(text: str, annotation: Any) -> Any:
    """Values that are words, in text and in trees alike: choices, times, paths, bytes."""
    shape = shape_of(annotation)
    if shape.kind is Kind.LITERAL:
        for value in shape.args:
            if text in {str(value), getattr(value, "name", None)}:
                return value
        raise Unreadable(f"{text!r} is not one of {', '.join(choices(annotation) or [])}")
    if shape.kind is Kind.ENUM:
        return _member(text, shape.cls)
    if shape.kind is Kind.BYTES:
        return _bytes(text)
    value = _of_class(text, shape.cls, annotation) if shape.kind is Kind.CLASS else _MISSING
    if value is _MISSING:
        raise _unlike(text, annotation)
    return value


def _of_class(text: str, kind: type, annotation: Any) -> Any:
    for stem, read in (
        (dt.datetime, times.moment),
        (dt.date, times.day),
        (dt.timedelta, times.duration),
    ):
        if issubclass(kind, stem):
            try:
                return read(text)
            except ValueError as error:
                raise Unreadable(f"{_unlike(text, annotation)}: {error}") from None
    if issubclass(kind, PurePath):
        return Path(text).expanduser()
    if issubclass(kind, File | Directory):
        path, noun = Path(text).expanduser(), kind.__name__.lower()
        if not path.exists():
            raise Unreadable(f"there is no {noun} {text!r}")
        if path.is_dir() != issubclass(kind, Directory):
            raise Unreadable(f"{text!r} is not a {noun}")
        return kind(path)
    raise Unreadable(
        f"a value of type {describe(annotation)} cannot be typed on a command line; "
        "run this from Python, or give the parameter a type that can"
    )


def _member(text: str, kind: type[enum.Enum]) -> enum.Enum:
    if text in kind.__members__:
        return kind[text]
    for member in kind:
        if str(member.value) == text:
            return member
    raise Unreadable(f"{text!r} is not one of {', '.join(kind.__members__)}")


def _bytes(text: str) -> bytes:
    if not text.startswith("@"):
        raise Unreadable(f"bytes come from a file: type @PATH, not {text!r}")
    try:
        return Path(text[1:]).expanduser().read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot read {text[1:]!r}: {error.strerror or error}") from None


def load_file(path: Path) -> Any:
    """The tree in a .json, .yaml or .yml file (a file of another name is read as YAML).

    Raises:
        Unreadable: it cannot be read, or is not JSON or YAML.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreadable(f"cannot read {str(path)!r}: {reason}") from None
    return parse(text, repr(str(path)), is_yaml=path.suffix.lower() != ".json")


def parse(text: str, source: str, *, is_yaml: bool) -> Any:
    """The tree that JSON or YAML text holds; `source` names it in errors.

    Raises:
        Unreadable: it is not JSON or YAML.
    """
    try:
        if not is_yaml:
            return json.loads(text)
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{source} is not {'YAML' if is_yaml else 'JSON'}: {error}") from None


def _load(text: str) -> Any:
    if text.lower().endswith((".json", ".yaml", ".yml")) and text[:1] not in {"[", "{", '"'}:
        return load_file(Path(text))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(
            f"{text!r} is neither JSON ({error}) nor the path of a .json, .yaml or .yml file"
        ) from None


def _is_array(shape: Shape) -> bool:
    cls = shape.cls
    return cls is not None and (cls.__module__, cls.__name__) == ("numpy", "ndarray")


def _structure(tree: Any, annotation: Any, shape: Shape) -> Any:
    if _is_array(shape):
        return _array(tree)
    if isinstance(tree, dict):
        if shape.kind is Kind.DICT:
            return {_key(k, shape.args[0]): _at(k, v, shape.args[1]) for k, v in tree.items()}
        if shape.kind in _RECORDS:
            return _record(tree, shape)
    if isinstance(tree, list):
        if shape.kind is Kind.NAMED and len(tree) <= len(shape.cls._fields):
            return _record(dict(zip(shape.cls._fields, tree, strict=False)), shape)
        if shape.kind is Kind.TUPLE and len(tree) != len(shape.args):
            raise Unreadable(f"{describe(annotation)} has {len(shape.args)} items, not {len(tree)}")
        if shape.kind in _ITEMS:
            kinds = shape.args if shape.kind is Kind.TUPLE else shape.args * len(tree)
            values = [_at(i, *pair) for i, pair in enumerate(zip(tree, kinds, strict=True))]
            try:
                return _ITEMS[shape.kind](values)
            except TypeError as error:  # unhashable items of a set
                raise Unreadable(f"{_unlike(tree, annotation)}: {error}") from None
    raise _unlike(tree, annotation)


def _record(tree: dict[Any, Any], shape: Shape) -> Any:
    cls, name, fields = shape.cls, shape.cls.__name__, dict(fields_of(shape.cls))
    if shape.kind is Kind.DATACLASS:
        settable = [field for field in dataclasses.fields(cls) if field.init]
        fields = {field.name: fields[field.name] for field in settable}
        required = {
            field.name
            for field in settable
            if field.default is field.default_factory is dataclasses.MISSING
        }
    elif shape.kind is Kind.NAMED:
        required = fields.keys() - cls._field_defaults.keys()
    else:
        # Of annotations that are strings, Python itself does not see the `NotRequired`.
        optional = {key for key, kind in fields.items() if get_origin(kind) is NotRequired}
        required = cls.__required_keys__ - optional
        fields = {key: typed_dict_item(kind) for key, kind in fields.items()}
    if unknown := [str(key) for key in tree if key not in fields]:
        raise Unreadable(f"{name} has no {', '.join(unknown)}; it has {', '.join(fields)}")
    if absent := [key for key in fields if key in required and key not in tree]:
        raise Unreadable(f"{name} needs {', '.join(absent)}")
    given = {key: _at(key, value, fields[key]) for key, value in tree.items()}
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:  # the class checks its own fields
        raise Unreadable(f"{name}: {error}") from None


def _array(tree: Any) -> Any:
    import numpy as np

    try:
        array = np.asarray(tree)
    except ValueError as error:  # rows of unequal lengths
        raise Unreadable(f"not an array: {error}") from None
    if array.dtype.kind not in "biufc":
        raise Unreadable("not an array: it holds something else than numbers")
    return array


def _key(key: Any, annotation: Any) -> Any:
    # A JSON key is always a string, so that here, alone in a tree, "5" may stand for 5.
    return _at(key, key, annotation, from_text if isinstance(key, str) else from_tree)


def _at(where: Any, tree: Any, annotation: Any, read: Callable[[Any, Any], Any] = from_tree) -> Any:
    try:
        return read(tree, annotation)
    except Unreadable as error:
        raise Unreadable(f"at {json.dumps(where, default=str)}: {error}") from None


def _unlike(given: Any, annotation: Any) -> Unreadable:
    shown = repr(given) if isinstance(given, str) else json.dumps(given, default=str)
    if len(shown) > 80:
        shown = shown[:79] + "…"
    name = describe(annotation)
    return Unreadable(f"{shown} is not {'an' if name[:1].lower() in 'aeiou' else 'a'} {name}")

"""Annotations, read once into shapes: what checking and encoding dispatch on.

`Annotated`, `NewType`, type aliases and type variables are looked through. Abstract collections mean
the concrete ones that can travel: `Sequence[int]` is `list[int] | tuple[int, ...]`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections import abc
from collections.abc import Mapping
from typing import Any

from headway.model.errors import DefinitionError


class Kind(enum.Enum):
    """What an annotation asks for."""

    ANY = enum.auto()
    NONE = enum.auto()
    BOOL = enum.auto()
    INT = enum.auto()
    FLOAT = enum.auto()
    STR = enum.auto()
    BYTES = enum.auto()
    LIST = enum.auto()  # args: item
    SET = enum.auto()  # args: item
    FROZENSET = enum.auto()  # args: item
    SERIES = enum.auto()  # a tuple of any length; args: item
    TUPLE = enum.auto()  # args: one per item
    DICT = enum.auto()  # args: key, value
    UNION = enum.auto()  # args: members
    LITERAL = enum.auto()  # args: values
    ENUM = enum.auto()
    DATACLASS = enum.auto()
    NAMED = enum.auto()  # a NamedTuple class
    TYPED_DICT = enum.auto()
    CLASS = enum.auto()  # anything else that `isinstance` can tell


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """One annotation, resolved. `cls` is set for kinds that name a class."""

    kind: Kind
    args: tuple[Any, ...] = ()
    cls: Any = None


_PLAIN: dict[Any, Kind] = {
    Any: Kind.ANY,
    object: Kind.ANY,
    None: Kind.NONE,
    type(None): Kind.NONE,
    bool: Kind.BOOL,
    int: Kind.INT,
    float: Kind.FLOAT,
    str: Kind.STR,
    bytes: Kind.BYTES,
}
_ONE_ITEM = {list: Kind.LIST, set: Kind.SET, frozenset: Kind.FROZENSET}
_ABSTRACT: dict[Any, tuple[type, ...]] = {
    abc.Sequence: (list, tuple),
    abc.MutableSequence: (list,),
    abc.Iterable: (list, tuple, set, frozenset),
    abc.Collection: (list, tuple, set, frozenset),
    abc.Set: (set, frozenset),
    abc.MutableSet: (set,),
}
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
_ANY = Shape(Kind.ANY)


def shape_of(annotation: Any) -> Shape:
    """The shape of `annotation`; what cannot be told apart at run time is `Kind.ANY`."""
    try:
        # `str | int` equals `int | str`, and `Literal[1]` equals `Literal[True]`: not to be mixed up.
        return _remembered(annotation, repr(annotation))
    except TypeError:  # unhashable: Annotated or Literal with a list inside
        return _read(annotation)


def fields_of(cls: Any) -> Mapping[str, Any]:
    """Field name -> annotation of a dataclass, NamedTuple or TypedDict, in order.

    Raises:
        DefinitionError: an annotation names something that does not exist.
    """
    return _remembered_fields(cls)


def is_named_tuple(annotation: Any) -> bool:
    """Whether `annotation` is a class made with `NamedTuple` or `namedtuple`."""
    return (
        isinstance(annotation, type)
        and issubclass(annotation, tuple)
        and hasattr(annotation, "_fields")
    )


def bare(annotation: Any) -> Any:
    """`annotation` without what wraps it: `Annotated`, `NewType`, aliases, type variables."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, typing.TypeVar):
            annotation = Any if annotation.__bound__ is None else annotation.__bound__
        elif _is_alias(annotation):  # `type X = …`
            annotation = annotation.__value__
        elif _is_alias(typing.get_origin(annotation)):  # `type X[T] = …`, as `NDArray` of NumPy 2.5
            annotation = annotation.__origin__.__value__[typing.get_args(annotation)]
        else:
            return annotation


def _is_alias(annotation: Any) -> bool:
    return type(annotation).__name__ == "TypeAliasType"  # Python 3.12 on


def _read(annotation: Any) -> Shape:
    annotation = bare(annotation)
    origin, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in {typing.Union, types.UnionType}:
        return Shape(Kind.UNION, args)
    if origin is typing.Literal:
        return Shape(Kind.LITERAL, args)
    if origin in _PLAIN:
        return Shape(_PLAIN[origin])
    if origin in _ONE_ITEM:
        return Shape(_ONE_ITEM[origin], args or (Any,))
    if origin is tuple:
        return _tuple(annotation, args)
    if origin in _MAPPINGS:
        return Shape(Kind.DICT, args or (Any, Any))
    if origin in _ABSTRACT:
        return Shape(Kind.UNION, tuple(_concrete(c, *(args or (Any,))) for c in _ABSTRACT[origin]))
    if typing.is_typeddict(origin):
        return Shape(Kind.TYPED_DICT, cls=origin)
    if not isinstance(origin, type):
        return _ANY
    if issubclass(origin, enum.Enum):
        return Shape(Kind.ENUM, cls=origin)
    if dataclasses.is_dataclass(origin):
        return Shape(Kind.DATACLASS, cls=origin)
    if is_named_tuple(origin):
        return Shape(Kind.NAMED, cls=origin)
    return Shape(Kind.CLASS, cls=origin)


@functools.lru_cache(maxsize=4096)
def _remembered(annotation: Any, _spelling: str) -> Shape:
    return _read(annotation)


def _tuple(annotation: Any, args: tuple[Any, ...]) -> Shape:
    if not args:
        # `tuple[()]` has no arguments either, and is not the same as a bare `tuple`.
        if annotation is tuple or annotation is typing.Tuple:  # noqa: UP006  # the old spelling
            return Shape(Kind.SERIES, (Any,))
        return Shape(Kind.TUPLE)
    if args[-1] is Ellipsis:
        return Shape(Kind.SERIES, args[:1])
    return Shape(Kind.TUPLE, args)


def _concrete(cls: type, item: Any) -> Any:
    return tuple[item, ...] if cls is tuple else cls[item]  # type: ignore[index]


@functools.lru_cache(maxsize=1024)
def _remembered_fields(cls: Any) -> Mapping[str, Any]:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"the fields of {cls.__qualname__} cannot be read: {error}. Its annotations must be "
            f"names that {cls.__module__} has at its top level (not under `if TYPE_CHECKING`)."
        ) from error
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
    elif is_named_tuple(cls):
        names = list(cls._fields)
    else:
        names = list(hints)
    return types.MappingProxyType({name: hints.get(name, Any) for name in names})

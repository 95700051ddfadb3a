"""Values and annotations: does a value fit, does one annotation fit another, how to say it.

The rules are Python's, read strictly: a bool is no int, an int will do for a float, a subclass for
its base. NumPy's scalars count as the Python numbers that they stand for, so that `return np.mean(x)`
is a float.
"""

from __future__ import annotations

import enum
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from headway.engine.shapes import Kind, Shape, bare, fields_of, shape_of
from headway.model.errors import InputError

_SCALARS: dict[Kind, type] = {
    Kind.BOOL: bool,
    Kind.INT: int,
    Kind.FLOAT: float,
    Kind.STR: str,
    Kind.BYTES: bytes,
}
_COLLECTIONS: dict[Kind, type] = {
    Kind.LIST: list,
    Kind.SET: set,
    Kind.FROZENSET: frozenset,
    Kind.SERIES: tuple,
    Kind.TUPLE: tuple,
    Kind.DICT: dict,
}
_SHOWN = 60  # characters of a value in a message


def check(value: Any, type_: Any, where: str) -> None:
    """Check `value` against the annotation `type_`, inside lists, dicts, dataclasses and so on too.

    Args:
        where: what the value is for, such as "train: xs"; the message goes on to `train: xs[2].name`.

    Raises:
        InputError: it does not fit; the message says where, what is expected and what was found.
    """
    try:
        _check(value, type_, where)
    except RecursionError:
        raise InputError(f"{where}: nested too deeply, or it contains itself") from None


def fits(value: Any, type_: Any) -> bool:
    """Whether `check` would accept it."""
    try:
        check(value, type_, "")
    except InputError:
        return False
    return True


def _check(value: Any, type_: Any, where: str) -> None:
    shape = shape_of(type_)
    kind = shape.kind
    if kind is Kind.ANY:
        return
    if kind is Kind.UNION:
        _check_union(value, type_, shape, where)
    elif kind in _SCALARS:
        if type(value) is not _SCALARS[kind] and not _is_scalar(value, kind):
            raise _wrong(value, type_, where)
    elif kind is Kind.NONE:
        if value is not None:
            raise _wrong(value, type_, where)
    elif kind is Kind.LITERAL:
        if literal_index(value, shape) is None:
            raise _wrong(value, type_, where)
    elif kind in _COLLECTIONS:
        if not isinstance(value, _COLLECTIONS[kind]):
            raise _wrong(value, type_, where)
        _check_items(value, type_, shape, where)
    elif kind is Kind.TYPED_DICT:
        _check_typed_dict(value, type_, shape, where)
    else:
        if not _is_instance(value, shape.cls):
            raise _wrong(value, type_, where)
        if kind in {Kind.DATACLASS, Kind.NAMED}:
            for name, field in fields_of(shape.cls).items():
                if not hasattr(value, name):
                    raise InputError(f"{where}.{name}: missing from {_found(value)}")
                _check(getattr(value, name), field, f"{where}.{name}")


def _check_items(value: Any, type_: Any, shape: Shape, where: str) -> None:
    if shape.kind is Kind.TUPLE:
        if len(value) != len(shape.args):
            raise InputError(f"{where}: expected {describe(type_)}, got {_items(len(value))}")
        for index, (item, item_type) in enumerate(zip(value, shape.args, strict=True)):
            _check(item, item_type, f"{where}[{index}]")
    elif shape.kind is Kind.DICT:
        key_type, value_type = shape.args
        for key, item in value.items():
            _check(key, key_type, f"{where} key {_short(key)}")
            _check(item, value_type, f"{where}[{_short(key)}]")
    else:
        (item_type,) = shape.args
        item_kind = shape_of(item_type).kind
        if item_kind is Kind.ANY:
            return
        exact = _SCALARS.get(item_kind)  # the quick way past long lists of plain items
        for index, item in enumerate(value):
            if type(item) is not exact:
                _check(item, item_type, f"{where}[{index}]")


def _check_typed_dict(value: Any, type_: Any, shape: Shape, where: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(value, type_, where)
    fields = fields_of(shape.cls)
    for key in value:
        if key not in fields:
            raise InputError(f"{where}[{_short(key)}]: not a key of {describe(type_)}")
    for name, field in fields.items():
        if name in value:
            _check(value[name], typed_dict_item(field), f"{where}[{name!r}]")
        elif name in required_keys(shape.cls):
            raise InputError(f"{where}[{name!r}]: missing; {describe(type_)} needs it")


def typed_dict_item(annotation: Any) -> Any:
    """The type of a TypedDict's key without `Required` or `NotRequired` around it."""
    if typing.get_origin(annotation) in {typing.Required, typing.NotRequired}:
        return typing.get_args(annotation)[0]
    return annotation


def required_keys(cls: Any) -> set[str]:
    """The keys that a TypedDict must have. (Its own `__required_keys__` is wrong about `NotRequired` in
    modules with `from __future__ import annotations`.)"""
    wrappers = {name: typing.get_origin(field) for name, field in fields_of(cls).items()}
    return {
        name
        for name, wrapper in wrappers.items()
        if wrapper is typing.Required
        or (wrapper is not typing.NotRequired and name in cls.__required_keys__)
    }


def _check_union(value: Any, type_: Any, shape: Shape, where: str) -> None:
    if any(fits(value, member) for member in shape.args):
        return
    if isinstance(value, list | tuple | dict | set | frozenset) or hasattr(value, "__dict__"):
        # When only one member has the value's outer form, its own message is the better one.
        alike = [member for member in shape.args if fits_outside(value, member)]
        if len(alike) == 1:
            _check(value, alike[0], where)
    raise _wrong(value, type_, where)


def fits_outside(value: Any, type_: Any) -> bool:
    """Whether `value` is of the class that `type_` names, whatever is inside it."""
    shape = shape_of(type_)
    if shape.kind in _COLLECTIONS:
        return isinstance(value, _COLLECTIONS[shape.kind])
    if shape.kind is Kind.TYPED_DICT:
        return isinstance(value, dict)
    if shape.cls is not None:
        return _is_instance(value, shape.cls)
    return fits(value, type_)


def literal_index(value: Any, shape: Shape) -> int | None:
    """Which value of a Literal `value` is: equal and of the same class (`1` is not `True`)."""
    for index, allowed in enumerate(shape.args):
        if type(allowed) is type(value) and allowed == value:
            return index
    return None


def _is_scalar(value: Any, kind: Kind) -> bool:
    if isinstance(value, bool):
        return kind is Kind.BOOL
    if isinstance(value, _SCALARS[kind]) or (kind is Kind.FLOAT and isinstance(value, int)):
        return True
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return False
    if kind is Kind.BOOL:
        return isinstance(value, numpy.bool_)
    if kind is Kind.INT:
        return isinstance(value, numpy.integer) and not isinstance(value, numpy.timedelta64)
    # Only floats that a Python float holds exactly.
    return kind is Kind.FLOAT and isinstance(value, numpy.float16 | numpy.float32 | numpy.integer)


def _is_instance(value: Any, cls: Any) -> bool:
    try:
        return isinstance(value, cls)
    except TypeError:  # a Protocol that is not runtime_checkable: nothing can be said
        return True


def assignable(source: Any, target: Any) -> bool:
    """Whether every value of annotation `source` is one of `target`; unknown (`Any`) passes, and is
    checked again when there is a value."""
    wanted, given = shape_of(target), shape_of(source)
    if Kind.ANY in {wanted.kind, given.kind}:
        return True
    if given.kind is Kind.UNION:
        return all(assignable(member, target) for member in given.args)
    if given.kind is Kind.LITERAL:
        return all(fits(value, target) for value in given.args)
    if wanted.kind is Kind.UNION:
        return any(assignable(source, member) for member in wanted.args)
    if wanted.kind in _COLLECTIONS:
        return _assignable_collection(given, wanted)
    if wanted.kind is Kind.FLOAT and given.kind is Kind.INT:
        return True
    if wanted.kind is Kind.TYPED_DICT or given.kind is Kind.TYPED_DICT:
        return wanted.cls is given.cls and wanted.kind is given.kind
    return _assignable_class(given, wanted)


def _assignable_collection(given: Shape, wanted: Shape) -> bool:
    items = given.args
    if given.kind is Kind.NAMED:
        given, items = Shape(Kind.TUPLE), tuple(fields_of(given.cls).values())
    elif given.kind is Kind.TYPED_DICT:
        return wanted.kind is Kind.DICT and assignable(str, wanted.args[0])
    elif given.kind is Kind.CLASS:
        return issubclass(given.cls, _COLLECTIONS[wanted.kind])
    if wanted.kind is Kind.SERIES and given.kind is Kind.TUPLE:
        return all(assignable(item, wanted.args[0]) for item in items)
    if wanted.kind is Kind.TUPLE and given.kind is Kind.SERIES:
        return shape_of(items[0]).kind is Kind.ANY  # a bare `tuple`: its length is unknown
    return (
        wanted.kind is given.kind
        and len(items) == len(wanted.args)
        and all(assignable(*pair) for pair in zip(items, wanted.args, strict=True))
    )


def _assignable_class(given: Shape, wanted: Shape) -> bool:
    if wanted.kind is given.kind and wanted.cls is given.cls:
        return wanted.args == given.args
    if wanted.kind is Kind.BOOL or given.kind is Kind.BOOL:
        return False
    source = given.cls or _SCALARS.get(given.kind) or _COLLECTIONS.get(given.kind)
    target = wanted.cls or _SCALARS.get(wanted.kind)
    if source is None or target is None:
        return False
    try:
        return issubclass(source, target)
    except TypeError:  # a Protocol with attributes: nothing can be said
        return True


def describe(type_: Any) -> str:
    """The annotation as a person writes it: `list[int] | None`, without module names."""
    if type_ is None or type_ is type(None):
        return "None"
    if type_ is Ellipsis:
        return "..."
    if isinstance(type_, list):  # the arguments of a Callable
        return f"[{', '.join(map(describe, type_))}]"
    if type(type_).__name__ in {"NewType", "TypeVar", "TypeAliasType"}:
        return str(type_.__name__)
    type_ = bare(type_)
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin in {typing.Union, types.UnionType}:
        return " | ".join(map(describe, args))
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(_literal, args))}]"
    if origin is not None and getattr(origin, "__module__", "") == "numpy":
        dtype = typing.get_args(args[-1])
        return f"NDArray[{', '.join(map(describe, dtype))}]" if dtype else origin.__name__
    name = _name(origin or type_)
    if type_ == tuple[()]:
        return "tuple[()]"
    return f"{name}[{', '.join(map(describe, args))}]" if args else name


def _name(type_: Any) -> str:
    name = getattr(type_, "__qualname__", None) or getattr(type_, "__name__", None)
    return name.rpartition("<locals>.")[2] if name else str(type_).removeprefix("typing.")


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, enum.Enum) else repr(value)


def _wrong(value: Any, type_: Any, where: str) -> InputError:
    expected, got = describe(type_), _found(value)
    if expected == type(value).__qualname__:  # two classes of one name: say which is which
        expected = f"{shape_of(type_).cls.__module__}.{expected}"
        got = f"{type(value).__module__}.{got}"
    return InputError(f"{where}: expected {expected}, got {got}")


def _found(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__qualname__.rpartition("<locals>.")[2]
    if isinstance(value, bool | int | float | str | bytes | enum.Enum):
        return f"{name} {_short(value)}"
    return name


def _short(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to print the longest
        return f"of {value.bit_length()} bits"
    show: Callable[[Any], str] = str if isinstance(value, enum.Enum) else repr
    text = show(value[:_SHOWN] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"

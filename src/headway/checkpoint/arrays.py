"""NumPy arrays and scalars as dtype, shape and raw bytes. NumPy is used when a value needs it, and is
never imported to look at one that does not."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any

from headway.model.errors import CheckpointCorrupt

_MOST_DIMENSIONS = 64  # NumPy's own limit
_NAME = re.compile(r"[<>|](?:[biufc]\d{1,2}|[SUV]\d{1,10}|[mM]8(?:\[\d{0,10}[A-Za-zμ]{1,7}\])?)")
"""What `numpy.dtype.str` gives. NumPy takes much else, whole expressions among it, and this is data."""
_UNREADABLE = (TypeError, ValueError, KeyError, SyntaxError, OverflowError, RecursionError)


def encode(value: Any) -> tuple[dict[str, Any], memoryview] | None:
    """A plain header and the raw bytes; None when `value` is no array, or one that raw bytes do not
    describe (objects, subclasses, dtypes from other packages)."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if type(value) is numpy.ndarray:
        array, header = value, {"$": "array", "shape": list(value.shape)}
    elif isinstance(value, numpy.generic):
        array, header = numpy.asarray(value), {"$": "scalar", "shape": []}
        if type(array[()]) is not type(value):  # a subclass, or a scalar of a foreign dtype
            return None
    else:
        return None
    if array.dtype.hasobject or array.dtype.itemsize == 0 or array.dtype.metadata:
        return None
    description = _plain_dtype(numpy.lib.format.dtype_to_descr(array.dtype))
    try:
        if _dtype(numpy, description) != array.dtype:
            return None
    except (TypeError, ValueError):  # of another package, with a name that NumPy does not know
        return None
    header["dtype"] = description
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        header["order"] = "F"
        array = array.T
    flat = numpy.ascontiguousarray(array).reshape(-1)
    return header, memoryview(flat.view(numpy.uint8))


def form(plain: dict[str, Any], size: int) -> tuple[Any, tuple[int, ...]]:
    """(dtype, shape) of a stored array or scalar of `size` bytes; nothing is allocated.

    Raises:
        CheckpointCorrupt: header and bytes do not belong together.
    """
    import numpy as np

    try:
        dtype = _dtype(np, plain["dtype"])
        shape = tuple(plain["shape"])
        sound = (
            not dtype.hasobject
            and all(length >= 0 for length in shape)
            and dtype.itemsize * math.prod(shape) == size
            and plain.get("order", "C") in {"C", "F"}
        )
    except (TypeError, ValueError, KeyError, SyntaxError) as error:
        raise CheckpointCorrupt(
            f"a stored array has a header that cannot be read: {error}"
        ) from error
    if not sound:
        raise CheckpointCorrupt("a stored array has more or fewer bytes than its shape asks for")
    return dtype, shape


def empty(plain: dict[str, Any], size: int) -> Any:
    """An array for a stored one or for a scalar, of any values; raises what `form` does."""
    import numpy as np

    dtype, shape = form(plain, size)
    return np.empty(shape, dtype, order=plain.get("order", "C"))


def memory(array: Any) -> memoryview:
    """The bytes of an array without gaps, in the order in which they lie."""
    if array.size == 0:
        return memoryview(bytearray())
    return memoryview(array.reshape(-1, order="A").view("u1"))


def decode(plain: dict[str, Any], size: int, fill: Callable[[memoryview], None]) -> Any:
    """The array or scalar.

    Args:
        size: bytes that `fill` has.
        fill: writes the raw bytes into the memory that it is given.

    Raises:
        CheckpointCorrupt: header and bytes do not belong together.
    """
    array = empty(plain, size)
    if size:
        fill(memory(array))
    return array[()] if plain["$"] == "scalar" else array


def is_live(value: Any) -> bool:
    """Whether `value` is an array that can take other values."""
    return (
        type(value).__module__ == "numpy"
        and hasattr(value, "__array_interface__")
        and (hasattr(value, "flags") and value.flags.writeable)
    )


def _plain_dtype(description: Any) -> Any:
    """Tuples to lists, which are what a plain tree has."""
    if isinstance(description, list | tuple):
        return [_plain_dtype(part) for part in description]
    return description


def _dtype(numpy: Any, description: Any) -> Any:
    return numpy.lib.format.descr_to_dtype(_described(description))


def _described(description: Any) -> Any:
    """What `descr_to_dtype` takes: a string, or a list of field tuples."""
    if isinstance(description, str):
        if _NAME.fullmatch(description) is None:
            raise ValueError(f"{description[:40]!r} is not the name of a dtype")
        return description
    return [_field(*field) for field in description]


def _field(name: Any, base: Any, *shape: Any) -> tuple[Any, ...]:
    title = tuple(name) if isinstance(name, list) else name
    return (title, _described(base), *(tuple(part) for part in shape))

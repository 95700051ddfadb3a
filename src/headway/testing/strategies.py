"""What a checkpoint can hold, and what can be done with one, for Hypothesis.

    from headway.testing.strategies import states

    @given(states())
    def test_my_code_brings_any_state_back(state): ...

Arrays are there where NumPy is. Tensors are there where PyTorch was imported already, or is asked for.
"""

from __future__ import annotations

import collections
import importlib.util
import sys
from typing import Any

from hypothesis import strategies as st

from headway.testing.playing import Look, Operation, Reopen, SaveFiles, SaveState, Write

ARRAY_DTYPES = (
    *("bool", "int8", "uint8", "<i2", ">i2", "uint16", "int32", "uint32", "<i8", ">i8", "uint64"),
    *("float16", "<f4", ">f4", "float64", "complex64", "complex128"),
    *("S3", "V5", "<M8[ns]", "m8[s]"),
)
TENSOR_DTYPES = (
    *(
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    ),
    *("complex64", "float8_e4m3fn", "float8_e5m2"),
)
LARGE = (33_000, 300_000, 1_100_000)
"""Bytes of large arrays: one alone is more than what goes inside a record."""


def leaves() -> st.SearchStrategy[Any]:
    """Numbers of any size, strings, bytes: what a state is made of, without arrays."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**200), 2**200),
        st.floats(),
        st.text(max_size=20),
        st.binary(max_size=200),
        st.binary(max_size=200).map(bytearray),
    )


def keys() -> st.SearchStrategy[Any]:
    """What a dict inside of a state can have for keys."""
    return st.one_of(
        st.text(max_size=8),
        st.just("$"),
        st.integers(),
        st.booleans(),
        st.none(),
        st.binary(max_size=4),
    )


def nested(leaf: st.SearchStrategy[Any], *, most: int = 20) -> st.SearchStrategy[Any]:
    """Lists, tuples, dicts and OrderedDicts of `leaf`, up to `most` leaves."""
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(keys(), inner, max_size=4),
            st.dictionaries(keys(), inner, max_size=4).map(collections.OrderedDict),
        ),
        max_leaves=most,
    )


def plain_values() -> st.SearchStrategy[Any]:
    """Nested data without arrays."""
    return nested(leaves())


def _shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=3).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """NumPy arrays and scalars: many dtypes, any bits, empty ones, of no dimension, in C's order and in
    Fortran's, reversed, with gaps, broadcast, fields of records."""
    import numpy as np

    dtype: Any = np.dtype(draw(st.sampled_from(ARRAY_DTYPES)))
    shape = draw(_shapes())
    size = dtype.itemsize * int(np.prod(shape))
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    array: Any = (raw & 1 if dtype.kind == "b" else raw.copy()).view(dtype).reshape(shape)
    match draw(
        st.sampled_from(["as it is", "T", "reversed", "gaps", "broadcast", "field", "scalar"])
    ):
        case "T":
            array = array.T
        case "reversed":
            array = array[..., ::-1] if shape else array
        case "gaps":
            array = array[..., ::2] if shape else array
        case "broadcast":
            array = np.broadcast_to(array, (2, *shape))
        case "field":
            record = np.zeros(shape, [("before", "u1"), ("field", dtype)])
            record["field"] = array
            array = record["field"]
        case "scalar":
            array = array.flat[0] if array.size else array
    return array


@st.composite
def large_arrays(draw: st.DrawFn) -> Any:
    """Arrays that are too large for a record: their content lies in packs. Zeros, noise, or a pattern
    with few changes, so that some of their chunks are the same in several."""
    import numpy as np

    size = draw(st.sampled_from(LARGE))
    array = np.zeros(size, np.uint8)
    match draw(st.sampled_from(["zeros", "noise", "changes"])):
        case "noise":
            array = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, size, np.uint8)
        case "changes":
            for at in draw(st.lists(st.integers(0, size - 1), max_size=3)):
                array[at] = 1
    return array


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    """A PyTorch tensor, or several that share one memory, as a list: many dtypes, any bits."""
    import torch

    dtype = getattr(torch, draw(st.sampled_from(TENSOR_DTYPES)))
    shape = draw(_shapes())
    size = dtype.itemsize * int(torch.Size(shape).numel())
    raw = torch.frombuffer(
        bytearray(draw(st.binary(min_size=size, max_size=size)) + b"."), dtype=torch.uint8
    )
    tensor = (raw[:size] & 1 if dtype == torch.bool else raw[:size].clone()).view(dtype).view(shape)
    match draw(st.sampled_from(["as it is", "T", "gaps", "shared", "parameter"])):
        case "T":
            return tensor.permute(tuple(reversed(range(len(shape)))))
        case "gaps":
            return tensor[..., ::2] if shape else tensor
        case "shared":
            return [tensor, tensor.reshape(-1), tensor.reshape(-1)[1:], tensor]
        case "parameter" if dtype.is_floating_point:
            return torch.nn.Parameter(tensor)
    return tensor


def states(
    *, large: bool = False, with_tensors: bool | None = None
) -> st.SearchStrategy[dict[str, Any]]:
    """What `Checkpoint.save` takes as typed state.

    Args:
        large: have arrays among them whose content goes to packs.
        with_tensors: have tensors among them; None: if PyTorch was imported already.
    """
    kinds = [leaves()]
    if importlib.util.find_spec("numpy"):
        kinds.append(arrays())
        if large:
            kinds.append(large_arrays())
    if with_tensors if with_tensors is not None else "torch" in sys.modules:
        kinds.append(tensors())
    return st.dictionaries(st.text(max_size=8), nested(st.one_of(kinds)), max_size=4)


def contents() -> st.SearchStrategy[bytes]:
    """Bytes of any size: none, a few, more than a record holds, more than a chunk."""
    sizes = st.sampled_from([0, 1, 500, 32_768, 32_769, 1_200_000])
    return st.builds(lambda size, seed: (b"%d." % seed * size)[:size], sizes, st.integers(0, 99))


def file_trees() -> st.SearchStrategy[dict[str, bytes]]:
    """Relative path -> content of a few files, some in directories."""
    names = st.sampled_from(["a", "b.txt", "ünï", "in/a", "in/deep/er", "x y"])
    return st.dictionaries(names, contents(), max_size=4)


def operations(*, most: int = 12) -> st.SearchStrategy[list[Operation]]:
    """What attempts of one node may do, one after the other; for `headway.testing.playing.play`."""
    return st.lists(
        st.one_of(
            contents().map(Write),
            file_trees().map(SaveFiles),
            st.builds(SaveState, states(large=True)),
            st.just(Look()),
            st.booleans().map(Reopen),
        ),
        max_size=most,
    )

"""PyTorch tensors as dtype, shape and raw bytes, of any dtype. PyTorch is used when a state holds a
tensor, and is never imported to look at one that does not.

Tensors that share memory stay shared: their storage is saved once, and each of them as a view of it. A
tensor that shares with no other one in the state is saved as its own values only, however large the
storage is that it looks into.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from collections.abc import Iterator
from typing import Any

from headway.model.errors import CheckpointCorrupt, InputError

_MOST_DIMENSIONS = 64
_MOST_ELEMENTS = 2**63 - 1


def is_tensor(value: Any) -> bool:
    """Whether `value` is a PyTorch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def refusal(tensor: Any) -> str | None:
    """Why a tensor is not raw bytes; None when it is."""
    import torch

    if type(tensor) not in {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer}:
        return f"is a {type(tensor).__module__}.{type(tensor).__qualname__}: save its plain tensors"
    if tensor.layout is not torch.strided:
        return f"has the layout {tensor.layout}: save its indices and values"
    if tensor.is_quantized or str(tensor.dtype).startswith("torch.q"):
        return "is quantized: save its int_repr(), scale and zero point"
    if tensor.is_meta:
        return "is on the meta device, which has no values"
    return None


def storage_key(tensor: Any) -> tuple[str, int]:
    """Equal for tensors that share memory."""
    return str(tensor.device), tensor.untyped_storage().data_ptr()


def plain(tensor: Any, *, shared: bool) -> tuple[dict[str, Any], Any]:
    """A header, and a CPU tensor of bytes to save.

    Args:
        tensor: one that `refusal` has nothing against.
        shared: save its whole storage, because others look into it too.
    """
    import torch

    found = tensor.detach().resolve_conj().resolve_neg()
    header: dict[str, Any] = {
        "$": "tensor",
        "dtype": str(found.dtype).removeprefix("torch."),
        "shape": list(found.shape),
        "requires_grad": bool(tensor.requires_grad),
        "parameter": isinstance(tensor, torch.nn.Parameter),
    }
    if shared:
        header["stride"] = list(found.stride())
        header["offset"] = found.storage_offset()
        return header, torch.empty(0, dtype=torch.uint8, device=found.device).set_(
            found.untyped_storage()
        ).cpu()
    return header, found.cpu().contiguous()


def memory(tensor: Any) -> memoryview:
    """The bytes of a contiguous CPU tensor, writable; valid while the tensor lives."""
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return memoryview(bytearray())
    return memoryview((ctypes.c_ubyte * size).from_address(tensor.data_ptr())).cast("B")


def form(header: dict[str, Any], size: int) -> tuple[Any, tuple[int, ...]]:
    """(dtype, shape) of a stored tensor whose part has `size` bytes; nothing is allocated.

    Raises:
        CheckpointCorrupt: the header is not one that `plain` makes, or does not fit.
    """
    try:
        import torch  # noqa: F401  # its dtypes are asked for below
    except ImportError as error:
        raise InputError(
            "the checkpoint holds PyTorch tensors, and PyTorch is not installed here: pip install torch"
        ) from error
    dtype, shape = _dtype(header), _lengths(header, "shape")
    if "stride" in header:
        stride, offset = _lengths(header, "stride"), header.get("offset")
        pairs = zip(shape, stride, strict=False)
        reach = 0 if 0 in shape else 1 + sum((length - 1) * step for length, step in pairs)
        room = size // dtype.itemsize
        if (
            len(shape) != len(stride)
            or type(offset) is not int  # a bool is an int, and no offset
            or math.prod(shape) > _MOST_ELEMENTS
            or not 0 <= offset <= room - reach
        ):
            raise CheckpointCorrupt("a stored tensor looks outside of its storage")
    elif math.prod(shape) * dtype.itemsize != size:
        raise CheckpointCorrupt("a stored tensor has more or fewer bytes than its shape asks for")
    return dtype, tuple(shape)


def empty(header: dict[str, Any], size: int) -> Any:
    """A CPU tensor for a part of `size` bytes: what `memory` of it is filled with. Raises what `form`
    does."""
    import torch

    dtype, shape = form(header, size)
    if "stride" in header:
        return torch.empty(size, dtype=torch.uint8)
    with _sound():
        return torch.empty(shape, dtype=dtype)


def view(header: dict[str, Any], filled: Any) -> Any:
    """The tensor that `header` describes, from the filled one that `empty` made."""
    import torch

    tensor = filled
    if "stride" in header:
        dtype, shape = form(header, filled.numel())
        with _sound():
            tensor = torch.empty(0, dtype=dtype).set_(
                filled.untyped_storage(), header["offset"], shape, header["stride"]
            )
    with _sound():
        if header.get("parameter"):
            return torch.nn.Parameter(tensor, requires_grad=bool(header.get("requires_grad")))
        return tensor.requires_grad_(bool(header.get("requires_grad")))


def whole(live: Any, header: dict[str, Any], size: int) -> Any | None:
    """A flat tensor of bytes, wherever they are, that are laid out like the stored part: filling it gives
    `live` its values. None when `live` is laid out in another way."""
    import torch

    if refusal(live) is not None or live.is_conj() or live.is_neg():
        return None
    found, storage = live.detach(), live.untyped_storage()
    if "stride" in header:
        same = list(found.stride()) == header["stride"] and storage.nbytes() == size
        if not same or found.storage_offset() != header["offset"]:
            return None
        start = 0
    elif found.is_contiguous():
        start = found.storage_offset() * found.element_size()
    else:
        return None
    return torch.empty(0, dtype=torch.uint8, device=found.device).set_(storage, start, (size,))


def put(flat: Any, start: int, data: memoryview) -> None:
    """Copy bytes into what `whole` gave, from byte `start` on."""
    import torch

    flat[start : start + len(data)].copy_(torch.frombuffer(data, dtype=torch.uint8))


def copy_into(live: Any, loaded: Any) -> None:
    """Give a live tensor the values of a loaded one, wherever it is."""
    import torch

    with torch.no_grad():
        live.copy_(loaded)


@contextlib.contextmanager
def _sound() -> Iterator[None]:
    """A header that only PyTorch finds wrong."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointCorrupt(f"a stored tensor cannot be: {str(error)[:200]}") from error


def _dtype(header: dict[str, Any]) -> Any:
    import torch

    # Not getattr: asked for some names, PyTorch imports a module.
    name = str(header.get("dtype"))
    dtype = vars(torch).get(name)
    if not isinstance(dtype, torch.dtype) or name.startswith("q"):
        raise CheckpointCorrupt(f"a stored tensor has an unknown dtype, {header.get('dtype')!r}")
    return dtype


def _lengths(header: dict[str, Any], name: str) -> list[int]:
    lengths = header.get(name)
    if (
        type(lengths) is not list
        or len(lengths) > _MOST_DIMENSIONS
        or not all(type(n) is int and 0 <= n <= _MOST_ELEMENTS for n in lengths)
    ):
        raise CheckpointCorrupt(f"a stored tensor has no proper {name}")
    return lengths

"""One item of a sharded state: a piece of a tensor, or what `torch.distributed.checkpoint` pickled."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import MetadataIndex

from headway.checkpoint import tensors
from headway.integrations.lent import Lender, Loan
from headway.model.errors import InputError, UntrustedState

_SOUND = (2, 6)
"""The first PyTorch whose `weights_only` loading keeps its word."""


@dataclass(frozen=True, slots=True)
class Lent:
    """One item in lent memory.

    Attributes:
        loan, part: where it is.
        dtype, shape: of a tensor; None for bytes.
    """

    loan: Loan
    part: int
    dtype: torch.dtype | None
    shape: tuple[int, ...]

    def content(self, borrowed: list[memoryview]) -> Any:
        """The tensor, which looks at what is borrowed; or a copy of the bytes."""
        data = borrowed[self.part]
        if self.dtype is None:
            return bytes(data)
        return _looking_at(data, self.dtype, self.shape)


def lend(lender: Lender, contents: list[Any]) -> list[Lent]:
    """Copy items into lent memory.

    Args:
        lender: has the memory.
        contents: what `content_of` gave.
    """
    views = [
        memoryview(content) if isinstance(content, bytes) else tensors.memory(content)
        for content in contents
    ]
    loan = lender.lend(views)
    return [
        Lent(loan, part, None, ())
        if isinstance(content, bytes)
        else Lent(loan, part, content.dtype, tuple(content.shape))
        for part, content in enumerate(contents)
    ]


def _looking_at(data: memoryview, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if not len(data):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(shape)


def content_of(index: MetadataIndex, item: Any) -> Any:
    """What is to be saved of an item: bytes, or a contiguous tensor in the CPU's memory.

    Raises:
        InputError: it is a tensor of a kind that is not raw bytes.
    """
    if isinstance(item, io.BytesIO):
        return item.getvalue()
    why = tensors.refusal(item)
    if why is not None:
        raise InputError(f"{index.fqn} {why}")
    flat = item.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if flat.untyped_storage().nbytes() == flat.numel() * flat.element_size():
        return flat
    # A view into more than itself. Two of them would be saved as all that they look into.
    alone = _looking_at(tensors.memory(flat), flat.dtype, tuple(flat.shape))
    alone._headway_owner = flat  # noqa: SLF001  # keeps the memory alive
    return alone


def size_of(content: Any) -> int:
    """Bytes of an item."""
    return len(content) if isinstance(content, bytes) else content.numel() * content.element_size()


def name_of(index: MetadataIndex) -> str:
    """What an item is called in the saved mapping."""
    if index.offset is None:
        return str(index.fqn)
    return f"{index.fqn}[{', '.join(map(str, index.offset))}]"


def plain(content: bytes, name: str) -> Any:
    """The value that DCP made these bytes of, if it is data: DCP pickles whatever is no tensor.

    Raises:
        UntrustedState: it is something else; or this PyTorch may run code all the same.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < _SOUND:
        raise UntrustedState(
            f"{name} would be read by PyTorch {torch.__version__}, which can be made to run code even by "
            "what it takes for data (CVE-2025-32434), and others can write to the home. Use PyTorch 2.6 or "
            "newer."
        )
    try:
        return torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise UntrustedState(
            f"{name} is no number, string, list, dict or tensor, so that loading it would run code that "
            "the home names, and others can write to that. Make a directory yours alone (`chmod go-w`), or "
            "sign what is in the home from its beginning on (HEADWAY_KEY); or leave it out of the state."
        ) from error


def pickled(value: Any) -> bytes:
    """As DCP's planner wants it, whose loading runs what it names: so it gets our own pickle of data."""
    made = io.BytesIO()
    torch.save(value, made)
    return made.getvalue()

"""Whether a state came back as it was saved, to the last bit."""

from __future__ import annotations

import math
import struct
import sys
from collections import OrderedDict
from typing import Any


def difference(found: Any, saved: Any, path: str = "state") -> str:
    """Where two states differ first, in words; "" when they are the same.

    Exact: types, the order of dicts, dtypes, shapes, each bit of a float or an array. Tensors that share
    memory in one have to share it in the other.
    """
    return _Comparison().differ(found, saved, path)


class _Comparison:
    def __init__(self) -> None:
        self._tensors: list[tuple[Any, Any, str]] = []

    def differ(self, found: Any, saved: Any, path: str) -> str:
        return self._one(found, saved, path) or self._sharing()

    def _one(self, found: Any, saved: Any, path: str) -> str:
        if type(found) is not type(saved):
            return f"{path} is a {type(found).__name__}, and was a {type(saved).__name__}"
        if isinstance(saved, dict):
            keys, others = list(map(_typed, found)), list(map(_typed, saved))
            if keys != others:
                return f"{path} has the keys {list(found)}, and had {list(saved)}"
            if type(saved) is OrderedDict and vars(found) != vars(saved):
                return f"{path} has the attributes {vars(found)}, and had {vars(saved)}"
            pairs = ((f"{path}[{key!r}]", found[key], saved[key]) for key in saved)
        elif isinstance(saved, list | tuple):
            if len(found) != len(saved):
                return f"{path} has {len(found)} items, and had {len(saved)}"
            pairs = (
                (f"{path}[{i}]", *both) for i, both in enumerate(zip(found, saved, strict=True))
            )
        else:
            return self._leaf(found, saved, path)
        return next(filter(None, (self._one(f, s, where) for where, f, s in pairs)), "")

    def _leaf(self, found: Any, saved: Any, path: str) -> str:
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        if torch is not None and isinstance(saved, torch.Tensor):
            return self._tensor(torch, found, saved, path)
        if numpy is not None and isinstance(saved, numpy.ndarray | numpy.generic):
            for what in ("dtype", "shape"):
                if getattr(found, what) != getattr(saved, what):
                    return (
                        f"{path} has {what} {getattr(found, what)}, and had {getattr(saved, what)}"
                    )
            return "" if found.tobytes() == saved.tobytes() else f"{path} has other values"
        if isinstance(saved, float):
            same = struct.pack("<d", found) == struct.pack("<d", saved) or (
                math.isnan(found) and math.isnan(saved)
            )
        else:
            same = found == saved
        return "" if same else f"{path} is {found!r:.80}, and was {saved!r:.80}"

    def _tensor(self, torch: Any, found: Any, saved: Any, path: str) -> str:
        for what in ("dtype", "shape", "requires_grad"):
            if getattr(found, what) != getattr(saved, what):
                return f"{path} has {what} {getattr(found, what)}, and had {getattr(saved, what)}"
        if saved.numel():
            # A copy: a tensor of one number is contiguous whatever its stride, and no view of bytes.
            bits = [
                one.detach().cpu().clone(memory_format=torch.contiguous_format)
                for one in (found, saved)
            ]
            if not torch.equal(*(one.view(-1).view(torch.uint8) for one in bits)):
                return f"{path} has other values"
            self._tensors.append((found, saved, path))
        return ""

    def _sharing(self) -> str:
        pairs: dict[int, tuple[int, str]] = {}
        for found, saved, path in self._tensors:
            here, there = (one.untyped_storage().data_ptr() for one in (found, saved))
            partner, first = pairs.setdefault(there, (here, path))
            if partner != here:
                return f"{path} shared memory with {first}, and does no more"
        if len({here for here, _ in pairs.values()}) < len(pairs):
            return "tensors share memory that did not"
        return ""


def _typed(key: Any) -> tuple[type, Any]:
    return type(key), key

"""The states of the process's own random generators, as data: Python's, NumPy's, PyTorch's on every device.

Only those of packages that are imported are looked at. A state is some kilobytes, and often the same as
the one before, so several are kept in a `Table`, each once.
"""

from __future__ import annotations

import random
import struct
import sys
from typing import Any

Snapshot = dict[str, Any]
"""Name of a generator -> its state, as data; compared by what it says."""

_WORDS = struct.Struct("<625I")


def snapshot() -> Snapshot:
    """The states now."""
    version, words, gauss = random.getstate()
    found: Snapshot = {"python": [version, _WORDS.pack(*words), gauss]}
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        name, keys, at, has_gauss, cached = numpy.random.get_state()
        found["numpy"] = [name, keys.tobytes(), int(at), int(has_gauss), float(cached)]
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_rng_state"):
        found["torch"] = [torch.get_rng_state().numpy().tobytes()]
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            found["cuda"] = [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return found


def restore(saved: Snapshot) -> None:
    """Set them back. A package that was imported then, and is not now, is imported."""
    version, words, gauss = saved["python"]
    random.setstate((version, _WORDS.unpack(words), gauss))
    if "numpy" in saved:
        import numpy as np

        name, keys, at, has_gauss, cached = saved["numpy"]
        np.random.set_state((name, np.frombuffer(keys, np.uint32), at, has_gauss, cached))
    if "torch" in saved:
        import torch

        def tensor(state: bytes) -> Any:
            return torch.frombuffer(bytearray(state), dtype=torch.uint8)

        torch.set_rng_state(tensor(saved["torch"][0]))
        if "cuda" in saved and torch.cuda.is_available():
            for device, state in enumerate(saved["cuda"][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(tensor(state), device)


class Table:
    """Snapshots with each state kept once."""

    def __init__(self) -> None:
        self.states: list[Any] = []
        self._found: dict[tuple[Any, ...], int] = {}

    def put(self, taken: Snapshot | None) -> dict[str, int] | None:
        """Data that stands for a snapshot."""
        if taken is None:
            return None
        row = {}
        for name, state in taken.items():
            key = (name, *state)
            if key not in self._found:
                self._found[key] = len(self.states)
                self.states.append(state)
            row[name] = self._found[key]
        return row


def taken_from(states: list[Any], row: dict[str, int] | None) -> Snapshot | None:
    """The snapshot that `Table.put` made this row of."""
    return None if row is None else {name: states[index] for name, index in row.items()}

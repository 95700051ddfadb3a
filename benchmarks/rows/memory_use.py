"""S10: how much memory a save takes beside the state."""

from __future__ import annotations

from benchmarks.contestants.big import LAYERS
from benchmarks.figure import Figure, Row
from benchmarks.rows.background_saves import BYTES_PER_LAYER
from benchmarks.rows.columns import Columns
from benchmarks.stage import Play, Stage

KEY = "S10"
TITLE = "Memory beside a state of 1 GiB"

BACKGROUND = "headway, save(wait=False)"
BLOCKING = "headway, save()"
ASIDE = 64


def measure(stage: Stage) -> Row:
    """A fresh process for each figure."""
    rounds, layers = stage.some(3, 1), stage.some(LAYERS, 3)
    size = layers * BYTES_PER_LAYER / 2**20

    def peer(tool: str, *, background: bool) -> Play:
        options = {"layers": layers, "tool": tool, "background": background}
        return Play("torch_peer", "memory", options, "torch", rounds=1)

    own = {"layers": layers}
    plays = {
        BACKGROUND: Play("headway_states", "memory", {**own, "background": True}),
        BLOCKING: Play("headway_states", "memory", {**own, "background": False}),
        "DCP, async_save": peer("DCP", background=True),
        "DCP, save": peer("DCP", background=False),
        "torch.save": peer("torch.save", background=False),
        "safetensors": peer("safetensors", background=False),
        "Orbax, AsyncCheckpointer": Play("orbax_peer", "memory", own, "orbax-checkpoint", rounds=1),
    }
    found = Columns(*stage.debuts(plays, rounds))
    targets = {BACKGROUND: size + ASIDE, BLOCKING: float(ASIDE)}
    figures: list[Figure] = [
        found.figure(label, "MiB", target=targets.get(label)) for label in plays
    ]
    about = (
        f"The most resident memory (VmHWM) during two saves of a state of {size:,.0f} MiB, less what the "
        "process had before the first; libraries were imported and something small saved before. A "
        "process of its own for each round; the others do one."
    )
    return Row(KEY, TITLE, about, tuple(figures))

"""S3 and S4: how long it takes until a large state would survive a power cut."""

from __future__ import annotations

from benchmarks.contestants.big import LAYERS, SHAPES
from benchmarks.figure import Row
from benchmarks.rows.background_saves import BYTES_PER_LAYER
from benchmarks.rows.columns import Columns
from benchmarks.stage import Play, Stage

NEW_KEY = "S3"
NEW_TITLE = "Durable save of 1 GiB into new space"
RECYCLED_KEY = "S4"
RECYCLED_TITLE = "Durable save of 1 GiB into recycled space"

LIMIT = "the limit: O_DIRECT write + fsync, new file"
OVER = "O_DIRECT write + fsync, over blocks that are there"
HEADWAY = "headway, save()"
TORCH = "torch.save + fsync"
SAFETENSORS = "safetensors + fsync"
DCP = "DCP, save"
ORBAX = "Orbax, save + wait"


def measure_new(stage: Stage) -> Row:
    """headway and the others, each into files that are new."""
    rounds, layers = stage.some(7, 2), stage.some(LAYERS, 3)
    options = {"layers": layers}
    cast = {
        HEADWAY: Play("headway_states", "fresh", options),
        LIMIT: Play("limits", "fresh", {"size": layers * BYTES_PER_LAYER}),
        TORCH: Play("torch_peer", "fresh", {**options, "tool": "torch.save"}, "torch"),
        SAFETENSORS: Play("torch_peer", "fresh", {**options, "tool": "safetensors"}, "torch"),
        DCP: Play("torch_peer", "fresh", {**options, "tool": "DCP"}, "torch"),
        ORBAX: Play("orbax_peer", "fresh", options, "orbax-checkpoint", rounds=3),
    }
    found = Columns(*stage.play(cast, rounds))
    figures = found.figures(cast, "ms")
    targets = {LIMIT: 1.1, TORCH: None, SAFETENSORS: None, DCP: None, ORBAX: None}
    figures += found.ratios(HEADWAY, targets)
    about = (
        f"{rounds} rounds of one save each of {layers * BYTES_PER_LAYER / 2**20:,.0f} MiB in "
        f"{layers * len(SHAPES)} arrays, gone afterwards, the disk told of it before the next turn. "
        "headway computes a checksum of every chunk and opens a new lineage for each save, which is "
        "not in the time. The limit writes 8 MiB pieces from four threads and checks nothing."
    )
    return Row(NEW_KEY, NEW_TITLE, about, tuple(figures))


def measure_recycled(stage: Stage) -> Row:
    """headway in the space of its old checkpoints; the others have no such thing."""
    rounds, layers = stage.some(7, 2), stage.some(LAYERS, 3)
    size = layers * BYTES_PER_LAYER
    cast = {
        HEADWAY: Play("headway_states", "recycled", {"layers": layers}),
        LIMIT: Play("limits", "fresh", {"size": size}),
        OVER: Play("limits", "over", {"size": size}),
    }
    found = Columns(*stage.play(cast, rounds))
    figures = found.figures(cast, "ms") + found.ratios(HEADWAY, {LIMIT: 0.75, OVER: None})
    about = (
        f"{rounds} rounds. headway keeps two checkpoints and has saved four before the first round; "
        "everything is new in each. The limit is that of S3."
    )
    return Row(RECYCLED_KEY, RECYCLED_TITLE, about, tuple(figures))

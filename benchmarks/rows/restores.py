"""S5 and S6: how long it takes to have a large state back in live tensors."""

from __future__ import annotations

from benchmarks.contestants.big import LAYERS
from benchmarks.figure import Row
from benchmarks.rows.background_saves import BYTES_PER_LAYER
from benchmarks.rows.columns import Columns
from benchmarks.stage import Play, Stage

COLD_KEY = "S5"
COLD_TITLE = "Verified restore of 1 GiB into live arrays, from the disk"
WARM_KEY = "S6"
WARM_TITLE = "The same, with the files in memory"

READ = "the limit: O_DIRECT read"
COPY = "the limit: memcpy, two threads"
HEADWAY = "headway, load(into=…)"
TORCH = "torch.load, copied into live tensors"
SAFETENSORS = "safetensors load_file, copied into live tensors"
DCP = "DCP, load"
ORBAX = "Orbax, restore, copied into live arrays"


def measure_cold(stage: Stage) -> Row:
    """With nothing of the files in memory."""
    found, rounds = _turns(stage)
    labels = [HEADWAY, READ, TORCH, SAFETENSORS, DCP, ORBAX]
    figures = found.figures(labels, "ms")
    targets = {READ: 1.1, TORCH: 0.6, SAFETENSORS: 0.6, DCP: None, ORBAX: None}
    figures += found.ratios(HEADWAY, targets)
    about = (
        f"{rounds} rounds. The files are durable and were dropped from the system's memory "
        "(`POSIX_FADV_DONTNEED`). The live arrays are there, of another content, their memory touched; "
        "afterwards they are compared with what was saved. headway opens the lineage anew, which counts, "
        "and verifies every chunk; none of the others does."
    )
    return Row(COLD_KEY, COLD_TITLE, about, tuple(figures))


def measure_warm(stage: Stage) -> Row:
    """With all of the files in memory."""
    found, rounds = _turns(stage)
    figures = [found.figure(HEADWAY, "ms", 1), found.figure(COPY, "ms")]
    figures += found.figures([TORCH, SAFETENSORS, DCP, ORBAX], "ms", 1)
    figures.append(found.ratio(HEADWAY, COPY, 1, below=0, target=1.3))
    figures += found.ratios(HEADWAY, {TORCH: None, SAFETENSORS: None, DCP: None, ORBAX: None}, 1)
    about = f"{rounds} rounds. As S5, once all files were read."
    return Row(WARM_KEY, WARM_TITLE, about, tuple(figures))


def _turns(stage: Stage) -> tuple[Columns, int]:
    """Both rows', measured once."""
    rounds, layers = stage.some(7, 2), stage.some(LAYERS, 3)
    options = {"layers": layers}

    def play() -> Columns:
        cast = {
            HEADWAY: Play("headway_states", "restore", options),
            READ: Play("limits", "read", {"size": layers * BYTES_PER_LAYER}),
            COPY: Play("limits", "copy", {**options, "times": 3}),
            TORCH: Play("torch_peer", "restore", {**options, "tool": "torch.save"}, "torch"),
            SAFETENSORS: Play("torch_peer", "restore", {**options, "tool": "safetensors"}, "torch"),
            DCP: Play("torch_peer", "restore", {**options, "tool": "DCP"}, "torch"),
            ORBAX: Play("orbax_peer", "restore", options, "orbax-checkpoint", rounds=3),
        }
        return Columns(*stage.play(cast, rounds))

    return stage.once("restores", play), rounds

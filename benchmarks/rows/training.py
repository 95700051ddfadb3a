"""S12: how much slower a training gets that saves once a second."""

from __future__ import annotations

from benchmarks.figure import Figure, Row, absent
from benchmarks.rows.columns import Columns
from benchmarks.stage import Play, Stage

KEY = "S12"
TITLE = "Slowdown of a training by a save of 256 MiB a second"

HEADWAY = "headway, save(wait=False)"
TRACK = "headway, track(every=1)"
TORCH = "torch.save + fsync"
DCP = "DCP, async_save"


def measure(stage: Stage) -> Row:
    """Trainings without saves and with, in turn."""
    rounds, seconds = stage.some(7, 1), stage.some(2, 1)
    options = {"mib": stage.some(256, 16), "seconds": seconds}
    cast = {
        label: Play(
            "training", "slowed", {**options, "tool": tool}, "torch", own=label in {HEADWAY, TRACK}
        )
        for label, tool in (
            (HEADWAY, "headway"),
            (TRACK, "track"),
            (TORCH, "torch.save"),
            (DCP, "DCP"),
        )
    }
    found = Columns(*stage.play(cast, rounds))
    figures: list[Figure] = []
    for label in cast:
        if label in found.missing:
            figures.append(absent(label, "%", found.missing[label]))
        else:
            figures.append(Figure(label, "%", tuple(100 * each for each in found.of(label))))
    figures += [
        _compared(found, ours, label) for ours in (HEADWAY, TRACK) for label in (TORCH, DCP)
    ]
    figures.append(found.figure(HEADWAY, "ms", 1, name="a step without saves"))
    about = (
        f"{rounds} rounds. A step is eight products of 1,024 × 1,024 matrices on two threads, and then "
        f"every number of the state of {options['mib']} MiB changes in place. Each turn trains {seconds} s "
        "without saves and as long with a save a second, the last one's end included; the figure is by "
        "how much a step took longer. A training that noise made faster counts as not slowed in the "
        "ratios, and a round in which it made the other one faster is left out. headway saves PyTorch's "
        "tensors."
    )
    return Row(KEY, TITLE, about, tuple(figures))


def _compared(found: Columns, ours: str, label: str) -> Figure:
    name = f"{ours} ÷ {label}"
    for each in (ours, label):
        if each in found.missing:
            return absent(name, "×", found.missing[each], target=1 / 3)
    pairs = zip(found.of(ours), found.of(label), strict=False)
    values = tuple(max(0.0, one) / other for one, other in pairs if other > 0)
    return Figure(name, "×", values, 1 / 3)

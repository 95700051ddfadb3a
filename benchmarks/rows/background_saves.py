"""S1, S2 and S11: what a save in the background costs the one who trains."""

from __future__ import annotations

from benchmarks.contestants.big import LAYERS, SHAPES
from benchmarks.figure import Figure, Row
from benchmarks.rows.columns import Columns
from benchmarks.stage import Play, Stage

STEADY_KEY = "S1"
STEADY_TITLE = "Blocked by a background save of 1 GiB, steady"
FIRST_KEY = "S2"
FIRST_TITLE = "Blocked by the first background save"
PROCESSOR_KEY = "S11"
PROCESSOR_TITLE = "Processor time of a background save"

BYTES_PER_LAYER = sum(4 * rows * columns for rows, columns in SHAPES.values())

TRACK = "headway, track, a PyTorch training"
OVERLAP = "headway, track(overlap=True)"
LIMIT = "the limit: memcpy, two threads"
HEADWAY = "headway, save(wait=False)"
DCP = "DCP, async_save"
ORBAX = "Orbax, AsyncCheckpointer"
TORCH = "torch.save + fsync"
PREPARED = "headway, after prepare()"
COLD = "headway, without prepare()"


def measure_steady(stage: Stage) -> Row:
    """The blocked time."""
    found, about = _turns(stage)
    labels = [HEADWAY, TRACK, OVERLAP, LIMIT, DCP, ORBAX, TORCH]
    figures: list[Figure] = found.figures(labels, "ms")
    figures += [
        found.figure(label, "ms", 1, name=f"{label}, until it is durable")
        for label in (HEADWAY, DCP, ORBAX)
    ]
    figures += found.ratios(HEADWAY, {LIMIT: 1.0, DCP: None, ORBAX: None, TORCH: None})
    figures += found.ratios(TRACK, {LIMIT: None})
    figures += found.ratios(OVERLAP, {LIMIT: 0.2, DCP: None, TORCH: None})
    about += (
        f" {TRACK} and {OVERLAP} save a PyTorch training of as many bytes: half are parameters, half the "
        "optimizer's momentum. What counts is the time between two steps in which the save begins, and "
        "what the next step of the optimizer waits for it."
    )
    return Row(STEADY_KEY, STEADY_TITLE, about, tuple(figures))


def measure_processor(stage: Stage) -> Row:
    """The processor time between the end of the copy and durability."""
    found, about = _turns(stage)
    size = _layers(stage) * BYTES_PER_LAYER / 2**30
    figures = []
    for label in (HEADWAY, DCP, ORBAX):
        plain = found.figure(label, "s", 2)
        values = tuple(each / size for each in plain.values)
        target = 0.12 if label == HEADWAY else None
        figures.append(Figure(f"{label}, a GiB", "s", values, target, plain.note))
    about += (
        " Processor time of all threads of the process, the kernel's part included, from the end of "
        "the blocked time until the checkpoint is durable; what kernel threads do for buffered writes "
        "is not in it."
    )
    return Row(PROCESSOR_KEY, PROCESSOR_TITLE, about, tuple(figures))


def measure_first(stage: Stage) -> Row:
    """The first save of a process beside its later ones."""
    rounds = stage.some(7, 1)
    layers = _layers(stage)
    plays = {
        PREPARED: Play("headway_states", "first", {"layers": layers, "prepare": True}),
        COLD: Play("headway_states", "first", {"layers": layers, "prepare": False}, rounds=3),
        DCP: Play("torch_peer", "first", {"layers": layers, "tool": "DCP"}, "torch", rounds=2),
        ORBAX: Play("orbax_peer", "first", {"layers": layers}, "orbax-checkpoint", rounds=2),
    }
    found = Columns(*stage.debuts(plays, rounds))
    figures: list[Figure] = []
    for label in plays:
        figures += [
            found.figure(label, "ms", name=f"{label}, first"),
            found.figure(label, "ms", 1, name=f"{label}, later"),
            found.ratio(
                label,
                label,
                below=1,
                name=f"{label}, first ÷ later",
                target=1.5 if label == PREPARED else None,
            ),
        ]
    about = (
        f"A process of its own for each of {rounds} rounds (fewer for those without a target). The state "
        "is that of S1; headway prepares during a first step of a second, then everything changes and is "
        "saved, and again. Later is the median of saves 4 to 6 of headway, 2 to 4 of DCP, and the third "
        "of Orbax."
    )
    return Row(FIRST_KEY, FIRST_TITLE, about, tuple(figures))


def _turns(stage: Stage) -> tuple[Columns, str]:
    """S1's and S11's, measured once."""
    rounds, times, layers = stage.some(7, 2), 3, _layers(stage)
    options = {"layers": layers, "times": times}

    def play() -> Columns:
        cast = {
            HEADWAY: Play("headway_states", "background", options),
            TRACK: Play("tracked", "blocked", {**options, "overlap": False}, "torch", own=True),
            OVERLAP: Play("tracked", "blocked", {**options, "overlap": True}, "torch", own=True),
            LIMIT: Play("limits", "copy", {**options, "keep": True}),
            DCP: Play("torch_peer", "background", {**options, "times": 1, "tool": "DCP"}, "torch"),
            ORBAX: Play(
                "orbax_peer", "background", {**options, "times": 1}, "orbax-checkpoint", rounds=3
            ),
            TORCH: Play(
                "torch_peer",
                "background",
                {**options, "times": 1, "tool": "torch.save"},
                "torch",
                rounds=3,
            ),
        }
        return Columns(*stage.play(cast, rounds))

    about = (
        f"{rounds} rounds of one save (headway and memcpy: the median of {times}) of "
        f"{layers * BYTES_PER_LAYER / 2**20:,.0f} MiB in {layers * len(SHAPES)} arrays. Before each, "
        "every number changes in place; the one before is durable. Everybody keeps the memory that he "
        "wants to keep between saves. Orbax gets NumPy arrays, which change in place as PyTorch's do."
    )
    return stage.once("background saves", play), about


def _layers(stage: Stage) -> int:
    return stage.some(LAYERS, 3)

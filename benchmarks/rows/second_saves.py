"""S9: what the second save of a state writes when little of it has changed."""

from __future__ import annotations

from benchmarks.contestants.big import LAYERS
from benchmarks.figure import Figure, Row, absent, ratio
from benchmarks.rows.background_saves import BYTES_PER_LAYER
from benchmarks.rows.columns import Columns
from benchmarks.stage import Play, Stage

KEY = "S9"
TITLE = "Second save of 1 GiB of which little has changed"

HEADWAY = "headway"
LIMIT = "the limit: memcpy, two threads"
OTHERS = {"torch.save": "torch.save", "DCP": "DCP, save"}
CASES = {"1 % in one place": 1.1, "1 % in rows of 2 KiB": 2.5, "nothing": 0.01}


def measure(stage: Stage) -> Row:
    """Bytes written, and time blocked."""
    rounds, layers = stage.some(7, 2), stage.some(LAYERS, 3)
    size = layers * BYTES_PER_LAYER
    cast = {
        HEADWAY: Play("headway_states", "changes", {"layers": layers}),
        LIMIT: Play("limits", "copy", {"layers": layers, "keep": True, "times": 3}),
    }
    for tool, label in OTHERS.items():
        options = {"layers": layers, "tool": tool}
        cast[label] = Play("torch_peer", "changes", options, "torch", rounds=1)
    found = Columns(*stage.play(cast, rounds))
    figures: list[Figure] = []
    for number, (case, target) in enumerate(CASES.items()):
        written = tuple(100 * each / size for each in found.of(HEADWAY, 2 * number + 1))
        figures.append(Figure(f"headway, {case} changed, written", "%", written, target))
    for label in OTHERS.values():
        name = f"{label}, nothing changed, written"
        if label in found.missing:
            figures.append(absent(name, "%", found.missing[label]))
        else:
            shares = tuple(100 * each / size for each in found.of(label))
            figures.append(Figure(name, "%", shares))
    for number, case in enumerate(CASES):
        blocked = found.of(HEADWAY, 2 * number)
        name = f"headway, {case} changed, blocked ÷ the limit"
        figures.append(ratio(name, blocked, found.of(LIMIT), target=1.2))
    about = (
        f"{rounds} rounds. Before each second save all of the state is saved; then some of it changes, and "
        "it is saved in the background. Written is what the process has written until the second save was "
        "durable (`wchar` of /proc/self/io), records included, by the bytes of the state; of the others "
        "one round."
    )
    return Row(KEY, TITLE, about, tuple(figures))

"""S14: a home in a bucket, on a real server on loopback."""

from __future__ import annotations

from benchmarks.contestants.big import LAYERS
from benchmarks.figure import Figure, Row, ratio
from benchmarks.rows.background_saves import BYTES_PER_LAYER
from benchmarks.stage import Play, Stage

KEY = "S14"
TITLE = "A home in a bucket (SeaweedFS on loopback), 1 GiB and 1 KiB"

BOTH = "headway and obstore"
PARTS = "obstore alone, parts of 16 MiB, four at once"


def measure(stage: Stage) -> Row:
    """One process, because the server is part of it: headway and obstore alone take turns in it."""
    rounds, layers = stage.some(7, 1), stage.some(LAYERS, 3)
    play = Play("bucket", "saves", {"layers": layers}, "obstore", own=True)
    measured, missing = stage.play({BOTH: play}, rounds)
    if missing:
        return Row(KEY, TITLE, "", error=missing[BOTH])
    save, load, put, get, commit, bare, requests, mean = (
        tuple(column) for column in zip(*measured[BOTH], strict=True)
    )
    figures = (
        Figure("headway, save", "s", save),
        Figure(f"{PARTS}, put", "s", put),
        Figure("headway, load(into=…)", "s", load),
        Figure(f"{PARTS}, get", "s", get),
        ratio("headway ÷ obstore alone, save", save, put, target=1 / 0.9),
        ratio("headway ÷ obstore alone, restore", load, get, target=1 / 0.9),
        Figure("headway, checkpoint.write of 1 KiB", "ms", tuple(1000 * each for each in commit)),
        Figure("obstore alone, put of 1 KiB", "ms", tuple(1000 * each for each in bare)),
        Figure("headway, requests of a commit of 1 KiB", "requests", requests, 2.0),
        Figure(
            "headway, requests of a commit of 1 KiB, mean",
            "requests",
            mean,
            note="some commits begin a new term, as their ledger is full",
        ),
    )
    about = (
        f"{rounds} rounds. headway saves {layers * BYTES_PER_LAYER / 2**20:,.0f} MiB into a new lineage "
        "and restores them into live arrays; then obstore puts as many bytes as one object from memory, "
        "and gets them. Opening a lineage is not in the times. Requests are counted by a proxy, in a "
        "lineage of their own. Of 1 KiB the median of 20 a turn."
    )
    return Row(KEY, TITLE, about, figures)

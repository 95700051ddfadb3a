"""S13: files instead of state: many small ones, and one that is large."""

from __future__ import annotations

from benchmarks.contestants.trees import many, one
from benchmarks.figure import Figure, Row
from benchmarks.rows.columns import Columns
from benchmarks.stage import Play, Stage

KEY = "S13"
TITLE = "20,000 files of 10 KB; one file of 10 GB"

HEADWAY = "headway, save(path)"
COPY = "cp -r + sync"
FLYTEKIT = "flytekit, checkpoint.save + sync"


def measure(stage: Stage) -> Row:
    """Both, one after the other."""
    count, size = stage.some(20_000, 500), stage.some(10**10, 10**8)
    rounds, few = stage.some(7, 1), stage.some(3, 1)
    figures: list[Figure] = []
    with stage.directory("sources") as place:
        many(place / "many", count, 10_000)
        options = {"source": str(place / "many"), "cold": False}
        cast = {
            HEADWAY: Play("trees", "headway", options),
            COPY: Play("trees", "cp", options),
            FLYTEKIT: Play("flytekit_peer", "tree", options, "flytekit", rounds=few),
        }
        found = Columns(*stage.play(cast, rounds))
        what = f"{count:,} files"
        figures += [found.figure(label, "s", name=f"{label}, {what}") for label in cast]
        figures += [
            found.ratio(HEADWAY, COPY, name=f"headway ÷ {COPY}, {what}", target=0.5),
            found.ratio(HEADWAY, FLYTEKIT, name=f"headway ÷ flytekit, {what}"),
        ]
    with stage.directory("sources") as place:
        one(place / "one", size)
        options = {"source": str(place / "one"), "cold": True}
        cast = {
            HEADWAY: Play("trees", "headway", options),
            COPY: Play("trees", "cp", options),
        }
        found = Columns(*stage.play(cast, few, warm_up=False))
        what = f"a file of {size / 1e9:g} GB"
        figures += [found.figure(label, "s", name=f"{label}, {what}") for label in cast]
        figures += [
            found.ratio(HEADWAY, COPY, name=f"headway ÷ {COPY}, {what}", target=0.5),
            found.figure(HEADWAY, "MiB", 1, name=f"{HEADWAY}, {what}, memory", target=256.0),
        ]
    about = (
        f"{rounds} rounds of {count:,} files of 10,000 bytes, which are in the system's memory; {few} of "
        f"one of {size / 1e9:g} GB, which is dropped from it before each turn, without a warm-up. headway "
        "saves into a new lineage, durable on return. Memory is the most that the process had beyond what "
        "it had before."
    )
    return Row(KEY, TITLE, about, tuple(figures))

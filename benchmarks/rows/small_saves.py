"""S7: how long a checkpoint of a kilobyte takes until it would survive a power cut."""

from __future__ import annotations

import statistics

from benchmarks.figure import Figure, Row, absent, ratio, scaled
from benchmarks.stage import Play, Stage

KEY = "S7"
TITLE = "Durable small checkpoint, 1 KiB, p50"
SIZE = 1024

LIMIT = "the limit: write + fdatasync, zero-filled log"
RENAME = "write + fsync + rename + fsync(directory)"
SQLITE = "SQLite, WAL, synchronous=FULL"
FLYTEKIT = "flytekit, checkpoint.write (not durable)"
HEADWAY = "headway, checkpoint.write"

TARGETS = {LIMIT: 1.3, RENAME: 0.35, SQLITE: None, FLYTEKIT: 0.3}


def measure(stage: Stage) -> Row:
    """Let the ways to save take turns, some hundred saves a turn."""
    rounds, count = stage.some(41, 2), stage.some(60, 10)
    options = {"count": count, "size": SIZE}
    cast = {
        HEADWAY: Play("headway_write", "write", options),
        LIMIT: Play("files", "log", options),
        RENAME: Play("files", "rename", options),
        SQLITE: Play("files", "sqlite", options),
        FLYTEKIT: Play("flytekit_peer", "write", options, peer="flytekit"),
    }
    measured, missing = stage.play(cast, rounds)
    p50 = {label: [statistics.median(turn) for turn in turns] for label, turns in measured.items()}
    figures: list[Figure] = [
        absent(label, "µs", missing[label]) if label in missing else scaled(label, "µs", p50[label])
        for label in cast
    ]
    figures.insert(1, _mean(measured[HEADWAY]))
    for label, target in TARGETS.items():
        name = f"headway ÷ {label.partition(': ')[0]}"
        figures.append(
            absent(name, "×", missing[label], target=target)
            if label in missing
            else ratio(name, p50[HEADWAY], p50[label], target=target)
        )
    about = (
        f"{rounds} rounds; in each, every way to save gets a turn of {count} saves of {SIZE:,} fresh "
        "random bytes, in the same directory. The figure of a turn is its median (p50). Ratios are "
        "taken within a round."
    )
    return Row(KEY, TITLE, about, tuple(figures))


def _mean(turns: list[list[float]]) -> Figure:
    note = "the mean also counts the few saves that begin a new log file"
    return scaled(f"{HEADWAY}, mean", "µs", map(statistics.fmean, turns), note=note)

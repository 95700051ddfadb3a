"""E1: what a task costs when it does nothing."""

from __future__ import annotations

from benchmarks.figure import Figure, Row, absent, ratio, scaled
from benchmarks.stage import Play, Stage

KEY = "E1"
TITLE = "A trivial task, in a sequence of 1,000"

HEADWAY = "headway"
FLYTEKIT = "flytekit, local (not durable)"
PREFECT = "Prefect, its own temporary server"
RAY = "Ray, results appended + fdatasynced"
CALL = "a bare function call"


def measure(stage: Stage) -> Row:
    """Let the tools run their chains in turn."""
    rounds, tasks = stage.some(7, 1), stage.some(1000, 20)
    slow_rounds, few = min(rounds, 3), stage.some(100, 5)
    options = {"tasks": tasks}
    cast = {
        HEADWAY: Play("headway_runs", "chain", options),
        FLYTEKIT: Play("flytekit_peer", "chain", options, peer="flytekit"),
        RAY: Play("ray_peer", "chain", options, peer="ray"),
        PREFECT: Play("prefect_peer", "chain", {"tasks": few}, peer="prefect", rounds=slow_rounds),
        CALL: Play("files", "call", options),
    }
    measured, missing = stage.play(cast, rounds)
    seconds = {label: [turn[0] for turn in turns] for label, turns in measured.items()}
    figures: list[Figure] = []
    for label in cast:
        unit = "ns" if label == CALL else "ms"
        target = 3.0 if label == HEADWAY else None
        note = f"in sequences of {few} tasks" if label == PREFECT else ""
        if label in missing:
            figures.append(absent(label, unit, missing[label]))
        else:
            figures.append(scaled(label, unit, seconds[label], target=target, note=note))
    for label in (FLYTEKIT, RAY, PREFECT):
        name = f"headway ÷ {label.partition(',')[0]}"
        figures.append(
            absent(name, "×", missing[label], target=1.0)
            if label in missing
            else ratio(name, seconds[HEADWAY], seconds[label], target=1.0)
        )
    about = (
        f"Each task adds 1 to what the one before returned; one run of {tasks:,} tasks a round, "
        f"{rounds} rounds, after one that does not count. The figure is the time of the whole run by its "
        "number of tasks. headway's has the start of its workers and a durable record of every result "
        "in it. Ray keeps results in memory, so its driver appends each to a zero-filled log and calls "
        "fdatasync. Prefect records states in SQLite through its server, flytekit records nothing."
    )
    return Row(KEY, TITLE, about, tuple(figures))

"""E2 and E3: how long it takes until work goes on after something was killed."""

from __future__ import annotations

from benchmarks.figure import Row, absent, ratio, scaled
from benchmarks.stage import Play, Stage

WORKER_KEY = "E2"
WORKER_TITLE = "From `kill -9` of a worker to the next attempt's body"
DRIVER_KEY = "E3"
DRIVER_TITLE = "From `kill -9` of a driver to the next node of `headway resume`"

HEADWAY = "headway"
RAY = "Ray, max_retries"


def measure_worker(stage: Stage) -> Row:
    """Kill workers of headway and of Ray in turn."""
    rounds = stage.some(9, 1)
    cast = {
        HEADWAY: Play("headway_deaths", "worker", {}),
        RAY: Play("ray_peer", "killed", {}, peer="ray"),
    }
    measured, missing = stage.play(cast, rounds)
    ours = [turn[0] for turn in measured[HEADWAY]]
    figures = [scaled(HEADWAY, "ms", ours, target=150.0)]
    if RAY in missing:
        figures.append(absent(RAY, "ms", missing[RAY]))
    else:
        theirs = [turn[0] for turn in measured[RAY]]
        figures += [scaled(RAY, "ms", theirs), ratio("headway ÷ Ray", ours, theirs)]
    about = (
        f"A task waits; its process is killed; the first line of the next attempt's body takes the "
        f"time. {rounds} rounds. headway is run by its command line in a fresh home each round; Ray's "
        "cluster runs all the time, and may have idle workers ready. flytekit and Prefect do not retry "
        "a local task whose process was killed."
    )
    return Row(WORKER_KEY, WORKER_TITLE, about, tuple(figures))


def measure_driver(stage: Stage) -> Row:
    """Kill drivers and resume at once."""
    rounds = stage.some(9, 1)
    measured, _ = stage.play({HEADWAY: Play("headway_deaths", "driver", {})}, rounds)
    ours = [turn[0] for turn in measured[HEADWAY]]
    about = (
        "Of two nodes the first has finished and the second waits; the driver is killed and `headway "
        "resume` is typed at once. The time ends at the first line of the second node's body, and has "
        f"in it: the orphan's end, the command's start, reading the journal, a new worker. {rounds} "
        "rounds, each in a fresh home. The peers cannot resume a local run."
    )
    return Row(DRIVER_KEY, DRIVER_TITLE, about, (scaled(HEADWAY, "ms", ours, target=1000.0),))

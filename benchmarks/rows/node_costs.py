"""E4: whether a node costs the same in a small run and in a large one."""

from __future__ import annotations

from benchmarks.figure import Figure, Row, scaled
from benchmarks.stage import Stage

KEY = "E4"
TITLE = "Cost of a node in runs of 100 to 10,000 nodes"

SHAPES = {"chain": "in sequence", "wide": "side by side"}
HUGE = 100_000
FEW = 3  # rounds of the large runs


def measure(stage: Stage) -> Row:
    """Run graphs of growing size, each run in a fresh driver process."""
    sizes = [100, 1000] if stage.quick else [100, 1000, 10_000]
    rounds = stage.some(7, 1)
    figures: list[Figure] = []
    for shape, words in SHAPES.items():
        samples = _samples(stage, shape, [*sizes, HUGE] if stage.huge else sizes, rounds)
        small, large = sizes[0], max(samples)
        figures += [
            scaled(f"{size:,} {words}, time per node", "ms", [each[0] for each in taken])
            for size, taken in samples.items()
        ]
        spreads = _spreads(samples)
        figures.append(Figure(f"{words}, dearest ÷ cheapest size", "×", spreads, 1.5))
        for index, (what, target) in enumerate(
            [("at the end of the run", 2048.0), ("at most", None)], start=1
        ):
            values = tuple(
                (b[index] - a[index]) / (large - small)
                for a, b in zip(samples[small], samples[large], strict=False)
            )
            figures.append(Figure(f"{words}, memory per node {what}", "bytes", values, target))
    about = (
        "The time of a run less that of a run of one node, by the number of nodes beyond the first; "
        f"trivial tasks, {rounds} rounds up to 1,000 nodes and {min(rounds, FEW)} beyond. Memory is what "
        f"the driver holds more in the largest run than in that of {sizes[0]} nodes, by the "
        "difference in nodes; every run has a driver process of its own."
    )
    return Row(KEY, TITLE, about, tuple(figures))


Samples = dict[int, list[list[float]]]


def _samples(stage: Stage, shape: str, sizes: list[int], rounds: int) -> Samples:
    """Size -> what each round measured: seconds a node, bytes at the end, bytes at most."""
    samples: Samples = {size: [] for size in sizes}
    for number in range(rounds):
        for size in sizes:
            if size > 1000 and number >= (1 if size == HUGE else FEW):
                continue
            stage.say(f"  round {number + 1} of {rounds}: {size:,} nodes, {shape}")
            options = {"nodes": size, "shape": shape}
            patience = 60.0 + size * 0.1
            with stage.contestant(
                "headway_runs", "nodes", options, patience=patience
            ) as contestant:
                samples[size].append(contestant.round())
    return samples


def _spreads(samples: Samples) -> tuple[float, ...]:
    """By round, how many times the cheapest size's time per node the dearest size's is."""
    costs = [[each[0] for each in taken] for taken in samples.values()]
    return tuple(max(turn) / min(turn) for turn in zip(*costs, strict=False))

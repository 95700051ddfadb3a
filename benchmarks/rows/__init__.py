"""The rows of the targets that are measured, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.figure import Row
from benchmarks.rows import (
    background_saves,
    buckets,
    deaths,
    durable_saves,
    many_writers,
    memory_use,
    node_costs,
    restores,
    second_saves,
    small_saves,
    starts,
    task_chain,
    training,
    trees,
)
from benchmarks.stage import Stage


class Measurement(NamedTuple):
    """A row that can be measured."""

    title: str
    measure: Callable[[Stage], Row]


ROWS: dict[str, Measurement] = {
    background_saves.STEADY_KEY: Measurement(
        background_saves.STEADY_TITLE, background_saves.measure_steady
    ),
    background_saves.FIRST_KEY: Measurement(
        background_saves.FIRST_TITLE, background_saves.measure_first
    ),
    durable_saves.NEW_KEY: Measurement(durable_saves.NEW_TITLE, durable_saves.measure_new),
    durable_saves.RECYCLED_KEY: Measurement(
        durable_saves.RECYCLED_TITLE, durable_saves.measure_recycled
    ),
    restores.COLD_KEY: Measurement(restores.COLD_TITLE, restores.measure_cold),
    restores.WARM_KEY: Measurement(restores.WARM_TITLE, restores.measure_warm),
    small_saves.KEY: Measurement(small_saves.TITLE, small_saves.measure),
    many_writers.KEY: Measurement(many_writers.TITLE, many_writers.measure),
    second_saves.KEY: Measurement(second_saves.TITLE, second_saves.measure),
    memory_use.KEY: Measurement(memory_use.TITLE, memory_use.measure),
    background_saves.PROCESSOR_KEY: Measurement(
        background_saves.PROCESSOR_TITLE, background_saves.measure_processor
    ),
    training.KEY: Measurement(training.TITLE, training.measure),
    trees.KEY: Measurement(trees.TITLE, trees.measure),
    buckets.KEY: Measurement(buckets.TITLE, buckets.measure),
    task_chain.KEY: Measurement(task_chain.TITLE, task_chain.measure),
    deaths.WORKER_KEY: Measurement(deaths.WORKER_TITLE, deaths.measure_worker),
    deaths.DRIVER_KEY: Measurement(deaths.DRIVER_TITLE, deaths.measure_driver),
    node_costs.KEY: Measurement(node_costs.TITLE, node_costs.measure),
    starts.IMPORT_KEY: Measurement(starts.IMPORT_TITLE, starts.measure_imports),
    starts.HELP_KEY: Measurement(starts.HELP_TITLE, starts.measure_help),
}

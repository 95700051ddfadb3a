"""The rows of the targets that are measured, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.figure import Row
from benchmarks.rows import deaths, node_costs, small_saves, starts, task_chain
from benchmarks.stage import Stage


class Measurement(NamedTuple):
    """A row that can be measured."""

    title: str
    measure: Callable[[Stage], Row]


ROWS: dict[str, Measurement] = {
    small_saves.KEY: Measurement(small_saves.TITLE, small_saves.measure),
    task_chain.KEY: Measurement(task_chain.TITLE, task_chain.measure),
    deaths.WORKER_KEY: Measurement(deaths.WORKER_TITLE, deaths.measure_worker),
    deaths.DRIVER_KEY: Measurement(deaths.DRIVER_TITLE, deaths.measure_driver),
    node_costs.KEY: Measurement(node_costs.TITLE, node_costs.measure),
    starts.IMPORT_KEY: Measurement(starts.IMPORT_TITLE, starts.measure_imports),
    starts.HELP_KEY: Measurement(starts.HELP_TITLE, starts.measure_help),
}

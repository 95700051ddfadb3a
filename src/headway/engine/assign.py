"""From the plan of a node to a complete attempt: inputs resolved, log named, budget counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headway.engine.graph import resolve
from headway.engine.home import Home
from headway.engine.state import RunState
from headway.engine.values import digest
from headway.model.program import AttemptSpec, Watch


class Assignments:
    """Implements `driver.Assigner` for a home.

    Args:
        home: the home, which workers open again by its URL.
        watch: given the number of an attempt, says how it is watched.
    """

    def __init__(self, home: Home, watch: Callable[[int], Watch] | None = None) -> None:
        self._home = home
        self._watch = watch

    def spec(self, state: RunState, node: str, attempt: int) -> AttemptSpec:
        """The attempt, its inputs resolved from the run's inputs and what other nodes committed."""
        found = state.nodes[node]
        inputs = {
            name: resolve(binding, state.inputs, state.results)
            for name, binding in found.plan.inputs.items()
        }
        return AttemptSpec(
            home=self._home.url,
            run=state.run,
            node=node,
            attempt=attempt,
            program=state.program,
            task=found.plan.task,
            inputs=inputs,
            inputs_digest=digest(inputs),
            log=str(self._home.place.log(state.run, node, attempt)),
            retries_left=found.retries_left,
            keep=found.plan.options.keep,
            keep_best=found.plan.options.keep_best,
            watch=None if self._watch is None else self._watch(attempt),
        )

    def outputs(self, state: RunState) -> dict[str, Any]:
        """The outputs of a run whose nodes all succeeded."""
        return {
            name: resolve(binding, state.inputs, state.results)
            for name, binding in state.outputs.items()
        }

"""What a run's plan became since the run began: the graph of the code as it is now, against the
journal's. Results of finished nodes are kept, whatever became of their code: that is what resuming
is for, and a new run is one command away. What was kept although it changed is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headway.engine.state import RunState
from headway.model.events import NodePlan
from headway.model.outcome import NodeStatus


class Changes(msgspec.Struct, frozen=True):
    """What `DriverStarted` takes, and remarks for people.

    Attributes:
        replaced: plans that are new or differ.
        removed: names of nodes that are not in the graph any more.
        outputs: bindings of the run's outputs, when they differ.
        notes: one sentence each.
    """

    replaced: tuple[NodePlan, ...] = ()
    removed: tuple[str, ...] = ()
    outputs: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def compare(
    state: RunState, nodes: Sequence[NodePlan], outputs: dict[str, Any], digest: str
) -> Changes:
    """Compare the run with the graph that its program has now.

    Args:
        state: the run.
        nodes, outputs: the graph as traced now.
        digest: of the program as found now.
    """
    notes = []
    if digest != state.program.digest:
        notes.append(
            "the code has changed since the run began: nodes that finished keep their results, the "
            f"others run the new code (for a run of the new code alone: `headway run` "
            f"{state.program.path or state.program.module})"
        )
    now = {plan.name: plan for plan in nodes}
    replaced = [plan for plan in nodes if _known(state, plan.name) != plan]
    removed = tuple(name for name in state.nodes if name not in now)
    for plan in replaced:
        node = state.nodes.get(plan.name)
        if node is None or node.status is not NodeStatus.SUCCEEDED:
            continue
        if set(plan.outputs) != set(node.plan.outputs):
            notes.append(f"{plan.name} had finished, but has other outputs now: it runs again")
        elif plan.task != node.plan.task or plan.inputs != node.plan.inputs:
            what = "task" if plan.task != node.plan.task else "inputs"
            notes.append(f"{plan.name} had finished before its {what} changed: its result is kept")
    if removed:
        notes.append("not in the workflow any more: " + ", ".join(removed))
    return Changes(
        tuple(replaced), removed, outputs if outputs != state.outputs else None, tuple(notes)
    )


def _known(state: RunState, name: str) -> NodePlan | None:
    node = state.nodes.get(name)
    return None if node is None else node.plan

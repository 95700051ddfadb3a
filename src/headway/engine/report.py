"""What people and scripts are shown of a run: folds of its journal and of its nodes' ledgers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from headway.checkpoint.lineage import read_lineage, skipped
from headway.checkpoint.lineage import report_of as checkpoint_report
from headway.engine.blobs import Blob, Blobs
from headway.engine.keys import KEPT, beside, node_prefix, nodes_prefix, values_prefix
from headway.engine.logs import Logs
from headway.engine.showable import showable_outputs
from headway.engine.state import RUNNING, AttemptState, NodeState, RunState
from headway.model.errors import (
    CheckpointCorrupt,
    CheckpointError,
    HeadwayError,
    StorageError,
)
from headway.model.ids import node_key
from headway.model.outcome import NodeStatus, Outcome, RunStatus
from headway.model.report import (
    AttemptReport,
    CheckpointReport,
    NodeReport,
    RunReport,
    RunSummary,
)
from headway.ports import Storage

EXEC = "headway.commands.task:command"
"""The task of `headway exec`, by name because floors point down."""
_LONGEST_TITLE = 60


def status_of(state: RunState, *, alive: bool) -> RunStatus:
    """Where the run stands: one that shows as running and has no driver was interrupted."""
    if state.status is RunStatus.RUNNING and not alive:
        return RunStatus.INTERRUPTED
    return state.status


def title_of(state: RunState) -> str:
    """What the run runs, for people: the entity, or the command line of `headway exec`."""
    words = state.inputs.get("words") if state.entity == EXEC else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return state.entity
    line = " ".join(shlex.join(words).split())
    return line if len(line) <= _LONGEST_TITLE else f"{line[: _LONGEST_TITLE - 1]}…"


def summary_of(state: RunState, *, alive: bool) -> RunSummary:
    """A line about the run; `alive` says whether its driver lives."""
    return RunSummary(
        run=state.run,
        entity=title_of(state),
        status=status_of(state, alive=alive),
        started=state.created,
        ended=state.ended,
        nodes=len(state.nodes),
        finished=state.finished,
        attempts=sum(len(node.attempts) for node in state.nodes.values()),
        error=state.error,
    )


def report_of(
    state: RunState, storage: Storage, *, alive: bool, notes: Sequence[str] = ()
) -> RunReport:
    """The whole run.

    Args:
        state: the run.
        storage: the home, for the nodes' checkpoints.
        alive: whether the run's driver lives; if not, what shows as running was killed with it.
        notes: remarks about the reading of the journal.
    """
    remarks = [*state.notes, *notes]
    saving = _saving(state.run, storage, remarks)
    logs = Logs(storage, state.run)
    nodes = []
    for name, node in state.nodes.items():
        found = [
            checkpoint
            for place in (name, beside(name, KEPT))
            if node_key(place) in saving
            for checkpoint in _history(state.run, place, storage, remarks)
        ]
        nodes.append(_node(state, node, found, logs, alive))
    return RunReport(
        run=state.run,
        entity=title_of(state),
        status=status_of(state, alive=alive),
        result=None if state.result is None else _result(state.run, state.result, storage),
        nodes=nodes,
        started=state.created,
        ended=state.ended,
        error=state.error,
        notes=remarks,
    )


def _result(run: str, outputs: dict[str, Any], storage: Storage) -> Any:
    blobs = Blobs(storage, values_prefix(run))
    try:
        return showable_outputs(outputs, lambda digest, size: blobs.get(Blob(digest, size)))
    except HeadwayError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointCorrupt(  # a tree that no encoder made
            f"the result of run {run} cannot be read ({type(error).__name__}: {str(error)[:200]}). "
            f"Restore runs/{run} from a copy of the home."
        ) from error


def _saving(run: str, storage: Storage, remarks: list[str]) -> set[str]:
    """Keys of the nodes that ever used their checkpoint: one look, however many nodes there are."""
    try:
        return set(storage.list(nodes_prefix(run)))
    except StorageError as error:
        remarks.append(f"the checkpoints could not be looked for: {error}")
        return set()


def _history(run: str, name: str, storage: Storage, remarks: list[str]) -> list[CheckpointReport]:
    try:
        lineage = read_lineage(storage, node_prefix(run, name))
    except (CheckpointError, StorageError) as error:
        # A report is to show what can be seen, above all when something is wrong.
        remarks.append(f"the checkpoints of {name} could not be read: {error}")
        return []
    remarks += [f"{name}: {skipped(damage)}" for damage in lineage.damage]
    return [checkpoint_report(manifest) for manifest in lineage.manifests]


def _node(
    state: RunState, node: NodeState, history: list[CheckpointReport], logs: Logs, alive: bool
) -> NodeReport:
    saved = lost = 0.0
    by_attempt: dict[int, list[CheckpointReport]] = {}
    for checkpoint in history:
        by_attempt.setdefault(checkpoint.attempt, []).append(checkpoint)
    attempts = []
    for attempt in node.attempts:
        own = by_attempt.get(attempt.number, [])
        report = _attempt(state, node, attempt, own, logs, alive)
        attempts.append(report)
        if report.outcome not in {RUNNING, Outcome.SUCCEEDED}:
            kept, wasted = _work(report, attempt.saved)
            saved, lost = saved + kept, lost + wasted
    status = node.status
    if status is NodeStatus.RUNNING and not alive:
        status = NodeStatus.READY
    return NodeReport(node.plan.name, status, attempts, saved, lost)


def _attempt(
    state: RunState,
    node: NodeState,
    attempt: AttemptState,
    checkpoints: list[CheckpointReport],
    logs: Logs,
    alive: bool,
) -> AttemptReport:
    outcome, error, ended = attempt.outcome, attempt.error, attempt.ended
    if outcome == RUNNING and not alive:
        # As `core` will have it on resume: the last sign of life is when it ended at the earliest.
        outcome, error, ended = Outcome.KILLED, "its driver died", max(state.latest, attempt.saved)
    if ended is not None:
        # The journal may have heard of the end before, or without, the last checkpoints.
        ended = max([ended, *(checkpoint.time for checkpoint in checkpoints)])
    return AttemptReport(
        number=attempt.number,
        outcome=outcome,
        started=attempt.started,
        ended=ended,
        checkpoints=checkpoints,
        error=error,
        log=_log(logs, node.plan.name, attempt),
        warnings=list(attempt.warnings),
        code=attempt.code,
    )


def _log(logs: Logs, node: str, attempt: AttemptState) -> str:
    try:
        return logs.address(node, attempt.number, sure=attempt.outcome != Outcome.SUCCEEDED)
    except StorageError:
        return ""  # that the store does not answer is noted, by `_saving`


def _work(attempt: AttemptReport, hinted: float) -> tuple[float, float]:
    """Seconds of an attempt's work up to its last checkpoint, and after it.

    The clocks are those of driver and worker, which may differ by a little: never below zero.
    `hinted` is when the journal has it that it saved last.
    """
    marks = [checkpoint.time for checkpoint in attempt.checkpoints if checkpoint.valid]
    until = max([attempt.started, hinted, *marks])
    return until - attempt.started, max(attempt.ended or 0.0, until) - until

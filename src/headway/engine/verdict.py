"""What is said when a run did not succeed: outcome, attempt n of m, what was saved, where the log is,
and the command that goes on."""

from __future__ import annotations

from headway.engine.budget import allowance
from headway.engine.state import RunState
from headway.model.errors import TaskFailed
from headway.model.outcome import Outcome, RunStatus
from headway.model.report import AttemptReport, NodeReport, RunReport


def failure(report: RunReport, state: RunState) -> TaskFailed:
    """The error for a run that failed or was cancelled.

    Args:
        report: the run as people see it.
        state: the run as the core sees it, which knows the budgets.
    """
    resume = f"headway resume {report.run}"
    failed = next((node for node in report.nodes if node.name in state.failed[:1]), None)
    if failed is None or not failed.attempts:
        cancelled = report.status == RunStatus.CANCELLED
        return TaskFailed(
            f"run {report.run} {report.status}: {report.error}. Go on with: {resume}",
            run=report.run,
            outcome=Outcome.CANCELLED if cancelled else "",
        )
    last = failed.attempts[-1]
    outcome = Outcome(last.outcome)
    lines = [
        f"{failed.name} failed: {last.outcome}, {allowance(state.nodes[failed.name], outcome)}",
        *(f"  {line}" for line in last.error.splitlines()),
        f"  saved: {saved(failed, last)}",
        f"  log: {last.log}",
        f"  go on with: {resume}",
    ]
    if len(state.failed) > 1:
        lines.insert(-1, "  failed too: " + ", ".join(state.failed[1:]))
    return TaskFailed("\n".join(lines), run=report.run, node=failed.name, outcome=outcome)


def saved(node: NodeReport, last: AttemptReport) -> str:
    """The node's newest checkpoint, and how old it was when the last attempt ended."""
    checkpoints = [c for attempt in node.attempts for c in attempt.checkpoints]
    if not checkpoints:
        return "no checkpoint"
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.number)
    age = (
        "" if last.ended is None else f", {max(0.0, last.ended - newest.time):.1f} s before the end"
    )
    return f"checkpoint {newest.number} of attempt {newest.attempt}{age}"

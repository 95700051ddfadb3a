"""What is said when a run did not succeed: outcome, attempt, what was saved, the log, what to type."""

from __future__ import annotations

import os
import signal

from headway.cli.output import Paint
from headway.cli.settings import Settings
from headway.cli.tables import duration, plural, some
from headway.engine.state import NodeState, RunState
from headway.model.outcome import CHARGED_TO, Budget, Outcome
from headway.model.report import AttemptReport, NodeReport, RunReport

_TRACEBACK_LINES = 8
_NODES = 3


def ending(
    report: RunReport,
    state: RunState | None,
    settings: Settings,
    paint: Paint,
    signal_number: int | None = None,
) -> list[str]:
    """The lines about a run that failed, was cancelled or was interrupted.

    Args:
        report: the run.
        state: the run as its observer saw it last, which knows budgets and tracebacks; may be None.
        settings: for the command that resumes.
        paint: colours for the stream.
        signal_number: the signal that told this process to leave, when one did.
    """
    resume = f"headway resume {report.run}{settings.home_arguments}"
    done = sum(node.status == "succeeded" for node in report.nodes)
    lines = []
    failed = [node for node in report.nodes if node.status == "failed"]
    for node in failed[:_NODES]:
        lines += _node(node, state.nodes.get(node.name) if state else None, paint)
    if len(failed) > _NODES:
        names = [node.name for node in failed[_NODES:]]
        lines.append(f"and {plural(len(names), 'more node')} failed: {some(names)}")
    skipped = [node.name for node in report.nodes if node.status == "skipped"]
    if skipped:
        lines.append(f"not started, for they need what failed: {some(skipped)}")
    word = paint.status(report.status)
    total = plural(len(report.nodes), "node")
    if report.error and not failed and report.status != "interrupted":
        lines.append(f"run {report.run} {word}: {report.error}")
    else:
        by = "" if signal_number is None else f" by {_signal_name(signal_number)}"
        lines.append(f"run {report.run} {word}{by}: {done} of {total} done")
    if report.status == "interrupted":
        lines += [f"  {line}" for line in _saved(report)]
    lines.append(f"go on with: {paint(resume, bold=True)}")
    return lines


def _signal_name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _node(node: NodeReport, state: NodeState | None, paint: Paint) -> list[str]:
    if not node.attempts:
        return [f"{paint(node.name, bold=True)} {paint.status('failed')}"]
    last = node.attempts[-1]
    name, end = paint(node.name, bold=True), f"{last.outcome} in attempt {last.number}"
    lines = [f"{name} {paint.status('failed')}: {end} ({_budget(last, state)})"]
    trace = state.last.traceback if state and state.last else ""
    if not trace:
        lines += [f"  {line}" for line in last.error.splitlines()[:3]]
    else:  # which ends with the error
        shown = trace.rstrip().splitlines()[-_TRACEBACK_LINES:]
        lines += ["  end of the traceback:", *(paint(f"    {line}", "dim") for line in shown)]
    saved = kept(node)
    lines.append(f"  saved: {saved}" if saved else "  saved: no checkpoint")
    lines.append(f"  log: {log_of(last)}")
    return lines


def log_of(attempt: AttemptReport) -> str:
    """Where an attempt's log is; one that printed nothing has none."""
    there = os.path.exists(attempt.log) if os.path.isabs(attempt.log) else attempt.log
    return attempt.log if there else "none, it printed nothing"


def _budget(last: AttemptReport, state: NodeState | None) -> str:
    """Why there is no further attempt."""
    count = last.number + 1
    budget = CHARGED_TO.get(Outcome(last.outcome)) if last.outcome in set(Outcome) else None
    if budget is Budget.NO_RETRY:
        return "which no retry would help"
    if state is None:
        return f"{count} of {count}"
    if budget is Budget.INTERRUPTIONS:
        limit = state.plan.options.max_interruptions
        if limit is None:
            return f"{plural(state.idle, 'interruption')} in a row without a new checkpoint"
        return f"interruption {state.interruptions}, max_interruptions={limit}"
    return f"{count} of {count + state.retries_left}, retries={state.plan.options.retries}"


def kept(node: NodeReport) -> str:
    """The newest checkpoint of a node and its age when its last attempt ended; "" for none."""
    saved = [checkpoint for attempt in node.attempts for checkpoint in attempt.checkpoints]
    if not saved:
        return ""
    last = max(saved, key=lambda checkpoint: checkpoint.number)
    end = node.attempts[-1].ended
    age = f", {duration(end - last.time)} before the end" if end is not None else ""
    return f"checkpoint {last.number}{age}"


def _saved(report: RunReport) -> list[str]:
    open_nodes = [n for n in report.nodes if n.attempts and n.status != "succeeded"]
    return [f"{node.name}: {kept(node) or 'no checkpoint'}" for node in open_nodes[:_NODES]]

"""Progress of a run that a script started by calling a task: plain lines on standard error, and the
tasks' own output as it comes. The command line has better ones."""

from __future__ import annotations

from typing import BinaryIO

from headway.engine.budget import allowance
from headway.engine.state import RunState
from headway.model.events import AttemptEnded, AttemptStarted, AttemptWarned, Event, RunNoted
from headway.model.outcome import NodeStatus, Outcome


class Console:
    """A `driver.Observer` that writes to `stream`. A stream that is gone is written to no more."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: BinaryIO | None = stream
        self._fresh = True  # the cursor is at the start of a line

    def started(self, run_id: str) -> None:
        """See `driver.Observer`."""
        self._line(f"run {run_id} (if it stops: headway resume {run_id})")

    def event(self, event: Event, state: RunState) -> None:
        """See `driver.Observer`."""
        match event:
            case AttemptStarted(node=name, attempt=number) if number:
                known = max((a.checkpoint for a in state.nodes[name].attempts), default=0)
                after = f" after checkpoint {known}" if known else ""
                self._line(f"{name}: attempt {number} starts{after}")
            case AttemptEnded(node=name, attempt=number) if event.outcome != Outcome.SUCCEEDED:
                node = state.nodes[name]
                over = node.status is NodeStatus.FAILED
                outcome = Outcome(event.outcome)
                which = allowance(node, outcome) if over else f"attempt {number}"
                text = event.error.splitlines()[0] if event.error else ""
                self._line(f"{name}: {which}: {outcome}: {text}")
            case AttemptWarned(node=name, attempt=number):
                self._line(f"{name}: attempt {number}: warning: {event.message}")
            case RunNoted():
                self._line(f"note: {event.message}")
            case _:
                pass

    def output(self, node: str, attempt: int, data: bytes) -> None:  # noqa: ARG002  # one stream for all
        """See `driver.Observer`."""
        self._write(data)
        self._fresh = data.endswith(b"\n")

    def _line(self, text: str) -> None:
        start = "" if self._fresh else "\n"
        self._write(f"{start}headway: {text}\n".encode(errors="replace"))
        self._fresh = True

    def _write(self, data: bytes) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(data)
            self._stream.flush()
        except (OSError, ValueError):  # closed: the run goes on all the same
            self._stream = None

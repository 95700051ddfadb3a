"""What a run shows on stderr while it goes on: plain lines in a pipe, a live picture in a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Protocol, TextIO

from headway.cli.lines import line_of
from headway.cli.output import Paint
from headway.cli.settings import Settings
from headway.engine.state import RunState
from headway.model.events import AttemptEnded, CheckpointSaved, Event

CHECKPOINT_LINES_EVERY = 5.0
"""Seconds between two lines about checkpoints of one node; a task may save a thousand a second."""
_LONGEST = 1 << 16


class View(Protocol):
    """Where progress is drawn."""

    def wants(self, event: Event) -> bool:
        """Whether this event is worth a line here."""
        ...

    def line(self, text: str) -> None:
        """One line about the run, coloured already."""
        ...

    def task_lines(self, node: str, lines: list[bytes]) -> None:
        """Whole lines that a task printed; `node` is "" when the run has only one."""
        ...

    def unfinished(self, node: str, tail: bytes) -> None:
        """The line that a task has begun and not ended."""
        ...

    def event(self, event: Event, state: RunState) -> None:
        """Called for every event, after its line."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class Plain:
    """Lines in a pipe or a dumb terminal."""

    def __init__(self, stream: TextIO, paint: Paint) -> None:
        self._stream = stream
        self._paint = paint
        self._told: dict[str, float] = {}

    def wants(self, event: Event) -> bool:
        """Every event, but checkpoints of one node only every so often."""
        if not isinstance(event, CheckpointSaved):
            return True
        due = event.time - self._told.get(event.node, 0.0) >= CHECKPOINT_LINES_EVERY
        if due:
            self._told[event.node] = event.time
        return due

    def line(self, text: str) -> None:
        """See `View.line`."""
        self._write([text])

    def task_lines(self, node: str, lines: list[bytes]) -> None:
        """See `View.task_lines`."""
        prefix = self._paint(f"{node} | ", "dim") if node else ""
        self._write([prefix + line.decode(errors="replace") for line in lines])

    def unfinished(self, node: str, tail: bytes) -> None:
        """See `View.unfinished`: a pipe shows whole lines only."""

    def event(self, event: Event, state: RunState) -> None:
        """See `View.event`."""

    def close(self) -> None:
        """See `View.close`."""

    def _write(self, lines: list[str]) -> None:
        text = "\n".join(lines) + "\n"
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


class Progress:
    """A `headway.runtime.Observer` that tells `view` what happens.

    A view that fails (its reader went away) is dropped: no display may ever stop a run.

    Attributes:
        run_id: id of the run, once known.
        state: the run as of the last event.
    """

    def __init__(self, view: View | None, settings: Settings, paint: Paint) -> None:
        self._view = view
        self._settings = settings
        self._paint = paint
        self._open: dict[tuple[str, int], bytes] = {}
        self.run_id: str | None = None
        self.state: RunState | None = None

    def started(self, run_id: str) -> None:
        """The run has an id, and is durable from now on."""
        if self.run_id is None:
            self.run_id = run_id
            resume = f"headway resume {run_id}{self._settings.home_arguments}"
            self._line(f"run {self._paint(run_id, bold=True)}  (if it stops: {resume})")

    def event(self, event: Event, state: RunState) -> None:
        """Something was recorded in the journal."""
        self.state = state
        self.started(state.run)  # events may come first, and the id is what one wants to see first
        if isinstance(event, AttemptEnded):
            self._finish(event.node, event.attempt)
        self._show(lambda view: self._tell(view, event, state))

    def say(self, text: str) -> None:
        """Something that a person should know, and that is no event of the run."""
        self._line(text)

    def output(self, node: str, attempt: int, data: bytes) -> None:
        """A task printed something."""
        key = (node, attempt)
        *lines, rest = (self._open.pop(key, b"") + data).split(b"\n")
        if len(rest) > _LONGEST:
            lines.append(rest)
            rest = b""
        if rest:
            self._open[key] = rest
        self._pass_on(node, lines, rest)

    def close(self) -> None:
        """Give the terminal back."""
        for node, attempt in list(self._open):
            self._finish(node, attempt)
        self._show(lambda view: view.close())
        self._view = None

    def _show(self, draw: Callable[[View], None]) -> None:
        if self._view is None:
            return
        try:
            draw(self._view)
        except Exception:  # noqa: BLE001  # whatever a display does wrong, the run goes on
            self._view = None

    def _line(self, text: str) -> None:
        self._show(lambda view: view.line(text))

    def _tell(self, view: View, event: Event, state: RunState) -> None:
        if view.wants(event):
            line = line_of(event, state, self._paint)
            if line is not None:
                view.line(line)
        view.event(event, state)

    def _finish(self, node: str, attempt: int) -> None:
        rest = self._open.pop((node, attempt), b"")
        if rest:
            self._pass_on(node, [rest], b"")

    def _pass_on(self, node: str, lines: list[bytes], tail: bytes) -> None:
        alone = self.state is not None and len(self.state.nodes) == 1

        def draw(view: View) -> None:
            if lines:
                view.task_lines("" if alone else node, [_as_seen(line) for line in lines])
            view.unfinished(node, _as_seen(tail))

        self._show(draw)


def _as_seen(line: bytes) -> bytes:
    """What a terminal would show of a line that was drawn over itself with carriage returns."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def progress_for(settings: Settings, stopping: Callable[[], bool] = lambda: False) -> Progress:
    """The progress that fits the settings and what stderr is.

    Args:
        settings: whether to show any, and with colour.
        stopping: whether this process was told to leave.
    """
    paint = Paint(settings, sys.stderr)
    if settings.quiet:
        return Progress(None, settings, paint)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from headway.cli.live import Live

        return Progress(Live(sys.stderr, paint, stopping), settings, paint)
    return Progress(Plain(sys.stderr, paint), settings, paint)

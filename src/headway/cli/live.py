"""The live picture in a terminal: a line per running node, what tasks print scrolling above it."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live as RichLive
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from headway.cli.lines import newest, pause
from headway.cli.output import Paint
from headway.cli.tables import clock, duration, plural
from headway.engine.state import RunState
from headway.model.events import AttemptEnded, AttemptStarted, CheckpointSaved, Event
from headway.model.outcome import NodeStatus

_COLOR = re.compile(r"\x1b\[[0-9;:]*m")
_UNTAMED = re.compile(
    r"\x1b\[(?![0-9;:]*m)[0-?]*[ -/]*[@-~]?"  # moves the cursor, or is cut off
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # sets a title
    r"|\x1b(?![\[\]]).?"
    r"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]"
)
"""What may not reach the terminal: all escape sequences but colours, control characters but tabs."""


class _Raw:
    """Text that goes to the terminal as it is. rich's own way takes 0.4 ms a line."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        yield Segment(self._text)
        yield Segment.line()


@dataclasses.dataclass
class _Row:
    """A node that runs, or waits for its next attempt until `due`. Times are Unix seconds."""

    attempt: int
    since: float
    checkpoint: int
    saved: float
    due: float | None = None
    tail: str = ""


class Live:
    """`progress.View` on a terminal. Its picture is drawn by a thread of rich, hence the lock."""

    def __init__(
        self,
        stream: TextIO,
        paint: Paint,
        stopping: Callable[[], bool] = lambda: False,
        *,
        console: Console | None = None,
    ) -> None:
        self._stopping = stopping
        self._paint = paint
        self._console = console or Console(
            file=stream,
            force_terminal=True,
            no_color=not paint.on,
            highlight=False,
            soft_wrap=True,
        )
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self._summary = ""
        self._begun = time.time()
        self._spinner = Spinner("dots", style="cyan")
        self._live = RichLive(
            console=self._console,
            get_renderable=self.picture,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def wants(self, event: Event) -> bool:
        """Not what the picture shows: checkpoints, and the start of a first attempt."""
        if isinstance(event, AttemptStarted):
            return event.attempt > 0
        return not isinstance(event, CheckpointSaved)

    def line(self, text: str) -> None:
        """See `View.line`."""
        self._console.print(_Raw(text))

    def task_lines(self, node: str, lines: list[bytes]) -> None:
        """See `View.task_lines`. One print for all of them: each print draws the picture again."""
        prefix = self._paint(f"{node} │ ", "dim") if node else ""
        self._console.print(_Raw("\n".join(prefix + self._tamed(line) for line in lines)))

    def unfinished(self, node: str, tail: bytes) -> None:
        """See `View.unfinished`: shown beside the node, as progress bars live in such lines."""
        with self._lock:
            if row := self._rows.get(node):
                row.tail = _COLOR.sub("", self._tamed(tail))

    def _tamed(self, line: bytes) -> str:
        """A task's line without what would move the cursor; its colours stay if colour is on."""
        text = line.decode(errors="replace")
        if text.isprintable():
            return text
        text = _UNTAMED.sub("", text)
        if "\x1b" not in text:
            return text
        return f"{text}\x1b[0m" if self._paint.on else _COLOR.sub("", text)

    def event(self, event: Event, state: RunState) -> None:
        """See `View.event`."""
        with self._lock:
            if isinstance(event, AttemptStarted | AttemptEnded | CheckpointSaved):
                self._update(event, state)
            running, total = len(state.running), len(state.nodes)
            self._summary = f"{state.finished} of {plural(total, 'node')} done, {running} running"
            if state.cancelling:
                self._summary += ", cancelling"
        if not self._live.is_started:
            self._live.start()

    def _update(
        self, event: AttemptStarted | AttemptEnded | CheckpointSaved, state: RunState
    ) -> None:
        node = state.nodes.get(event.node)
        if node is None or node.last is None:
            return
        seconds = pause(state, event.node)
        if node.status is NodeStatus.RUNNING:
            before = self._rows.get(event.node)
            tail = before.tail if before else ""
            self._rows[event.node] = _Row(
                node.last.number, node.last.started, *newest(node), tail=tail
            )
        elif node.status is NodeStatus.READY and seconds is not None:
            due = time.time() + seconds
            self._rows[event.node] = _Row(node.next_attempt, due, *newest(node), due=due)
        else:
            self._rows.pop(event.node, None)

    def picture(self, now: float | None = None) -> RenderableType:
        """What stands at the bottom of the terminal right now."""
        now = time.time() if now is None else now
        with self._lock:
            rows = [(name, dataclasses.replace(row)) for name, row in self._rows.items()]
            summary, begun = self._summary, self._begun
        room = max(1, self._console.height - 4)
        table = Table.grid(padding=(0, 2))
        for _ in range(4):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for name, row in rows[:room]:
            table.add_row(*_cells(name, row, now))
        parts: list[RenderableType] = [table] if rows else []
        if len(rows) > room:
            parts.append(Text(f"… and {len(rows) - room} more", style="dim"))
        hint = "Ctrl-C stops; it can be resumed"
        if self._stopping():
            hint = "stopping in good order; Ctrl-C again kills at once"
        foot = Table.grid(padding=(0, 1))
        foot.add_row(
            self._spinner,
            Text(f"{clock(now - begun)}  {summary}", no_wrap=True),
            Text(f" {hint}", style="dim", no_wrap=True),
        )
        parts.append(foot)
        return Group(*parts)

    def close(self) -> None:
        """Take the picture away; what scrolled above it stays."""
        if self._live.is_started:
            self._live.stop()


def _cells(name: str, row: _Row, now: float) -> tuple[Text, ...]:
    if row.due is None:
        state, elapsed = f"attempt {row.attempt}", clock(now - row.since)
    else:
        state, elapsed = f"attempt {row.attempt} in {duration(row.due - now)}", ""
    if row.checkpoint:
        age = duration(max(1.0, now - row.saved))  # tenths of seconds would only flicker
        saved = Text(f"checkpoint {row.checkpoint}, {age} ago", style="green")
    else:
        saved = Text("no checkpoint", style="dim")
    return Text(name, style="bold"), Text(state), Text(elapsed), saved, Text(row.tail, style="dim")

"""A bar on the terminal, for what takes as long as its bytes do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn


@contextlib.contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr; the block calls what it is given with bytes that were done."""
    console = Console(file=sys.stderr)
    with Progress(
        what, BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console
    ) as shown:
        task = shown.add_task("", total=total)
        yield lambda done: shown.update(task, advance=done)

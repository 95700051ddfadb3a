"""What goes to stdout and stderr, and how: results, JSON, errors, colour."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any, TextIO

import click

from headway.cli import codes
from headway.cli.settings import Settings


class Paint:
    """Colours text for one stream, or leaves it alone."""

    def __init__(self, settings: Settings, stream: TextIO) -> None:
        self.on = settings.colored(stream)

    def __call__(self, text: str, color: str | None = None, *, bold: bool = False) -> str:
        if not self.on or not text:
            return text
        dim = color == "dim"
        return click.style(text, fg=None if dim else color, bold=bold or None, dim=dim or None)

    def status(self, text: str) -> str:
        """An outcome or a status in its usual colour; the word itself carries the meaning."""
        return self(text, _STATUS_COLORS.get(text, "red" if text in _BAD else None))


_BAD = {"failed", "damaged", "app error", "non-recoverable", "recoverable", "oom", "timeout"}
_STATUS_COLORS = {
    "succeeded": "green",
    "running": "cyan",
    "ready": "cyan",
    "interrupted": "yellow",
    "preempted": "yellow",
    "killed": "yellow",
    "node lost": "yellow",
    "cancelled": "yellow",
    "skipped": "dim",
    "waiting": "dim",
}


def write(text: str, stream: TextIO | None = None) -> None:
    """Write `text` and a newline to `stream` (stdout), and flush, keeping what colour it has."""
    stream = sys.stdout if stream is None else stream
    try:
        stream.write(text + "\n")
    except UnicodeEncodeError:  # a terminal or a pipe that is not UTF-8
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()


def write_json(value: Any) -> None:
    """Write one JSON document to stdout: a report, or lists and dicts. NaN and infinity are null."""
    import msgspec

    write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def write_json_line(value: Any) -> None:
    """Write one line of JSON to stdout."""
    import msgspec

    write(msgspec.json.encode(value).decode())


def as_text(result: Any) -> str | None:
    """A run's result for a person: a string as it is, None as nothing, anything else as JSON."""
    if result is None or isinstance(result, str):
        return result
    return json.dumps(result, ensure_ascii=False, indent=2 if _is_big(result) else None)


def _is_big(result: Any) -> bool:
    return isinstance(result, dict | list) and len(json.dumps(result)) > 100


def write_error(error: BaseException, code: int, *, as_json: bool) -> None:
    """Say on stderr what went wrong, and with `as_json` on stdout too.

    A traceback is shown for faults of headway itself, and for all errors when `HEADWAY_DEBUG` is set.
    """
    message = text_of(error)
    if code == codes.INTERNAL or os.environ.get("HEADWAY_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    write(f"headway: {message}", sys.stderr)
    if as_json:
        write_json({"error": {"kind": codes.MEANING[code][0], "message": message}})


def text_of(error: BaseException) -> str:
    """The message of an error, without a traceback."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "stopped by Ctrl-C"
    # OSError's str() puts an errno in front when it was given two arguments.
    return str(error) or type(error).__name__

"""Printing logs, from where the last look ended."""

from __future__ import annotations

import sys

from headway.cli import output
from headway.cli.settings import Settings
from headway.engine.logs import LogFile


class Printer:
    """Writes what is new in log files to stdout.

    As text, a heading stands wherever the output changes from one attempt to another, unless there
    is only one. As JSON, there is one object per line.
    """

    def __init__(self, settings: Settings) -> None:
        self._json = settings.as_json
        self._paint = output.Paint(settings, sys.stdout)
        self._offsets: dict[tuple[str, int], int] = {}
        self._tails: dict[tuple[str, int], bytes] = {}
        self._shown: tuple[str, int] | None = None
        self._at_line_start = True

    def print(self, log: LogFile) -> None:
        """Print what the log of an attempt has beyond what was printed before.

        Raises:
            OSError: it is there and cannot be read.
        """
        key = (log.node, log.attempt)
        offset = self._offsets.get(key, 0)
        while piece := log.read(offset):
            self._offsets[key] = offset = offset + len(piece)
            self._take(key, piece)

    def close(self) -> None:
        """Print lines that were begun and never ended."""
        for key, tail in self._tails.items():
            self._lines(key, [tail])
        self._tails.clear()
        if not self._at_line_start:
            output.write("")

    def _take(self, key: tuple[str, int], piece: bytes) -> None:
        if not self._json:
            self._heading(key)
            sys.stdout.write(piece.decode(errors="replace"))
            sys.stdout.flush()
            self._at_line_start = piece.endswith(b"\n")
            return
        *lines, rest = (self._tails.pop(key, b"") + piece).split(b"\n")
        if rest:
            self._tails[key] = rest
        self._lines(key, lines)

    def _lines(self, key: tuple[str, int], lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace")
            output.write_json_line({"node": key[0], "attempt": key[1], "line": text})

    def _heading(self, key: tuple[str, int]) -> None:
        if key == self._shown:
            return
        if not self._at_line_start:
            output.write("")
        output.write(self._paint(f"── {key[0]}, attempt {key[1]}", "dim"))
        self._shown, self._at_line_start = key, True

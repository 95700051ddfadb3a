"""What a page of Markdown has in it that can be checked: fenced blocks, links, headings.

The info string of a fence says what a block is. Only its first word is shown to readers:

    ```python file=pi.py      a program; it is written under that name into the page's directory
    ```python                 a program; it is run, and must end well
    ```console                `$ ` lines are commands, which are run; the lines below each must
                              be seen in its output, in this order, `…` standing for anything
    ```console exit=1         the block's last command ends with that code
    ```text                   a picture, not run
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block: what it is, its options, its text, and the line on which it begins."""

    kind: str
    options: dict[str, str]
    text: str
    line: int


class Command(NamedTuple):
    """One command of a console block, and what must be seen in its output."""

    line: str
    expected: list[str]
    exit_code: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        kind, *options = match["info"].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(kind, dict(o.split("=", 1) for o in options), match["body"], line))
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a console block."""
    found: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line.removeprefix("$ "), [], 0))
        elif not found:
            raise ValueError(f"line {block.line}: a console block must begin with a `$ ` line")
        elif line.strip():
            found[-1].expected.append(line)
    if found and "exit" in block.options:
        found[-1] = found[-1]._replace(exit_code=int(block.options["exit"]))
    return found


def unseen(expected: list[str], output: str) -> str | None:
    """The first expected line that does not occur in `output` after those before it."""
    rest = output.splitlines()
    for line in expected:
        pattern = ".*".join(re.escape(part) for part in line.strip().split("…"))
        while rest:
            if re.fullmatch(pattern, rest.pop(0).strip()):
                break
        else:
            return line
    return None


def links(text: str) -> Iterator[str]:
    """Targets of the links of a page, but not those in code."""
    prose = re.sub(r"`[^`\n]+`(?!\])", "", _FENCE.sub("", text))
    for match in _LINK.finditer(prose):
        yield match["target"]


def anchors(text: str) -> set[str]:
    """Names under which the headings of a page can be linked to."""
    titles = (match["title"] for match in _HEADING.finditer(_FENCE.sub("", text)))
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}

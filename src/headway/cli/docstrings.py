"""Google-style docstrings, as far as help needs them: the text, and a line per argument."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SECTION = re.compile(
    r"(Args|Arguments|Parameters|Returns?|Yields?|Raises|Attributes|Examples?|Notes?):\s*$"
)
_ARGUMENT = re.compile(r"(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")


@dataclass(frozen=True)
class Sections:
    """A docstring taken apart.

    Attributes:
        summary: its first line.
        body: everything before the first section such as `Args:`.
        arguments: argument name -> what is said of it, on one line.
    """

    summary: str
    body: str
    arguments: dict[str, str]


def sections_of(text: str) -> Sections:
    """Take a docstring (as `inspect.getdoc` gives it) apart."""
    section, body = "", []
    arguments: dict[str, str] = {}
    name, indent = "", 0
    for line in text.splitlines():
        if found := _SECTION.match(line):
            section, name = found[1], ""
        elif not section:
            body.append(line)
        elif section in {"Args", "Arguments", "Parameters"}:
            found = _ARGUMENT.match(line)
            if found and (not name or len(found[1]) <= indent):
                name, indent = found[2], len(found[1])
                arguments[name] = found[3].strip()
            elif name:
                arguments[name] = f"{arguments[name]} {line.strip()}".strip()
    whole = "\n".join(body).strip()
    return Sections(whole.partition("\n")[0], whole, arguments)

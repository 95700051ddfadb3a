"""The source text of ledger, storage, retention and working directories with a fault planted, loaded beside
the real modules.

A test that cannot fail proves nothing. Each mutant takes one step of the protocol out, or swaps two,
in the text of the real module; if the text is no longer there, the mutant says so instead of passing
as the original.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

REAL = {
    "record": "headway.ledger.record",
    "read": "headway.ledger.read",
    "write": "headway.ledger.write",
    "posix": "headway.storage.posix",
    "packs": "headway.storage.packs",
    "local": "headway.storage.local",
    "parts": "headway.storage.parts",
    "object": "headway.storage.object",
    "lineage": "headway.checkpoint.lineage",
    "space": "headway.checkpoint.space",
    "snapshot": "headway.checkpoint.snapshot",
    "working": "headway.checkpoint.working",
    "turn": "headway.checkpoint.turn",
}
_numbers = itertools.count()


@dataclass(frozen=True)
class Edit:
    """`old`, which stands exactly once in module `where`, becomes `new`."""

    where: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A fault, and the edits that plant it."""

    name: str
    edits: tuple[Edit, ...]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Code:
    """One build of the modules under test."""

    record: Any
    read: Any
    write: Any
    posix: Any
    packs: Any
    local: Any
    parts: Any
    object: Any
    lineage: Any
    space: Any
    snapshot: Any
    working: Any
    turn: Any


def real() -> Code:
    """The modules as they are."""
    return Code(**{short: importlib.import_module(name) for short, name in REAL.items()})


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[Code]:
    """The modules with a fault planted. They live under names of their own, and go with the block."""
    number = next(_numbers)
    names = {short: f"planted_{number}_{short}" for short in REAL}
    texts = {short: _source(name) for short, name in REAL.items()}
    for edit in mutant.edits:
        count = texts[edit.where].count(edit.old)
        if count != 1:
            raise AssertionError(
                f"mutant {mutant.name!r}: its text stands {count} times in {REAL[edit.where]}; "
                f"bring the mutant up to date:\n{edit.old}"
            )
        texts[edit.where] = texts[edit.where].replace(edit.old, edit.new)
    built: dict[str, ModuleType] = {}
    try:
        for short in REAL:  # floors point down in this order
            text = texts[short]
            for other, name in REAL.items():
                text = text.replace(f"from {name} import", f"from {names[other]} import")
            module = ModuleType(names[short])
            module.__file__ = f"<{mutant.name}: {short}>"
            sys.modules[names[short]] = module
            exec(compile(text, module.__file__, "exec"), module.__dict__)
            built[short] = module
        yield Code(**built)
    finally:
        for name in names.values():
            sys.modules.pop(name, None)


def _source(name: str) -> str:
    file = importlib.import_module(name).__file__
    assert file is not None
    return Path(file).read_text(encoding="utf-8")

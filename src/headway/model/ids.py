"""Names: run ids that sort by time, and node names that are safe in paths.

A run id is eight base-32 digits of time since 2024 (good until 2058), with a dash between whole seconds
and 1024ths, and two random digits: `1tq4zk-8f3d`. So the run that was started later is the later one,
also within a second; whoever makes a run draws again when the id is taken. The alphabet is Crockford's,
lower case, so that no two characters look alike.
"""

from __future__ import annotations

import re
import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH = 1_704_067_200  # 2024-01-01T00:00:00Z
_RUN_ID = re.compile(rf"[{_ALPHABET}]{{6}}-[{_ALPHABET}]{{4}}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.\[\]-]")


def new_run_id(now: float) -> str:
    """A fresh run id for wall time `now` (seconds since the Unix epoch)."""
    ticks = max(0, int((now - _EPOCH) * 1024))
    digits = "".join(_ALPHABET[(ticks >> (5 * place)) & 31] for place in reversed(range(8)))
    return f"{digits[:6]}-{digits[6:]}" + "".join(secrets.choice(_ALPHABET) for _ in range(2))


def is_run_id(text: str) -> bool:
    """Whether `text` is a whole run id."""
    return _RUN_ID.fullmatch(text) is not None


def node_key(name: str) -> str:
    """The path component of a node: its name with what a path may not hold replaced by `_`."""
    return _UNSAFE.sub("_", name).lstrip(".") or "_"

"""How many examples Hypothesis draws, and which.

A test that failed once has to fail again: the suite draws the same examples in every run. What explores
is `make crash`: it sets HEADWAY_EXAMPLES, draws that many times as many, and others each time.
"""

from __future__ import annotations

import os

from hypothesis import settings

TIMES = int(os.environ.get("HEADWAY_EXAMPLES", "0"))


def drawn(examples: int, **more: object) -> settings:
    """Settings for a test that draws so many examples in the suite."""
    if TIMES:
        return settings(max_examples=examples * TIMES, deadline=None, **more)  # type: ignore[arg-type]
    return settings(max_examples=examples, deadline=None, derandomize=True, **more)  # type: ignore[arg-type]

"""What the sweeps did, added up: a table at the end of the session, one row of TARGETS.md after the other.

A test says which promise it is about (`pytestmark = pytest.mark.reliability("R1")`) and what it did
(`count("R1", "kill points", 130)`). The numbers travel as properties of the test's report, so they
come together from all workers of pytest-xdist. A test that fails is a violation of its rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ROWS = {
    "R1": "kill sweep",
    "R2": "random kill -9",
    "R3": "power loss",
    "R4": "I/O errors",
    "R5": "corruption",
    "R6": "fuzzing",
    "R7": "simulation",
    "R8": "zombies",
    "R9": "resume equals uninterrupted",
    "R10": "object-store faults",
    "R11": "security",
}
_COUNT, _ROWS = "reliability count", "reliability rows"


@dataclass
class _Session:
    """The test that runs now, and what all of them did."""

    running: Any = None
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    tests: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    failed: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


_session = _Session()


def count(row: str, what: str, number: int = 1) -> None:
    """Add to what the test that runs now did.

    Args:
        row: "R1" to "R11".
        what: in the plural: "kill points".
        number: how many.
    """
    assert row in ROWS, row
    if _session.running is not None:
        _session.running.user_properties.append((_COUNT, [row, what, int(number)]))


def begin(item: Any) -> None:
    """A test begins (`pytest_runtest_setup`)."""
    _session.running = item
    for mark in item.iter_markers("reliability"):
        assert set(mark.args) <= ROWS.keys(), mark
        item.user_properties.append((_ROWS, list(mark.args)))


def end(item: Any) -> None:
    """It has ended (`pytest_runtest_teardown`)."""
    if _session.running is item:
        _session.running = None


def take(report: Any) -> None:
    """Take in a report (`pytest_runtest_logreport`): its last one has all the numbers in it."""
    rows = {row for name, value in report.user_properties if name == _ROWS for row in value}
    found = [value for name, value in report.user_properties if name == _COUNT]
    for row in rows | {row for row, _, _ in found}:
        _session.tests[row].add(report.nodeid)
        if report.failed:
            _session.failed[row].add(report.nodeid)
    if report.when == "teardown":
        for row, what, number in found:
            _session.counts[row][what] += number


def table() -> Iterator[str]:
    """Lines for people; none when nothing was counted."""
    rows = sorted(_session.tests, key=lambda row: int(row[1:]))
    width = max((len(name) for name in ROWS.values()), default=0)
    for row in rows:
        did = ", ".join(f"{number:,} {what}" for what, number in _session.counts[row].items())
        tests, bad = len(_session.tests[row]), len(_session.failed[row])
        name = f"{row:<4} {ROWS[row]:<{width}}"
        yield f"{name}  {did or 'nothing counted'} ({tests} tests); violations: {bad}"

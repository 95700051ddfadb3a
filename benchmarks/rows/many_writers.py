"""S8: several writers on one home at once."""

from __future__ import annotations

from benchmarks.figure import Row
from benchmarks.rows.columns import Columns
from benchmarks.stage import Play, Stage

KEY = "S8"
TITLE = "Eight writers on one home, 1 KiB each time"

ONE = "headway, one writer"
EIGHT = "headway, eight writers"
LIMIT_ONE = "the limit: one log"
LIMIT_EIGHT = "the limit: eight logs"


def measure(stage: Stage) -> Row:
    """The rate of all together, as the time of one save."""
    rounds, count = stage.some(15, 2), stage.some(300, 20)

    def play(tool: str, writers: int) -> Play:
        return Play("writers", "writers", {"tool": tool, "writers": writers, "count": count})

    cast = {
        ONE: play("headway", 1),
        EIGHT: play("headway", 8),
        LIMIT_ONE: play("log", 1),
        LIMIT_EIGHT: play("log", 8),
    }
    found = Columns(*stage.play(cast, rounds))
    figures = [
        found.figure(label, "µs", name=f"{label}, time by the number of all saves")
        for label in cast
    ]
    figures += [
        found.ratio(EIGHT, ONE, name="headway, eight writers ÷ one", target=1 / 1.5),
        found.ratio(LIMIT_EIGHT, LIMIT_ONE, name="the limit, eight logs ÷ one"),
    ]
    about = (
        f"{rounds} rounds. Each writer is a process with a lineage of its own, and makes {count} durable "
        "saves of 1 KiB a turn; the time of the turn is divided by the saves of all of them. A rate of "
        "1.5 times that of one writer is a time of 0.67. The limit: processes that append to zero-filled "
        "logs and call fdatasync."
    )
    return Row(KEY, TITLE, about, tuple(figures))

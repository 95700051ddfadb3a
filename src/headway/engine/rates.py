"""How often attempts fail in a home: what `track(every="auto")` weighs the cost of a save against."""

from __future__ import annotations

import time
from itertools import islice

from headway.checkpoint.cadence import Record
from headway.engine.archive import read_run, run_ids
from headway.engine.keys import ledger_prefix
from headway.engine.state import RUNNING, AttemptState
from headway.model.errors import HeadwayError
from headway.model.outcome import Outcome
from headway.ports import Storage

_MOST_RUNS = 20
_MOST_SECONDS = 0.05
_LARGEST = 256 << 10  # bytes of a journal's newest log; what is larger takes long to read
_NO_FAILURES = {Outcome.SUCCEEDED, Outcome.CANCELLED}


def record_of(storage: Storage, run: str) -> Record:
    """What became of the attempts of the newest runs in a home; over a network, of this run alone. It is
    only a guess, which shall take no time: runs that are large, or cannot be read, are left out."""
    end = time.monotonic() + _MOST_SECONDS
    failures, seconds = 0, 0.0
    try:
        runs = [run] if storage.remote else run_ids(storage)
        for each in islice(runs, _MOST_RUNS):
            if time.monotonic() > end:
                break
            for attempt in _attempts(storage, each):
                if attempt.outcome != RUNNING and attempt.ended is not None:
                    failures += attempt.outcome not in _NO_FAILURES
                    seconds += max(0.0, attempt.ended - attempt.started)
    except HeadwayError:
        pass  # whoever needs the home finds out by itself
    return Record(failures, seconds)


def _attempts(storage: Storage, run: str) -> list[AttemptState]:
    prefix = ledger_prefix(run)
    try:
        logs = storage.list(prefix)
        if not logs or storage.read_range(f"{prefix}/{logs[-1]}", _LARGEST, 1):
            return []
        state, _ = read_run(storage, run)
    except HeadwayError:
        return []
    return [attempt for node in state.nodes.values() for attempt in node.attempts]

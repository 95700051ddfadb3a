"""A writer in a process of its own: `python -m tests.objects.writer ENDPOINT PREFIX NAME COUNT`.

It opens a ledger and appends `NAME.0`, `NAME.1` …, saying before each "begin", and after it "acked" or what
came instead. A store that is away is tried again; a newer writer ends it.
"""

from __future__ import annotations

import sys

from tests.objects import servers
from tests.objects.sessions import LEDGER, home

from headway.ledger.write import Ledger
from headway.model.errors import CheckpointFenced, StorageUnavailable


def main(endpoint: str, prefix: str, name: str, count: int) -> None:
    """Append `count` records."""
    storage = home(endpoint, prefix, timeout=0.5, patience=1, marker=False)
    ledger = Ledger.open(storage, LEDGER)
    print("opened", ledger.term, flush=True)
    number = 0
    while number < count:
        print("begin", number, flush=True)
        try:
            ledger.append(f"{name}.{number}".encode())
            print("acked", number, flush=True)
        except StorageUnavailable:
            print("failed", number, flush=True)
        except CheckpointFenced:
            print("fenced", number, flush=True)
            return
        number += 1


if __name__ == "__main__":
    if sys.argv[1] == "ready":
        sys.exit(not servers.has_bucket(sys.argv[2]))
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))

"""What a driver does beside its loop when the home is a store, where every look is a request.

One thread, so that a slow or unreachable store never holds up the loop, which has attempts to hear and
signals to obey: every five seconds it looks whether another driver took over and whether the user has
cancelled, every ten it gives a sign of life. The loop asks for what was last seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from headway.engine.journal import Journal
from headway.engine.lease import RENEW_EVERY, Lease
from headway.model.errors import CheckpointFenced, StorageError
from headway.model.events import Event

LOOK_EVERY = 5.0
"""Seconds between two looks at the store."""
_LEAVE = 10.0


class Service:
    """Implements `driver.Records` for a journal in a store. Use it in a `with` statement.

    Args:
        journal: the run's journal.
        asked: whether the user asked to cancel; a request.
        lease: the driver's signs of life.
        resumed: there were drivers before, which may have left theirs.
    """

    def __init__(
        self, journal: Journal, asked: Callable[[], bool], lease: Lease, *, resumed: bool
    ) -> None:
        self._journal = journal
        self._asked = asked
        self._lease = lease
        self._resumed = resumed
        self._fenced: CheckpointFenced | None = None
        self._cancelled = False
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="headway service", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave.set()
        # One that hangs in a request is left behind: its lease goes silent.
        self._thread.join(_LEAVE)

    def append(self, *events: Event) -> None:
        """See `driver.Records.append`."""
        self._journal.append(*events)

    def check(self) -> None:
        """Raise `CheckpointFenced` when the last look found another driver."""
        if self._fenced is not None:
            raise self._fenced

    def cancelled(self) -> bool:
        """Whether the user had asked to cancel at the last look."""
        return self._cancelled

    def _serve(self) -> None:
        if self._resumed:
            self._try(self._lease.clear)
        looks, between = 0, max(1, round(RENEW_EVERY / LOOK_EVERY))
        while True:
            if looks % between == 0:
                self._try(self._lease.show)
            if self._leave.wait(LOOK_EVERY):
                break
            self._try(self._look)
            looks += 1
        self._try(self._lease.leave)

    def _look(self) -> None:
        try:
            self._journal.check()
        except CheckpointFenced as error:
            self._fenced = error
        self._cancelled = self._cancelled or self._asked()

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StorageError:
            pass  # not knowing is no reason to stop; the next append will tell

"""Which call a fault strikes: the N-th of those with these names, or of those that a function picks."""

from __future__ import annotations

from collections.abc import Callable, Collection

from headway.ports import Storage
from headway.testing.wrapping import CALLS, Call, Wrapper

Only = str | Collection[str] | Callable[[Call], bool]
"""Which calls: the name of a method, several names, or what says so of a call."""


def chooser(only: Only) -> Callable[[Call], bool]:
    """A function that tells of a call whether it is one of them."""
    if callable(only):
        return only
    names = {only} if isinstance(only, str) else {*only}
    if unknown := sorted(names - CALLS):
        raise ValueError(f"{unknown} are no calls of a storage: they are {sorted(CALLS)}")
    return lambda call: call.name in names


def failure(call: Call, error: Callable[[str], BaseException], what: str) -> BaseException:
    """The error of a call that is made to fail."""
    return error(f"{call.name} {call.key}: {what}, as the test asked")


class Nth(Wrapper):
    """Strikes at the N-th of some calls, counted from 1 and from the last `arm`.

    Args:
        inner: the storage.
        at: which call; None: none until `arm`.
        only: which calls count.
        lasting: at all calls after it too.
    """

    def __init__(
        self, inner: Storage, at: int | None = 1, *, only: Only = CALLS, lasting: bool = False
    ) -> None:
        super().__init__(inner)
        self._chosen = chooser(only)
        self._lasting = lasting
        self.arm(at)

    def arm(self, at: int | None = 1) -> None:
        """Count anew from here, and strike at the `at`-th call; None: not at all."""
        with self.lock:
            self._at, self._seen = at, 0

    def disarm(self) -> None:
        """Strike no more."""
        self.arm(None)

    def due(self, call: Call) -> bool:
        """Whether it is this call's turn; it is counted as struck if so."""
        if not self._chosen(call):
            return False
        with self.lock:
            self._seen += 1
            due = self._at is not None and (
                self._seen == self._at or (self._lasting and self._seen > self._at)
            )
            self.struck += due
            return due

"""What can go wrong with a storage, made to happen: wrappers round any `headway.ports.Storage`.

    Fail        the N-th call fails, or all from there on; before its effect (the request was lost) or
                after it (the reply was lost)
    Planned     the next calls go as a list says
    Sometimes   calls fail by chance, from a seed
    Kill        the N-th call is the last: as if the process had been killed there
    Tear        the N-th write is cut off in the middle, and fails
    Delay       calls take longer
    Freeze      the N-th call stands still until it is released
    Count       nothing: it notes what was called

Each is a storage itself, so they go round each other: `Fail(Delay(storage, 0.01), at=3)`. Each counts in
`struck` how often it did something: a test of a fault that never came proves nothing. All of them may be
used from several threads.

    storage = Fail(MemoryStorage(), at=2, only="append", after=True)

Calls are named after the methods of `Storage`, `LogWriter` and `PackWriter`: see `CALLS`. `close` and
`abort` never fail, so nothing here touches them.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from headway.model.errors import StorageUnavailable
from headway.ports import Storage
from headway.testing.choosing import Nth, Only, chooser, failure
from headway.testing.wrapping import CALLS, READS, WRITES, Call, Wrapper

__all__ = [
    "CALLS",
    "READS",
    "WRITES",
    "Call",
    "Count",
    "Delay",
    "Fail",
    "Freeze",
    "Kill",
    "Killed",
    "Only",
    "Planned",
    "Sometimes",
    "Tear",
]

T = TypeVar("T")


class Fail(Nth):
    """The N-th call fails.

    Args:
        inner: the storage.
        at: which call, from 1; None: none until `arm`.
        only: which calls count.
        lasting: so do all calls after it, until `disarm`.
        after: it has had its effect before it fails: the reply was lost. Else the request was.
        error: makes the error from a message: a class of errors, or a function.

    Attributes:
        struck: how many calls failed.
    """

    def __init__(
        self,
        inner: Storage,
        at: int | None = 1,
        *,
        only: Only = CALLS,
        lasting: bool = False,
        after: bool = False,
        error: Callable[[str], BaseException] = StorageUnavailable,
    ) -> None:
        self._after = after
        self._error = error
        super().__init__(inner, at, only=only, lasting=lasting)

    def around(self, call: Call, act: Callable[[], T]) -> T:
        """See `Wrapper.around`."""
        if not self.due(call):
            return act()
        if not self._after:
            raise failure(call, self._error, "the request was lost")
        act()
        raise failure(call, self._error, "the reply was lost")


class Planned(Wrapper):
    """The next calls go as `plan` says, the first entry first; then all is well again.

    Args:
        inner: the storage.
        only: which calls take an entry of the plan.
        error: see `Fail`.

    Attributes:
        plan: "" for a call that goes well, "before" for one whose request is lost, "after" for one
            whose reply is lost, "torn" for a write that is cut off in the middle (of another call,
            the request is lost). May be changed at any time.
        struck: how many calls failed.
    """

    def __init__(
        self,
        inner: Storage,
        *,
        only: Only = CALLS,
        error: Callable[[str], BaseException] = StorageUnavailable,
    ) -> None:
        super().__init__(inner)
        self.plan: list[str] = []
        self._chosen = chooser(only)
        self._error = error

    def around(self, call: Call, act: Callable[[], T]) -> T:
        """See `Wrapper.around`."""
        if not self._chosen(call):
            return act()
        with self.lock:
            what = self.plan.pop(0) if self.plan else ""
            self.struck += bool(what)
        if not what:
            return act()
        if what == "after":
            act()
        elif what == "torn" and call.partly is not None:
            call.partly(call.size // 2)
        raise failure(call, self._error, f"failed ({what})")


class Killed(BaseException):
    """Raised where `Kill` struck. Not an `Exception`: no handler of the code under test may catch it."""


class Kill(Nth):
    """The N-th call is the last: it and all later ones raise `Killed`, and have no effect. Nothing is
    closed or given back either: what is stored is what a process leaves that was killed there.

    Args:
        inner: the storage.
        at: which call, from 1; None: none until `arm`.
        only: which calls count. The later ones that have no effect are all calls.
        after: the N-th call itself still has its effect.
        torn: the N-th call, where it is a write to a log or a pack, has half its effect.

    Attributes:
        dead: whether the call has come.
        struck: how many calls had no effect, or half of it, or no return.
    """

    def __init__(
        self,
        inner: Storage,
        at: int | None = 1,
        *,
        only: Only = CALLS,
        after: bool = False,
        torn: bool = False,
    ) -> None:
        self.dead = False
        self._after = after
        self._torn = torn
        super().__init__(inner, at, only=only)

    def around(self, call: Call, act: Callable[[], T]) -> T:
        """See `Wrapper.around`."""
        if not self.dead:
            if not self.due(call):
                return act()
            self.dead = True
            if self._after:
                act()
            elif self._torn and call.partly is not None:
                call.partly(call.size // 2)
        raise Killed(f"killed at {call.name} {call.key}")

    def let_go(self, call: Call, act: Callable[[], None]) -> None:
        """See `Wrapper.let_go`: a killed process gives no space back. Closing changes nothing."""
        if call.name == "close" or not self.dead:
            act()


class Sometimes(Wrapper):
    """Calls fail by chance, half of them before and half of them after their effect.

    Args:
        inner: the storage.
        share: of the calls that fail, from 0 to 1. May be set at any time.
        seed: the same seed and the same calls give the same failures.
        only: which calls can fail.
        error: see `Fail`.

    Attributes:
        struck: how many calls failed.
    """

    def __init__(
        self,
        inner: Storage,
        share: float,
        *,
        seed: int = 0,
        only: Only = CALLS,
        error: Callable[[str], BaseException] = StorageUnavailable,
    ) -> None:
        super().__init__(inner)
        self.share = share
        self._source = random.Random(seed)
        self._chosen = chooser(only)
        self._error = error

    def around(self, call: Call, act: Callable[[], T]) -> T:
        """See `Wrapper.around`."""
        if not self._chosen(call):
            return act()
        with self.lock:
            fails, after = self._source.random() < self.share, self._source.random() < 0.5
            self.struck += fails
        if not fails:
            return act()
        if after:
            act()
        raise failure(call, self._error, "the reply was lost" if after else "the request was lost")


class Tear(Nth):
    """The N-th write to a log or a pack is cut off: its first part is there, and it fails.

    Args:
        inner: the storage.
        at: which write, from 1; None: none until `arm`.
        share: of the bytes that are written, from 0 to 1; of a log's, in whole sectors of 512 bytes.
        only: "append", "write" (a pack's), or both.
        error: see `Fail`.

    Attributes:
        struck: how many writes were torn.
    """

    def __init__(
        self,
        inner: Storage,
        at: int | None = 1,
        *,
        share: float = 0.5,
        only: Only = ("append", "write"),
        error: Callable[[str], BaseException] = StorageUnavailable,
    ) -> None:
        self._share = share
        self._error = error
        super().__init__(inner, at, only=only)

    def around(self, call: Call, act: Callable[[], T]) -> T:
        """See `Wrapper.around`."""
        if call.partly is None or not self.due(call):
            return act()
        written = call.partly(int(call.size * self._share))
        raise failure(call, self._error, f"torn after {written} of {call.size} bytes")


class Delay(Wrapper):
    """Calls take longer.

    Args:
        inner: the storage.
        seconds: how long a call waits before it begins; the most it waits, with a `seed`.
        only: which calls wait.
        seed: each call waits for a random part of `seconds`.
        sleep: waits; for tests with a clock of their own.

    Attributes:
        struck: how many calls waited.
    """

    def __init__(
        self,
        inner: Storage,
        seconds: float,
        *,
        only: Only = CALLS,
        seed: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._seconds = seconds
        self._chosen = chooser(only)
        self._source = None if seed is None else random.Random(seed)
        self._sleep = sleep

    def around(self, call: Call, act: Callable[[], T]) -> T:
        """See `Wrapper.around`."""
        if self._chosen(call):
            with self.lock:
                self.struck += 1
                share = 1.0 if self._source is None else self._source.random()
            self._sleep(share * self._seconds)
        return act()


class Freeze(Nth):
    """The N-th call stands still until `release`: a process that was stopped, a network that is away.

    Args:
        inner: the storage.
        at: which call, from 1; None: none until `arm`.
        only: which calls count.
        after: it stands still when it has had its effect, before it returns.

    Attributes:
        frozen: is set while a call stands still.
        struck: how many calls did.
    """

    def __init__(
        self,
        inner: Storage,
        at: int | None = 1,
        *,
        only: Only = CALLS,
        after: bool = False,
    ) -> None:
        self._after = after
        self._released = threading.Event()
        self.frozen = threading.Event()
        super().__init__(inner, at, only=only)

    def arm(self, at: int | None = 1) -> None:
        """See `Fail.arm`. What stands still goes on standing still until `release`."""
        self._released.clear()
        super().arm(at)

    def release(self) -> None:
        """Let the call go on."""
        self._released.set()

    def around(self, call: Call, act: Callable[[], T]) -> T:
        """See `Wrapper.around`."""
        if not self.due(call):
            return act()
        if not self._after:
            self._stand_still()
            return act()
        try:
            return act()
        finally:
            self._stand_still()

    def _stand_still(self) -> None:
        self.frozen.set()
        self._released.wait()
        self.frozen.clear()


class Count(Wrapper):
    """Notes calls, and leaves them alone.

    Attributes:
        calls: all so far, in the order in which they began.
        struck: how many.
    """

    def __init__(self, inner: Storage, *, only: Only = CALLS) -> None:
        super().__init__(inner)
        self.calls: list[Call] = []
        self._chosen = chooser(only)

    @property
    def totals(self) -> Counter[str]:
        """How many calls of each name there were."""
        with self.lock:
            return Counter(call.name for call in self.calls)

    def around(self, call: Call, act: Callable[[], T]) -> T:
        """See `Wrapper.around`."""
        if self._chosen(call):
            with self.lock:
                self.calls.append(call)
                self.struck += 1
        return act()

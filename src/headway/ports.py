"""What the engine needs from outside: a place to keep bytes, something that runs attempts, a clock.

Everything concrete (disks, buckets, processes, clusters) stands behind these protocols and is named
in `compose.py` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from headway.model.errors import StorageError
from headway.model.program import AttemptSpec, Message

ALIGN = 4096
"""Where a large piece of a pack begins: at a multiple of this many bytes."""
LARGE = 16 * ALIGN
"""Bytes from which on a piece of a pack is large."""

LARGEST_LOG = 256 << 20
"""Bytes of the largest log. A longer one is not ours, and is read to here only."""


class KeyExists(StorageError):
    """Exclusive creation lost: something is there already. Part of the protocol, not a fault."""


class KeyMissing(StorageError):
    """Proven absence: the store answered, and there is nothing under that key."""


READERS = 8
"""Threads that read from a disk or a network at once: while some look at what they have, others wait."""


def unseen(_: int) -> None:
    """Look at nothing while it arrives."""


class LogWriter(Protocol):
    """An append-only byte string that this writer, and nobody else, created."""

    @property
    def room(self) -> int:
        """Bytes that can still be appended."""
        ...

    def append(self, data: bytes) -> None:
        """Add `data` at the end; durable on return.

        Raises:
            StorageError: the bytes may be absent, torn or whole; the caller must not append here
                again (a failed fsync is never retried).
        """
        ...

    def close(self) -> None:
        """Release the handle. Never raises, changes nothing in the store."""
        ...


class PackWriter(Protocol):
    """A file of chunk data. Several threads may write to it, each piece at a place of its own."""

    def write(self, data: bytes | memoryview) -> int:
        """Add `data`; returns the offset at which it begins, a multiple of `ALIGN` for `LARGE` bytes and
        more. What lies between pieces is zero. `data` may be changed once this has returned."""
        ...

    def commit(self) -> None:
        """Make everything written durable, its name included. Call once, last, from one thread."""
        ...

    def abort(self) -> None:
        """Give the space back. Never raises."""
        ...


class Storage(Protocol):
    """A place that keeps bytes under keys (`runs/x/ledger/…`: `/`-separated, below the home).

    Every method raises `StorageError` subclasses and nothing else of its own; absence is `KeyMissing`
    and is raised only when the store said so.
    """

    @property
    def url(self) -> str:
        """Where this store is, for messages and for workers to open it again."""
        ...

    @property
    def trusted(self) -> bool:
        """Whether only this user can have written here, so that pickles may be loaded."""
        ...

    @property
    def remote(self) -> bool:
        """Whether it is at the other end of a network, so that fewer bytes may be worth computing."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Create `key` with exactly `data`: whole or absent, durable on return.

        Raises:
            KeyExists: there is something under `key`; it is unchanged.
        """
        ...

    def read(self, key: str) -> bytes:
        """The bytes under `key`."""
        ...

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only at the end of what is stored."""
        ...

    def read_into(
        self, key: str, offset: int, into: memoryview, seen: Callable[[int], None] = unseen
    ) -> int:
        """Fill writable memory with what is stored from `offset` on; how many bytes there were, fewer
        than asked for only at the end of what is stored. Safe from several threads.

        Args:
            seen: may be told, in this thread and as they arrive, how many of the first bytes are there,
                so that they can be looked at while they are in the processor's cache.
        """
        ...

    def readers(self, key: str) -> int:
        """How many threads at once read what is under `key` the fastest; a guess, and never a fault."""
        ...

    def read_log(self, key: str) -> bytes:
        """The whole of a log that `create_log` made: its head, what was appended, zeros. Of one that is
        longer than `LARGEST_LOG`, that many bytes or a few more."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Names directly below `prefix` (no recursion), sorted; [] when there is nothing."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove `prefix` and everything below it; nothing there is no error."""
        ...

    def create_log(self, key: str, head: bytes, room: int) -> LogWriter:
        """Create an appendable log that begins with `head`, exclusively; durable on return.

        Args:
            key: where.
            head: its first bytes, there from the first instant the log is visible.
            room: bytes that can be appended after `head` without growing the log.

        Raises:
            KeyExists: somebody else created it first.
        """
        ...

    def settle(self, key: str, offset: int, data: bytes) -> None:
        """Make bytes of a log durable that were read from it at `offset`, whatever became of the
        writer that appended them: it may have died before its fsync, or after one that failed."""
        ...

    def has(self, key: str) -> bool:
        """Whether `key` exists. Sees every creation that returned before the call began."""
        ...

    def create_pack(self, key: str, *, size: int = 0, reuse: str | None = None) -> PackWriter:
        """Begin a pack file under a key that does not exist yet.

        Args:
            key: where.
            size: bytes that will be written, if that is known; for preparing space.
            reuse: a pack that this process made, which no record names any more: it is gone when this
                returns, and its space may be written over.

        Raises:
            KeyExists: there is something under `key`.
        """
        ...

    def room(self) -> int | None:
        """Bytes that can still be stored; None where nobody knows."""
        ...


AttemptKey = tuple[str, int]
"""(node, attempt) within the run that an executor serves."""


class Executor(Protocol):
    """Where attempts run. One executor serves one driver."""

    @property
    def slots(self) -> int:
        """How many attempts run at once."""
        ...

    def submit(self, spec: AttemptSpec) -> None:
        """Start an attempt in a process of its own. Its messages come from `poll`."""
        ...

    def stop(self, key: AttemptKey, grace: float) -> None:
        """Ask an attempt to leave (SIGTERM); kill its process group after `grace` seconds.

        Returns at once; the end arrives as a message. `grace` 0 kills at once.
        """
        ...

    def poll(self, timeout: float | None) -> Sequence[tuple[AttemptKey, Message]]:
        """Messages that arrived, in order per attempt, waiting up to `timeout` seconds for the first
        (None: for ever). The last message of an attempt is `Returned`, `Raised` or `Died`, once; when
        it has arrived, no process of that attempt is left.

        May return [] early, for example after `wake`.
        """
        ...

    def wake(self) -> None:
        """Make a `poll` in progress return. Safe from a signal handler or another thread."""
        ...

    def close(self) -> None:
        """Kill whatever runs and release everything. Idempotent."""
        ...


class Clock(Protocol):
    """Time, so that tests and the simulator can own it."""

    def time(self) -> float:
        """Wall-clock seconds since the Unix epoch, for people."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for durations."""
        ...


class StateAdapter(Protocol):
    """Takes live objects of one framework apart into data, and puts data back into them.

    Of values, which are exchanged for others rather than changed, it has `exchanged = True`; what stands
    for them has the key `capture.MADE`, and `restore` may get None for a value that is not there.
    """

    def capture(self, value: Any, path: str) -> Any:
        """What stands for all of the value's state: data, and objects that are captured in their turn.
        It may look into the value's own memory, which stays as it is until the copy is made.

        Args:
            value, path: the object, and its name for messages: `model`, `parts.loader`.

        Raises:
            InputError: it is in a state that cannot be captured.
        """
        ...

    def restore(self, value: Any, data: Any, path: str) -> Any:
        """Give a live object the captured state. Memory that `capture` looked into may hold the saved
        bytes already.

        Returns:
            The object, changed in place; or another one, where its kind cannot be changed.

        Raises:
            InputError: it is an object of another structure.
        """
        ...


class Steady(Protocol):
    """Something whose memory changes only at moments that it announces: an optimizer, which changes what it
    owns in its step. That memory can be copied while the body goes on, until the next such moment."""

    def memory(self) -> list[tuple[int, int]]:
        """[address, end) of each stretch of it, as it is now."""
        ...

    def marks(self) -> object:
        """Equal to what it was before when nothing that leaves a trace has changed the memory since."""
        ...

    def before_change(self, wait: Callable[[], None]) -> None:
        """Have `wait` called before each change."""
        ...


class Leave(Protocol):
    """What an attempt knows about being told to go."""

    @property
    def told(self) -> bool:
        """Whether the process was told to go."""
        ...

    def hold(self) -> None:
        """From here on, whoever called this looks at `told` at its own good moments: `Preempted` is not
        raised in the body."""
        ...

    def release(self) -> None:
        """The end of `hold`. If the process was told to go meanwhile, `Preempted` is raised in the main
        thread soon; not by this call."""
        ...

    def go(self) -> NoReturn:
        """Leave: raises `Preempted`, here and nowhere else."""
        ...

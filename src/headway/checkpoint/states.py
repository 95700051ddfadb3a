"""Saving typed state: at once through small buffers, or as a copy that is written in the background.

One save is in flight at a time. The next one waits until that is durable, because it needs its memory; it
does not wait for the disk itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from headway.checkpoint.background import Background, SaveHandle, ended
from headway.checkpoint.codec import Thrift
from headway.checkpoint.encode import Encoder
from headway.checkpoint.late import Late
from headway.checkpoint.packing import Packs, Pieces, entries_of
from headway.checkpoint.retain import Metric
from headway.checkpoint.save import INLINE
from headway.checkpoint.staging import NOTHING, Captured, Layout, Staging
from headway.checkpoint.state import Flattened
from headway.checkpoint.turn import Turn
from headway.checkpoint.working import Working, Written
from headway.model.manifest import Entry
from headway.ports import Steady


class StateSaves:
    """The saves of typed state of one attempt. Safe to use from several threads.

    Args:
        turn: the attempt's turn.
        lock: guards the turn; it is held while a record's content is written, and never while waiting
            for a save in the background.
        working: the attempt's working directories.

    Attributes:
        inline: states of up to this many bytes go into the record itself.
    """

    def __init__(self, turn: Turn, lock: threading.RLock, working: Working) -> None:
        self._turn = turn
        self._working = working
        self._lock = lock
        self._door = threading.Lock()  # held from the wait for a save to the start of the next
        self._background = Background()
        self._staging: Staging | None = None
        self._thrift = Thrift(remote=turn.storage.remote)
        self.inline = INLINE
        self._copied = 0  # number of the checkpoint whose state the copy holds

    def prepare(self, flat: Flattened) -> None:
        """See `Checkpoint.prepare`."""
        if flat.size > self.inline:
            with self._door:
                self._background.drain()
                self._copy().prepare(Layout.of(flat.parts))

    def save(
        self,
        flat: Flattened,
        *,
        wait: bool,
        metric: Metric | None = None,
        owners: Sequence[Steady] = (),
    ) -> SaveHandle:
        """See `Checkpoint.save`; `metric` is what `keep_best` compares. What belongs to `owners` is copied
        while the caller goes on: see `late`."""
        began = time.monotonic()
        with self._door:
            self._background.drain()
            with self._lock:
                self._turn.opened()
            if not wait:
                self._background.raise_failure()
            with self._lock:
                beside = self._working.snapshot(self._turn, copy=not wait)
            if wait and (self._staging is None or flat.size <= self.inline):
                return ended(self._save_now(flat, began, metric, beside))
            copied = threading.Event()
            job = self._job(flat, began, metric, beside, owners, copied)
            handle = self._background.begin(job, copied)
        if wait:
            handle.wait()
        return handle

    def drain(self) -> None:
        """Wait until no save is in flight."""
        self._background.drain()

    def flush(self) -> None:
        """Wait until no save is in flight; raise what the first failed one raised that nobody was
        told of."""
        self._background.drain()
        self._background.raise_failure()

    def close(self) -> None:
        """Wait for the save in flight, and give the memory back."""
        with self._door:
            self._background.drain()
            if self._staging is not None:
                self._staging.close()
                self._staging = None

    def _copy(self) -> Staging:
        if self._staging is None:
            self._staging = Staging()
        return self._staging

    def _job(
        self,
        flat: Flattened,
        began: float,
        metric: Metric | None,
        beside: Written,
        owners: Sequence[Steady],
        copied: threading.Event,
    ) -> Callable[[], int]:
        """Copy the state now, but for what may be copied late; what is left to be done. `copied` is set
        when the live state is not needed any more."""
        skeleton = flat.skeleton
        if flat.size <= self.inline:
            copied.set()
            entries = _inline(flat)

            def record() -> int:
                with self._lock:
                    return self._turn.commit(
                        began,
                        "state",
                        flat.size,
                        entries,
                        skeleton=skeleton,
                        metric=metric,
                        beside=beside(),
                    ).number

            return record
        before, self._copied = self._copied, 0  # until it is known what the new copy stands for
        late = Late(flat, owners) if owners else None
        rest = self._copy().begin(flat.parts, NOTHING if late is None else late.parts)
        now: Captured | None = None
        if late is None:
            now = rest()
            copied.set()

        def write() -> int:
            captured = now
            if captured is None:
                assert late is not None
                captured = self._copy().checked(rest, late.check)
                copied.set()
            with self._lock:
                base = self._turn.good
                since = base is not None and base.number == before
                number = self._commit(
                    captured.layout,
                    skeleton,
                    began,
                    metric,
                    beside,
                    lambda encoder: encoder.captured(captured, since_base=since),
                )
                self._copied = number
                return number

        return write

    def _save_now(
        self, flat: Flattened, began: float, metric: Metric | None, beside: Written
    ) -> int:
        with self._lock:
            if flat.size <= self.inline:
                entries = _inline(flat)
                return self._turn.commit(
                    began,
                    "state",
                    flat.size,
                    entries,
                    skeleton=flat.skeleton,
                    metric=metric,
                    beside=beside(),
                ).number
            layout = Layout.of(flat.parts)
            return self._commit(
                layout,
                flat.skeleton,
                began,
                metric,
                beside,
                lambda encoder: encoder.direct(flat.parts),
            )

    def _commit(
        self,
        layout: Layout,
        skeleton: bytes,
        began: float,
        metric: Metric | None,
        beside: Written,
        encode: Callable[[Encoder], Pieces],
    ) -> int:
        turn = self._turn
        size = sum(layout.sizes)
        turn.require_room(turn.likely(size))
        directories = beside()
        packs = Packs(turn, 0 if turn.good is not None else layout.total)
        try:
            pieces = encode(Encoder(packs, layout, turn.good, self._thrift, turn.thin()))
            self._thrift.sent(packs.written, packs.finish())
        except BaseException:
            packs.abort()
            raise
        entries, names = entries_of(layout, pieces)
        known = (
            {} if turn.good is None else dict(zip(turn.good.packs, turn.good.stored, strict=False))
        )
        known[packs.name] = packs.written
        stored = tuple(known.get(name, 0) for name in names)
        return turn.commit(
            began,
            "state",
            size,
            entries,
            names,
            skeleton,
            stored,
            metric=metric,
            beside=directories,
        ).number


def _inline(flat: Flattened) -> tuple[Entry, ...]:
    return tuple(
        Entry(part.name, "part", 0, len(part.data), bytes(part.data)) for part in flat.parts
    )

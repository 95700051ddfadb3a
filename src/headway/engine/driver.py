"""The loop around the core: hear, decide, record, act.

INVARIANTS
D1  An event is in the journal, durable and acknowledged, before anything outside this process happens
    because of it. `AttemptStarted` comes before `submit`: so every process that may ever touch a
    node's state is known to whoever resumes. `AttemptEnded` comes before the start of what depends
    on it: its record is the one commit of the result, and nobody acts on one that could be lost.
D2  All events of a turn go into one append. So a chain of small tasks costs one durable write per task:
    the end of one and the start of the next travel together.
D3  After an append that failed nothing is acted on any more. Fenced or not, the attempts are stopped
    and the driver leaves; the journal says truthfully what was acknowledged.
D4  Checkpoints and warnings of attempts are hints (the node's ledger is the truth). They ride along
    with the next append, or have one of their own after a second; always before the end of their
    attempt, because the core counts progress by them.
D5  A driver that is no longer the newest finds out within half a second (a few in a store), even when
    it has nothing to record, and stops its attempts. What they still save meanwhile is fenced by the
    node's ledger.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from headway.engine.core import EndRun, RunState, StartAttempt, StopAttempt, WakeAt, apply, decide
from headway.engine.outcome import classify
from headway.engine.signals import told_to_leave
from headway.engine.tails import Tails
from headway.model.errors import CheckpointFenced, RunBusy, StorageError
from headway.model.events import (
    AttemptEnded,
    AttemptStarted,
    AttemptWarned,
    CancelRequested,
    CheckpointSaved,
    Event,
    RunEnded,
)
from headway.model.outcome import Outcome, RunStatus
from headway.model.program import (
    AttemptSpec,
    CommandEnded,
    Message,
    Returned,
    Saved,
    Started,
    Warned,
)
from headway.ports import AttemptKey, Clock, Executor

GRACE = 5.0
"""Seconds between asking an attempt to leave and killing it."""

_TAIL_EVERY = 0.1
_LOOK_EVERY = 0.5
_RIDE_AT_MOST = 1.0


class Observer(Protocol):
    """Who watches a run. Called from the driver's thread; an exception ends the driver."""

    def started(self, run_id: str) -> None:
        """The run is in the home: from here on it can be resumed."""
        ...

    def event(self, event: Event, state: RunState) -> None:
        """`event` happened; `state` is the run after it and after all that happened since."""
        ...

    def output(self, node: str, attempt: int, data: bytes) -> None:
        """An attempt wrote `data` to its standard output or error."""
        ...


class Records(Protocol):
    """What the driver needs of `engine.journal.Journal`."""

    def append(self, *events: Event) -> None:
        """Add events, all or none; durable on return."""
        ...

    def check(self) -> None:
        """Raise `CheckpointFenced` when another driver took over."""
        ...


class Assigner(Protocol):
    """Turns the plan of a node into work (`engine.assign`)."""

    def spec(self, state: RunState, node: str, attempt: int) -> AttemptSpec:
        """The attempt, its inputs resolved."""
        ...

    def outputs(self, state: RunState) -> dict[str, Any]:
        """The outputs of a run whose nodes all succeeded."""
        ...


class Driver:
    """Drives one run to its end, or until it is told to leave.

    Args:
        state: the run so far; `RunState()` for a new one.
        journal: where events go.
        executor: where attempts run. Closed when `run` is over.
        assigner: makes specs.
        clock: tells the time.
        cancelled: whether the user asked to cancel; looked at twice a second.
        over: told of each attempt of which no process is left, for the sake of its log.
        observer: who watches; without one no output is read.
        draw: numbers from 0 to 1, for the jitter of back-offs.
    """

    def __init__(
        self,
        state: RunState,
        journal: Records,
        executor: Executor,
        assigner: Assigner,
        clock: Clock,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        over: Callable[[AttemptKey], None] = lambda _: None,
        observer: Observer | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.state = state
        self._journal = journal
        self._executor = executor
        self._assigner = assigner
        self._clock = clock
        self._cancelled = cancelled
        self._over = over
        self._observer = observer
        self._draw = draw
        self._live: dict[AttemptKey, str | None] = {}  # started -> why we asked it to leave
        self._stops: list[AttemptKey] = []  # to be asked this turn
        self._batch: list[Event] = []  # applied, not yet in the journal
        self._riding: dict[object, Event] = {}  # the same, but can wait (D4)
        self._ride_until = 0.0
        self._wake_at: float | None = None
        self._look_at = clock.monotonic() + _LOOK_EVERY
        self._signals = 0
        self._announced = False
        self._killed = False
        self._tails = Tails()
        self._tail_at = 0.0

    def run(self, opening: Sequence[Event]) -> RunState:
        """Record `opening` (`RunCreated`, `DriverStarted`, …), then drive.

        Returns:
            The state at the end; `INTERRUPTED` when a signal told this process to leave.

        Raises:
            RunBusy: another driver took the run over.
            StorageError: the journal could not be written; resume when that is cured.
        """
        with told_to_leave(self._told):
            try:
                for event in opening:
                    self._happened(event)
                while self._turn():
                    pass
            except CheckpointFenced as error:
                raise RunBusy(
                    f"another process took run {self.state.run} over, so this one stopped its "
                    f"attempts and left. Watch the run with `headway show {self.state.run}`."
                ) from error
            finally:
                self._executor.close()
                self._tails.close()
        return self.state

    def leave(self) -> None:
        """Stop the attempts in good order and end the run as interrupted; a second call kills them.

        Safe from a signal handler and from another thread.
        """
        self._told()

    def _told(self) -> None:
        self._signals += 1
        self._executor.wake()

    def _turn(self) -> bool:
        """One round: decide, record, act, hear. Returns whether there is another one."""
        starts = self._plan()
        self._record()
        # Everything above is durable: now it may be seen from outside (D1).
        stops, self._stops = self._stops, []
        for key in stops:
            self._executor.stop(key, GRACE)
        if self._signals > 1 and not self._killed:
            self._killed = True
            for key in self._live:
                self._executor.stop(key, 0.0)
        for spec in starts:
            self._submit(spec)
        if self.state.status is not RunStatus.RUNNING:
            return False
        for key, message in self._executor.poll(self._patience()):
            self._hear(key, message)
        self._tail()
        self._look()
        return True

    def _plan(self) -> list[AttemptSpec]:
        """Ask the core; what it starts or ends becomes events of this turn."""
        leaving = self._signals > 0
        now, self._wake_at = self._clock.monotonic(), None
        specs = []
        for command in decide(self.state, now, 0 if leaving else self._executor.slots):
            match command:
                case StartAttempt():
                    specs.append(self._start(command))
                case StopAttempt():
                    self._ask((command.node, command.attempt), command.reason)
                case EndRun():
                    done = command.status is RunStatus.SUCCEEDED
                    outputs = self._assigner.outputs(self.state) if done else None
                    self._end(command.status, outputs, command.error)
                case WakeAt():
                    self._wake_at = command.time
        if leaving:
            for key in self._live:
                self._ask(key, "leaving")
            if not self._live and self.state.status is RunStatus.RUNNING:
                self._end(RunStatus.INTERRUPTED, None, "its driver was told to leave")
        return specs

    def _start(self, command: StartAttempt) -> AttemptSpec:
        node, attempt = command.node, command.attempt
        spec = self._assigner.spec(self.state, node, attempt)
        self._live[node, attempt] = None
        self._happened(AttemptStarted(node, attempt, self._clock.time(), spec.inputs_digest))
        return spec

    def _ask(self, key: AttemptKey, reason: str) -> None:
        """Ask an attempt to leave this turn, unless it was asked before."""
        if self._live.get(key, reason) is None:
            self._live[key] = reason
            self._stops.append(key)

    def _end(self, status: RunStatus, outputs: dict[str, Any] | None, error: str) -> None:
        self._happened(RunEnded(status, self._clock.time(), outputs, error))

    def _happened(self, event: Event) -> None:
        apply(self.state, event)
        self._batch.append(event)

    def _record(self) -> None:
        """Put what happened into the journal, in one append (D2), and show it to the observer."""
        due = self._riding and self._clock.monotonic() >= self._ride_until
        if not self._batch and not due:
            return
        batch, self._batch = self._batch, []
        self._journal.append(*self._riding.values(), *batch)
        self._riding.clear()
        if self._observer is None:
            return
        if not self._announced:
            self._announced = True
            self._observer.started(self.state.run)
        for event in batch:
            self._observer.event(event, self.state)

    def _submit(self, spec: AttemptSpec) -> None:
        key = (spec.node, spec.attempt)
        if self._observer is not None:
            self._tails.follow(key, spec.log)
        try:
            self._executor.submit(spec)
        except OSError as error:  # no process, no descriptor: the machine's fault, not the task's
            text = f"its process could not be started: {error}"
            self._ended(key, Outcome.NODE_LOST, error=text)

    def _patience(self) -> float:
        """Seconds until something must be done even if nothing is heard."""
        if self._batch:
            return 0.0
        now = self._clock.monotonic()
        times = [self._look_at]
        if self._wake_at is not None:
            times.append(self._wake_at)
        if self._riding:
            times.append(self._ride_until)
        if self._observer is not None and self._live:
            times.append(self._tail_at)
        return max(0.0, min(times) - now)

    def _hear(self, key: AttemptKey, message: Message) -> None:
        if key not in self._live:
            return  # late news of an attempt that is over
        node, attempt = key
        match message:
            case Saved():
                saved = CheckpointSaved(node, attempt, message.number, message.size, message.time)
                self._ride(key, saved)  # only the newest of an attempt travels
            case Warned():
                now = self._clock.time()
                warned = AttemptWarned(node, attempt, message.kind, message.message, now)
                self._ride((key, len(self._riding)), warned)
            case Started():
                pass  # `AttemptStarted` said it already; the executor knows the process
            case _:
                outcome, error, traceback = classify(message, self._live[key])
                outputs, silent, code = None, False, None
                if isinstance(message, Returned):
                    outputs, silent = message.outputs, message.silent
                if isinstance(message, CommandEnded):
                    code = message.code
                self._ended(key, outcome, outputs, error, traceback, silent, code)

    def _ride(self, key: object, event: Event) -> None:
        if not self._riding:
            self._ride_until = self._clock.monotonic() + _RIDE_AT_MOST
        apply(self.state, event)
        self._riding[key] = event
        if self._observer is not None:
            self._observer.event(event, self.state)

    def _ended(
        self,
        key: AttemptKey,
        outcome: Outcome,
        outputs: dict[str, Any] | None = None,
        error: str = "",
        traceback: str = "",
        silent: bool = False,
        code: int | None = None,
    ) -> None:
        if self._observer is not None:
            # The log of a silent attempt may be another's by now, and is not looked at.
            for data in () if silent else self._tails.finish(key):
                self._observer.output(*key, data)
            self._tails.forget(key)
        if not silent:
            self._over(key)
        # An attempt that leaves because its driver was told to is not the node's expense.
        charged = self._live.pop(key) != "leaving" or outcome is Outcome.SUCCEEDED
        now, jitter = self._clock.time(), self._draw()
        self._happened(
            AttemptEnded(*key, outcome, now, outputs, error, traceback, jitter, charged, code)
        )

    def _tail(self) -> None:
        """Ten times a second: show what running attempts wrote."""
        if self._observer is None or (now := self._clock.monotonic()) < self._tail_at:
            return
        self._tail_at = now + _TAIL_EVERY
        for key, data in self._tails.news():
            self._observer.output(*key, data)

    def _look(self) -> None:
        """Twice a second: are we still the newest driver (D5), and has the user cancelled?"""
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY
        try:
            self._journal.check()
            if not self.state.cancelling and self._cancelled():
                self._happened(CancelRequested(self._clock.time()))
        except StorageError:
            pass  # not knowing is no reason to stop; the next append will tell

"""Attempts in processes on this machine: a pool of keepers, each with one worker at a time."""

from __future__ import annotations

import math
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from headway.executors import family
from headway.executors.keeper import LINGER, Setup
from headway.executors.wire import Channel, Garbled, Kind
from headway.model.errors import HeadwayError
from headway.model.program import AttemptSpec, Died, Message, Program, Returned, Started
from headway.ports import AttemptKey

_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_PATIENCE = 5.0
"""Seconds for a killed process to be gone; one that hangs in the kernel may take longer."""


class NoProcess(HeadwayError, OSError):
    """No process could be started for an attempt: descriptors, memory or processes ran out."""


@dataclass(eq=False)
class _Slot:
    process: subprocess.Popen[bytes]
    channel: Channel
    token: str
    ready: bool = False
    key: AttemptKey | None = None
    """The attempt that runs here."""
    program: Program | None = None
    """The program of the worker that is there; None when there is no worker."""
    worker: int | None = None
    told: bool = False
    """`Started` was heard of the attempt."""


class LocalExecutor:
    """Implements `ports.Executor` with processes of this machine. Usable from any thread.

    Keepers are started when they are first needed, and stay until `close`.

    Args:
        jobs: attempts that may run at once; None: as many as this process has cores.
        lock_fd: a descriptor that holds a `flock`; keepers and workers hold it too (what bodies
            start does not), so that the lock is free only when all of them are gone.
    """

    def __init__(self, jobs: int | None = None, *, lock_fd: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise HeadwayError(f"--jobs must be at least 1, got {jobs}")
        self._jobs = _cores() if jobs is None else jobs
        self._lock_fd = lock_fd
        self._lock = threading.RLock()  # of everything below
        self._slots: list[_Slot] = []
        self._heard: list[tuple[AttemptKey, Message]] = []
        self._broken: HeadwayError | None = None
        self._closed = False
        self._woken = False
        self._polling = threading.Lock()  # held while descriptors are being waited for
        self._wakeup, self._waker = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._waker, False)

    @property
    def slots(self) -> int:
        """How many attempts run at once."""
        return self._jobs

    def submit(self, spec: AttemptSpec) -> None:
        """See `ports.Executor.submit`.

        Raises:
            NoProcess: no process could be started.
            HeadwayError: all slots are busy, the attempt is running already, or this is closed.
        """
        key = (spec.node, spec.attempt)
        payload = msgspec.msgpack.encode(spec)
        with self._lock:
            if self._closed:
                raise HeadwayError("this executor is closed; make another one")
            if any(slot.key == key for slot in self._slots):
                raise HeadwayError(f"attempt {spec.attempt} of {spec.node} is running already")
            slot = self._idle(spec.program) or self._start()
            slot.told = False
            if slot.worker is not None and slot.program == spec.program:
                self._begun(slot, key)  # else the keeper will say which process it is
            slot.key = key
            slot.program = spec.program
            slot.channel.send(Kind.ATTEMPT, payload)
        self._nudge_a_poll()

    def stop(self, key: AttemptKey, grace: float) -> None:
        """See `ports.Executor.stop`. An attempt that is over already is left in peace."""
        with self._lock:
            for slot in self._slots:
                if slot.key == key:
                    slot.channel.send(Kind.STOP, repr(float(grace)).encode())
        self._nudge_a_poll()

    def poll(self, timeout: float | None) -> Sequence[tuple[AttemptKey, Message]]:
        """See `ports.Executor.poll`.

        Raises:
            HeadwayError: a keeper could not even import headway; its traceback is on standard error.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            with self._polling:
                left = self._listen(end)
            with self._lock:
                heard, self._heard = self._heard, []
                if heard:
                    return heard
                if self._broken is not None:
                    raise self._broken
                woken, self._woken = self._woken, False
                if woken or left <= 0 or self._closed:
                    return []

    def wake(self) -> None:
        """See `ports.Executor.wake`."""
        # No lock: a signal handler may have interrupted its holder.
        self._woken = True
        self._nudge()

    def close(self) -> None:
        """See `ports.Executor.close`. Not for signal handlers; use `wake` there."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            slots, self._slots = self._slots, []
        self._nudge()
        with self._polling:
            for slot in slots:
                slot.channel.send(Kind.LEAVE)
            end = time.monotonic() + LINGER + _PATIENCE
            for slot in slots:
                _wait_for(slot, end)
                _remove(slot)
            wakeup, waker = self._wakeup, self._waker
            self._wakeup = self._waker = -1  # first: `wake` must not write to a stranger's
            os.close(wakeup)
            os.close(waker)

    def _nudge_a_poll(self) -> None:
        # One that begins after this look sees what changed before it.
        if self._polling.locked():
            self._nudge()

    def _nudge(self) -> None:
        """Make a poll in progress look again at what it has to wait for."""
        try:
            os.write(self._waker, b"\0")
        except OSError:
            pass  # the pipe is full, so poll wakes anyway; or this executor is closed

    def _idle(self, program: Program) -> _Slot | None:
        """The idle slot that will serve `program` soonest; None when a new one has to be started."""
        idle = [slot for slot in self._slots if slot.key is None]
        if not idle and len(self._slots) >= self._jobs:
            raise HeadwayError(
                f"all {self._jobs} slots are busy; submit the attempt when another one has ended"
            )
        return min(
            idle,
            key=lambda slot: (slot.program != program, slot.program is not None),
            default=None,
        )

    def _start(self) -> _Slot:
        token = secrets.token_hex(8)
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        # The keeper imports the same headway as this process, and nothing else from that place.
        code = (
            f"import sys; sys.path.insert(0, {root!r}); import headway; del sys.path[0]; "
            "from headway.executors.keeper import main; main()"
        )
        ours, theirs = None, None
        try:
            ours, theirs = socket.socketpair()
            inherited = [theirs.fileno()] + ([] if self._lock_fd is None else [self._lock_fd])
            process = subprocess.Popen(
                [sys.executable, *_flags(), "-c", code, *map(str, inherited)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, family.TOKEN: token},
                pass_fds=inherited,
                start_new_session=True,
            )
        except OSError as error:
            if ours is not None:
                ours.close()
            raise NoProcess(
                f"no process could be started for the attempt ({error.strerror}). Close programs, "
                "raise `ulimit -n` or `ulimit -u`, or run fewer at once with --jobs",
            ) from error
        finally:
            if theirs is not None:
                theirs.close()
        slot = _Slot(process, Channel(ours), token)
        self._slots.append(slot)
        setup = Setup(driver=os.getpid(), path=[entry or os.getcwd() for entry in sys.path])
        slot.channel.send(Kind.SETUP, msgspec.msgpack.encode(setup))
        return slot

    def _listen(self, end: float) -> float:
        """Wait until `end` for news, and take them in; returns the seconds that are left then."""
        poll = select.poll()
        with self._lock:
            if self._closed:
                return 0.0
            slots = {slot.channel.fileno(): slot for slot in self._slots}
            for fd, slot in slots.items():
                write = select.POLLOUT if slot.channel.pending else 0
                poll.register(fd, select.POLLIN | write)
            poll.register(self._wakeup, select.POLLIN)
            nothing_to_say = not (self._heard or self._woken or self._broken)
        left = max(0.0, end - time.monotonic()) if nothing_to_say else 0.0
        ready = poll.poll(None if left == math.inf else math.ceil(min(left, 86_400.0) * 1000))
        with self._lock:
            for fd, _ in ready:
                if fd == self._wakeup:
                    os.read(fd, 4096)
                elif slots[fd] in self._slots:
                    self._hear(slots[fd])
        return end - time.monotonic()

    def _hear(self, slot: _Slot) -> None:
        slot.channel.flush()
        try:
            for kind, payload in slot.channel.receive():
                self._take(slot, kind, payload)
        except Garbled:
            slot.channel.close()
        if slot.channel.closed:
            self._bury(slot)

    def _take(self, slot: _Slot, kind: Kind, payload: bytes) -> None:
        if kind is Kind.READY:
            slot.ready = True
        elif kind is Kind.FORKED:
            slot.worker = int(payload)
            if slot.key is not None and not slot.told:
                self._begun(slot, slot.key)
        elif slot.key is not None:
            message = _DECODER.decode(payload)
            key = slot.key
            if kind is not Kind.NOTE:
                slot.key = None
                if kind is Kind.LAST:
                    slot.program = slot.worker = None
                    if isinstance(message, Returned):
                        message = msgspec.structs.replace(message, clean=False, silent=False)
            self._heard.append((key, message))

    def _begun(self, slot: _Slot, key: AttemptKey) -> None:
        assert slot.worker is not None
        slot.told = True
        self._heard.append((key, Started(slot.worker)))

    def _bury(self, slot: _Slot) -> None:
        """The keeper is gone, and its worker with it (or about to be)."""
        self._slots.remove(slot)
        code = _remove(slot)
        if not slot.ready and code > 0:
            self._broken = HeadwayError(
                f"a worker process could not start (exit code {code}); what it said is above. Is "
                f"headway installed completely for {sys.executable}?"
            )
        elif slot.key is not None:
            self._heard.append((slot.key, Died(-signal.SIGKILL)))


def _wait_for(slot: _Slot, end: float) -> None:
    """Wait until a keeper that was asked to leave is gone, at most until `end`."""
    while not slot.channel.closed and (left := end - time.monotonic()) > 0:
        poll = select.poll()
        poll.register(slot.channel, select.POLLIN | (select.POLLOUT if slot.channel.pending else 0))
        poll.poll(math.ceil(left * 1000))
        slot.channel.flush()
        try:
            slot.channel.drain()  # nobody wants to hear it, but the keeper wants to get rid of it
        except Garbled:
            return


def _remove(slot: _Slot) -> int:
    """Make sure that nothing is left of a slot; returns the exit code of its keeper."""
    slot.channel.close()
    slot.process.kill()  # no effect on one that is ending: its exit code is fixed
    code = slot.process.wait()
    if code != 0:
        # It was killed, and could not clean up. The kernel kills its worker; the rest is on us.
        family.kill_marked(slot.token, slot.worker, time.monotonic() + _PATIENCE)
    return code


def _flags() -> list[str]:
    """Interpreter options of this process that a keeper needs too; and -P, because the keeper must
    not import modules that happen to lie in the working directory."""
    flags = ["-P"] + ["-O"] * sys.flags.optimize + [f"-W{option}" for option in sys.warnoptions]
    if sys.flags.no_user_site:
        flags.append("-s")
    if sys.flags.ignore_environment:
        flags.append("-E")
    return flags


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""A keeper: the small process that guards one worker at a time and outlives it by a moment.

It has imported headway and nothing of the user's, has one thread, and never blocks; so it can fork a
worker within milliseconds, and still notices that its driver died while a body holds the interpreter
lock or is stopped. It reports that an attempt is over when no process of the attempt is left.

Three deaths, three witnesses: the keeper reaps the worker; the kernel kills the worker when the keeper
goes (`family.die_with_parent`); and when the driver goes, by `kill -9` too, the control channel ends
and its pidfd becomes readable, whichever comes first (a process that the driver forked may hold the
channel open).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass

import msgspec

from headway.executors import family
from headway.executors.output import remove_if_empty
from headway.executors.wire import Channel, Frame, Garbled, Kind, receive_frame
from headway.model.outcome import Outcome
from headway.model.program import Died, Message, Program, Raised

WORKER = "headway.worker"
"""Where a forked child goes on, found by name because floors point down: `serve(sock, keeper, scratch)`."""

LINGER = 2.0
"""Seconds that a worker may take, after it has answered, for its exit handlers and last threads."""


_TIDY = 0.05
"""Seconds after which an idle worker's empty log is removed; until then the next attempt may take it."""


class Setup(msgspec.Struct, frozen=True):
    """First words of a driver to its keeper: its pid and its `sys.path`."""

    driver: int
    path: list[str]


class _Wanted(msgspec.Struct, frozen=True):
    """What a keeper reads of an `AttemptSpec`; the rest is passed over undecoded."""

    program: Program
    log: str


@dataclass
class _Worker:
    pid: int
    channel: Channel
    program: Program
    scratch: str = ""
    """Directory for its copies of files: a worker that is killed cannot remove them."""
    log: str = ""
    log_before: str = ""
    """The log that the worker takes along, or removes, when it begins with `log`."""
    running: bool = False
    """An attempt is on, and its last message has not been sent to the driver."""
    answer: Frame | None = None
    """Its last message, held back until the process is gone."""
    told: bool = False
    """SIGTERM was sent, and may still be on its way: unfit for another attempt."""
    kill_at: float | None = None
    """Time (monotonic) at which patience ends."""
    tidy_at: float | None = None
    """Time (monotonic) at which the log of its last attempt is removed if that wrote nothing."""


class _InWorker(BaseException):
    """Unwinds a forked child to `main`, so that it ends as an ordinary interpreter does."""

    def __init__(self, sock: socket.socket, keeper: int, scratch: str) -> None:
        super().__init__()
        self.sock = sock
        self.keeper = keeper
        self.scratch = scratch


class _Keeper:
    def __init__(self, control: Channel, driver: int) -> None:
        self._control = control
        self._pidfd = _pidfd_of(driver)
        self._wakeup, self._wakeup_writer = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._wakeup_writer, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler, no byte in the pipe
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        self._worker: _Worker | None = None
        self._next: bytes | None = None  # an attempt that waits for the old worker to be gone
        self._leaving = False

    def serve(self) -> None:
        """Guard workers until the driver says LEAVE or is gone."""
        self._control.send(Kind.READY)
        while not (self._leaving and self._worker is None):
            ready = self._wait()
            self._control.flush()
            if self._control.fileno() in ready:
                for kind, payload in self._control.receive():
                    self._obey(kind, payload)
            if self._pidfd in ready or self._control.closed:
                if self._worker is not None:
                    self._bury(self._worker)
                return
            if self._worker is not None:
                self._attend(self._worker, ready)
            if self._worker is None and self._next is not None:
                self._begin(self._next)

    def _wait(self) -> set[int | None]:
        """Wait for something to do; the descriptors that have news."""
        poll = select.poll()
        control = select.POLLOUT if self._control.pending else 0
        poll.register(self._control, select.POLLIN | control)
        poll.register(self._wakeup, select.POLLIN)
        if self._pidfd is not None:
            poll.register(self._pidfd, select.POLLIN)
        timeout = None
        if (worker := self._worker) is not None:
            # While the driver does not take what we have, the worker has to wait.
            wanted = 0 if self._control.pending or worker.channel.closed else select.POLLIN
            if worker.channel.pending:
                wanted |= select.POLLOUT
            if wanted:
                poll.register(worker.channel, wanted)
            times = [at for at in (worker.kill_at, worker.tidy_at) if at is not None]
            if times:
                timeout = max(0.0, min(times) - time.monotonic()) * 1000 + 1
        ready: set[int | None] = {fd for fd, _ in poll.poll(timeout)}
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
        return ready

    def _obey(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.ATTEMPT:
            self._begin(payload)
        elif kind is Kind.LEAVE:
            self._leaving = True
            if (worker := self._worker) is not None:
                if worker.running and worker.answer is None:
                    self._bury(worker)
                else:
                    _part(worker)
        elif kind is Kind.STOP and (worker := self._worker) is not None and worker.running:
            self._stop(worker, float(payload))

    def _begin(self, payload: bytes) -> None:
        wanted = msgspec.msgpack.decode(payload, type=_Wanted)
        worker = self._worker
        if worker is not None and (worker.program != wanted.program or worker.channel.closed):
            self._next = payload
            _part(worker)
            return
        self._next = None
        if worker is None:
            try:
                worker = self._worker = self._fork(wanted.program)
            except OSError as error:
                self._report(_cannot_fork(error))
                return
            self._control.send(Kind.FORKED, b"%d" % worker.pid)
        worker.log, worker.log_before = wanted.log, worker.log
        worker.tidy_at = None
        worker.running = True
        worker.channel.send(Kind.ATTEMPT, payload)

    def _fork(self, program: Program) -> _Worker:
        ours, theirs = socket.socketpair()
        keeper = os.getpid()
        scratch = _make_scratch()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            _remove_scratch(scratch)
            raise
        if pid == 0:
            ours.close()
            raise _InWorker(theirs, keeper, scratch)
        theirs.close()
        return _Worker(pid, Channel(ours), program, scratch)

    def _stop(self, worker: _Worker, grace: float) -> None:
        if grace <= 0:
            self._bury(worker)
            return
        end = time.monotonic() + grace
        worker.kill_at = end if worker.kill_at is None else min(worker.kill_at, end)
        if worker.answer is None and not worker.told:
            worker.told = True
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGCONT)  # a stopped process would not hear it

    def _attend(self, worker: _Worker, ready: set[int | None]) -> None:
        worker.channel.flush()
        if worker.channel.fileno() in ready and not self._control.pending:
            try:
                self._hear(worker, worker.channel.receive())
            except Garbled:
                worker.kill_at = 0.0
        if worker.tidy_at is not None and time.monotonic() >= worker.tidy_at:
            worker.tidy_at = None
            remove_if_empty(worker.log)  # no attempt is on that could write into it
        late = worker.kill_at is not None and time.monotonic() >= worker.kill_at
        # Each end of a child is a byte in the pipe, so nobody has to be asked in between.
        ended = self._wakeup in ready and family.exit_code(worker.pid) is not None
        if late or ended:
            self._bury(worker)

    def _hear(self, worker: _Worker, frames: list[Frame]) -> None:
        for kind, payload in frames:
            if kind is Kind.NOTE:
                self._control.send(kind, payload)
            elif kind is Kind.LAST_CLEAN and not worker.told:
                worker.running = False
                self._control.send(kind, payload)
                worker.tidy_at = time.monotonic() + _TIDY
            else:
                worker.answer = (Kind.LAST, payload)
                _part(worker)

    def _bury(self, worker: _Worker) -> None:
        """Kill what is left of a worker, tell the driver how its attempt ended, forget it."""
        code = family.exit_code(worker.pid)
        family.kill_child(worker.pid)
        _remove_scratch(worker.scratch)
        try:
            self._hear(worker, worker.channel.drain())
        except Garbled:
            pass  # half a story is no answer
        worker.channel.close()
        self._worker = None
        for log in filter(None, (worker.log, worker.log_before)):
            remove_if_empty(log)
        if worker.answer is not None:
            self._control.send(*worker.answer)
        elif worker.running:
            self._report(Died(-signal.SIGKILL if code is None else code))

    def _report(self, message: Message) -> None:
        self._control.send(Kind.LAST, msgspec.msgpack.encode(message))

    def forget(self) -> None:
        """In a forked child: give up all that belongs to the keeper."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        for fd in (self._wakeup, self._wakeup_writer, self._pidfd):
            if fd is not None:
                os.close(fd)


def _part(worker: _Worker) -> None:
    """Let a worker that has answered (or is idle) end by itself, for a while."""
    end = time.monotonic() + LINGER
    worker.kill_at = end if worker.kill_at is None else min(worker.kill_at, end)
    worker.channel.end_sending()


def _cannot_fork(error: OSError) -> Raised:
    return Raised(
        kind=Outcome.NODE_LOST,
        type="OSError",
        message=(
            f"no process could be started for the attempt ({error.strerror}); "
            "free memory or processes on this machine, or run fewer at once (--jobs)"
        ),
        traceback="",
    )


def _make_scratch() -> str:
    try:
        return tempfile.mkdtemp(prefix="headway-")
    except OSError:
        return ""  # few bodies need it, and those find out themselves


def _remove_scratch(path: str) -> None:
    if path:
        for directory, _, _ in os.walk(path):
            with contextlib.suppress(OSError):  # copies of read-only directories keep their entries
                os.chmod(directory, 0o700)
        shutil.rmtree(path, ignore_errors=True)


def _pidfd_of(pid: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or the driver is gone: the channel says so
        return None


def main() -> None:
    """Entry of the keeper's process; argv[1] is the descriptor of its control channel."""
    # Blocked, not ignored: what is ignored stays ignored in every program that a body starts, and a
    # worker must not lose a SIGTERM that comes before it has a handler. It unblocks all of them.
    signal.pthread_sigmask(
        signal.SIG_SETMASK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    )
    sock = socket.socket(fileno=int(sys.argv[1]))
    for fd in map(int, sys.argv[1:]):  # the channel, and perhaps a lock to hold on to
        os.set_inheritable(fd, False)
    family.name_process("headway keeper")
    family.adopt_orphans()
    worker = importlib.import_module(WORKER)
    first = receive_frame(sock)
    if first is None:
        return
    setup = msgspec.msgpack.decode(first[1], type=Setup)
    if os.getppid() != setup.driver:
        return
    sys.path[:] = setup.path
    gc.freeze()  # what is imported now is shared with every worker for good
    keeper = _Keeper(Channel(sock), setup.driver)
    try:
        keeper.serve()
        os._exit(0)  # so that the channel ends when the process does, and not before
    except _InWorker as child:
        found = child
    keeper.forget()
    with found.sock:
        worker.serve(found.sock, found.keeper, found.scratch)

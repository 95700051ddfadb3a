"""A process of a command that `headway exec` runs, and that calls `track`: it uses the node's checkpoints
itself, as a worker would. The first process that does so has them until the attempt ends."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from headway import compose
from headway.checkpoint.handle import Checkpoint
from headway.commands.desk import VARIABLE, Seat
from headway.engine.context import Context
from headway.engine.keys import node_prefix
from headway.engine.rates import record_of
from headway.executors.family import libc
from headway.executors.notice import let_go_at_fork
from headway.executors.output import flush

_joined: list[Context] = []  # one per process, made once
_lock = threading.Lock()


def joined() -> Context | None:
    """The attempt whose command this process belongs to; None when it belongs to none.

    Raises:
        HeadwayError: another process of the command has its checkpoints.
        StorageError: the home cannot be opened.
    """
    place = os.environ.get(VARIABLE)
    if not place:
        return None
    with _lock:
        if not _joined:
            _joined.append(_join(Seat(Path(place))))
        return _joined[0]


def _join(seat: Seat) -> Context:
    ticket = seat.ticket
    storage = compose.open_storage(ticket.home)
    checkpoint = Checkpoint(
        storage,
        node_prefix(ticket.run, ticket.node),
        attempt=ticket.attempt,
        inputs=ticket.inputs,
        on_saved=seat.note,
        on_warning=seat.note,
    )
    atexit.register(checkpoint.close)  # a save in flight becomes durable
    return Context(
        ticket.run,
        ticket.node,
        ticket.attempt,
        ticket.retries_left,
        checkpoint,
        _leaving(seat),
        seat.note,
        inputs=ticket.inputs,
        record=functools.partial(record_of, storage, ticket.run),
    )


def _leaving(seat: Seat) -> Leaving | None:
    """Take over SIGTERM, unless the program has a handler for it, or this is not its main thread."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return None
    leaving = Leaving(seat)
    leaving.install()
    return leaving


class Leaving:
    """What a script knows about being told to go; see `ports.Leave`.

    In a loop, SIGTERM waits for the next boundary. Anywhere else it ends the process, as it does without
    headway. Either way the process dies of the signal, so that whoever waits for it sees why it ended.
    """

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._told = False
        self._holds = 0

    def install(self) -> None:
        """Take over SIGTERM, in this process and not in those that it forks."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        let_go_at_fork({signal.SIGTERM: signal.SIG_DFL})

    @property
    def told(self) -> bool:
        """See `ports.Leave`."""
        return self._told

    def hold(self) -> None:
        """See `ports.Leave`."""
        self._holds += 1

    def release(self) -> None:
        """See `ports.Leave`; the process ends here, if it was told to, as it would have without a loop."""
        self._holds -= 1
        if self._told and self._holds == 0:
            _die()

    def go(self) -> NoReturn:
        """See `ports.Leave`; here the whole process leaves, and no `Preempted` is raised."""
        self._seat.leave()
        _die()

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True
        if self._holds == 0:
            _die()


def _die() -> NoReturn:
    flush()  # what is printed and not written yet would be lost
    # Python sets handlers in its main thread alone, and a loop may be in another one.
    libc.signal(signal.SIGTERM, ctypes.c_void_p(0))  # SIG_DFL
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(128 + signal.SIGTERM)  # it is blocked

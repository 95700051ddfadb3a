"""Being told to go: SIGTERM becomes `Preempted` in the body, once.

Never in the midst of a frame that headway sends; nor of an import, because what is torn in two there may be
half there for good, without an error, or end the process, as compiled modules do. The program's own lines,
which may take as long as they like when it is imported, are interrupted; the body does not begin then.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any, NoReturn

from headway.model.errors import Preempted

_HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

_MAKING = {"create_module", "exec_module"}  # methods of Python's loaders

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers

_SOON = 0.02  # seconds until whoever released is past where an exception would be lost


class Notice:
    """What a worker knows about its end.

    Use it as a context manager around what SIGTERM may interrupt: there, the first SIGTERM raises
    `Preempted` in the main thread; one that came before raises it on entry. Later ones change
    nothing, so that a body can save in peace; who sent them waits for the grace period.
    """

    def __init__(self) -> None:
        self._told = False
        self._raised = False
        self._listening = False
        self._shields = 0
        self._holds = 0
        self._importing = False

    @property
    def told(self) -> bool:
        """See `ports.Leave`."""
        return self._told

    def hold(self) -> None:
        """See `ports.Leave`."""
        self._holds += 1

    def release(self) -> None:
        """See `ports.Leave`. This may be the end of an iterator that is thrown away, where an exception
        would be lost: so the signal is sent once more, from a thread of its own."""
        self._holds -= 1
        if self._holds == 0 and self._told and self._listening and not self._raised:
            _try_again()

    def go(self) -> NoReturn:
        """See `ports.Leave`."""
        self._raised = True
        raise Preempted("the process was told to go (SIGTERM), and left when it could")

    def install(self) -> None:
        """Take over SIGTERM and SIGINT, and let in the signals that the keeper held back.

        SIGINT does nothing: Ctrl-C is for the driver, which decides. It has a handler and is not
        ignored, because what is ignored stays ignored in programs that the body starts.
        """
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, _nothing)
        let_go_at_fork({signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)

    def _on_sigterm(self, _number: int, frame: FrameType | None) -> None:
        self._told = True
        if not self._listening or self._raised:
            return
        if _imports(frame) > self._importing:
            _try_again()
        elif self._shields == 0:
            self._raise()

    def _raise(self) -> None:
        if self._told and self._listening and not self._raised and self._holds == 0:
            self._raised = True
            raise Preempted("the process was told to go (SIGTERM)")

    def __enter__(self) -> None:
        self._listening = True
        self._raise()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listening = False

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """Within it the program is imported: `Preempted` is raised in its own lines, and again at the end
        if they caught it."""
        self._importing = True
        try:
            yield
        finally:
            self._importing = False
        if self._told:
            self.go()

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Within it `Preempted` waits, to be raised at the end; for what must not be torn in two."""
        if threading.current_thread() is not threading.main_thread():
            yield  # nothing is raised in other threads
            return
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if self._shields == 0:
                self._raise()


def _imports(frame: FrameType | None) -> int:
    """How many modules are being made, one within the other."""
    found = 0
    while frame is not None:
        code = frame.f_code
        if code.co_name in _MAKING and code.co_filename.startswith("<frozen importlib"):
            found += 1
        frame = frame.f_back
    return found


def _try_again() -> None:
    """Have the signal sent once more, soon. From a thread that the module `threading` knows nothing of:
    it has locks, and whoever called this may have interrupted their owner."""

    def again() -> None:
        time.sleep(_SOON)
        os.kill(os.getpid(), signal.SIGTERM)

    _thread.start_new_thread(again, ())


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def let_go_at_fork(handlers: Mapping[signal.Signals, Handler]) -> None:
    """A process that the body forks is its own master: `Process.terminate()` must end it.

    The signals are blocked meanwhile, because Python drops one that arrives right after the fork.

    Args:
        handlers: what the forked process has, in place of ours.
    """
    masks = threading.local()

    def before() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def in_child() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        in_parent()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)

"""Being told to leave: SIGINT, SIGTERM and SIGHUP while a driver runs."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_TOLD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def told_to_leave(call: Callable[[], None]) -> Iterator[None]:
    """Call `call` (which must be safe in a signal handler) at each such signal; restores after.

    Only the main thread can have handlers; in another one this does nothing. A signal that is
    ignored (SIGHUP under nohup, SIGINT in a shell's background job) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    try:
        for number in _TOLD:
            found = signal.getsignal(number)
            if found is not signal.SIG_IGN:
                # None is a handler that was not installed from Python and cannot be put back.
                before[number] = signal.SIG_DFL if found is None else found
                signal.signal(number, lambda _number, _frame: call())
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

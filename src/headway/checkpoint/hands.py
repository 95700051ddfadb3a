"""Several hands for one piece of work: threads that fill, hash and write large memory side by side.

Hands touch memory that belongs to the caller, so none of them may still be at work when the caller goes
on, whatever ended it. A signal handler may raise between any two instructions of the main thread, also
while it waits. So what is known about each hand is kept in two structures that change in one step each,
and waiting can be begun anew at any time:

- `_owner`: whoever is first, the hand as it begins or the caller as it ends, owns the place for good. A
  hand that comes too late does nothing.
- `_done` and `_wake`: a hand enters itself into the first, and then sends a token through the second.

Nothing is kept between two calls, so a fork finds no pool whose threads it does not have.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 4
"""Hands that a fast disk keeps busy; they wait for it more than they compute."""


def spread(function: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> list[R]:
    """`function` of each item, on several threads; the caller's own is one of them.

    One item, or one thread, starts no thread at all.

    Args:
        function: called once for each item, in about the order of the items.
        items: what to work on; taken in whole before the work begins.
        threads: how many work at once, at most.

    Returns:
        What `function` returned, in the order of the items.

    Raises:
        BaseException: the first that a call of `function` raised, or that a signal handler raised here.
            No further item is begun after it, and when it is let out no call is in progress any more.
    """
    todo = list(items)
    helpers = min(threads, len(todo)) - 1
    if helpers < 1:
        return [function(item) for item in todo]
    return _Crew(function, todo).work(helpers)


class _Crew(Generic[T, R]):
    def __init__(self, function: Callable[[T], R], items: list[T]) -> None:
        self._function = function
        self._left = iter(list(enumerate(items)))  # of a list: `next` is one step
        self._results: dict[int, R] = {}
        self._owner: dict[int, str] = {}
        self._done: set[int] = set()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._errors: list[BaseException] = []
        self._stop = False

    def work(self, helpers: int) -> list[R]:
        hands = [
            threading.Thread(target=self._hand, args=(number,), name="headway-hand", daemon=True)
            for number in range(helpers)
        ]
        try:
            for hand in hands:
                try:
                    hand.start()
                except RuntimeError:  # no more threads to be had: fewer hands do it as well
                    break
            self._take()
        finally:
            # Also after success: an item that a hand took last may not be finished.
            self._wait(helpers)
        for hand in hands:  # all but gone; a fork right after this shall find one thread
            if hand.ident is not None:
                hand.join()
        if self._errors:
            raise self._errors[0]
        return [self._results[index] for index in range(len(self._results))]

    def _take(self) -> None:
        try:
            for index, item in self._left:
                if self._stop:
                    return
                self._results[index] = self._function(item)
        except BaseException:
            self._stop = True
            raise

    def _hand(self, number: int) -> None:
        if self._owner.setdefault(number, "hand") != "hand":
            return
        try:
            self._take()
        except BaseException as error:  # noqa: BLE001  # the caller raises it
            self._errors.append(error)
        finally:
            self._done.add(number)
            self._wake.put(None)

    def _wait(self, helpers: int) -> None:
        """Return, or raise what a signal handler raised meanwhile, when no hand is at work any more."""
        held: BaseException | None = None
        while True:
            try:
                for number in range(helpers):
                    if self._owner.setdefault(number, "caller") == "hand":
                        while number not in self._done:
                            self._wake.get()
                break
            except BaseException as error:  # noqa: BLE001  # raised below, once that is safe
                self._stop = True
                held = held or error
        if held is not None:
            raise held

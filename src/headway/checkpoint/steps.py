"""`checkpoint.step`: results that are computed once for a node, whatever becomes of its attempts.

They are one mapping, in a ledger of its own beside the node's checkpoints: so they are no checkpoint that a
body goes on from, and are never given up for a newer one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from headway.model.errors import InputError
from headway.ports import Storage

if TYPE_CHECKING:
    from headway.checkpoint.handle import Checkpoint

T = TypeVar("T")

STEPS = "steps"
"""What the ledger is called: the node's name, a dot, this."""


class Steps:
    """The results of one node.

    Args:
        storage, prefix: where they are kept.
        attempt, inputs: whose turn it is, as for `Checkpoint`.
    """

    def __init__(self, storage: Storage, prefix: str, attempt: int, inputs: str) -> None:
        self._place = storage, prefix
        self._turn = attempt, inputs
        self._checkpoint: Checkpoint | None = None
        self._lock = threading.RLock()  # a step may have steps in it
        self._known: dict[str, Any] | None = None

    def result(self, name: str, function: Callable[..., T], args: Any, kwargs: Any) -> T:
        """See `Checkpoint.step`."""
        if not isinstance(name, str) or not callable(function):
            raise InputError(
                "step() takes a name and a function: checkpoint.step('download', fetch, url)"
            )
        with self._lock:
            checkpoint = self._opened()
            if self._known is None:
                self._known = checkpoint.load() or {}
            if name in self._known:
                known: T = self._known[name]
                return known
            value = function(*args, **kwargs)
            results = {**self._known, name: value}
            checkpoint.save(results, pickle=checkpoint.trusts_pickles)
            self._known = results
            return value

    def close(self) -> None:
        """Let go of the ledger."""
        if self._checkpoint is not None:
            self._checkpoint.close()

    def _opened(self) -> Checkpoint:
        """The checkpoints, made at first use: a task without steps has no ledger for them."""
        if self._checkpoint is None:
            from headway.checkpoint.handle import Checkpoint  # which has steps itself

            attempt, inputs = self._turn
            self._checkpoint = Checkpoint(*self._place, attempt=attempt, inputs=inputs, keep=1)
        return self._checkpoint

"""Keras 3: `model.fit(…, callbacks=[Resume()])` goes on at the epoch where it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from headway.checkpoint.cadence import Every
from headway.checkpoint.handle import Checkpoint
from headway.integrations.turns import Turns
from headway.model.errors import InputError

_REMEMBERED = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best",),
}


class Resume(keras.callbacks.Callback):  # type: ignore[misc]  # Keras' types are not read
    """Restores model, optimizer, metrics, random generators, history and epoch when `fit` begins, and saves
    them between epochs, once the other callbacks had their turn.

    Args:
        checkpoint: where; None is that of the attempt that headway runs, once in each attempt.
        every: when a save is due, as for `track`.
        also: callbacks of this `fit` whose memory belongs to the state: `EarlyStopping`,
            `ReduceLROnPlateau`, `ModelCheckpoint`, and any with `state_dict()` and `load_state_dict()`.

    `fit` raises what `track` does.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None = None,
        every: Every = "auto",
        *,
        also: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._every = every
        self._others = _Others(also)
        self._turns: Turns | None = None
        self._past = _Past()
        self._running = False  # an epoch has begun

    def on_train_begin(self, logs: Any = None) -> None:
        """Restores, and tells `fit` where to begin."""
        self._past = _Past()
        self._running = False
        self._turns = Turns(
            "Resume()",
            self._checkpoint,
            self._every,
            model=self.model,
            history=self._past,
            callbacks=self._others,
            epoch=0,
            stopped=False,
        )
        values = self._turns.values
        # As Keras' own BackupAndRestore does; `or` makes 0 what the user said.
        self.model._initial_epoch = (  # noqa: SLF001
            self.params["epochs"] if values["stopped"] else values["epoch"]
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Saves what the epoch before made, when that is due."""
        if self._turns is not None and self._running:
            self._turns.done()
        self._past.begin(self.model.history)
        self._others.begin()
        self._running = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Counts. Callbacks after this one, and `fit`, may still do something: so nothing is saved yet."""
        if self._turns is not None:
            self._turns.values["epoch"] = epoch + 1

    def on_train_end(self, logs: Any = None) -> None:
        """Saves how it ended."""
        self._past.begin(self.model.history)
        self._others.begin()
        self.model._initial_epoch = None  # noqa: SLF001  # of the next `fit`
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.values["stopped"] = turns.values["stopped"] or bool(self.model.stop_training)
            turns.end(turn=self._running)


class _Past:
    """The history that `fit` returns. Keras empties it when training begins, maybe after `Resume` was
    called; so it is put in place when the first epoch begins, or none does."""

    def __init__(self) -> None:
        self._epochs: list[int] = []
        self._logs: dict[str, list[Any]] = {}
        self._live: Any = None

    def begin(self, history: Any) -> None:
        """From here on it lives in Keras' object."""
        if self._live is None:
            self._live = history
            history.epoch[:0] = self._epochs
            for name, values in self._logs.items():
                history.history[name] = [*values, *history.history.get(name, ())]

    def state_dict(self) -> dict[str, Any]:
        """As data."""
        if self._live is None:
            return {"epochs": list(self._epochs), "logs": dict(self._logs)}
        logs = {name: [_plain(v) for v in values] for name, values in self._live.history.items()}
        return {"epochs": [int(epoch) for epoch in self._live.epoch], "logs": logs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From data."""
        self._epochs, self._logs = state["epochs"], state["logs"]


class _Others:
    """What other callbacks remember. They forget it when training begins, maybe after `Resume` was called;
    so it is put in place as the history is."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = [(callback, _names_of(callback)) for callback in callbacks]
        self._loaded: list[Any] = []

    def begin(self) -> None:
        """Put in place what was loaded."""
        for (callback, names), saved in zip(self._callbacks, self._loaded, strict=False):
            if names is None:
                callback.load_state_dict(saved)
            else:
                vars(callback).update(saved)
        self._loaded = []

    def state_dict(self) -> dict[str, Any]:
        """As data."""
        return {
            "states": self._loaded
            or [
                callback.state_dict()
                if names is None
                else {name: getattr(callback, name) for name in names}
                for callback, names in self._callbacks
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From data."""
        if len(state["states"]) != len(self._callbacks):
            raise InputError(
                f"Resume(also=…) has {len(self._callbacks)} callbacks now, and {len(state['states'])} in "
                "the checkpoint. Give it the same, or start over with a new `headway run`."
            )
        self._loaded = state["states"]


def _names_of(callback: Any) -> tuple[str, ...] | None:
    """The attributes that a callback of Keras remembers things in; None for one with a `state_dict`."""
    for kind, names in _REMEMBERED.items():
        if isinstance(callback, kind):
            return names
    if hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict"):
        return None
    raise InputError(
        f"Resume(also=…) does not know what a {type(callback).__name__} remembers: give it state_dict() "
        "and load_state_dict(), or leave it out"
    )


def _plain(value: Any) -> Any:
    """What a metric came to, as data: a tensor of the backend, some of them."""
    if isinstance(value, int | float):
        return value
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    return float(array) if array.ndim == 0 else array

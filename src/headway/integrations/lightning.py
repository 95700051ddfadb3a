"""Lightning: `Trainer(callbacks=[Resume()])` goes on at the batch where it was.

A Trainer's checkpoint has the model, optimizers, schedules, loops and callbacks, and not what else the next
batch depends on: random generators, the position in a loader, what was logged in the epoch so far. And
where it lets a callback save, some of a batch's work is still to be done (the module's own hooks,
validation, schedules). So a checkpoint is taken where the Trainer asks the loader for the next batch: there
nothing is half done. It goes back to that place by being given its own checkpoint, and the rest is put in
place when it asks for that batch again.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from types import ModuleType
from typing import Any

from headway.checkpoint import randomness
from headway.checkpoint.cadence import Every
from headway.checkpoint.handle import Checkpoint
from headway.integrations.logged import log_again, logged
from headway.integrations.turns import Turns
from headway.integrations.watched import Watched
from headway.model.errors import CheckpointError, InputError
from headway.tracking import checkpoint_of

NEWEST = "headway"
"""As `ckpt_path`: the newest checkpoint."""


def _package() -> ModuleType:
    """Lightning comes as two packages, whose classes are not the same: the one that the program uses."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in names:
        if name in sys.modules:
            return sys.modules[name]
    try:
        return importlib.import_module(names[0])
    except ModuleNotFoundError:
        return importlib.import_module(names[1])


_lightning: Any = _package()


class Resume(_lightning.Callback):  # type: ignore[misc]  # Lightning's types are not read
    """Restores everything when `fit` begins, and saves it between two batches.

    Args:
        checkpoint: where; None is that of the attempt that headway runs, once in each attempt.
        every: when a save is due, as for `track`.

    `fit` raises what `track` does, and `InputError` for a Trainer with several processes.
    """

    def __init__(self, checkpoint: Checkpoint | None = None, every: Every = "auto") -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._every = every
        self._turns: Turns | None = None
        self._training: _Training | None = None
        self._handler: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Loads, and has the Trainer restore that."""
        if stage != "fit":
            return
        if not isinstance(trainer, _lightning.Trainer):
            raise InputError(
                f"Resume() was made for {_lightning.__name__}, and the Trainer is of another package "
                f"({type(trainer).__module__}): import that before headway.integrations.lightning"
            )
        if trainer.world_size > 1:
            raise InputError(
                f"Resume() is for a Trainer with one process, and this one has {trainer.world_size}. Save "
                "what several have with headway.integrations.distributed."
            )
        self._training = _Training(trainer, self._boundary)
        self._turns = Turns("Resume()", self._checkpoint, self._every, training=self._training)
        self._training.restore()
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """From here on there is something to save. SIGTERM is headway's again: Lightning would leave at the
        end of a batch, before that is saved."""
        if self._training is not None:
            self._training.running = True
        main = threading.current_thread() is threading.main_thread()
        if main and callable(self._handler):
            signal.signal(signal.SIGTERM, self._handler)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Saves how it ended."""
        self._end(turn=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Lets go of everything."""
        self._end(turn=False)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """The same, of a training that had ended before."""
        self._end(turn=False)

    def _boundary(self) -> None:
        if self._turns is not None:
            self._turns.done()

    def _end(self, *, turn: bool) -> None:
        turns, self._turns = self._turns, None
        training, self._training = self._training, None
        if training is None or turns is None:
            return
        turns.end(turn=turn)
        training.release()


class HeadwayIO(_lightning.plugins.io.CheckpointIO):  # type: ignore[misc]
    """Keeps what the Trainer saves (`ModelCheckpoint`, `trainer.save_checkpoint`) in headway, in place of
    files: `Trainer(plugins=[io])`, `fit(…, ckpt_path=io.newest)`. Each save is the next checkpoint, durable
    before the training goes on; the newest is what is loaded.

    Args:
        checkpoint: where; None is that of the attempt that headway runs, once in each attempt.

    Raises:
        HeadwayError: there is nowhere to save; or as for `track`.
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        self._checkpoint = checkpoint_of("HeadwayIO()", checkpoint, alone=True)

    @property
    def newest(self) -> str | None:
        """For `ckpt_path`: the newest checkpoint; None when there is none.

        Raises:
            CheckpointCorrupt, StorageError: as for `Checkpoint.prev_exists`.
        """
        return NEWEST if self._checkpoint.prev_exists() else None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """See `CheckpointIO`. Raises what `Checkpoint.save` does."""
        pickles = self._checkpoint.trusts_pickles
        self._checkpoint.save({"path": os.fspath(path), "lightning": checkpoint}, pickle=pickles)

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """See `CheckpointIO`. Its tensors are in the CPU's memory.

        Raises:
            CheckpointError: `path` is not the newest, or that was saved in another way.
            CheckpointError, StorageError: as for `Checkpoint.load`.
        """
        state = self._checkpoint.load()
        if state is not None and not (
            isinstance(state, dict) and state.keys() == {"path", "lightning"}
        ):
            raise CheckpointError(
                "the newest checkpoint was not saved by HeadwayIO(). Use what saved it, or start over with "
                "a new `headway run`."
            )
        if state is None or os.fspath(path) not in {NEWEST, state["path"]}:
            there = "there is none yet" if state is None else f"that is {state['path']}"
            raise CheckpointError(
                f"HeadwayIO() loads the newest checkpoint, and {there}; it was asked for "
                f"{os.fspath(path)}. Give fit(…, ckpt_path=io.newest); to choose among several, let "
                "Lightning save files, without this plugin."
            )
        loaded: dict[str, Any] = state["lightning"]
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        """See `CheckpointIO`. Nothing: `keep=` says how many stay."""


class _Training:
    """A Trainer's training: what Lightning saves of it, and what it forgets.

    Args:
        trainer: the Trainer; its `fit` has just begun.
        boundary: is called between two batches, where everything can be saved.

    Attributes:
        running: there is something to save.
    """

    def __init__(self, trainer: Any, boundary: Any) -> None:
        self.running = False
        self._trainer = trainer
        self._boundary = boundary
        self._loaded: dict[str, Any] = {}
        self._rest: dict[str, Any] | None = None  # to be put in place at the first batch
        self._random: Any = None  # the states there
        self._places: list[dict[str, Any]] | None = None  # where the loaders were
        self._watched: list[Watched] = []
        loop = trainer.fit_loop
        self._changed = [
            (loop, "_load_combined_loader_states", self._watch),
            (loop.epoch_loop, "on_run_start", self._on_run_start),
        ]
        for owner, name, method in self._changed:
            if not callable(getattr(owner, name, None)):
                raise InputError(
                    f"Resume() does not know Lightning {_lightning.__version__}: its "
                    f"{type(owner).__name__} has no {name}. Use one from 2.5 on that it knows, such as 2.6."
                )
            vars(owner)[name] = method  # in the instance's dict, where it hides the class's

    def release(self) -> None:
        """The Trainer is as it was."""
        for owner, name, _ in self._changed:
            vars(owner).pop(name, None)
        vars(self._trainer._checkpoint_connector).pop("resume_start", None)  # noqa: SLF001
        combined = self._trainer.fit_loop._combined_loader  # noqa: SLF001
        if combined is not None:
            combined.flattened = [
                each.loader if isinstance(each, Watched) else each for each in combined.flattened
            ]

    # As `track` sees it

    def state_dict(self) -> dict[str, Any]:
        """As data."""
        if not self.running:
            return self._loaded
        dump, strategy = _Dump(), self._trainer.strategy
        before, strategy.checkpoint_io = strategy.checkpoint_io, dump
        try:
            self._trainer.save_checkpoint(NEWEST, weights_only=False)
        finally:
            strategy.checkpoint_io = before
        return {
            "lightning": dump.checkpoint,
            "stopped": bool(self._trainer.should_stop),
            "loaders": [each.place() for each in self._watched],
            "logged": logged(self._trainer),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From data; `restore` puts it in place."""
        self._loaded = state

    # As Lightning sees it

    def restore(self) -> None:
        """Have the Trainer go on from what was loaded, whatever `ckpt_path` says."""
        if not self._loaded:
            return
        self._random = randomness.snapshot()  # `track` has set them to what they were
        self._rest, self._places = self._loaded["logged"], self._loaded["loaders"]
        self._trainer.should_stop = self._loaded["stopped"]
        connector = self._trainer._checkpoint_connector  # noqa: SLF001

        def resume_start(*_: Any, **__: Any) -> None:
            del vars(connector)[
                "resume_start"
            ]  # once: a search for a learning rate asks for it too
            connector._loaded_checkpoint = self._loaded["lightning"]  # noqa: SLF001
            self._loaded = {}  # the connector forgets it too, when all is restored

        vars(connector)["resume_start"] = resume_start

    def _watch(self) -> None:
        """In place of the method that tells the loaders where to begin, just before they do."""
        loop = self._trainer.fit_loop
        combined = loop._combined_loader  # noqa: SLF001
        first, *others = combined.flattened
        combined.flattened = self._watched = [
            Watched(first, self._before, self._arrived),
            *(Watched(each, _nothing, _nothing) for each in others),
        ]
        places, self._places = self._places, None
        if places is None:
            type(loop)._load_combined_loader_states(loop)  # noqa: SLF001
        elif not loop.restarting:  # an epoch had ended: the next one begins
            self._watched[0].begin_with(self._random)
            self._random = None
        elif len(places) == len(self._watched):
            loop._combined_loader_states_to_load = []  # noqa: SLF001  # they are in the places
            for each, place in zip(self._watched, places, strict=True):
                each.begin_at(place)
        else:
            raise InputError(
                f"the Trainer has {len(self._watched)} loaders to train from now, and {len(places)} in the "
                "checkpoint. Give it the same, or start over with a new `headway run`."
            )

    def _on_run_start(self, data_fetcher: Any) -> None:
        """In place of the epoch loop's, which is called when it is where it was. Lightning goes on as if it
        were still on its way there: it validates no more, or once more, and schedules that look at a metric
        miss a step."""
        loop = self._trainer.fit_loop
        type(loop.epoch_loop).on_run_start(loop.epoch_loop, data_fetcher)
        if loop.restarting:
            loop.epoch_loop.restarting = False
            loop._restarting = False  # noqa: SLF001  # its setter thinks of `max_steps`

    def _before(self) -> None:
        """A batch is about to be taken."""
        self._put_rest()
        loop = self._trainer.fit_loop.epoch_loop
        done = loop.batch_progress.current
        at = self._watched[0].at
        several = len(self._watched) > 1
        if (
            self.running
            and {at} == {done.ready, done.started, done.processed, done.completed}
            and at % self._trainer.accumulate_grad_batches == 0  # else there are gradients
            and (at == 0 or not several)
        ):
            self._boundary()

    def _arrived(self, states: randomness.Snapshot) -> None:
        """The batch that was next is about to be taken."""
        self._put_rest()
        randomness.restore(self._random or states)
        self._random = None

    def _put_rest(self) -> None:
        if self.running and self._rest is not None:
            log_again(self._trainer, self._rest)
            self._rest = None


def _nothing(*_: Any) -> None:
    pass


class _Dump(_lightning.plugins.io.CheckpointIO):  # type: ignore[misc]
    """Takes what a Trainer saves."""

    def __init__(self) -> None:
        self.checkpoint: dict[str, Any] = {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """See `CheckpointIO`."""
        self.checkpoint = checkpoint

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """See `CheckpointIO`."""
        return self.checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """See `CheckpointIO`."""

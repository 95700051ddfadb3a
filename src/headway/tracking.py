"""`track`: the state of a training loop, in three lines."""

from __future__ import annotations

import warnings
from typing import Any

from headway import adapters
from headway.checkpoint.cadence import Every, Record
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.track import Tracked, Tracker
from headway.commands.joining import joined
from headway.engine import context
from headway.engine.context import Context
from headway.model.errors import HeadwayError
from headway.model.program import Warned


def track(
    *, every: Every = "auto", rng: bool = True, overlap: bool = False, **named: Any
) -> Tracked:
    """Track the state of a loop: restore it when there is a checkpoint, and save it as the loop goes on.

    Models, optimizers and what else has an adapter or a `state_dict`, arrays, tensors, lists and dicts are
    restored in place. Numbers, strings and tuples are attributes of the result: read and set them there.
    `for epoch in state.range(n)` and `for batch in state.iterate(loader)` go on where they were; they nest.
    Between two items the state is saved when that is due, in the background.

    Args:
        every: when a save is due. "auto" balances its cost against that of a failure, and never takes more
            than 1 % of the time; or seconds, or `Steps(n)`.
        rng: whether the states of the random generators of Python, NumPy and PyTorch belong to it.
        overlap: copy what a tracked PyTorch optimizer owns while the loop goes on; its next step waits for
            the copy. For loops that change parameters in `optimizer.step()` and nowhere else.
        named: what to track. After the call it has the values of the newest checkpoint.

    Returns:
        The state, with `range`, `iterate`, and what is tracked as attributes.

    Raises:
        InputError: something cannot be tracked, or is not what the checkpoint has; the message says what.
        HeadwayError: it was called twice in one attempt; or in several processes of a command that
            `headway exec` runs.
        CheckpointError, StorageError: as for `Checkpoint.load`.

    Outside of headway nothing is saved; a `RuntimeWarning` says so.
    """
    return Tracked(tracker("track()", named, every=every, rng=rng, overlap=overlap))


def tracker(
    name: str,
    named: dict[str, Any],
    *,
    every: Every,
    rng: bool = True,
    overlap: bool = False,
    checkpoint: Checkpoint | None = None,
) -> Tracker:
    """What restores and saves, for the attempt that this process runs.

    Args:
        name: what the user called, for messages.
        named, every, rng, overlap: as for `track`.
        checkpoint: another than that of the attempt.

    Raises:
        as for `track`.
    """
    found, checkpoint = place(name, checkpoint)
    return Tracker(
        named,
        checkpoint=checkpoint,
        find=adapters.find,
        find_items=adapters.find_items,
        every=every if found is None or found.every is None else found.every,
        rng=rng,
        record=Record if found is None else found.record,
        leave=None if found is None else found.leave,
        warn=_warn if found is None else found.warn,
        observe=None if found is None else found.observe,
        find_owner=adapters.find_owner if overlap else None,
    )


def place(name: str, checkpoint: Checkpoint | None) -> tuple[Context | None, Checkpoint | None]:
    """The attempt that this process runs, and where it saves; None for what there is not.

    Args:
        name, checkpoint: as for `tracker`.

    Raises:
        HeadwayError: as for `track`.
    """
    found = context.current() or joined()
    if checkpoint is None and found is not None:
        checkpoint = found.checkpoint
    if checkpoint is None:
        warnings.warn(
            f"{name} saves nothing here, because headway does not run this program. Start it with "
            "`headway run FILE TASK`, or `headway exec -- python FILE`.",
            RuntimeWarning,
            stacklevel=4,
        )
    if found is not None and checkpoint is found.checkpoint:
        _claim(name, found)
    return found, checkpoint


def checkpoint_of(
    name: str, checkpoint: Checkpoint | None = None, *, alone: bool = False
) -> Checkpoint:
    """The checkpoint for what saves and loads because the user says so: without one that is an error.

    Args:
        name, checkpoint: as for `tracker`.
        alone: nothing else may use that of the attempt, as for `track`.

    Raises:
        HeadwayError: there is none; or as for `track`.
    """
    if checkpoint is not None:
        return checkpoint
    found = context.current() or joined()
    if found is None:
        raise HeadwayError(
            f"{name} has no checkpoint, because headway does not run this program. Start it with `headway "
            "run FILE TASK`, or `headway exec -- COMMAND`; or give it one: `with open_checkpoint(url) as "
            f"checkpoint: … {name[:-1]}checkpoint)`."
        )
    if alone:
        _claim(name, found)
    return found.checkpoint


def _claim(name: str, found: Context) -> None:
    if found.tracked:
        raise HeadwayError(
            f"{name} was called twice in one attempt, or after something else that tracks. Track "
            "everything in one call: state = track(model=model, optimizer=optimizer, …)."
        )
    found.tracked.append(True)


def _warn(warned: Warned) -> None:
    warnings.warn(warned.message, RuntimeWarning, stacklevel=2)

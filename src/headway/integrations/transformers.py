"""Hugging Face's Trainer: what it saves is saved in headway too, and put back where there is none.

A Trainer writes checkpoints into directories, and goes on from one exactly. It does not make them durable
or whole, and they are gone with the machine. So each becomes a checkpoint of headway, as it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from headway.checkpoint.handle import Checkpoint
from headway.tracking import place


class Resume(TrainerCallback):  # type: ignore[misc]  # the types of transformers are not read
    """Saves the Trainer's newest checkpoint whenever the Trainer has made one (`save_steps`), and waits
    until it is durable. SIGTERM makes the Trainer save once more, and leave.

    Args:
        checkpoint: where; None is that of the attempt that headway runs, once in each attempt.

    Raises:
        HeadwayError: as for `track`.
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        attempt, self._checkpoint = place("Resume()", checkpoint)
        self._leave = None if attempt is None else attempt.leave

    def directory(self) -> str | None:
        """Where to go on from: `trainer.train(resume_from_checkpoint=resume.directory())`. The newest
        checkpoint is put into a fresh directory, which is removed when the attempt ends.

        Returns:
            The directory, or None when there is no checkpoint.

        Raises:
            CheckpointError, StorageError: as for `Checkpoint.restore`.
        """
        found = None if self._checkpoint is None else self._checkpoint.restore()
        return None if found is None else str(found)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From here on SIGTERM waits for the end of a step."""
        if self._leave is not None:
            self._leave.hold()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Has the Trainer save, when the process was told to go."""
        if self._leave is not None and self._leave.told:
            control.should_save = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Saves what the Trainer saved."""
        if self._checkpoint is not None and state.is_world_process_zero:
            name = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            self._checkpoint.save(Path(os.fspath(args.output_dir), name))
        if self._leave is not None and self._leave.told:
            self._leave.go()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """SIGTERM is as it was before."""
        if self._leave is not None:
            self._leave.release()

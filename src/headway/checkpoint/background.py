"""Saves that go on while the body works: one at a time, in a thread of their own, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Save:
    """What is known of a save.

    Attributes:
        number, error: how it ended.
        told: the error has been raised somewhere.
        ended: set when nothing of it is at work any more.
        thread, starter, started, owner: see `Background`.
    """

    number: int | None = None
    error: BaseException | None = None
    told: bool = False
    thread: threading.Thread | None = None
    starter: int = field(default_factory=threading.get_ident)
    started: bool = False
    owner: dict[str, str] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def raise_error(self) -> None:
        if self.error is not None:
            self.told = True
            raise self.error


class SaveHandle:
    """What became of a save. `Checkpoint.save` returns it."""

    def __init__(self, save: _Save, copied: threading.Event | None = None) -> None:
        self._save = save
        self._copied = copied

    @property
    def done(self) -> bool:
        """Whether the save has ended, well or not."""
        return self._save.ended.is_set()

    @property
    def number(self) -> int | None:
        """Of the checkpoint, once it is durable; None before, and when the save failed."""
        return self._save.number

    def wait_copied(self) -> None:
        """Wait until the save needs the live state no more."""
        if self._copied is not None:
            self._copied.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the checkpoint is durable.

        Args:
            timeout: seconds to wait; None is for as long as it takes.

        Returns:
            The checkpoint's number.

        Raises:
            TimeoutError: it has not ended yet. It goes on.
            CheckpointFenced, StorageError: it failed; earlier checkpoints stay as they are.
        """
        if not self._save.ended.wait(timeout):
            raise TimeoutError(f"the save has not ended after {timeout:g} s; it goes on")
        self._save.raise_error()
        assert self._save.number is not None
        return self._save.number


def ended(number: int) -> SaveHandle:
    """The handle of a save that is durable already."""
    save = _Save(number)
    save.ended.set()
    return SaveHandle(save)


class Background:
    """Runs one save at a time.

    A save reads memory that the next one writes over, so none may be missed, also when a signal handler
    raised while it was being started: then whoever is first, its thread or the one who waits, owns it. That
    is asked only by the thread that was starting it; for others it is being started still.
    """

    def __init__(self) -> None:
        self._current: _Save | None = None
        self._untold: _Save | None = None  # the first that failed with nobody told of it

    def begin(self, work: Callable[[], int], copied: threading.Event | None = None) -> SaveHandle:
        """Start a save, which returns its checkpoint's number; the one before must have ended.

        Args:
            work: what it does.
            copied: is set, by `work` or at its end, when the live state is not needed any more.
        """
        save = _Save()

        def run() -> None:
            if save.owner.setdefault("", "thread") != "thread":
                return
            try:
                save.number = work()
            except BaseException as error:  # noqa: BLE001  # it is raised where somebody waits
                save.error = error
            if save.error is not None and self._untold is None:
                self._untold = save
            if copied is not None:
                copied.set()
            save.ended.set()

        save.thread = threading.Thread(target=run, name="headway-save", daemon=True)
        self._current = save
        save.thread.start()
        save.started = True
        return SaveHandle(save, copied)

    def drain(self) -> None:
        """Wait until nothing is in flight. Raises nothing of the saves' own."""
        save = self._current
        if save is None:
            return
        mine = save.starter == threading.get_ident()
        if mine and not save.started and save.owner.setdefault("", "waiter") != "thread":
            save.ended.set()  # it never began, and never will
            return
        save.ended.wait()
        if save.thread is not None and save.thread.ident is not None:
            save.thread.join()  # a worker that has threads left is not used again

    def raise_failure(self) -> None:
        """Raise the error of the first failed save that nobody was told of yet."""
        failed, self._untold = self._untold, None
        if failed is not None and not failed.told:
            failed.raise_error()

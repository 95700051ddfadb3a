"""`current_context().checkpoint`: the state of one node, over all its attempts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from headway.checkpoint.background import SaveHandle, ended
from headway.checkpoint.directory import Scratch, to_directory
from headway.checkpoint.files import FileSaves, given, given_bytes
from headway.checkpoint.lineage import history_of
from headway.checkpoint.load import bytes_of, load_entries, load_into, refuse_state, state_of
from headway.checkpoint.pickled import Pickles
from headway.checkpoint.retain import rule_of
from headway.checkpoint.save import INLINE
from headway.checkpoint.several import Choose, Directories, to_directories
from headway.checkpoint.source import BinaryReader
from headway.checkpoint.state import Flattened
from headway.checkpoint.states import StateSaves
from headway.checkpoint.steps import STEPS, Steps
from headway.checkpoint.turn import Turn
from headway.checkpoint.working import Working, checked_directory
from headway.ledger.signing import trusts
from headway.model.errors import CheckpointError, InputError, StorageError
from headway.model.manifest import Manifest
from headway.model.program import Saved, Warned
from headway.model.report import CheckpointReport
from headway.model.settings import Best, Keep
from headway.ports import Steady, Storage

__all__ = ["Checkpoint", "history_of"]

T = TypeVar("T")


class Checkpoint:
    """Saves and finds the state of one task.

    "Previous" is the newest valid checkpoint of this task over all its attempts, what this attempt
    saved itself included. A checkpoint is exactly what one `save` or `write` was given. Both return
    when it would survive a power cut. Safe to use from several threads; not from forked processes.

    What `directory` gives belongs to every checkpoint too, beside what was saved: `read`, `load` and
    `restore` do not see it.

    A save also gives up older checkpoints that are not to be kept: by default all but the newest 3 of those
    that are too large (32 KiB) for the record itself.

    Attributes:
        attempt: number of the attempt that uses it, from 0.
    """

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        *,
        attempt: int = 0,
        inputs: str = "",
        on_saved: Callable[[Saved], None] | None = None,
        on_warning: Callable[[Warned], None] | None = None,
        scratch: Path | None = None,
        keep: Keep = None,
        keep_best: Best | None = None,
    ) -> None:
        self.attempt = attempt
        self._on_warning = on_warning or (lambda _: None)
        self._storage = storage
        self._packs = f"{prefix}/packs"
        self._working = Working(scratch)
        self._turn = Turn(
            storage,
            prefix,
            attempt=attempt,
            inputs=inputs,
            on_saved=on_saved or (lambda _: None),
            on_warning=self._on_warning,
            rule=rule_of(keep, keep_best),
            working=self._working,
        )
        self._lock = threading.RLock()
        self._states = StateSaves(self._turn, self._lock, self._working)
        self._files = FileSaves(self._turn, self._working)
        self._process = os.getpid()
        self._closed = False
        self._scratch = Scratch(scratch)
        self._steps = Steps(storage, f"{prefix}.{STEPS}", attempt, inputs)

    @property
    def trusts_pickles(self) -> bool:
        """Whether pickles may be saved here: nobody else can have written what will be loaded."""
        return trusts(self._storage)

    def expect_many(self) -> None:
        """There will be saves of states for months. A record stays for good, and packs can be given up: so
        from here on only what is tiny goes into the record itself."""
        self._states.inline = INLINE // 8

    def prev_exists(self) -> bool:
        """Whether there is a checkpoint to go on from.

        Raises:
            CheckpointCorrupt: there was one, and none can be read.
            StorageError: it could not be found out; that is never "no".
        """
        self._states.drain()
        with self._lock:
            return self._begun().newest() is not None

    def read(self) -> bytes | None:
        """The bytes of the newest valid checkpoint, or None when there is none.

        For what `write(bytes)`, `save(reader)` or `save` of a single file stored.

        Raises:
            CheckpointError: the checkpoint holds several files: use `restore`.
            CheckpointCorrupt: there were checkpoints, and none is readable.
            StorageError: the home could not be read.
        """
        self._states.drain()
        with self._lock:
            return self._begun().load(lambda m: bytes_of(self._storage, self._packs, m))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Save bytes; on return they are durable.

        Raises:
            InputError: `data` is not bytes.
            CheckpointFenced: a newer attempt took over; nothing of this one is seen any more.
            StorageError: they could not be saved; earlier checkpoints stay as they are.
        """
        view = given_bytes(data)
        self._turn.metric(None)
        self._states.drain()
        with self._lock:
            self._usable()
            self._files.write(view)

    def save(
        self,
        source: str | os.PathLike[str] | BinaryReader | Mapping[str, Any] | Directories,
        *,
        wait: bool = True,
        pickle: bool = False,
    ) -> SaveHandle:
        """Save a file, a directory, what a binary reader gives, or typed state; on return it is durable.

        A file keeps its name and mode. Of a directory its whole content is saved, with names and modes,
        empty directories included. State is a mapping with data in it, nested as you like: numbers,
        strings, bytes, lists, tuples, dicts, NumPy arrays, PyTorch tensors. `load` gives it back.

        Args:
            source: a path, something with `read(size) -> bytes`, or a mapping.
            wait: False returns once a mapping's state is copied, and the rest goes on in the
                background: what is changed in it from then on is not in the checkpoint. It waits for
                the save before, if that is still in flight. Files and readers are always waited for.
            pickle: what in a mapping is not data is pickled, each value for itself, instead of refused.
                `load` then runs code that the home names: so it works only where nobody else can write,
                or with a key (`HEADWAY_KEY`).

        Returns:
            A handle, which says when the checkpoint is durable.

        Raises:
            InputError: there is no such path, or it holds links, sockets or devices, or a file
                changed while it was read; or the mapping holds something that is not data.
            UntrustedState: something needs pickle, and others can write to the home.
            CheckpointFenced, StorageError: as for `write`; with `wait=False` also what an earlier
                save in the background failed with, when nobody has been told yet.
            MemoryError: there is none for a copy of the state.
        """
        if isinstance(source, Mapping):
            return self.begin(source, wait=wait, pickle=pickle)
        if pickle:
            raise InputError(
                "save(…, pickle=True) is for a mapping; files and bytes need no pickle"
            )
        self._turn.metric(None)
        files = given(source)
        self._states.drain()
        with self._lock:
            self._usable()
            return ended(self._files.save(files))

    def prepare(self, state: Mapping[str, Any], *, pickle: bool = False) -> None:
        """Have memory made ready for `save(state, wait=False)` of state of these shapes, in the
        background; otherwise the first such save does it, and takes longer.

        Raises:
            InputError, UntrustedState: the mapping holds something that `save` would refuse.
            MemoryError: there is none for a copy of the state.
        """
        self._usable()
        self._states.prepare(Flattened(state, Pickles(self._storage) if pickle else None))

    def begin(
        self, state: Mapping[str, Any], *, wait: bool, pickle: bool, owners: Sequence[Steady] = ()
    ) -> SaveHandle:
        """As `save`; what belongs to `owners` is copied while the caller goes on. `track` saves with it."""
        self._usable()
        metric = self._turn.metric(state)
        flat = Flattened(state, Pickles(self._storage) if pickle else None)
        return self._states.save(flat, wait=wait, metric=metric, owners=owners)

    def load(self, into: Mapping[str, Any] | None = None) -> Any:
        """The newest valid checkpoint's typed state, as `save(mapping)` was given it.

        Args:
            into: live state of the same structure. Its arrays and tensors get the saved values in
                place, wherever they are; its dicts and lists get the saved numbers and strings.

        Returns:
            The state (`into`, when it was given), or None when there is no checkpoint.

        Raises:
            UntrustedState: it was saved with `pickle=True`, and others can write to the home.
            CheckpointError: the checkpoint holds bytes or files: use `read` or `restore`.
            InputError: `into` has other keys, shapes or dtypes; nothing of it was changed.
            CheckpointCorrupt, StorageError: as for `read`. The message, or a note to it, says when
                `into` holds a mixture now, which must not be used.
        """
        self._states.drain()
        with self._lock:
            turn = self._begun()
            if into is not None:
                return into if load_into(turn, into) else None
            return turn.load(lambda manifest: state_of(self._storage, self._packs, manifest))

    def load_entries(
        self, live: Mapping[str, Any], *, again: bool = False
    ) -> dict[str, Any] | None:
        """The newest valid checkpoint's typed state, each entry of which that fits the one in `live` is put
        into that, in place; what does not fit is made anew. `track` restores with it.

        Args:
            live: name -> live state; entries that the checkpoint does not have stay as they are.
            again: it was loaded before, and may not have changed much: only what differs is read.

        Returns:
            Name -> the live entry, or a new one; None when there is no checkpoint.

        Raises:
            CheckpointError, CheckpointCorrupt, StorageError: as for `load`.
        """
        self._states.drain()
        with self._lock:
            return load_entries(self._begun(), live, again=again)

    def restore(self, path: str | os.PathLike[str] | None = None) -> Path | None:
        """Put the newest valid checkpoint's files into a directory; None when there is none.

        Args:
            path: the directory, made when it is missing. Files there that belong to the checkpoint
                are replaced; others are refused, because a checkpoint is never mixed with anything.
                Without it: a fresh directory, removed when the attempt ends.

        Returns:
            The directory.

        Raises:
            InputError: `path` is no directory, or holds other files.
            CheckpointCorrupt, StorageError: as for `read`.
        """
        self._states.drain()
        with self._lock:
            turn = self._begun()

            def put(manifest: Manifest, target: Path) -> Path:
                refuse_state(manifest)
                to_directory(self._storage, self._packs, manifest, target)
                return target

            if path is not None:
                return turn.load(lambda found: put(found, Path(path)))
            return turn.load(
                lambda found: self._scratch.filled(found.number, lambda fresh: put(found, fresh))
            )

    def restore_parts(self, choose: Choose) -> dict[str, Path] | None:
        """Put the directories of the newest valid checkpoint that `Directories` made each into a place of
        its own, as `restore` does.

        Args:
            choose: given their names, says where each of them goes; one that it leaves out goes nowhere.

        Returns:
            What it said, or None when there is no checkpoint.
        """
        self._states.drain()
        with self._lock:
            return self._begun().load(
                lambda m: to_directories(self._storage, self._packs, m, choose)
            )

    def directory(self, name: str) -> Path:
        """A working directory: it has what the newest valid checkpoint has of it (nothing, without one),
        and from here on every checkpoint of this task has it as it is at the moment of the save.

        It is this attempt's own, and goes with it: the next one is given another path. A file is saved as
        far as it is written: flush, or close, what is open before a save. Only `load` and the like fill it,
        never once it was given.

        Args:
            name: of the directory; a task may have several.

        Returns:
            The directory; the same for the same name.

        Raises:
            InputError: `name` cannot be one of a directory.
            CheckpointCorrupt, StorageError: as for `read`; or the directory could not be made.
        """
        checked_directory(name)
        self._usable()
        if (there := self._working.given(name)) is not None:
            return there  # a save in the background may hold the lock for long
        self._states.drain()
        with self._lock:
            return self._working.path(self._begun(), name)

    def directories(self) -> dict[str, Path]:
        """The working directories that the next checkpoint will have: name -> path."""
        return self._working.paths()

    def flush(self) -> None:
        """Wait for the saves that were begun; on return all of them are durable.

        Raises:
            CheckpointFenced, StorageError: one in the background failed, and nobody has been told yet.
        """
        self._states.flush()
        with self._lock:  # of other threads
            self._usable()

    def step(self, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A result that is computed once for this task: the first attempt that comes here calls the
        function, and later ones are given what it returned. It may be called again when the process dies
        before its result is durable.

        Args:
            name: of the step; a name stands for one result, whatever the arguments.
            function: computes it: data, as for `save`; anything else is pickled, where that is trusted.
            args, kwargs: for the function.

        Raises:
            InputError, CheckpointFenced, StorageError: as for `save`; and what the function raises.
        """
        with self._lock:
            self._usable()
        return self._steps.result(name, function, args, kwargs)

    def history(self) -> list[CheckpointReport]:
        """All checkpoints of this task, oldest first."""
        self._states.drain()
        with self._lock:
            return self._begun().history()

    def close(self) -> None:
        """Wait for a save in the background, end the use of this object, and remove what `restore()`
        put into a fresh directory. A save that failed, and that nobody has been told of, is a warning.
        """
        if os.getpid() == self._process:
            self._states.close()
            try:
                self._states.flush()
            except (CheckpointError, StorageError, MemoryError) as failure:
                self._on_warning(Warned("unsaved", f"a save in the background failed: {failure}"))
        with self._lock:
            self._closed = True
            self._turn.close()
            self._scratch.drop()
            self._working.close()
            self._steps.close()

    def _begun(self) -> Turn:
        """The turn, its ledger claimed."""
        self._usable()
        self._turn.opened()
        return self._turn

    def _usable(self) -> None:
        if self._closed:
            raise CheckpointError(
                "this checkpoint belongs to an attempt that has ended. Take a fresh one with "
                "current_context().checkpoint inside the task."
            )
        if os.getpid() != self._process:
            raise CheckpointError(
                "this checkpoint belongs to the process that runs the task, and this is a child of "
                "it. Send the state to the parent, and save it there."
            )

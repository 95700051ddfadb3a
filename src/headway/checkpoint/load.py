"""Typed state from a checkpoint: made anew, or put into live state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway.checkpoint.fill import Filler, Target, sized
from headway.checkpoint.inplace import Move
from headway.checkpoint.pickled import Pickles
from headway.checkpoint.rebuild import finished, memory_of, plan, rebuild, stored_in
from headway.checkpoint.restore import content
from headway.checkpoint.turn import Turn
from headway.ledger.available import require
from headway.model.errors import CheckpointCorrupt, CheckpointError, InputError
from headway.model.manifest import Manifest
from headway.ports import Storage

_MIXTURE = (
    "What load(into=) was given holds a mixture of what it was and what was saved: do not go on with it, "
    "build it anew."
)


def bytes_of(storage: Storage, packs: str, manifest: Manifest) -> bytes:
    """The bytes of a checkpoint's only file.

    Raises:
        CheckpointError: it holds several, or typed state.
        CheckpointCorrupt, StorageError: as for `restore.content`.
    """
    refuse_state(manifest)
    files = [entry for entry in manifest.entries if entry.kind == "file"]
    if len(files) != 1 or len(manifest.entries) != 1:
        raise CheckpointError(
            f"checkpoint {manifest.number} holds {len(files)} files in "
            f"{len(manifest.entries)} entries, and read() gives the bytes of exactly one. "
            "Use restore() to get them all."
        )
    sized(manifest)  # an impossible size is damage, for which an older checkpoint stands in
    require(2 * files[0].size, f"checkpoint {manifest.number}")  # its pieces, and all of it
    return b"".join(content(storage, packs, manifest, files[0]))


def refuse_state(manifest: Manifest) -> None:
    """Say what to call instead, for a checkpoint of typed state.

    Raises:
        CheckpointError: it is one.
    """
    if manifest.kind == "state":
        raise CheckpointError(
            f"checkpoint {manifest.number} holds typed state, which read() and restore() do not give. "
            "Use load()."
        )


def state_of(storage: Storage, packs: str, manifest: Manifest) -> Any:
    """The typed state of a checkpoint.

    Raises:
        CheckpointError: it holds none.
        CheckpointCorrupt, StorageError: as for `Filler.fill`.
    """
    filler = Filler(storage, packs, manifest)
    return rebuild(
        _skeleton(manifest),
        sized(manifest),
        lambda parts: filler.fill([Target(part, memory) for part, memory in parts]),
        Pickles(storage),
    )


def load_into(turn: Turn, live: Mapping[str, Any]) -> bool:
    """Give live state the values of the newest valid checkpoint; False when there is none.

    A checkpoint that turns out damaged half-way is overwritten by the next older one.

    Raises:
        CheckpointError: the checkpoint holds no state.
        InputError: `live` has other keys, shapes or dtypes; nothing of it was changed.
        CheckpointCorrupt, StorageError: as for `Filler.fill`. The message, or a note to it, says when
            `live` is a mixture now.
    """
    begun = False

    def load(manifest: Manifest) -> bool:
        nonlocal begun
        filler = Filler(turn.storage, turn.packs, manifest)
        planned = plan(_skeleton(manifest), sized(manifest), Pickles(turn.storage))
        try:
            move = Move(live, planned, filler.fill)
        except InputError as error:
            if begun:  # of a newer checkpoint, which did fit
                raise CheckpointCorrupt(
                    f"checkpoint {manifest.number} does not fit: {error}"
                ) from error
            raise
        begun = True
        move.run()
        return True

    try:
        return turn.load(load) is not None
    except CheckpointCorrupt as error:
        if begun:
            raise CheckpointCorrupt(f"{error} {_MIXTURE}") from error
        raise
    except BaseException as error:
        if begun:
            error.add_note(_MIXTURE)
        raise


def load_entries(
    turn: Turn, live: Mapping[str, Any], *, again: bool = False
) -> dict[str, Any] | None:
    """The state of the newest valid checkpoint, a mapping. Each entry of it that fits the one of this name
    in `live` is put into that, in place; others are made anew.

    Args:
        live: name -> live state.
        again: it was loaded before, and may not have changed much: only what differs is read.

    Returns:
        Name -> the live entry, or a new one; None when there is no checkpoint.

    Raises:
        CheckpointError: the checkpoint holds no state.
        CheckpointCorrupt, StorageError: as for `load_into`.
    """
    begun = False

    def load(manifest: Manifest) -> dict[str, Any]:
        nonlocal begun
        filler = Filler(turn.storage, turn.packs, manifest, look=again)
        planned = plan(_skeleton(manifest), sized(manifest), Pickles(turn.storage))
        moves: list[Move] = []
        boxes: list[dict[str, Any]] = []  # each has one entry, and is changed in place
        fresh: dict[str, Any] = {}
        for name, new in planned.items():
            box = {name: live.get(name)}
            try:
                moves.append(Move(box, {name: new}, filler.fill))
                boxes.append(box)
            except InputError:
                fresh[name] = new
        begun = True
        filler.fill([Target(part, memory) for part, memory in memory_of(stored_in(fresh))])
        for move in moves:
            move.run()
        made: dict[str, Any] = finished(fresh)
        for box in boxes:
            made.update(box)
        return made

    try:
        return turn.load(load)
    except BaseException as error:
        if begun:
            error.add_note(_MIXTURE)
        raise


def _skeleton(manifest: Manifest) -> bytes:
    if manifest.skeleton is None:
        use = "restore" if manifest.kind == "directory" else "read"
        raise CheckpointError(
            f"checkpoint {manifest.number} holds {manifest.kind}, and load() gives typed state that "
            f"save(mapping) stored. Use {use}()."
        )
    return manifest.skeleton

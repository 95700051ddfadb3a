"""The runs of a home: which there are, which one somebody means, and what its journal says."""

from __future__ import annotations

from headway.engine.core import fold
from headway.engine.journal import read_journal
from headway.engine.keys import RUNS, ledger_prefix
from headway.engine.state import RunState
from headway.model.errors import CheckpointCorrupt, CheckpointError, HeadwayError, InputError
from headway.model.ids import is_run_id
from headway.ports import Storage

_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
_LISTED = 5


def run_ids(storage: Storage) -> list[str]:
    """Ids of all runs, newest first."""
    return [name for name in reversed(storage.list(RUNS)) if is_run_id(name)]


def find_run(storage: Storage, text: str | None) -> str:
    """The id of the run that `text` means.

    Args:
        storage: the home.
        text: an id, a part of one that no other id has, or None for the newest run.

    Raises:
        InputError: there is none, or there are several.
    """
    ids = run_ids(storage)
    if text is None:
        for run in ids:
            if _began(storage, run):
                return run
        raise InputError(f"there are no runs in {storage.url}. Start one with `headway run`.")
    if text in ids:
        return text
    wanted = text.strip().lower()
    found = [run for run in ids if wanted and wanted in run]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(found[:_LISTED]) + (" …" if len(found) > _LISTED else "")
        raise InputError(f"{text!r} fits {len(found)} runs: {some}. Type more of the id.")
    raise InputError(
        f"there is no run {text!r} in {storage.url}. `headway runs` lists them; another home is named "
        "with --home."
    )


def _began(storage: Storage, run: str) -> bool:
    """Whether there is anything of the run. A driver killed in its first instant leaves only an id."""
    try:
        return bool(storage.list(ledger_prefix(run))) and bool(read_journal(storage, run)[0])
    except CheckpointError:
        return True  # damaged, which is for whoever asked to be told


def read_run(storage: Storage, run: str) -> tuple[RunState, list[str]]:
    """What the journal of a run says, and remarks about the reading of it.

    Raises:
        InputError: there is no such run, or nothing of it.
        CheckpointCorrupt: the journal is damaged.
        StorageError: the home could not be read.
    """
    if not is_run_id(run):
        find_run(storage, run)  # says what is wrong with it
        raise InputError(f"{run!r} is not the whole id of a run; `headway runs` lists them")
    events, notes = read_journal(storage, run)
    if not events:
        raise InputError(
            f"there is no run {run} in {storage.url}, or its driver was killed before anything of it "
            "was recorded. `headway runs` lists the runs."
        )
    try:
        return fold(events), notes
    except HeadwayError:
        raise
    except _UNREADABLE as error:  # an outcome that is none, a node that was never planned
        raise CheckpointCorrupt(
            f"the journal of run {run} tells what cannot have been ({type(error).__name__}: "
            f"{str(error)[:200]}). Restore runs/{run} from a copy of the home, or give the run up with "
            f"`headway delete {run}`."
        ) from error

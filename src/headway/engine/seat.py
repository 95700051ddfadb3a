"""The driver's seat of a run: who has it, and taking it. One driver at a time, as a courtesy.

On this machine a lock tells (`liveness`), at once and for certain. In a home that is a store there may be
drivers on other machines, which a lease tells of (`lease`), after a while and perhaps wrongly. That two
drivers do no harm to each other's run rests on neither: the journal fences the older one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from headway.engine.home import Home
from headway.engine.lease import seems_alive, wait_for_silence
from headway.engine.liveness import Lock, is_driven, lock_driver
from headway.model.errors import StorageError
from headway.model.ids import new_run_id
from headway.storage.faults import storage_error


@contextlib.contextmanager
def taken(
    home: Home, run: str, *, take_over: bool = False, say: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Hold a run that exists, so that nobody else drives it.

    Args:
        home: where the run is.
        run: which run.
        take_over: do not ask whether a driver on another machine lives.
        say: told when that takes a while.

    Raises:
        RunBusy: somebody drives it.
        StorageError: the lock could not be taken, or the home not be read.
    """
    try:
        lock = _lock(home, run)
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, f"lock run {run}") from error
    with contextlib.closing(lock):
        if not home.place.is_home and not take_over:
            wait_for_silence(home.storage, run, identity(home), say=say)
        yield


def fresh(home: Home, now: float) -> tuple[str, Lock]:
    """A new run's id, and its lock. On this machine nobody else has that id.

    Raises:
        StorageError: the home, or its place on this machine, could not be written.
    """
    _prepare(home)
    while True:
        run = new_run_id(now)
        try:
            return run, lock_driver(home.directory(run), run, new=True)
        except FileExistsError:
            continue  # somebody drew the same id in the same instant
        except OSError as error:
            raise storage_error(error, f"begin a run in {home.url}") from error


def is_taken(home: Home, run: str, *, elsewhere: bool = True) -> bool:
    """Whether a driver of this run lives, as far as can be told at once.

    Args:
        home: where the run is.
        run: which run.
        elsewhere: on any machine, and not only on this one.

    Raises:
        StorageError: the home could not be read.
    """
    if is_driven(home.directory(run)):
        return True
    if home.place.is_home or not elsewhere:
        return False
    return seems_alive(home.storage, run, identity(home), time.time())


def identity(home: Home) -> str:
    """See `Place.identity`.

    Raises:
        StorageError: it could not be read or made.
    """
    try:
        return home.place.identity()
    except OSError as error:
        raise _no_place(home, error) from error


def _prepare(home: Home) -> None:
    try:
        home.place.prepare()
    except OSError as error:
        raise _no_place(home, error) from error


def _no_place(home: Home, error: OSError) -> StorageError:
    place = f"{home.place.root}, or name another place with XDG_STATE_HOME"
    return storage_error(error, f"make a place for locks and logs of {home.url}", place=place)


def _lock(home: Home, run: str) -> Lock:
    if not home.place.is_home:  # there may have been no driver on this machine yet
        _prepare(home)
        home.directory(run).mkdir(parents=True, exist_ok=True)
    return lock_driver(home.directory(run), run)

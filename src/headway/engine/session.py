"""One process's turn as the driver of a run: take the run, plan, drive, let go.

The order is what makes it safe to die anywhere. The lock is taken first, so that two drivers on one
machine do not fence each other. The journal's term is claimed before anything is planned, so that what
is read is all there will ever be of the drivers before. The processes of such a driver get a moment to
be gone before anything is started.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.engine.assign import Assignments
from headway.engine.changes import compare
from headway.engine.core import RunState, fold
from headway.engine.driver import Driver, Observer
from headway.engine.entity import Entity
from headway.engine.graph import trace
from headway.engine.journal import Journal
from headway.engine.keys import cancel_key, run_prefix, values_prefix
from headway.engine.liveness import Lock, lock_attempts, lock_driver
from headway.engine.loading import find_entity, load, program_of
from headway.engine.values import Values
from headway.model.errors import InputError
from headway.model.events import DriverStarted, Event, RunCreated, RunNoted
from headway.model.ids import new_run_id
from headway.model.version import __version__
from headway.ports import Clock, Executor, Storage
from headway.storage.faults import storage_error

ORPHANS = 5.0
"""Seconds that the processes of a driver that died get to be gone."""


@dataclass(frozen=True, slots=True)
class Home:
    """An open home. `url` is its absolute path."""

    storage: Storage
    url: str

    def directory(self, run_id: str) -> Path:
        """Where a run's locks and logs are."""
        return Path(self.url, run_prefix(run_id))


@dataclass(frozen=True, slots=True)
class Means:
    """What a driver works with.

    Attributes:
        clock: tells the time.
        executor: makes the executor, given a descriptor that all its processes are to hold open.
        observer: who watches.
    """

    clock: Clock
    executor: Callable[[int], Executor]
    observer: Observer | None = None


def begin(
    home: Home, entity: Entity[..., Any], inputs: Mapping[str, Any], means: Means
) -> RunState:
    """Start a new run of `entity` and drive it.

    Args:
        inputs: a value for every parameter, checked.

    Raises:
        DefinitionError: the workflow is wrong; nothing of the run is left then.
        RunBusy, StorageError: see `driver.Driver.run`.
    """
    program = program_of(entity)
    run_id, lock = _new_run(home, means.clock)
    with contextlib.closing(lock):
        try:
            interface = entity.interface
            values = Values(home.storage, values_prefix(run_id))
            plain = {
                name: values.encode(value, interface.inputs[name].type, f"{interface.name}: {name}")
                for name, value in inputs.items()
            }
            graph = trace(entity, values)
            journal = Journal.open(home.storage, run_id)
        except BaseException:
            home.storage.delete(run_prefix(run_id))  # nobody knows of it
            raise
        with contextlib.closing(journal):
            now, version = means.clock.time(), __version__
            nodes = tuple(graph.nodes)
            opening: list[Event] = [
                RunCreated(run_id, entity.name, program, plain, now, version, nodes, graph.outputs),
                DriverStarted(now, os.getpid(), os.uname().nodename, program.digest),
            ]
            return _drive(home, run_id, RunState(), journal, opening, means)


def go_on(home: Home, run_id: str, means: Means) -> RunState:
    """Take a run over that nobody drives, and drive it.

    Raises:
        RunBusy: somebody drives it.
        DefinitionError, InputError: its program cannot be loaded, or cannot go on with its inputs.
        CheckpointCorrupt: its journal is damaged.
        StorageError: the home could not be read or written.
    """
    with taken(home, run_id), contextlib.closing(Journal.open(home.storage, run_id)) as journal:
        home.storage.delete(cancel_key(run_id))  # it was for the driver before
        state = fold(journal.events)
        opening = _reopening(home, state, journal.notes, means.clock)
        return _drive(home, run_id, state, journal, opening, means)


@contextlib.contextmanager
def taken(home: Home, run_id: str) -> Iterator[None]:
    """Hold a run that exists, so that nobody else on this machine drives it.

    Raises:
        RunBusy: somebody does.
    """
    try:
        lock = lock_driver(home.directory(run_id), run_id)
    except OSError as error:
        raise storage_error(error, f"lock run {run_id}") from error
    with contextlib.closing(lock):
        yield


def _new_run(home: Home, clock: Clock) -> tuple[str, Lock]:
    while True:
        run_id = new_run_id(clock.time())
        try:
            return run_id, lock_driver(home.directory(run_id), run_id, new=True)
        except FileExistsError:
            continue  # somebody drew the same id in the same instant
        except OSError as error:
            raise storage_error(error, f"begin a run in {home.url}") from error


def _reopening(home: Home, state: RunState, notes: Sequence[str], clock: Clock) -> list[Event]:
    """What a driver that resumes records first: its plan, and what changed since the run began."""
    load(state.program)
    entity = find_entity(state.entity, state.program)
    unknown = [name for name in entity.interface.inputs if name not in state.inputs]
    if unknown:
        raise InputError(
            f"{state.entity} takes {', '.join(unknown)} now, which run {state.run} was not given when "
            "it began. Put the signature back and resume, or start a new run with `headway run`."
        )
    digest = program_of(entity).digest
    graph = trace(entity, Values(home.storage, values_prefix(state.run)))
    changes = compare(state, graph.nodes, graph.outputs, digest)
    now = clock.time()
    started = DriverStarted(
        now,
        os.getpid(),
        os.uname().nodename,
        digest,
        resumed=True,
        replaced=changes.replaced,
        removed=changes.removed,
        outputs=changes.outputs,
    )
    return [started, *(RunNoted(note, now) for note in [*notes, *changes.notes])]


def _drive(
    home: Home,
    run_id: str,
    state: RunState,
    journal: Journal,
    opening: list[Event],
    means: Means,
) -> RunState:
    try:
        processes, gone = lock_attempts(home.directory(run_id), ORPHANS)
    except OSError as error:
        raise storage_error(error, f"lock run {run_id}") from error
    with contextlib.closing(processes):
        if not gone:
            text = (
                f"processes of the driver before are still there after {ORPHANS:g} s; going on, "
                "since nothing that they save will be seen"
            )
            opening.append(RunNoted(text, means.clock.time()))
        driver = Driver(
            state,
            journal,
            means.executor(processes.fd),
            Assignments(home.url),
            means.clock,
            cancelled=lambda: home.storage.has(cancel_key(run_id)),
            observer=means.observer,
        )
        return driver.run(opening)

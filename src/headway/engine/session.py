"""One process's turn as the driver of a run: take the run, plan, drive, let go.

The order is what makes it safe to die anywhere. The seat is taken first, so that two drivers do not
fence each other without need. The journal's term is claimed before anything is planned, so that what
is read is all there will ever be of the drivers before. The processes of such a driver get a moment to
be gone before anything is started.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway.engine.assign import Assignments
from headway.engine.changes import compare
from headway.engine.core import RunState, fold
from headway.engine.driver import Driver, Observer, Records
from headway.engine.entity import Entity
from headway.engine.graph import trace
from headway.engine.home import Home
from headway.engine.journal import Journal
from headway.engine.kept import here
from headway.engine.keys import cancel_key, values_prefix
from headway.engine.lease import Lease
from headway.engine.liveness import Lock, lock_attempts
from headway.engine.loading import find_entity, load, program_of
from headway.engine.logs import Sender
from headway.engine.seat import fresh, identity, taken
from headway.engine.service import Service
from headway.engine.values import Values
from headway.model.errors import InputError, StorageError
from headway.model.events import DriverStarted, Event, RunCreated, RunNoted
from headway.model.outcome import RunStatus
from headway.model.program import Watch
from headway.model.version import __version__
from headway.ports import AttemptKey, Clock, Executor, KeyExists
from headway.storage.faults import storage_error

ORPHANS = 5.0
"""Seconds that the processes of a driver that died get to be gone."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a driver works with.

    Attributes:
        clock: tells the time.
        executor: makes the executor, given a descriptor that all its processes are to hold open.
        observer: who watches.
        say: told what a person should know besides.
        take_over: when resuming, do not ask whether a driver on another machine lives.
        watch: given the number of an attempt, says how it is watched; for `headway verify`.
    """

    clock: Clock
    executor: Callable[[int], Executor]
    observer: Observer | None = None
    say: Callable[[str], None] = lambda _: None
    take_over: bool = False
    watch: Callable[[int], Watch] | None = None


@dataclass(frozen=True, slots=True)
class _Beside:
    """What goes on beside the driver's loop, as the loop sees it; the arguments of `Driver`."""

    records: Records
    cancelled: Callable[[], bool]
    over: Callable[[AttemptKey], None]


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
    run_id, lock, journal = _new_run(home, means.clock)
    with contextlib.closing(lock), contextlib.closing(journal):
        try:
            interface = entity.interface
            values = Values(home.storage, values_prefix(run_id))
            plain = {
                name: values.encode(value, interface.inputs[name].type, f"{interface.name}: {name}")
                for name, value in inputs.items()
            }
            graph = trace(entity, values)
        except BaseException:
            journal.close()
            home.forget(run_id)  # nobody knows of it
            raise
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
    seat = taken(home, run_id, take_over=means.take_over, say=means.say)
    with seat, contextlib.closing(Journal.open(home.storage, run_id)) as journal:
        home.storage.delete(cancel_key(run_id))  # it was for the driver before
        state = fold(journal.events)
        state.program = here(home, state.program)
        opening = _reopening(home, state, journal.notes, means.clock)
        return _drive(home, run_id, state, journal, opening, means)


def _new_run(home: Home, clock: Clock) -> tuple[str, Lock, Journal]:
    """A run's id that nobody else has, with its lock and its journal.

    The lock tells on this machine, and the first claim of the journal on all that share the home.
    """
    while True:
        run_id, lock = fresh(home, clock.time())
        try:
            return run_id, lock, Journal.open(home.storage, run_id, new=True)
        except KeyExists:
            lock.close()
            home.place.forget(run_id)  # somebody elsewhere drew the same id in the same instant
        except BaseException:
            lock.close()
            home.forget(run_id)
            raise


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
    entity = entity.again([node.plan for node in state.nodes.values()])
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
        with _beside(home, run_id, journal, means, resumed=bool(journal.events)) as beside:
            driver = Driver(
                state,
                beside.records,
                means.executor(processes.fd),
                Assignments(home, means.watch),
                means.clock,
                cancelled=beside.cancelled,
                over=beside.over,
                observer=means.observer,
            )
            driver.run(opening)
    if state.status in {RunStatus.SUCCEEDED, RunStatus.CANCELLED}:
        home.place.tidy(run_id)
    return state


@contextlib.contextmanager
def _beside(
    home: Home, run_id: str, journal: Journal, means: Means, *, resumed: bool
) -> Iterator[_Beside]:
    """In a directory the loop looks for itself, and logs are where they belong; a store is looked at
    and sent to by threads."""

    def asked() -> bool:
        return home.storage.has(cancel_key(run_id))

    if home.place.is_home:
        yield _Beside(journal, asked, lambda _: None)
        return
    lease = Lease(home.storage, run_id, identity(home), means.clock.time)
    sender = Sender(home.storage, home.place, run_id)
    sender.start()
    answers = True
    try:
        with Service(journal, asked, lease, resumed=resumed) as service:
            yield _Beside(service, service.cancelled, sender.over)
    except StorageError:
        answers = False
        raise
    finally:
        left = sender.close(send=answers)
        if left:
            means.say(
                f"the logs of {len(left)} attempts could not be sent to {home.url}: they are in "
                f"{home.directory(run_id) / 'logs'}, and will be sent when the run is resumed here"
            )

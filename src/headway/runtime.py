"""Open a home; run, resume, cancel, list and delete runs. What the command line, and a task that is
called from a script, stand on."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway import compose
from headway.engine.archive import find_run, read_run, run_ids
from headway.engine.console import Console
from headway.engine.core import RunState, fold
from headway.engine.driver import Observer
from headway.engine.entity import Entity
from headway.engine.journal import Journal, settle_journal
from headway.engine.keys import cancel_key, log_key, run_prefix, values_prefix
from headway.engine.liveness import is_driven
from headway.engine.loading import find_entity, load
from headway.engine.report import report_of, summary_of
from headway.engine.session import Home, Means, begin, go_on, taken
from headway.engine.values import Values
from headway.engine.verdict import failure
from headway.model.errors import CheckpointError, InputError, RunBusy
from headway.model.events import CancelRequested, RunEnded
from headway.model.outcome import RunStatus
from headway.model.report import RunReport, RunSummary
from headway.ports import KeyExists

__all__ = ["Home", "LogFile", "Observer", "call", "cancel", "delete", "find", "logs", "open_home"]
__all__ += ["result", "resume", "run", "runs", "show"]


@dataclass(frozen=True, slots=True)
class LogFile:
    """What an attempt wrote to its standard output and error."""

    node: str
    attempt: int
    path: Path


def open_home(home: str | None = None, *, create: bool = True) -> Home:
    """Open a home.

    Args:
        home: its path; None is `$HEADWAY_HOME`, or `~/.headway`.
        create: make it if it is not there. Whoever only looks, or goes on with a run, must not: a
            home whose disk is not mounted would turn into an empty one.

    Raises:
        InputError: that cannot be a home, or a newer headway wrote it.
        StorageError: it cannot be made or read, or its filesystem is not fit for one.
    """
    url = home or os.environ.get("HEADWAY_HOME") or "~/.headway"
    storage = compose.open_storage(url, create=create)
    return Home(storage, storage.url)


def run(
    home: Home,
    entity: Entity[..., Any],
    inputs: Mapping[str, Any],
    *,
    jobs: int | None = None,
    observer: Observer | None = None,
) -> RunReport:
    """Run a task or workflow to its end, or until a signal tells this process to leave.

    Args:
        home: where the run is kept.
        entity: what to run.
        inputs: parameter name -> value; defaults are filled in.
        jobs: attempts that may run at once; None is one per core.
        observer: who watches.

    Raises:
        InputError: an input is missing, unknown or of another type; nothing was written then.
        DefinitionError: the workflow is wrong; nothing of the run is left.
        StorageError: the home could not be written.
    """
    return _report(home, _run(home, entity, inputs, jobs, observer))


def resume(
    home: Home,
    run_id: str | None = None,
    *,
    jobs: int | None = None,
    observer: Observer | None = None,
) -> RunReport:
    """Go on with a run: finished nodes keep their results, the others start from their checkpoints.

    A run that has succeeded is only reported.

    Args:
        home: where the run is kept.
        run_id: which run; None is the newest that did not succeed, was not cancelled, and that
            nobody drives.
        jobs, observer: as for `run`.

    Raises:
        InputError: there is no such run, or its code cannot go on with its inputs.
        RunBusy: another process drives it.
        DefinitionError: its program cannot be loaded any more.
        CheckpointCorrupt: its journal is damaged.
        StorageError: the home could not be read or written.
    """
    run_id = _newest_unfinished(home) if run_id is None else run_id
    state, notes = read_run(home.storage, run_id)
    if state.status is RunStatus.SUCCEEDED:
        settle_journal(home.storage, run_id)  # from here on somebody relies on it
        return report_of(state, home.storage, alive=False, notes=notes)
    return _report(home, go_on(home, run_id, _means(home, jobs, observer)))


def call(entity: Entity[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run a task or workflow in the default home, and return its value.

    Progress and the tasks' output go to standard error.

    Raises:
        TaskFailed: it failed, or was cancelled; the message says how to go on.
        KeyboardInterrupt: a signal told this process to leave; the run can be resumed.
        InputError, DefinitionError, StorageError: as for `run`.
    """
    inputs = entity.interface.bind(args, kwargs)
    home = open_home()
    stream = getattr(sys.stderr, "buffer", None)
    observer = None if stream is None else Console(stream)
    state = _run(home, entity, inputs, None, observer)
    if state.status is RunStatus.SUCCEEDED:
        return _decode(home, state, entity)
    if state.status is RunStatus.INTERRUPTED:
        raise KeyboardInterrupt(f"run {state.run} was interrupted: headway resume {state.run}")
    raise failure(_report(home, state), state)


def result(home: Home, run_id: str) -> Any:
    """The value of a run that succeeded.

    Raises:
        InputError: it did not succeed, or its value does not fit the code any more.
        DefinitionError: its program cannot be loaded any more.
        UntrustedState: decoding would run code, and others can write to the home.
    """
    state, _ = read_run(home.storage, run_id)
    if state.status is not RunStatus.SUCCEEDED:
        raise InputError(
            f"run {run_id} has no result: it is {_status(home, state)}. Look with "
            f"`headway show {run_id}`, go on with `headway resume {run_id}`."
        )
    load(state.program)
    return _decode(home, state, find_entity(state.entity, state.program))


def find(home: Home, text: str | None) -> str:
    """The id of the run that `text` means: an id, a part of one, or None for the newest.

    Raises:
        InputError: there is none, or there are several.
    """
    return find_run(home.storage, text)


def runs(home: Home) -> list[RunSummary]:
    """All runs, newest first. One whose journal is damaged has the status "damaged"."""
    found = []
    for run_id in run_ids(home.storage):
        try:
            state, _ = read_run(home.storage, run_id)
        except InputError:
            continue  # its driver was killed before anything was recorded, or it was just deleted
        except CheckpointError as error:
            found.append(RunSummary(run_id, "", "damaged", 0.0, None, 0, 0, 0, str(error)))
        else:
            found.append(summary_of(state, alive=is_driven(home.directory(run_id))))
    return found


def show(home: Home, run_id: str) -> RunReport:
    """All about a run.

    Raises:
        InputError: there is no such run.
        CheckpointCorrupt: its journal is damaged.
    """
    # Asked before reading: a driver that leaves in between has written the end by then.
    alive = is_driven(home.directory(run_id))
    state, notes = read_run(home.storage, run_id)
    return report_of(state, home.storage, alive=alive, notes=notes)


def logs(
    home: Home, run_id: str, node: str | None = None, attempt: int | None = None
) -> list[LogFile]:
    """The logs of a run that exist, by node and attempt.

    Args:
        home, run_id: which run.
        node: only this node's.
        attempt: only those of attempts with this number.

    Raises:
        InputError: there is no such run, or no such node in it.
    """
    state, _ = read_run(home.storage, run_id)
    if node is not None and node not in state.nodes:
        names = ", ".join(list(state.nodes)[:10])
        raise InputError(f"run {run_id} has no node {node!r}; it has {names}")
    files = [
        LogFile(name, tried.number, Path(home.url, log_key(run_id, name, tried.number)))
        for name, found in state.nodes.items()
        for tried in found.attempts
        if node in {None, name} and attempt in {None, tried.number}
    ]
    return [file for file in files if file.path.exists()]


def cancel(home: Home, run_id: str) -> None:
    """Stop a run for good. Its driver is asked to; without one the run is marked here and now.

    Raises:
        InputError: there is no such run, or it is over.
    """
    state, _ = read_run(home.storage, run_id)
    _must_not_be_over(state)
    try:
        with taken(home, run_id), closing(Journal.open(home.storage, run_id)) as journal:
            _must_not_be_over(fold(journal.events))
            now = compose.make_clock().time()
            ended = RunEnded(RunStatus.CANCELLED, now, error="cancelled by the user")
            journal.append(CancelRequested(now), ended)
    except RunBusy:
        try:
            home.storage.create(cancel_key(run_id), b"")
        except KeyExists:
            pass  # asked before


def delete(home: Home, run_id: str) -> None:
    """Delete a run with its checkpoints, values and logs. Works for a damaged one too.

    Raises:
        InputError: there is no such run.
        RunBusy: a process drives it.
    """
    if run_id not in run_ids(home.storage):
        find_run(home.storage, run_id)
        raise InputError(f"{run_id!r} is not the whole id of a run; `headway runs` lists them")
    with taken(home, run_id):
        home.storage.delete(run_prefix(run_id))


def _run(
    home: Home,
    entity: Entity[..., Any],
    inputs: Mapping[str, Any],
    jobs: int | None,
    observer: Observer | None,
) -> RunState:
    bound = entity.interface.bind((), inputs)
    entity.interface.check_inputs(bound)
    return begin(home, entity, bound, _means(home, jobs, observer))


def _means(home: Home, jobs: int | None, observer: Observer | None) -> Means:
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be 1 or more, got {jobs}")
    compose.prove_exclusive(home.storage)
    return Means(
        clock=compose.make_clock(),
        executor=lambda lock_fd: compose.make_executor(jobs, lock_fd=lock_fd),
        observer=observer,
    )


def _newest_unfinished(home: Home) -> str:
    busy = ""
    for run_id in run_ids(home.storage):
        try:
            state, _ = read_run(home.storage, run_id)
        except InputError:
            continue
        if state.status in {RunStatus.SUCCEEDED, RunStatus.CANCELLED}:
            continue
        if not is_driven(home.directory(run_id)):
            return run_id
        busy = busy or run_id
    if busy:
        raise RunBusy(
            f"the only unfinished run, {busy}, is being driven by another process. Watch it with "
            f"`headway show {busy}`."
        )
    raise InputError(f"there is nothing to resume in {home.url}. `headway runs` lists the runs.")


def _must_not_be_over(state: RunState) -> None:
    if state.over:
        raise InputError(f"run {state.run} is over: it {state.status}. There is nothing to cancel.")


def _status(home: Home, state: RunState) -> str:
    return summary_of(state, alive=is_driven(home.directory(state.run))).status


def _report(home: Home, state: RunState) -> RunReport:
    return report_of(state, home.storage, alive=False)


def _decode(home: Home, state: RunState, entity: Entity[..., Any]) -> Any:
    values = Values(home.storage, values_prefix(state.run))
    outputs = state.result or {}
    interface = entity.interface
    missing = [name for name in interface.outputs if name not in outputs]
    if missing:
        raise InputError(
            f"{state.entity} returns {', '.join(missing)} now, which run {state.run} did not. "
            "`headway show` has what it returned."
        )
    return interface.join(
        {
            name: values.decode(outputs[name], type_, f"{interface.name}: {name}")
            for name, type_ in interface.outputs.items()
        }
    )

"""Open a home; run, resume, cancel, list and delete runs. What the command line, and a task that is
called from a script, stand on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

from headway import compose
from headway.engine.archive import find_run, read_run, run_ids
from headway.engine.console import Console
from headway.engine.core import RunState, fold
from headway.engine.driver import Observer
from headway.engine.entity import Entity
from headway.engine.home import Home
from headway.engine.journal import Journal, settle_journal
from headway.engine.kept import here
from headway.engine.keys import cancel_key, values_prefix
from headway.engine.loading import find_entity, load
from headway.engine.logs import LogFile, Logs
from headway.engine.report import report_of, summary_of
from headway.engine.seat import is_taken, taken
from headway.engine.session import Means, begin, go_on
from headway.engine.values import Values
from headway.engine.verdict import failure
from headway.model.errors import CheckpointError, InputError, RunBusy
from headway.model.events import CancelRequested, RunEnded
from headway.model.outcome import RunStatus
from headway.model.report import RunReport, RunSummary
from headway.ports import KeyExists

_AT_ONCE = 8  # runs of a store that are read at once

__all__ = ["Home", "LogFile", "Observer", "call", "cancel", "delete", "find", "logs", "open_home"]
__all__ += ["result", "resume", "run", "runs", "show"]


def open_home(home: str | None = None, *, create: bool = True) -> Home:
    """Open a home.

    Args:
        home: its path or URL; None is `$HEADWAY_HOME`, or `~/.headway`.
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
    say: Callable[[str], None] = lambda _: None,
) -> RunReport:
    """Run a task or workflow to its end, or until a signal tells this process to leave.

    Args:
        home: where the run is kept.
        entity: what to run.
        inputs: parameter name -> value; defaults are filled in.
        jobs: attempts that may run at once; None is one per core.
        observer: who watches.
        say: told what a person should know and is no event of the run.

    Raises:
        InputError: an input is missing, unknown or of another type; nothing was written then.
        DefinitionError: the workflow is wrong; nothing of the run is left.
        StorageError: the home could not be written.
    """
    return _report(home, _run(home, entity, inputs, _means(home, jobs, observer, say)))


def resume(
    home: Home,
    run_id: str | None = None,
    *,
    jobs: int | None = None,
    observer: Observer | None = None,
    say: Callable[[str], None] = lambda _: None,
    take_over: bool = False,
) -> RunReport:
    """Go on with a run: finished nodes keep their results, the others start from their checkpoints.

    A run that has succeeded is only reported.

    Args:
        home: where the run is kept.
        run_id: which run; None is the newest that did not succeed, was not cancelled, and that
            nobody drives.
        jobs, observer, say: as for `run`.
        take_over: in a store, do not first see whether a driver on another machine lives. If it does,
            it is fenced, and stops its attempts.

    Raises:
        InputError: there is no such run, or its code cannot go on with its inputs.
        RunBusy: another process drives it.
        DefinitionError: its program cannot be loaded any more.
        UntrustedState: its program is kept where others can write, and this machine has not got it.
        CheckpointCorrupt: its journal is damaged.
        StorageError: the home could not be read or written.
    """
    run_id = _newest_unfinished(home) if run_id is None else run_id
    state, notes = read_run(home.storage, run_id)
    if state.status is RunStatus.SUCCEEDED:
        settle_journal(home.storage, run_id)  # from here on somebody relies on it
        return report_of(state, home.storage, alive=False, notes=notes)
    here(
        home, state.program
    )  # before anybody is shut out for a program that this machine has not got
    means = _means(home, jobs, observer, say, take_over=take_over)
    return _report(home, go_on(home, run_id, means))


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
    state = _run(home, entity, inputs, _means(home, None, observer, _to_stderr))
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
    program = here(home, state.program)
    load(program)
    return _decode(home, state, find_entity(state.entity, program))


def find(home: Home, text: str | None) -> str:
    """The id of the run that `text` means: an id, a part of one, or None for the newest.

    Raises:
        InputError: there is none, or there are several.
    """
    return find_run(home.storage, text)


def runs(home: Home, limit: int | None = None) -> list[RunSummary]:
    """All runs, newest first. One whose journal is damaged has the status "damaged".

    Args:
        home: where the runs are.
        limit: so many of the newest; others are not read.
    """
    found: list[RunSummary] = []
    ids = iter(run_ids(home.storage))
    read = partial(_summary, home)
    if home.place.is_home:
        return [*islice(filter(None, map(read, ids)), limit)]
    with ThreadPoolExecutor(_AT_ONCE, "headway-runs") as pool:  # what takes long is the way there
        while (limit is None or len(found) < limit) and (some := [*islice(ids, _AT_ONCE)]):
            found += filter(None, pool.map(read, some))
    return found[:limit]


def _summary(home: Home, run_id: str) -> RunSummary | None:
    try:
        state, _ = read_run(home.storage, run_id)
    except InputError:
        return None  # its driver was killed before anything was recorded, or it was just deleted
    except CheckpointError as error:
        return RunSummary(run_id, "", "damaged", 0.0, None, 0, 0, 0, str(error))
    return summary_of(state, alive=not state.over and is_taken(home, run_id))


def show(home: Home, run_id: str) -> RunReport:
    """All about a run.

    Raises:
        InputError: there is no such run.
        CheckpointCorrupt: its journal is damaged.
    """
    # Asked before reading: a driver that leaves in between has written the end by then.
    alive = is_taken(home, run_id)
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
    found = Logs(home.storage, run_id)
    files = [
        found.find(name, tried.number)
        for name, there in state.nodes.items()
        for tried in there.attempts
        if node in {None, name} and attempt in {None, tried.number}
    ]
    return [file for file in files if file is not None]


def cancel(home: Home, run_id: str, say: Callable[[str], None] = lambda _: None) -> None:
    """Stop a run for good. Its driver is asked to; without one the run is marked here and now.

    Args:
        home, run_id: which run.
        say: told when that takes a while.

    Raises:
        InputError: there is no such run, or it is over.
    """
    state, _ = read_run(home.storage, run_id)
    _must_not_be_over(state)
    try:
        with (
            taken(home, run_id, say=say),
            closing(Journal.open(home.storage, run_id)) as journal,
        ):
            _must_not_be_over(fold(journal.events))
            now = compose.make_clock().time()
            ended = RunEnded(RunStatus.CANCELLED, now, error="cancelled by the user")
            journal.append(CancelRequested(now), ended)
    except RunBusy:
        try:
            home.storage.create(cancel_key(run_id), b"")
        except KeyExists:
            pass  # asked before


def delete(home: Home, run_id: str, say: Callable[[str], None] = lambda _: None) -> None:
    """Delete a run with its checkpoints, values and logs. Works for a damaged one too.

    Args:
        home, run_id: which run.
        say: told when that takes a while.

    Raises:
        InputError: there is no such run.
        RunBusy: a process drives it.
    """
    if run_id not in run_ids(home.storage):
        find_run(home.storage, run_id)
        raise InputError(f"{run_id!r} is not the whole id of a run; `headway runs` lists them")
    with taken(home, run_id, say=say):
        home.forget(run_id)


def _run(
    home: Home,
    entity: Entity[..., Any],
    inputs: Mapping[str, Any],
    means: Means,
) -> RunState:
    bound = entity.interface.bind((), inputs)
    entity.interface.check_inputs(bound)
    return begin(home, entity, bound, means)


def _means(
    home: Home,
    jobs: int | None,
    observer: Observer | None,
    say: Callable[[str], None],
    *,
    take_over: bool = False,
) -> Means:
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be 1 or more, got {jobs}")
    compose.prove_exclusive(home.storage)
    return Means(
        clock=compose.make_clock(),
        executor=lambda lock_fd: compose.make_executor(jobs, lock_fd=lock_fd),
        observer=observer,
        say=say,
        take_over=take_over,
    )


def _to_stderr(text: str) -> None:
    print(f"headway: {text}", file=sys.stderr, flush=True)  # noqa: T201  # there is no other face


def _newest_unfinished(home: Home) -> str:
    busy = elsewhere = ""
    for run_id in run_ids(home.storage):
        try:
            state, _ = read_run(home.storage, run_id)
        except InputError:
            continue
        if state.status in {RunStatus.SUCCEEDED, RunStatus.CANCELLED}:
            continue
        if is_taken(home, run_id, elsewhere=False):
            busy = busy or run_id
        elif state.status is RunStatus.RUNNING and is_taken(home, run_id):
            elsewhere = elsewhere or run_id
        else:
            return run_id
    if elsewhere:
        return elsewhere  # it may only seem so: whoever takes it will wait and see
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
    return summary_of(state, alive=is_taken(home, state.run)).status


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

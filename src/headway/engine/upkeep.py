"""Looking after a home: its checkpoints, whether they are whole, and what nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.checkpoint.audit import Audit
from headway.checkpoint.garbage import Garbage, collect, look
from headway.checkpoint.steps import STEPS
from headway.engine.archive import read_run
from headway.engine.home import Home
from headway.engine.keys import (
    KEPT,
    LINEAGES,
    RUNS,
    beside,
    lineage_prefix,
    node_prefix,
    nodes_prefix,
    run_prefix,
)
from headway.engine.liveness import has_attempts
from headway.engine.seat import is_taken, taken
from headway.model.errors import CheckpointError, InputError, RunBusy
from headway.model.ids import node_key
from headway.model.report import GarbageReport
from headway.storage.upkeep import clear_leftovers, leftovers


def audits(home: Home, run: str, node: str | None = None) -> list[Audit]:
    """The nodes of a run that keep checkpoints.

    Args:
        home: where the run is.
        run: its id.
        node: only this one.

    Raises:
        InputError: there is no such run, or no such node in it.
        CheckpointError, StorageError: a journal or a ledger could not be read.
    """
    state, _ = read_run(home.storage, run)
    if node is not None and node not in state.nodes:
        names = ", ".join(list(state.nodes)[:10])
        raise InputError(f"run {run} has no node {node!r}; it has {names}")
    saving = set(home.storage.list(nodes_prefix(run)))
    return [
        Audit(home.storage, node_prefix(run, place), place)
        for name in state.nodes
        if node in {None, name}
        for place in (name, beside(name, KEPT), beside(name, STEPS))
        if node_key(place) in saving
    ]


def lineage_audit(home: Home, name: str) -> Audit:
    """The checkpoints that `open_checkpoint` keeps under a name.

    Raises:
        InputError: there is no such lineage.
        CheckpointError, StorageError: its ledger could not be read.
    """
    _must_exist(home, name)
    return Audit(home.storage, lineage_prefix(name), name)


def gc_run(
    home: Home, run: str, *, keep: int | None = None, dry_run: bool = False
) -> Iterator[GarbageReport]:
    """Delete what nobody needs of a run that nobody drives: packs that no checkpoint names, and what kills
    left of files that were being made or deleted. A run that somebody drives is passed over.

    Args:
        home: where the run is.
        run: its id.
        keep: give up all but so many of the newest checkpoints of each node, too.
        dry_run: only look.

    Raises:
        StorageError: the home could not be read or written.
    """
    directory = home.directory(run)
    if dry_run:
        if is_taken(home, run) or has_attempts(directory):
            yield GarbageReport(run, skipped="it is being driven")
            return
        yield from _nodes(home, run, keep, dry_run=True)
        return
    try:
        with taken(home, run):
            if has_attempts(directory):
                yield GarbageReport(run, skipped="processes of an attempt still live")
                return
            yield from _nodes(home, run, keep, dry_run=False)
    except RunBusy:
        yield GarbageReport(run, skipped="it is being driven")


def gc_deleted(home: Home, *, dry_run: bool = False) -> Iterator[GarbageReport]:
    """The same for runs whose deletion was cut short."""
    clear = leftovers if dry_run else clear_leftovers
    size = clear(home.storage, RUNS, deep=False)
    if size:
        yield GarbageReport("deleted runs", size=size)


def gc_lineage(
    home: Home, name: str, *, keep: int | None = None, dry_run: bool = False
) -> GarbageReport:
    """The same for a lineage of `open_checkpoint`. Nobody can tell whether it is in use: who has it open is
    fenced.

    Raises:
        InputError: there is no such lineage.
        StorageError: as for `gc_run`.
    """
    _must_exist(home, name)
    return _node(home, lineage_prefix(name), name, keep, dry_run)


def _nodes(home: Home, run: str, keep: int | None, *, dry_run: bool) -> Iterator[GarbageReport]:
    for name in home.storage.list(nodes_prefix(run)):
        report = _node(home, f"{nodes_prefix(run)}/{name}", f"{run} {name}", keep, dry_run)
        if report.size or report.packs or report.checkpoints or report.skipped:
            yield report
    clear = leftovers if dry_run else clear_leftovers
    size = clear(home.storage, run_prefix(run))
    if size:
        yield GarbageReport(run, size=size)


def _node(home: Home, prefix: str, where: str, keep: int | None, dry_run: bool) -> GarbageReport:
    act = look if dry_run else collect
    try:
        found: Garbage = act(home.storage, prefix, keep)
    except CheckpointError as error:
        return GarbageReport(where, skipped=str(error))
    return GarbageReport(where, len(found.packs), len(found.numbers), found.size)


def _must_exist(home: Home, name: str) -> None:
    if node_key(name) != name or not home.storage.list(f"{lineage_prefix(name)}/ledger"):
        names: Sequence[str] = home.storage.list(LINEAGES)
        there = f"it has {', '.join(names[:10])}" if names else "it has none"
        raise InputError(f"there is no lineage {name!r} in {home.url}; {there}")

"""Copying a run into another home, or under another id.

ORDER. Everything else is durable before the journal is begun, and the journal is one append: so the copy
is there as a run from one instant on, whole, and not before. A copy that was interrupted is nobody's run;
copying again goes on with what is there. Both runs are held meanwhile, so nobody drives either.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from headway.checkpoint.transfer import Copied, NodePlace, copy_node, pack_bytes
from headway.engine.core import fold
from headway.engine.home import Home
from headway.engine.journal import Journal, read_journal
from headway.engine.kept import keep
from headway.engine.keys import (
    ledger_prefix,
    log_key,
    nodes_prefix,
    values_prefix,
)
from headway.engine.liveness import has_attempts
from headway.engine.logs import PIECE as LOG_PIECE
from headway.engine.logs import LogFile, Logs
from headway.engine.provenance import refuse_pickles
from headway.engine.seat import taken
from headway.engine.state import RunState
from headway.ledger.read import read_ledger
from headway.ledger.signing import VARIABLE, configured
from headway.model.errors import CheckpointCorrupt, InputError, RunBusy, UntrustedState
from headway.model.events import Event, RunCreated
from headway.model.ids import is_run_id
from headway.model.program import Program
from headway.model.report import CopyReport
from headway.ports import KeyExists, KeyMissing, Storage
from headway.storage.faults import storage_error

_PIECE = 8 << 20
_KEPT = re.compile(r"programs/[0-9a-f]{64}/[^/\0]+")
_BLOB = re.compile(r"[0-9a-f]{64}")
_POINTER = re.compile(rb"packs/[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A run in a home; it need not be there yet."""

    home: Home
    run: str

    @property
    def storage(self) -> Storage:
        """What keeps it."""
        return self.home.storage

    def node(self, key: str) -> NodePlace:
        """One of its nodes."""
        return NodePlace(self.storage, f"{nodes_prefix(self.run)}/{key}")

    def __str__(self) -> str:
        return f"{self.home.url.rstrip('/')}/{self.run}"


def size_of(source: RunPlace) -> int:
    """Bytes of checkpoints to copy, for a progress bar."""
    nodes = source.storage.list(nodes_prefix(source.run))
    return sum(pack_bytes(source.storage, f"{nodes_prefix(source.run)}/{n}") for n in nodes)


def copy_run(
    source: RunPlace, target: RunPlace, progress: Callable[[int], None] = lambda _: None
) -> CopyReport:
    """Copy a run with its journal, checkpoints, values, logs, and its program when that came from a URL.

    Args:
        source: a run that nobody drives.
        target: where it shall be.
        progress: told how many bytes of checkpoints were read since the last time.

    Raises:
        InputError: there is a run at the target already, or none at the source.
        RunBusy: somebody drives one of them.
        CheckpointCorrupt: the journal or a value of the source is damaged, or a node has checkpoints and
            none of them is whole.
        StorageError: a home could not be read or written. Copy again, and it goes on.
        UntrustedState: the source is signed with a key that is not configured here; or it holds pickles,
            others can write to it, and the target is this user's own.
    """
    if not is_run_id(target.run):
        raise InputError(f"{target.run!r} cannot be the id of a run")
    if str(source) == str(target):
        raise InputError(f"{source} is already there: name another home, or another id")
    with taken(source.home, source.run), _reserved(target):
        if has_attempts(source.home.directory(source.run)):
            raise RunBusy(f"processes of an attempt of run {source.run} still live. Try again.")
        if read_ledger(source.storage, ledger_prefix(source.run)).signed and not configured():
            raise UntrustedState(
                f"run {source.run} is signed, and its copy is signed anew: give the key in {VARIABLE}."
            )
        events, notes = read_journal(source.storage, source.run)
        if not events:
            raise InputError(f"there is no run {source.run} in {source.home.url}")
        if read_journal(target.storage, target.run)[0]:
            raise InputError(f"there is a run {target.run} in {target.home.url} already")
        _values(source, target)
        nodes = {}
        for name in source.storage.list(nodes_prefix(source.run)):
            nodes[name] = copy_node(source.node(name), target.node(name), progress)
        _logs(source, target, fold(events))
        # Of what was copied, for nobody else can change that; and before the journal makes it a run.
        refuse_pickles(source.storage, target.storage, target.run, events)
        _journal(source, target, events)
    return _report(target, nodes, notes)


@contextlib.contextmanager
def _reserved(target: RunPlace) -> Iterator[None]:
    """Hold the run that is to be."""
    try:
        target.home.place.prepare()
        target.home.directory(target.run).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"make run {target.run} in {target.home.url}") from error
    with taken(target.home, target.run):
        yield


def _journal(source: RunPlace, target: RunPlace, events: list[Event]) -> None:
    """Make the copy a run: the last step, in one append."""
    first = events[0]
    if not isinstance(first, RunCreated):
        raise CheckpointCorrupt(f"the journal of run {source.run} does not begin with its creation")
    program = _program(source, target, first.program)
    first = msgspec.structs.replace(first, run=target.run, program=program)
    target.storage.delete(ledger_prefix(target.run))  # of an interrupted copy: it has no events
    with contextlib.closing(Journal.open(target.storage, target.run, new=True)) as journal:
        journal.append(first, *events[1:])


def _program(source: RunPlace, target: RunPlace, program: Program) -> Program:
    """The program where the target's home has it, when the source's home kept it."""
    key = "/".join(program.path.split("/")[-3:])
    if _KEPT.fullmatch(key) is None:
        return program
    try:
        text = source.storage.read(key)
    except KeyMissing:
        return program  # a file of the user's that looks like one
    path = keep(target.home, key.rpartition("/")[2], text)
    return msgspec.structs.replace(program, path=str(path), search=(str(path.parent),))


def _values(source: RunPlace, target: RunPlace) -> None:
    """Copy blobs, each proven by its digest."""
    prefix = values_prefix(source.run)
    for name in source.storage.list(prefix):
        if _BLOB.fullmatch(name) is None or target.storage.has(
            f"{values_prefix(target.run)}/{name}"
        ):
            continue
        data = source.storage.read(f"{prefix}/{name}")
        if _POINTER.fullmatch(data) is not None and hashlib.sha256(data).hexdigest() != name:
            data = _value_pack(source, target, data.decode(), name)
        elif hashlib.sha256(data).hexdigest() != name:
            raise _damaged(source, name)
        with contextlib.suppress(KeyExists):
            target.storage.create(f"{values_prefix(target.run)}/{name}", data)


def _value_pack(source: RunPlace, target: RunPlace, inner: str, digest: str) -> bytes:
    """Copy a large blob under a new name; what points to it."""
    hashed, at, name = hashlib.sha256(), 0, f"packs/{secrets.token_hex(8)}"
    pack = target.storage.create_pack(f"{values_prefix(target.run)}/{name}")
    try:
        while piece := source.storage.read_range(
            f"{values_prefix(source.run)}/{inner}", at, _PIECE
        ):
            hashed.update(piece)
            pack.write(piece)
            at += len(piece)
        if hashed.hexdigest() != digest:
            raise _damaged(source, digest)
        pack.commit()
    except KeyMissing:
        pack.abort()
        raise _damaged(source, digest) from None
    except BaseException:
        pack.abort()
        raise
    return name.encode()


def _damaged(source: RunPlace, digest: str) -> CheckpointCorrupt:
    return CheckpointCorrupt(
        f"a value of run {source.run} is damaged ({values_prefix(source.run)}/{digest}), so the run was "
        "not copied. Put the home back from a copy."
    )


def _logs(source: RunPlace, target: RunPlace, state: RunState) -> None:
    """Copy what attempts printed. Nothing rests on it."""
    logs = Logs(source.storage, source.run)
    put = _log_to_file if target.home.place.is_home else _log_to_store
    for name, node in state.nodes.items():
        for attempt in node.attempts:
            found = logs.find(name, attempt.number)
            if found is not None:
                put(target, name, attempt.number, found)


def _log_to_file(target: RunPlace, node: str, attempt: int, log: LogFile) -> None:
    path = target.home.place.log(target.run, node, attempt)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while piece := log.read(file.tell()):
                file.write(piece)
    except OSError as error:
        raise storage_error(error, f"write {path}") from error


def _log_to_store(target: RunPlace, node: str, attempt: int, log: LogFile) -> None:
    key, at, text = log_key(target.run, node, attempt), 0, b""
    while (piece := log.read(at + len(text))) or text:
        text += piece
        if len(text) >= LOG_PIECE or not piece:
            with contextlib.suppress(KeyExists):  # an interrupted copy got as far as this
                target.storage.create(key if at == 0 else f"{key}.{at:016d}", text)
            at, text = at + len(text), b""


def _report(target: RunPlace, nodes: dict[str, Copied], notes: list[str]) -> CopyReport:
    return CopyReport(
        run=target.run,
        home=target.home.url,
        checkpoints=sum(copied.checkpoints for copied in nodes.values()),
        size=sum(copied.size for copied in nodes.values()),
        notes=[*notes, *(f"{name}: {n}" for name, copied in nodes.items() for n in copied.notes)],
    )

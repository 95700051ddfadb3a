"""What people and scripts are shown of a run: the shape of `--json` output. Times are Unix seconds."""

from __future__ import annotations

from typing import Any

import msgspec


class CheckpointReport(msgspec.Struct, frozen=True):
    """One checkpoint of a node, as `show` and `checkpoint.history()` list it; `size` in bytes, that of the
    working `directories` in it included."""

    number: int
    attempt: int
    time: float
    size: int
    kind: str
    valid: bool = True
    directories: list[str] = []


class AttemptReport(msgspec.Struct, frozen=True):
    """One attempt; `outcome` is "running" while it runs. `checkpoints` are those it saved, `code` is the
    exit code of a command that failed, or minus the signal that it died of."""

    number: int
    outcome: str
    started: float
    ended: float | None
    checkpoints: list[CheckpointReport]
    error: str = ""
    log: str = ""
    warnings: list[str] = []
    code: int | None = None


class NodeReport(msgspec.Struct, frozen=True):
    """One node. `saved` and `lost` are seconds of work of its ended, unsuccessful attempts: up to
    the last checkpoint, and after it."""

    name: str
    status: str
    attempts: list[AttemptReport]
    saved: float = 0.0
    lost: float = 0.0


class RunReport(msgspec.Struct, frozen=True):
    """One run, whole. `result` is the decoded value in JSON-able form, or None."""

    run: str
    entity: str
    status: str
    result: Any
    nodes: list[NodeReport]
    started: float
    ended: float | None
    error: str = ""
    notes: list[str] = []


class RunSummary(msgspec.Struct, frozen=True):
    """A line of `headway runs`."""

    run: str
    entity: str
    status: str
    started: float
    ended: float | None
    nodes: int
    finished: int
    attempts: int
    error: str = ""


class CheckpointRow(msgspec.Struct, frozen=True):
    """A line of `headway checkpoints`.

    Attributes:
        node: of the run, or the lineage's name.
        number, attempt, kind, size, time: as in `CheckpointReport`.
        written: bytes that this save had to write.
        state: "live", "dropped" or "bad"; `error` says what is bad.
        metric: name and value of the number that `keep_best` compared.
        directories: names of the working directories in it.
    """

    node: str
    number: int
    attempt: int
    kind: str
    size: int
    written: int
    time: float
    state: str
    error: str = ""
    metric: tuple[str, float] | None = None
    directories: list[str] = []


class GarbageReport(msgspec.Struct, frozen=True):
    """A line of `headway gc`: what can go, or has gone, of one node, lineage or run.

    Attributes:
        where: the run and the node, or the run alone for what kills left of files.
        packs: how many packs.
        checkpoints: how many checkpoints were given up for it.
        size: bytes.
        skipped: why nothing was touched; "" when it was looked through.
    """

    where: str
    packs: int = 0
    checkpoints: int = 0
    size: int = 0
    skipped: str = ""


class CopyReport(msgspec.Struct, frozen=True):
    """What `headway copy` made: `size` is bytes of checkpoints, `notes` what could not be copied."""

    run: str
    home: str
    checkpoints: int
    size: int
    notes: list[str] = []


class Difference(msgspec.Struct, frozen=True):
    """Where a resumed run of `headway verify` first parts from the undisturbed one.

    Attributes:
        step: number of the step, from 1; None when all steps are the same and only the result differs.
        place: where that is in the loops, in words.
        entries: what differs there: paths in the state, `rng.numpy`, `loop position[0]`, names of outputs.
        attempt: the attempt that did the step.
        resumed: the step after which that attempt went on; 0 is the beginning.
        cause: the likely one, in a sentence or two.
        error: what the attempt failed with, when it did.
    """

    step: int | None
    place: str
    entries: list[str]
    attempt: int
    resumed: int
    cause: str
    error: str = ""


class VerifyReport(msgspec.Struct, frozen=True):
    """What `headway verify` found. `kills` are the steps at or after which the task was killed."""

    task: str
    identical: bool
    steps: int
    kills: list[int]
    seed: int
    difference: Difference | None = None

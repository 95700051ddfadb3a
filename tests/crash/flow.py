"""A program to be killed: three nodes whose bodies note what they do in a file beside the home.

`count` counts with a checkpoint for each step, and folds every number into its result, so that a step
that is lost, done twice or taken from elsewhere shows in the value.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from headway import current_context, task, workflow

SMALL, LARGE = 200, 40_000  # bytes of a checkpoint: in its record, and in a pack


def note(side: str, *words: object) -> None:
    """Add a line that is there on return, whoever is killed next."""
    fd = os.open(side, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    try:
        os.write(fd, json.dumps(words).encode() + b"\n")
    finally:
        os.close(fd)


@contextmanager
def alone(side: str) -> Iterator[None]:
    """Note the start and the end of a body, and whether another one of its node lives."""
    context = current_context()
    fd = os.open(f"{side}.{context.node}", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(side, "doubled", context.node, context.attempt)
        note(side, "start", context.node, context.attempt, os.getpid())
        yield
        note(side, "end", context.node, context.attempt, os.getpid())
    except Exception as error:
        note(side, "raised", context.node, context.attempt, type(error).__name__)
        raise
    finally:
        os.close(fd)


def fold(value: str, number: int) -> str:
    """One step of the count."""
    return hashlib.sha256(f"{value}/{number}".encode()).hexdigest()


def expected(n: int) -> str:
    """The result of `chain`, in an undisturbed world."""
    value = fold("first", n)
    for number in range(n):
        value = fold(value, number)
    return fold(value, -1)


@task
def first(side: str, n: int) -> str:
    with alone(side):
        return fold("first", n)


@task(keep="all")
def count(side: str, n: int, value: str, large: bool, pause: float) -> str:
    with alone(side):
        checkpoint = current_context().checkpoint
        saved = checkpoint.read()
        begin = 0
        if saved is not None:
            number, value, _ = json.loads(saved)
            begin = number + 1
        note(side, "read", begin - 1)
        for number in range(begin, n):
            value = fold(value, number)
            note(side, "saving", number)
            padding = "x" * (LARGE if large and number % 3 == 0 else SMALL)
            checkpoint.write(json.dumps([number, value, padding]).encode())
            note(side, "acked", number)
            time.sleep(pause)
        return value


@task
def last(side: str, value: str) -> str:
    with alone(side):
        return fold(value, -1)


@task
def unlucky(side: str) -> str:
    """Attempt 1 dies before it has written anything, and attempt 2 before it has read anything."""
    with alone(side):
        attempt, checkpoint = current_context().attempt, current_context().checkpoint
        if attempt == 0:
            checkpoint.write(b"of attempt 0")
        if attempt == 1:
            checkpoint.read()
        if attempt < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"attempt {attempt} found {checkpoint.read()!r}"


@task
def spoiled(side: str) -> str:
    """What it saved last is damaged when the next attempt comes."""
    with alone(side):
        attempt, checkpoint = current_context().attempt, current_context().checkpoint
        if attempt == 0:
            checkpoint.write(b"the older")
            checkpoint.write(b"the newest" * 10_000)
            packs = os.path.join(
                os.environ["HEADWAY_HOME"], "runs", current_context().run, "nodes/spoiled/packs"
            )
            for name in os.listdir(packs):
                with open(os.path.join(packs, name), "r+b") as pack:
                    pack.write(b"T")
            os.kill(os.getpid(), signal.SIGKILL)
        return repr(checkpoint.read())


@task(retries=1)
def patient(side: str, gate: str) -> str:
    """From attempt 1 on it waits before it reads, so that its reading can be disturbed."""
    with alone(side):
        attempt, checkpoint = current_context().attempt, current_context().checkpoint
        if attempt == 0:
            checkpoint.write(b"of attempt 0" * 10_000)
            os.kill(os.getpid(), signal.SIGKILL)
        end = time.monotonic() + 60
        while not os.path.exists(f"{gate}-{attempt}"):
            assert time.monotonic() < end
            time.sleep(0.001)
        data = checkpoint.read()
        return f"attempt {attempt} found {'nothing' if data is None else data[:12].decode()}"


@task
def hoard(side: str) -> str:
    """Fills the disk of the home, once, and returns more than the journal has room for."""
    with alone(side):
        if current_context().attempt == 0:
            with open(os.path.join(os.environ["HEADWAY_HOME"], "hoard"), "wb", 0) as file:
                for size in (1 << 16, 1 << 12, 1):
                    with suppress(OSError):
                        while file.write(bytes(size)):
                            pass
        return "x" * 30_000


@task
def table(n: int) -> bytes:
    """A value that is too large for the journal."""
    return b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(n))


@task
def sleeper(value: str, data: bytes, forever: bool) -> int:
    """Ends at once, or never."""
    while forever:
        time.sleep(0.1)
    return len(value) + len(data)


@workflow
def ledgered(side: str, n: int, forever: bool) -> tuple[str, bytes, int]:
    """Everything that a home can hold: checkpoints in records and in packs, values in both places."""
    value, data = count(side=side, n=n, value="", large=True, pause=0.0), table(n=1_050)
    return value, data, sleeper(value=value, data=data, forever=forever)


@workflow
def chain(side: str, n: int = 10, large: bool = True, pause: float = 0.0) -> str:
    value = first(side=side, n=n)
    return last(side=side, value=count(side=side, n=n, value=value, large=large, pause=pause))

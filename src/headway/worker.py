"""A worker: the forked child that runs attempts, one after another while it stays clean.

The keeper finds `serve` by name. The main thread runs the body; SIGTERM raises `Preempted` there.
What a body does to its process (threads, children, directory, environment …) makes the process unfit
for another attempt; so does every failure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from headway import compose
from headway.checkpoint.handle import Checkpoint
from headway.engine.call import run_body
from headway.engine.context import Context, entered
from headway.engine.keys import beside, node_prefix, values_prefix
from headway.engine.loading import find_entity
from headway.engine.rates import record_of
from headway.engine.task import Task
from headway.engine.values import Values
from headway.executors import family
from headway.executors.failure import CommandFailed, raised
from headway.executors.notice import Notice
from headway.executors.output import Output, flush
from headway.executors.traces import Traces, traces, with_environment
from headway.executors.wire import Kind, receive_frame, send_frame
from headway.model.errors import DefinitionError, HeadwayError
from headway.model.outcome import Outcome
from headway.model.program import (
    AttemptSpec,
    CommandEnded,
    Message,
    Program,
    Raised,
    Returned,
    Watch,
)
from headway.ports import Storage


def serve(sock: socket.socket, keeper: int, scratch: str) -> None:
    """Run attempts until one leaves the process unclean, or until the keeper has no more.

    Then the interpreter ends as usual: exit handlers run, last threads are waited for (the keeper's
    patience limits both).

    Args:
        sock: the keeper's channel, blocking.
        keeper: pid of the keeper, this process's parent.
        scratch: directory for copies of files, which the keeper removes; "" when there is none.
    """
    os.setsid()  # a process group of its own, and no terminal: Ctrl-C is for the driver
    family.die_with_parent(keeper)
    family.adopt_orphans()  # a daemon that a body started is seen as a child that is left
    family.name_process("headway worker")
    notice = Notice()
    notice.install()
    output = Output()
    speaker = _Speaker(sock, notice)
    clean = True
    while clean and (frame := receive_frame(sock)) is not None:
        spec = msgspec.msgpack.decode(frame[1], type=AttemptSpec)
        try:
            output.to_log(spec.log)
        except OSError as error:
            speaker.last(_no_log(spec.log, error))
            return
        answer = attempt(spec, speaker.note, notice, Path(scratch) if scratch else None)
        if isinstance(answer, Returned) and answer.clean:
            answer = msgspec.structs.replace(answer, silent=output.back())
        else:
            flush()  # exit handlers may still print: the log stays in place for them
        clean = speaker.last(answer)


@functools.lru_cache(maxsize=1)
def _storage(home: str) -> Storage:
    """The home, opened once by a worker that serves many attempts."""
    return compose.open_storage(home)


@functools.lru_cache(maxsize=64)
def _task(name: str, program: Program) -> Task[..., Any]:
    """A task of the program, looked up once by a worker that serves many attempts."""
    task = find_entity(name, program)
    if not isinstance(task, Task):
        raise DefinitionError(f"{name} is no task; decorate it with @task.")
    return task


def attempt(
    spec: AttemptSpec,
    send: Callable[[Message], None],
    notice: Notice,
    scratch: Path | None = None,
) -> Returned | Raised | CommandEnded:
    """Run one attempt in this process.

    Args:
        spec: what to run.
        send: takes `Saved` and `Warned`, from any thread.
        notice: says when the process was told to go.
        scratch: directory for copies of files; None is the system's place for such.

    Returns:
        The last message of the attempt.
    """
    opened: list[Checkpoint | Values] = []
    try:
        with notice:
            _set_environment(spec)
            storage = _storage(spec.home)
            with notice.importing():
                task = _task(spec.task, spec.program)

            def checkpoint_of(node: str) -> Checkpoint:
                found = Checkpoint(
                    storage,
                    node_prefix(spec.run, node),
                    attempt=spec.attempt,
                    inputs=spec.inputs_digest,
                    on_saved=send,
                    on_warning=send,
                    scratch=scratch,
                    keep=spec.keep,
                    keep_best=spec.keep_best,
                )
                opened.append(found)
                return found

            checkpoint = checkpoint_of(spec.node)
            values = Values(storage, values_prefix(spec.run), scratch)
            opened.append(values)
            context = Context(
                spec.run,
                spec.node,
                spec.attempt,
                spec.retries_left,
                checkpoint,
                notice,
                send,
                inputs=spec.inputs_digest,
                scratch=scratch,
                record=functools.partial(record_of, storage, spec.run),
                beside=lambda name: checkpoint_of(beside(spec.node, name)),
            )
            before = _before(task)
            with _watched(spec.watch, context) as context:
                outputs = _run(task, spec.inputs, values, context)
    except CommandFailed as failed:
        return CommandEnded(failed.code)
    except BaseException as error:  # noqa: BLE001  # whatever ends a body is reported, not raised
        return raised(error, told=notice.told)
    finally:
        for each in opened:
            each.close()
    after = traces()
    clean = after == before and not family.has_children()
    _after[:] = [(task, after)] if clean else []
    return Returned(outputs, clean=clean)


@contextlib.contextmanager
def _watched(watch: Watch | None, context: Context) -> Iterator[Context]:
    """The context of an attempt that `headway verify` looks at, where it does."""
    if watch is None:
        yield context
        return
    from headway.engine.watching import Watcher  # only a verification needs it

    with Watcher(watch, context) as watcher:
        yield dataclasses.replace(context, observe=watcher.see, every=watch.every)


_after: list[tuple[Task[..., Any], Traces]] = []  # the last attempt's task, and how it left things


def _before(task: Task[..., Any]) -> Traces:
    """How things are before a body runs.

    In a clean worker nothing but headway ran since the last body, and of what is looked at it changes the
    environment alone. Another task may have been imported only now, so everything is looked at.
    """
    if _after and _after[0][0] is task:
        return with_environment(_after[0][1])
    return traces()


def _run(
    task: Task[..., Any], inputs: dict[str, Any], values: Values, context: Context
) -> dict[str, Any]:
    process = os.getpid()
    try:
        with entered(context):
            outputs = run_body(task, inputs, values)
    except BaseException as error:
        if os.getpid() != process:
            _end_fork(error)
        raise
    if os.getpid() != process:
        _end_fork(None)
    return outputs


def _end_fork(error: BaseException | None) -> NoReturn:
    """End a process that the body forked and let run to its end: only the worker may answer."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    flush()
    os._exit(code & 0xFF)


def _set_environment(spec: AttemptSpec) -> None:
    """What a body, and the programs that it starts, can learn about the attempt without headway."""
    os.environ["HEADWAY_HOME"] = spec.home
    os.environ["HEADWAY_RUN"] = spec.run
    os.environ["HEADWAY_NODE"] = spec.node
    os.environ["HEADWAY_ATTEMPT"] = str(spec.attempt)
    os.environ.pop("HEADWAY_EXEC", None)  # it was for a command around this run
    sys.argv[:] = [spec.program.path or spec.program.module]


class _Speaker:
    """Sends messages to the keeper, whole and one at a time."""

    def __init__(self, sock: socket.socket, notice: Notice) -> None:
        self._sock = sock
        self._notice = notice
        self._lock = threading.Lock()

    def note(self, message: Message) -> None:
        self._send(Kind.NOTE, msgspec.msgpack.encode(message))

    def last(self, answer: Returned | Raised | CommandEnded) -> bool:
        """Send the last message of an attempt; whether there may be another attempt."""
        try:
            payload = msgspec.msgpack.encode(answer)
        except Exception as error:  # noqa: BLE001  # an integer of more than 64 bits, for example
            payload = msgspec.msgpack.encode(answer := raised(error))
        clean = isinstance(answer, Returned) and answer.clean
        self._send(Kind.LAST_CLEAN if clean else Kind.LAST, payload)
        return clean

    def _send(self, kind: Kind, payload: bytes) -> None:
        with self._notice.shield(), self._lock:
            try:
                send_frame(self._sock, kind, payload)
            except OSError as error:
                raise HeadwayError(
                    f"the worker lost its connection to headway ({error.strerror}). Did the task "
                    "close file descriptors that it had not opened?"
                ) from error


def _no_log(path: str, error: OSError) -> Raised:
    return Raised(
        kind=Outcome.APP_ERROR,
        type=type(error).__name__,
        message=f"the log of the attempt cannot be written: {error.strerror}: {path}",
        traceback="",
    )

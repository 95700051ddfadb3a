"""Task bodies for the executor's contract: each does one thing to the process it runs in."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from headway import NonRecoverableError, Preempted, RecoverableError, current_context, task
from headway.model.errors import CheckpointFenced, InputError, StorageUnavailable
from headway.model.program import Warned

IMPORTED = time.monotonic_ns()


@task
def double(number: int) -> int:
    return 2 * number


@task
def identity() -> list[int]:
    """When this module was imported, and in which process it runs."""
    return [IMPORTED, os.getpid()]


@task
def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@task
def many_texts() -> tuple[str, str, str, str, str, str, str, str, str]:
    """As much as a result can hold without going to the home instead."""
    text = "x" * 30_000
    return text, text, text, text, text, text, text, text, text


@task
def environment() -> list[str]:
    context = current_context()
    names = ("HEADWAY_RUN", "HEADWAY_NODE", "HEADWAY_ATTEMPT", "HEADWAY_HOME")
    return [
        *(os.environ[name] for name in names),
        *(context.run, context.node, str(context.attempt), str(context.retries_left)),
    ]


class Strange(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@task
def fail(how: str) -> int:
    errors: dict[str, BaseException] = {
        "value": ValueError("seven"),
        "type": TypeError("not that"),
        "input": InputError("wrong input"),
        "memory": MemoryError(),
        "recoverable": RecoverableError("once more"),
        "hopeless": NonRecoverableError("never"),
        "fenced": CheckpointFenced("a newer one"),
        "storage": StorageUnavailable("the disk is away"),
        "preempted": Preempted("told"),
        "interrupt": KeyboardInterrupt(),
        "strange": Strange(),
        "group": ExceptionGroup("two", [ValueError("a"), NonRecoverableError("b")]),
    }
    raise errors[how]


@task
def exit_python(code: int) -> int:
    sys.exit(code)


@task
def exit_process(code: int) -> int:
    os._exit(code)


@task
def segfault() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)
    return 0


@task
def change_its_output(what: str) -> str:
    """Change descriptor 1 without a word; says how it was found."""
    found = "blocking" if os.get_blocking(1) else "not blocking"
    if what == "blocking":
        os.set_blocking(1, False)
    elif what == "file":
        here = (os.fstat(1).st_dev, os.fstat(1).st_ino)
        for fd in range(3, 64):
            with contextlib.suppress(OSError):
                if (os.fstat(fd).st_dev, os.fstat(fd).st_ino) == here:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
    return found


@task
def speak() -> int:
    print("from python")
    print("from stderr", file=sys.stderr)
    os.write(1, b"from a descriptor\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"from C")
    libc.fflush(None)
    subprocess.run(["/bin/sh", "-c", "echo from a program; echo and its stderr >&2"], check=True)
    libc.puts(b"held back by C")
    sys.stdout.write("no newline")
    return 1


def _say_pid(path: str) -> None:
    made = Path(path + ".part")
    made.write_text(str(os.getpid()))
    made.rename(path)


@task
def wait(pid_file: str) -> int:
    """Runs until it is told to go."""
    try:
        _say_pid(pid_file)
        while True:
            time.sleep(60)
    finally:
        print("cleaned up")


@task
def wait_stubbornly(pid_file: str) -> int:
    """Runs until it is killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _say_pid(pid_file)
    while True:
        time.sleep(60)


@task
def wait_in_c(pid_file: str) -> int:
    """Holds the interpreter lock for ever: it waits in C for a lock that it has itself."""
    mutex = ctypes.create_string_buffer(256)
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    lock(mutex)
    try:
        _say_pid(pid_file)
        lock(mutex)
    except Preempted:  # the request came before it was there
        lock(mutex)
    return 0


@task
def finish_when_told(pid_file: str) -> str:
    """Swallows the request to leave, ignores that it is repeated, and returns."""
    try:
        _say_pid(pid_file)
        while True:
            time.sleep(60)
    except Preempted:
        os.kill(os.getpid(), signal.SIGTERM)
        return "saved"


@task
def shrug_off_interrupt() -> int:
    os.kill(os.getpid(), signal.SIGINT)
    return 1


def _detach(pid_file: str) -> None:
    """A daemon, as the books have it: fork, setsid, fork, all descriptors but the standard closed."""
    if (child := os.fork()) != 0:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.closerange(3, 64)
    _say_pid(pid_file)
    while True:
        time.sleep(60)


@task
def leave_daemon(pid_file: str, die: bool) -> int:
    _detach(pid_file)
    while not Path(pid_file).exists():
        time.sleep(0.002)
    if die:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1


@task
def family(pid_file: str) -> int:
    """Runs until it is killed, with a child and a daemon."""
    _detach(pid_file + ".daemon")
    subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {pid_file}.child; sleep 600 & wait"])
    while not (Path(pid_file + ".daemon").exists() and Path(pid_file + ".child").exists()):
        time.sleep(0.002)
    _say_pid(pid_file)
    time.sleep(600)
    return 0


@task
def fork_and_return(how: str) -> str:
    """The child runs on to the end of the body, as if it were the worker."""
    child = os.fork()
    if child == 0:
        if how == "exit":
            sys.exit(7)
        if how == "raise":
            raise ValueError("in the child")
        return "child"
    return f"parent of {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


@task
def terminate_child() -> int:
    """How a forked child sees SIGTERM: as any process would."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@task
def leave_trace(what: str) -> int:
    match what:
        case "thread":
            threading.Thread(target=time.sleep, args=(0.05,)).start()
        case "daemon thread":
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        case "child":
            subprocess.Popen(["/bin/sleep", "600"])
        case "directory":
            os.chdir("/")
        case "environment":
            os.environ["LEFT_BEHIND"] = "1"
        case "handler":
            signal.signal(signal.SIGUSR1, lambda *_: None)
        case "umask":
            os.umask(0o007)
        case "timer":
            signal.setitimer(signal.ITIMER_REAL, 600)
        case "limit":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        case "stdout":
            sys.stdout.close()
        case _:
            pass
    return os.getpid()


@task
def print_at_exit() -> int:
    atexit.register(print, "the end")
    os.environ["LEFT_BEHIND"] = "1"  # unclean, so that the process ends
    return 1


@task
def close_descriptors() -> int:
    os.closerange(3, 64)
    return 1


@task
def save_twice() -> int:
    checkpoint = current_context().checkpoint
    checkpoint.write(b"one")
    checkpoint.write(b"two")
    return 2


@task
def touch_at_exit(path: str) -> int:
    atexit.register(Path(path).touch)
    return 1


@task
def chatter(pid_file: str, count: int) -> int:
    """Has more to say than the sockets hold."""
    _say_pid(pid_file)
    checkpoint = current_context().checkpoint
    for number in range(count):
        checkpoint._turn._on_warning(Warned("chatter", f"{number} {'x' * 1000}"))
    return count


@task
def babble() -> int:
    """Writes into descriptors that are not its own."""
    for fd in range(3, 64):
        try:
            os.write(fd, b"SOS" * 100)
        except OSError:
            pass
    return 1


@task
def restore_and_be_killed(note: str) -> int:
    checkpoint = current_context().checkpoint
    checkpoint.write(b"state")
    Path(note).write_text(str(checkpoint.restore()))
    os.kill(os.getpid(), signal.SIGKILL)
    return 1

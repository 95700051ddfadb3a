"""What a body left behind in its process, by which a clean worker is told from a used one."""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import threading
from typing import NamedTuple

# What `signal.getsignal` wraps: making members of enumerations of the answers takes ten times as long.
_handler = importlib.import_module("_signal").getsignal

OWN = "headway"
"""What the names of headway's own threads begin with: of a store's client, for example, which lives on."""

_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})

# Those that programs handle. To ask for all takes as long as the rest of a short attempt.
_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class Traces(NamedTuple):
    """All that the next body in this process would notice. Equal before and after: clean.

    What is not seen: state of modules, such as globals, caches and random generators.
    """

    directory: str | None
    environment: dict[bytes, bytes]
    umask: int
    priority: int
    limits: list[tuple[int, int]]
    handlers: list[object]
    timer: bool
    streams: tuple[int, int, int]
    threads: set[int | None]


def traces() -> Traces:
    """The state of this process now."""
    umask = os.umask(0o077)
    os.umask(umask)
    return Traces(
        directory=_directory(),
        environment=_environment(),
        umask=umask,
        priority=os.getpriority(os.PRIO_PROCESS, 0),
        limits=[resource.getrlimit(limit) for limit in _LIMITS],
        handlers=[_handler(number) for number in _SIGNALS],
        timer=signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0),
        streams=(_open(sys.stdin), _open(sys.stdout), _open(sys.stderr)),
        threads={
            thread.ident for thread in threading.enumerate() if not thread.name.startswith(OWN)
        },
    )


def with_environment(found: Traces) -> Traces:
    """`found` with the environment of now, when nothing else has changed."""
    return found._replace(environment=_environment())


def _environment() -> dict[bytes, bytes]:
    # The mapping's own iteration decodes and checks every name; below it is a plain dict of bytes.
    return dict(getattr(os.environ, "_data", os.environb))


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _open(stream: object) -> int:
    """Which object a standard stream is; 0 when it is closed."""
    return 0 if getattr(stream, "closed", True) else id(stream)

"""Where a home's runs have files on this machine: locks, and what running attempts print.

A lock and a growing log need a filesystem. When the home is a directory, it is that one, and a run's
files are among all else of the run. When the home is a store, they are below the user's directory for
state, in one directory per home: what is there matters to this machine only, and can be lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from pathlib import Path

from headway.engine.keys import log_key, run_prefix
from headway.model.errors import InputError

_NAME = "place"


class Place:
    """A home's place on this machine.

    Args:
        url: the home's; an absolute path when it is a directory.

    Raises:
        InputError: the user has no directory for state.

    Attributes:
        url: the home's.
        is_home: the place is the home itself.
        root: the place's directory, laid out like a home.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_home = os.path.isabs(url)
        self.root = (
            Path(url) if self.is_home else _state() / hashlib.sha256(url.encode()).hexdigest()[:16]
        )

    def run(self, run: str) -> Path:
        """A run's directory: its locks, and its logs below it."""
        return self.root / run_prefix(run)

    def log(self, run: str, node: str, attempt: int) -> Path:
        """The file that takes what an attempt prints."""
        return self.root / log_key(run, node, attempt)

    def prepare(self) -> None:
        """Make the place, private to this user, unless it is the home itself.

        Raises:
            OSError: it cannot be made.
        """
        if self.is_home or self.root.is_dir():
            return
        self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.mkdir(mode=0o700, exist_ok=True)
        (self.root / "home.txt").write_text(f"{self.url}\n", encoding="utf-8")  # for people

    def identity(self) -> str:
        """A random name, the same for all processes that share this place and see each other's locks.

        Raises:
            OSError: it could not be read or made.
        """
        self.prepare()
        path = self.root / _NAME
        if not path.exists():
            temporary = self.root / f".tmp-{secrets.token_hex(8)}"
            try:
                with open(temporary, "x", encoding="ascii") as file:
                    file.write(secrets.token_hex(8))
                    file.flush()
                    os.fsync(file.fileno())  # an empty name after a power cut would be everybody's
                with contextlib.suppress(FileExistsError):  # another process was faster: it counts
                    os.link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return path.read_text(encoding="ascii")

    def tidy(self, run: str) -> None:
        """Remove what a run that is over has here, but for logs that could not be sent. Never raises."""
        if self.is_home:
            return
        with contextlib.suppress(OSError):
            if not any(path.stat().st_size for path in self.run(run).rglob("*.log")):
                self.forget(run)

    def forget(self, run: str) -> None:
        """Remove what a deleted run still has here. Never raises; a home that is a directory has
        nothing of its own here."""
        if not self.is_home:
            shutil.rmtree(self.run(run), ignore_errors=True)


def _state() -> Path:
    """The user's directory for state, by the XDG convention: a relative path there is to be ignored."""
    named = os.environ.get("XDG_STATE_HOME", "")
    base = named if os.path.isabs(named) else os.path.expanduser("~/.local/state")
    if not os.path.isabs(base):
        raise InputError(
            "this user has no home directory, so there is no place for locks and logs. Name one for them: "
            "export XDG_STATE_HOME=/some/directory"
        )
    return Path(base, "headway")

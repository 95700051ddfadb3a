"""`File` and `Directory`: paths whose content travels.

A plain path means something on one machine only. A `File` that a task returns is copied into the
home, and the task that takes it gets a copy of its own below a scratch directory, fetched when it is
first looked at.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self


class Stored:
    """What the home keeps for a `File` or `Directory`.

    Args:
        owner: the blobs it is kept in; only there does `plain` mean anything.
        plain: its encoded form.
        name: its own name, without directories.
        fetch: makes a fresh copy and returns its path.
    """

    def __init__(self, owner: object, plain: Any, name: str, fetch: Callable[[], Path]) -> None:
        self.owner = owner
        self.plain = plain
        self.name = name
        self.fetch = fetch


class _Kept(os.PathLike[str]):
    """A path here, or content in the home that becomes one when it is needed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._stored: Stored | None = None  # set until the content has been fetched
        self._lock = threading.Lock()

    @classmethod
    def from_home(cls, stored: Stored) -> Self:
        """One whose content is in the home, to be fetched when it is first looked at."""
        value = cls(stored.name)
        value._stored = stored
        return value

    @property
    def stored(self) -> Stored | None:
        """What the home keeps for it, as long as nobody has looked at it here, else None."""
        return self._stored

    @property
    def path(self) -> Path:
        """Where the content is on this machine; the first look fetches it from the home.

        Raises:
            StorageError: the home could not be read.
            CheckpointCorrupt: the home holds something else than what was stored.
        """
        with self._lock:
            if self._stored is not None:
                self._path = self._stored.fetch()
                self._stored = None
            return self._path

    @property
    def name(self) -> str:
        """The last part of the path; does not fetch."""
        return self._path.name

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        kind, stored = type(self).__name__, self._stored
        return (
            f"{kind}({str(self._path)!r})" if stored is None else f"<{kind} {self.name!r}, stored>"
        )

    def __reduce__(self) -> NoReturn:
        kind = type(self).__name__
        raise TypeError(
            f"a {kind} cannot travel inside a pickled object, its content would stay behind: give it "
            f"a parameter, or a field of a dataclass, annotated as {kind}"
        )


class File(_Kept):
    """A regular file whose content is kept in the home when it crosses a task boundary.

    Use it wherever a path is taken (`open(file)`), or through `file.path`.

    Args:
        path: the file; it is read when the value is passed or returned, not before.
    """


class Directory(_Kept):
    """A directory whose whole content is kept in the home when it crosses a task boundary.

    Names, modes and empty directories are kept; symlinks and special files inside are refused.

    Args:
        path: the directory; it is read when the value is passed or returned, not before.
    """

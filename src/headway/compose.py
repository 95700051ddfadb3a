"""The only file that names concrete parts: which storage a home is, which executor runs attempts."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

import msgspec

from headway.model.errors import CheckpointCorrupt, InputError, StorageDenied, StorageUnavailable
from headway.ports import Clock, Executor, KeyExists, KeyMissing, Storage
from headway.storage.faults import storage_error
from headway.storage.local import LocalStorage

FORMAT = 1
"""Version of what this headway writes into a home."""

MARKER = "headway.json"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class _Marker(msgspec.Struct):
    """What `headway.json` holds."""

    format: int


class SystemClock:
    """The machine's clocks."""

    def time(self) -> float:
        """See `ports.Clock.time`."""
        return time.time()

    def monotonic(self) -> float:
        """See `ports.Clock.monotonic`. Stands still while the machine sleeps, as attempts do."""
        return time.monotonic()


def home_path(url: str) -> Path:
    """The absolute path of the home `url`: a directory's path, or a `file://` URL.

    Raises:
        InputError: it is neither.
    """
    scheme = _SCHEME.match(url)
    if scheme is not None and scheme[1].lower() != "file":
        raise InputError(
            f"a home must be a directory, and {url!r} is a {scheme[1]} URL, which this release cannot "
            "keep runs in. Name a directory with --home or HEADWAY_HOME."
        )
    text = url if scheme is None else url[scheme.end() :]
    if not text or "\0" in text:
        raise InputError(f"{url!r} is not a home. Name a directory with --home or HEADWAY_HOME.")
    return Path(os.path.abspath(os.path.expanduser(text)))


def open_storage(url: str, *, create: bool = False) -> Storage:
    """Open a home.

    Args:
        url: its path or `file://` URL.
        create: make it when it is not there, and mark it with the format's version.

    Raises:
        InputError: `url` cannot be a home, or a newer headway wrote it.
        StorageError: it is not there (when not `create`), or could not be read or made, or its
            filesystem does not create files exclusively, on which everything rests.
        CheckpointCorrupt: its marker is damaged.
    """
    root = home_path(url)
    bare = LocalStorage(root)
    try:
        marker = bare.read(MARKER)
    except KeyMissing:
        if not create:
            raise StorageUnavailable(
                f"there is no home at {root}: nothing was run there yet, or its disk is not mounted. "
                "`headway run` makes a home; --home or HEADWAY_HOME names another."
            ) from None
        _make(root)
        marker = bare.read(MARKER)
    try:
        version = msgspec.json.decode(marker, type=_Marker).format
    except msgspec.DecodeError as error:
        raise CheckpointCorrupt(
            f"{root / MARKER} is not readable ({error}), so it is not clear what wrote this home. If "
            f'all in it is of this headway, put {{"format": {FORMAT}}} there.'
        ) from error
    if version > FORMAT:
        raise InputError(
            f"the home {root} is of format {version}, and this headway knows formats up to {FORMAT}. "
            "Update headway (`pip install -U headway`), or name another home with --home."
        )
    return LocalStorage(root, marker=MARKER)


def _make(root: Path) -> None:
    """Make the home's directory and its marker, and see whether exclusive creation works."""
    made = []
    try:
        for directory in [root, *root.parents]:
            if directory.is_dir():
                break
            made.append(directory)
        for directory in reversed(made):
            with contextlib.suppress(FileExistsError):  # two commands at once are fine
                # Private: others who could write here could have us load their pickles.
                directory.mkdir(mode=0o700)
            parent = os.open(directory.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
    except OSError as error:
        raise storage_error(error, f"make the home {root}") from error
    with contextlib.suppress(KeyExists):
        LocalStorage(root).create(MARKER, msgspec.json.encode(_Marker(FORMAT)) + b"\n")
    prove_exclusive(LocalStorage(root))


def prove_exclusive(storage: Storage) -> None:
    """Refuse a home whose filesystem lets two creators of one file both win (P20).

    Every claim of a ledger is such a file: without this, two drivers could both believe that a run
    is theirs. The home's marker is there already, so creating it again must fail.

    Raises:
        StorageDenied: it did not.
    """
    try:
        storage.create(MARKER, msgspec.json.encode(_Marker(FORMAT)) + b"\n")
    except KeyExists:
        return
    raise StorageDenied(
        f"the filesystem of {storage.url} does not create files exclusively: a second creation of "
        f"{MARKER} succeeded. Runs would not be safe there; name a home on another filesystem with "
        "--home or HEADWAY_HOME."
    )


def make_executor(jobs: int | None, *, lock_fd: int | None = None) -> Executor:
    """Where attempts run.

    Args:
        jobs: how many at once; None: as many as there are cores.
        lock_fd: a descriptor that every process of the executor is to hold open.
    """
    from headway.executors.local import LocalExecutor  # a worker needs this module, and not that

    return LocalExecutor(jobs, lock_fd=lock_fd)


def make_clock() -> Clock:
    """The time."""
    return SystemClock()

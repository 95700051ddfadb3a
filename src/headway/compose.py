"""The only file that names concrete parts: which storage a home is, which executor runs attempts."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from headway.model.errors import CheckpointCorrupt, InputError, StorageDenied, StorageUnavailable
from headway.ports import Clock, Executor, KeyExists, KeyMissing, Storage
from headway.storage.faults import storage_error
from headway.storage.local import LocalStorage

_OBJECT_STORES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az"}
TIMEOUT, PATIENCE = "HEADWAY_STORE_TIMEOUT", "HEADWAY_STORE_PATIENCE"

FORMAT = 1
"""Version of what this headway writes into a home."""

MARKER = "headway.json"
_LONGEST_MARKER = 4096  # bytes; whatever is behind that was not written by us
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET_URL = re.compile(r"([A-Za-z0-9]+)://([^/?#\s]+)(/[^?#]*)?")


class _Marker(msgspec.Struct, omit_defaults=True):
    """What `headway.json` holds."""

    format: int
    made: str = ""


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
            f"a home must be a directory or a bucket (s3://, gs://, az://), and {url!r} is a "
            f"{scheme[1]} URL. Name one with --home or HEADWAY_HOME."
        )
    text = url if scheme is None else url[scheme.end() :]
    if not text or "\0" in text:
        raise InputError(f"{url!r} is not a home. Name a directory with --home or HEADWAY_HOME.")
    return Path(os.path.abspath(os.path.expanduser(text)))


def open_storage(url: str, *, create: bool = False) -> Storage:
    """Open a home.

    Args:
        url: its path or `file://` URL, or an `s3://`, `gs://` or `az://` URL.
        create: make it when it is not there, and mark it with the format's version.

    Raises:
        InputError: `url` cannot be a home, or a newer headway wrote it.
        StorageError: it is not there (when not `create`), or could not be read or made, or its
            filesystem or store does not create exclusively, on which everything rests.
        CheckpointCorrupt: its marker is damaged.
    """
    scheme = _SCHEME.match(url)
    if scheme is not None and scheme[1].lower() in _OBJECT_STORES:
        bare, storage = _in_bucket(url)
        _check(bare, create, lambda: _mark(bare))
        return storage
    root = home_path(url)
    local = LocalStorage(root)
    _check(local, create, lambda: _make(root))
    return LocalStorage(root, marker=MARKER)


def _check(bare: Storage, create: bool, make: Callable[[], None]) -> None:
    """See that a home is there and that this headway knows its format; `make` it if it is to be made."""
    try:
        marker = bare.read_range(MARKER, 0, _LONGEST_MARKER)
    except KeyMissing:
        if not create:
            raise StorageUnavailable(
                f"there is no home at {bare.url}: nothing was run there yet, or its disk is not "
                "mounted. `headway run` makes a home; --home or HEADWAY_HOME names another."
            ) from None
        make()
        marker = bare.read_range(MARKER, 0, _LONGEST_MARKER)
    try:
        version = msgspec.json.decode(marker, type=_Marker).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointCorrupt(
            f"{bare.url}/{MARKER} is not readable ({error}), so it is not clear what wrote this home. "
            f'If all in it is of this headway, put {{"format": {FORMAT}}} there.'
        ) from error
    if version > FORMAT:
        raise InputError(
            f"the home {bare.url} is of format {version}, and this headway knows formats up to "
            f"{FORMAT}. Update headway (`pip install -U headway`), or name another home with --home."
        )


def _in_bucket(url: str) -> tuple[Storage, Storage]:
    """The home at a bucket's URL: without looking for its marker, and with."""
    match = _BUCKET_URL.fullmatch(url)
    if match is None:
        raise InputError(
            f"{url!r} is not a home: it needs a bucket, and may have names behind it, as in "
            "--home s3://bucket/teams/vision (or HEADWAY_HOME)."
        )
    scheme, bucket, prefix = _OBJECT_STORES[match[1].lower()], match[2], (match[3] or "").strip("/")
    try:
        from headway.storage.client import open_bucket
    except ModuleNotFoundError as error:
        raise InputError(
            f"a home at {url} needs the package {error.name}: pip install 'headway[object]'"
        ) from error
    from headway.storage.object import Limits, ObjectStorage

    limits = Limits(patience=_seconds(PATIENCE, Limits().patience))
    opened = open_bucket(scheme, bucket, prefix, timeout=_seconds(TIMEOUT, 30.0))
    home = f"{scheme}://{bucket}/{prefix}".rstrip("/")
    return (
        ObjectStorage(opened, home, limits=limits),
        ObjectStorage(opened, home, marker=MARKER, limits=limits),
    )


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text or default)
    except ValueError:
        value = 0.0
    if not 0 < value < 86400:
        raise InputError(f"{name} must be a number of seconds above 0, and is {text!r}")
    return value


def _mark(storage: Storage) -> None:
    with contextlib.suppress(KeyExists):
        storage.create(MARKER, _marker(storage))
    prove_exclusive(storage)


def _marker(storage: Storage) -> bytes:
    """What the marker holds. On an object store no two are alike, so that a creation whose reply was lost
    can be told from somebody else's."""
    made = "" if isinstance(storage, LocalStorage) else secrets.token_hex(8)
    return msgspec.json.encode(_Marker(FORMAT, made)) + b"\n"


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
        LocalStorage(root).create(MARKER, _marker(LocalStorage(root)))
    prove_exclusive(LocalStorage(root))


def prove_exclusive(storage: Storage) -> None:
    """Refuse a home that lets two creators of one file or object both win (P20).

    Every claim of a ledger is such a file: without this, two drivers could both believe that a run
    is theirs. The home's marker is there already, so creating it again must fail.

    Raises:
        StorageDenied: it did not.
    """
    try:
        storage.create(MARKER, _marker(storage))
    except KeyExists:
        return
    if isinstance(storage, LocalStorage):
        what, other = "the filesystem of {} does not create files exclusively", "filesystem"
    else:
        what, other = "the store of {} ignores conditional writes (If-None-Match: *)", "store"
    raise StorageDenied(
        f"{what.format(storage.url)}: a second creation of {MARKER} succeeded. Runs would not be safe "
        f"there; name a home on another {other} with --home or HEADWAY_HOME."
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

"""How much lies under a key, and what kills left of creations and deletions: for looking after a home.

Nothing that is right or wrong depends on it, so it is no part of the `Storage` that everything else is
built on. What cannot be told (of a wrapper, of a store in memory) counts as nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from headway.ports import Storage
from headway.storage.local import LocalStorage
from headway.storage.object import ObjectStorage

_HIDDEN = ".tmp-"


def usage(storage: Storage, prefix: str) -> int:
    """Bytes under `prefix` and everything below it, hidden names included."""
    if isinstance(storage, LocalStorage):
        return _size(storage.path(prefix))
    if isinstance(storage, ObjectStorage):
        return storage.usage(prefix)
    return 0


def leftovers(storage: Storage, prefix: str, *, deep: bool = True) -> int:
    """Bytes below `prefix` of creations and deletions that are in progress, or that a kill cut short.

    Args:
        storage: the home.
        prefix: where to look.
        deep: also further down than directly below it.
    """
    return sum(map(_size, _hidden(storage, prefix, deep)))


def clear_leftovers(storage: Storage, prefix: str, *, deep: bool = True) -> int:
    """Remove what `leftovers` counts; the bytes given back. Whoever calls it knows that nobody is at
    work there. What cannot be removed is left where it is."""
    freed = 0
    for path in [*_hidden(storage, prefix, deep)]:
        size = _size(path)
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:
            continue
        freed += size
    return freed


def _hidden(storage: Storage, prefix: str, deep: bool) -> Iterator[Path]:
    if not isinstance(storage, LocalStorage):
        return  # a store shows whole objects alone
    for base, directories, files in os.walk(storage.path(prefix)):
        for name in [*directories, *files]:
            if name.startswith(_HIDDEN):
                yield Path(base, name)
        directories[:] = [name for name in directories if deep and not name.startswith(_HIDDEN)]


def _size(path: Path) -> int:
    size = 0
    with contextlib.suppress(OSError):  # it is only for people, and may be going away
        size = path.lstat().st_size
        if path.is_dir() and not path.is_symlink():
            size = sum(_size(inner) for inner in path.iterdir())
    return size

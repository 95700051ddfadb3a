"""Bugs planted into a child before it saves: the power-loss test has to catch each of them."""

from __future__ import annotations

import os
from typing import Any

from headway.storage import local, packs, posix


def _no_flush(_: Any) -> None:
    """Says that it is durable, and did nothing."""


def log_flush_dropped() -> None:
    """An append returns without `fdatasync`."""
    _only_in_storage(fdatasync=_no_flush)


def file_flush_dropped() -> None:
    """New logs and packs are named, and their directories flushed, before they are durable."""

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            os.fsync(fd)

    _only_in_storage(fsync=fsync)


def directory_flush_dropped() -> None:
    """The names of new files and directories are not made durable."""
    for module in (local, packs):
        vars(module)["sync_directory"] = _no_flush


def record_before_pack() -> None:
    """A pack is only flushed when the attempt ends: long after the record that names it."""

    class Pack(packs.LocalPack):
        def commit(self) -> None:
            data = memoryview(self._gather or b"")[: self._filled]
            posix.write_all(self._fd, data, self._base)

    vars(local)["LocalPack"] = Pack


def _only_in_storage(**replaced: Any) -> None:
    """Replace functions of `os`, as the storage sees it and nobody else."""

    class Os:
        def __getattr__(self, name: str) -> Any:
            return replaced.get(name) or getattr(os, name)

    for module in (local, packs, posix):
        vars(module)["os"] = Os()

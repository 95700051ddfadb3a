"""What was read over a network once, kept on this machine for the next attempt.

An attempt that follows another one on the same machine reads the same checkpoint again. What is kept
here is named by the hashes of the chunks that it holds, and verified by them like everything that is
read: a file here that is damaged, stale or somebody else's costs a second reading, and is never believed.

Nothing rests on this cache. It may be deleted at any time, and every trouble with it is a miss.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterable
from pathlib import Path

from xxhash import xxh3_128_hexdigest

VARIABLE = "HEADWAY_CACHE_SIZE"
"""Bytes that may be kept, with `K`, `M`, `G` or `T` behind the number."""
DEFAULT = 0
"""Nothing is kept unless somebody asks: writing down what is read costs more than reading it did, over a
link that is as fast as the disk."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SPARE = 4  # of the disk's free bytes, at most one in so many is used
_HIDDEN = ".tmp-"


def limit(text: str | None) -> int:
    """Bytes that `HEADWAY_CACHE_SIZE` allows; what is not a size counts as nothing said."""
    found = (text or "").strip().upper().removesuffix("B").removesuffix("I")
    number, unit = (found[:-1], found[-1]) if found and found[-1] in _UNITS else (found, "")
    try:
        return max(0, int(float(number) * _UNITS[unit]))
    except (ValueError, OverflowError):
        return DEFAULT


def name_of(hashes: Iterable[bytes]) -> str:
    """Where bytes are kept that hold these chunks, in this order."""
    return xxh3_128_hexdigest(b"".join(hashes))


class Cache:
    """Files in one directory, the least used of which go first.

    Args:
        root: the directory; made private when it is first written to.
        most: bytes of all files.
    """

    def __init__(self, root: Path, most: int) -> None:
        self._root = root
        self._most = most
        self._held: int | None = None  # bytes there, as far as this process knows
        self._lock = threading.Lock()

    def get(self, name: str, into: memoryview) -> bool:
        """Fill memory with what is kept under a name; False when that is not there, or not as long."""
        path = self._root / name
        try:
            with path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != len(into):
                    return False
                done = 0
                while done < len(into) and (got := file.readinto(into[done:])):
                    done += got
            os.utime(path)
        except OSError:
            return False
        return done == len(into)

    def put(self, name: str, data: memoryview) -> None:
        """Keep bytes, if there is room."""
        if len(data) > self._most // 2:
            return
        with contextlib.suppress(OSError):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            disk = os.statvfs(self._root)
            if len(data) > disk.f_bavail * disk.f_frsize // _SPARE:
                return
            with self._lock:
                self._make_room(len(data))
            hidden = self._root / f"{_HIDDEN}{secrets.token_hex(8)}"
            try:
                hidden.write_bytes(data)
                hidden.replace(self._root / name)
            finally:
                hidden.unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        """Forget what turned out to be something else."""
        with contextlib.suppress(OSError):
            (self._root / name).unlink()

    def _make_room(self, size: int) -> None:
        if self._held is None or self._held + size > self._most:
            files = []
            with os.scandir(self._root) as there:
                for found in there:
                    with contextlib.suppress(
                        FileNotFoundError
                    ):  # another thread has just renamed it
                        status = found.stat()
                        files.append((status.st_mtime, status.st_size, found.path))
            self._held = sum(length for _, length, _ in files)
            for _, length, path in sorted(files):
                if self._held + size <= self._most:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                self._held -= length
        self._held += size


def open_cache() -> Cache | None:
    """This user's cache; None unless `HEADWAY_CACHE_SIZE` allows one."""
    most = limit(os.environ.get(VARIABLE))
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Cache(Path(base, "headway", "chunks"), most) if most else None

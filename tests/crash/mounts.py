"""Filesystems of our own, to fill, to make read-only, and to cut the power of. They need root.

Every mount is undone at the end of its block, whatever happened in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), the same for ext4, xfs and f2fs
_WITHOUT_FLUSH = struct.pack("I", 2)


@contextlib.contextmanager
def tmpfs(place: Path, size: str = "1m") -> Iterator[Path]:
    """A small filesystem in memory; the test is skipped where there cannot be one."""
    _root_only()
    place.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield place
    finally:
        _unmount(place)


def read_only(place: Path, *, on: bool) -> None:
    """Make a mounted filesystem read-only, or writable again."""
    _mount("-o", f"remount,{'ro' if on else 'rw'}", str(place))


def enlarge(place: Path, size: str) -> None:
    """Give a `tmpfs` more room."""
    _mount("-o", f"remount,size={size}", str(place))


class Disk:
    """A disk of 64 MB (ext4) or 320 MB (xfs) in a file, whose power can fail.

    Nothing is written behind its back: what was not flushed when the power fails is gone.
    """

    def __init__(self, place: Path, kind: str) -> None:
        self.root = place / "disk"
        self._image = place / "image"
        self._kind = kind
        self._mounted = False

    def format(self) -> None:
        """An empty filesystem, mounted."""
        self.close()
        self.root.mkdir(exist_ok=True)
        with open(self._image, "wb") as image:
            image.truncate((64 if self._kind == "ext4" else 320) << 20)
        _run(f"mkfs.{self._kind}", "-q", str(self._image))
        self.mount()

    def mount(self) -> None:
        """Power on."""
        # ext4 would flush on its own after 5 s; the longest allowed interval loses the most
        more = ",commit=300" if self._kind == "ext4" else ""
        _mount("-o", f"loop{more}", str(self._image), str(self.root))
        self._mounted = True

    def fail(self) -> None:
        """The power fails, at this instant. Processes get I/O errors from now on."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, _WITHOUT_FLUSH)
        finally:
            os.close(fd)

    def power_cycle(self) -> None:
        """After `fail`: off and on again. Nobody may have files open there any more."""
        self.close()
        self.mount()

    def close(self) -> None:
        """Unmount, if it is mounted."""
        if self._mounted:
            _unmount(self.root)
            self._mounted = False
            _wait_until_let_go(self._image)


@contextlib.contextmanager
def disk(place: Path, kind: str) -> Iterator[Disk]:
    """A formatted disk; the test is skipped where there cannot be one."""
    _root_only()
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"power loss on {kind} is not tested: mkfs.{kind} is not installed")
    made = Disk(place, kind)
    try:
        made.format()
        yield made
    finally:
        made.close()


def _root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting filesystems needs root")


def _mount(*arguments: str) -> None:
    try:
        _run("mount", *arguments)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"mounting filesystems is not possible here: {error.stderr.strip()}")


def _unmount(place: Path) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            _run("umount", str(place))
            return
        except subprocess.CalledProcessError:
            if time.monotonic() > end:  # somebody still has files open there: let go later
                _run("umount", "--lazy", str(place))
                raise
            time.sleep(0.01)


def _wait_until_let_go(image: Path) -> None:
    """Wait until no loop device has `image`; the kernel detaches it some time after the unmounting.

    A `mount` that finds one which still has it takes that one. Between the two another process may
    get the device for its own disk: then both would have that one, and its power failures.
    """
    end = time.monotonic() + 30
    while any(_backing(device) == str(image) for device in Path("/sys/block").glob("loop*")):
        assert time.monotonic() < end, f"a loop device holds on to {image}"
        time.sleep(0.002)


def _backing(device: Path) -> str:
    try:
        return (device / "loop/backing_file").read_text(encoding="utf-8").rstrip("\n")
    except OSError:  # it has none
        return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)

"""A home on a disk at its limits: many processes, no descriptors, no rights, no space."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.crash.mounts import enlarge, read_only, tmpfs

from headway.model.errors import StorageDenied, StorageFull
from headway.storage.local import LocalStorage


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


RACE = """
import os, sys
from pathlib import Path
from headway.ports import KeyExists
from headway.storage.local import LocalStorage

root, go = Path(sys.argv[1]), os.pipe()
children = []
for number in range(8):
    child = os.fork()
    if child == 0:
        os.close(go[1])
        os.read(go[0], 1)  # until the parent lets all go at once
        won = 0
        for key in range(40):
            try:
                LocalStorage(root).create(f"deep/er/{key}", bytes([number]) * 5000)
                won += 1
            except KeyExists:
                pass
        os._exit(won)
    children.append(child)
os.close(go[1])
print(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_of_eight_processes_exactly_one_creates_each_key(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(home)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "40\n"
    storage = LocalStorage(home)
    assert len(storage.list("deep/er")) == 40
    for key in range(40):
        data = storage.read(f"deep/er/{key}")
        assert data == data[:1] * 5000


DESCRIPTORS = """
import os, resource, sys
from pathlib import Path
from headway.model.errors import StorageFull
from headway.storage.local import LocalStorage

storage = LocalStorage(Path(sys.argv[1]))
storage.create("a", b"kept")
resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
held = []
while True:
    try:
        held.append(os.open("/", os.O_RDONLY))
    except OSError:
        break
for spare in range(3):  # it runs out at the first, the second or the third descriptor it needs
    for act in (lambda: storage.create_log(f"b{spare}", b"", 10), lambda: storage.read("a")):
        try:
            act()
        except StorageFull as error:
            print(type(error).__name__, error.errno)
    os.close(held.pop())
for fd in held:
    os.close(fd)
assert storage.read("a") == b"kept"
storage.create("c", b"")
print(*(name for name in sorted(os.listdir(sys.argv[1])) if name.startswith(".tmp")))
"""


def test_without_descriptors_it_says_so_and_goes_on_later(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DESCRIPTORS, str(home)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:-1].count(f"StorageFull {errno.EMFILE}") >= 3
    assert lines[-1] == ""


DENIED = """
import os, sys
from pathlib import Path
from headway.model.errors import StorageDenied
from headway.storage.local import LocalStorage

storage = LocalStorage(Path(sys.argv[1]))
storage.create("a", b"kept")
os.chmod(sys.argv[1], 0o555)
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
for act in (
    lambda: storage.create("b", b""),
    lambda: storage.create_pack("p/1"),
    lambda: storage.delete("a"),
):
    try:
        act()
    except StorageDenied as error:
        print(error.errno)
print(storage.read("a").decode(), storage.list(""))
"""


def test_a_home_that_one_may_not_write_to_can_be_read() -> None:
    with tempfile.TemporaryDirectory() as place:  # one that other users may enter
        Path(place).chmod(0o755)
        home = Path(place, "home")
        home.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", DENIED, str(home)], capture_output=True, text=True, check=False
        )
        home.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{errno.EACCES}\n" * 3 + "kept ['a']\n"


@pytest.mark.root
def test_a_full_disk_keeps_what_was_there_and_what_was_allocated_ahead(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "256k") as place:
        storage = LocalStorage(place)
        storage.create("old", b"kept")
        log = storage.create_log("log", b"", 20_000)
        with pytest.raises(StorageFull) as caught:
            storage.create("big", b"x" * 1_000_000)
        assert caught.value.errno == errno.ENOSPC
        pack = storage.create_pack("pack")
        with pytest.raises(StorageFull):
            pack.write(b"x" * 2_000_000)
        log.append(b"y" * 20_000)  # its space was taken when it was made
        log.close()
        pack.abort()
        assert storage.list("") == ["log", "old"]
        assert [path.name for path in place.rglob(".tmp-*")] == []
        enlarge(place, "4m")
        storage.create("big", b"x" * 1_000_000)
        assert storage.read("old") == b"kept"


@pytest.mark.root
def test_a_read_only_disk_is_denied_and_can_be_read(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk") as place:
        storage = LocalStorage(place)
        storage.create("old", b"kept")
        read_only(place, on=True)
        with pytest.raises(StorageDenied) as caught:
            storage.create("new", b"")
        assert caught.value.errno == errno.EROFS
        assert storage.read("old") == b"kept"
        assert storage.list("") == ["old"]
        read_only(place, on=False)
        storage.create("new", b"")

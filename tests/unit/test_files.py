"""Files and directories travel with their content, exactly, lazily, and never outside their place."""

from __future__ import annotations

import atexit
import copy
import os
import pickle
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from headway.engine import contents
from headway.engine.blobs import PIECE
from headway.engine.files import Directory, File
from headway.engine.values import Values
from headway.model.errors import CheckpointCorrupt, InputError
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/values"
EVEN = bytes(PIECE // 8)
SMALL, LARGE, HUGE = b"small", b"x" * (40 << 10), bytes(range(256)) * ((PIECE >> 8) + 1)


class Holder:
    file: File


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def values(storage: MemoryStorage, tmp_path: Path) -> Values:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Values(storage, PREFIX, scratch)


def copies(tmp_path: Path) -> list[str]:
    return sorted(
        str(p.relative_to(tmp_path)) for p in (tmp_path / "scratch").rglob("*") if p.is_file()
    )


def make(path: Path, data: bytes, mode: int = 0o640) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("data", [b"", SMALL, LARGE, EVEN, HUGE], ids=len)
def test_a_file_comes_back_with_name_mode_and_bytes_once_it_is_looked_at(
    values: Values, tmp_path: Path, data: bytes
) -> None:
    plain = values.encode(File(make(tmp_path / "in" / "model.bin", data, 0o750)), File)
    back = values.decode(plain, File)
    assert back.name == "model.bin"
    assert repr(back) == "<File 'model.bin', stored>"
    assert copies(tmp_path) == []
    assert Path(back).read_bytes() == data
    assert stat.S_IMODE(back.path.stat().st_mode) == 0o750
    assert back.path == Path(os.fspath(back))
    assert repr(back) == f"File({str(back.path)!r})"
    assert len(copies(tmp_path)) == 1


def test_every_taker_gets_a_copy_of_its_own(values: Values, tmp_path: Path) -> None:
    plain = values.encode(File(make(tmp_path / "a", SMALL)), File)
    one, other = values.decode(plain, File), values.decode(plain, File)
    one.path.write_bytes(b"changed")
    assert other.path.read_bytes() == SMALL


def test_a_file_that_nobody_looked_at_is_passed_on_without_being_fetched(
    values: Values, storage: MemoryStorage, tmp_path: Path
) -> None:
    plain = values.encode(File(make(tmp_path / "a", LARGE)), File)
    back = values.decode(plain, File)
    calls = len(storage.calls)
    assert values.encode(back, File) == plain
    assert len(storage.calls) == calls
    back.path.write_bytes(b"changed")
    assert values.encode(back, File)["data"] == b"changed"


def test_a_file_of_another_home_is_fetched_and_stored_again(values: Values, tmp_path: Path) -> None:
    other = Values(MemoryStorage(), PREFIX)
    back = other.decode(other.encode(File(make(tmp_path / "a", LARGE)), File), File)
    plain = values.encode(back, File)
    assert values.decode(plain, File).path.read_bytes() == LARGE
    other.close()


def tree(root: Path) -> dict[str, Any]:
    return {
        str(p.relative_to(root)): (stat.S_IMODE(p.stat().st_mode), p.is_file() and p.read_bytes())
        for p in [root, *root.rglob("*")]
    }


@pytest.mark.parametrize("data", [SMALL, LARGE, HUGE], ids=["small", "large", "huge"])
def test_a_directory_comes_back_whole(values: Values, tmp_path: Path, data: bytes) -> None:
    root = tmp_path / "in"
    make(root / "b" / "deep" / "data", data)
    make(root / "a", b"", 0o600)
    make(root / "b" / ("f\udcff" if os.name == "posix" else "f"), SMALL, 0o755)
    (root / "b.empty").mkdir(mode=0o700)
    (root / "b" / "deep").chmod(0o500)  # read-only, and still filled
    plain = values.encode(Directory(root), Directory)
    back = values.decode(plain, Directory)
    assert (back.name, copies(tmp_path)) == ("in", [])
    assert tree(back.path) == tree(root)
    assert values.encode(back, Directory) == plain
    values.close()
    assert list((tmp_path / "scratch").iterdir()) == []
    (root / "b" / "deep").chmod(0o700)


def test_an_empty_directory_comes_back(values: Values, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    back = values.decode(values.encode(Directory(tmp_path / "in")))
    assert list(back.path.iterdir()) == []


def test_many_small_files_are_one_blob_and_one_manifest(
    values: Values, storage: MemoryStorage, tmp_path: Path
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for number in range(600):
        (root / f"file-{'x' * 100}-{number:05}").write_bytes(b"%5d" % number * 20)
    plain = values.encode(Directory(root), Directory)
    assert plain["$"] == "tree"
    assert len(storage.objects) == 2
    assert tree(values.decode(plain, Directory).path) == tree(root)


def test_a_path_that_names_content_is_content_and_another_is_a_path(
    values: Values, tmp_path: Path
) -> None:
    file = make(tmp_path / "in" / "a", SMALL)
    back = values.decode(values.encode(file, Path), Path)
    assert back != file
    assert back.read_bytes() == SMALL
    folder = values.decode(values.encode(tmp_path / "in", Any), Any)
    assert (folder / "a").read_bytes() == SMALL
    for path in (tmp_path / "missing", Path("relative/missing"), Path("/dev/null")):
        assert values.decode(values.encode(path, Path), Path) == path


def test_a_directory_named_by_a_dot_keeps_its_name(
    values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "in" / "a", SMALL)
    monkeypatch.chdir(tmp_path / "in")
    assert values.decode(values.encode(Directory("."), Directory)).name == "in"


def test_a_link_is_followed_where_it_was_named_and_refused_below(
    values: Values, tmp_path: Path
) -> None:
    make(tmp_path / "in" / "a", SMALL)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    back = values.decode(values.encode(Directory(tmp_path / "link"), Directory))
    assert (back.name, (back.path / "a").read_bytes()) == ("link", SMALL)
    (tmp_path / "in" / "link").symlink_to("a")
    with pytest.raises(InputError, match=r"x: '.*/in/link' is a symlink; only regular files"):
        values.encode(Directory(tmp_path / "in"), Directory, "x")


def test_special_files_are_refused(values: Values, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"x: '.*/pipe' is a special file, and a file is needed"):
        values.encode(File(tmp_path / "pipe"), File, "x")
    (tmp_path / "in").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "in" / "socket"))
        with pytest.raises(InputError, match=r"/in/socket' is a special file; only regular"):
            values.encode(Directory(tmp_path / "in"), Directory)


def test_what_is_not_there_or_of_the_other_kind_is_an_input_error(
    values: Values, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"x: cannot read .*/gone.*: No such file"):
        values.encode(File(tmp_path / "gone"), File, "x")
    with pytest.raises(InputError, match="is a directory, and a file is needed"):
        values.encode(File(tmp_path), File)
    with pytest.raises(InputError, match="is a file, and a directory is needed"):
        values.encode(Directory(make(tmp_path / "a", SMALL)), Directory)
    with pytest.raises(InputError, match=r"x: '/dev/null' is a special file, and a file or dir"):
        contents.store(Path("/dev/null"), values._blobs, "x")


@pytest.mark.parametrize("data", [SMALL, LARGE, HUGE], ids=["small", "large", "huge"])
def test_a_file_that_changes_while_it_is_read_is_an_input_error(
    values: Values,
    storage: MemoryStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
) -> None:
    path = make(tmp_path / "a", data)
    read = contents._bytes_of
    readings = []

    def growing(*args: Any) -> Any:
        readings.append(1)
        if len(readings) == (1 if data is SMALL else 2):
            path.write_bytes(data[:-1] + b"?!")
        return read(*args)

    monkeypatch.setattr(contents, "_bytes_of", growing)
    with pytest.raises(InputError, match=r"x: '.*/a' changed while it was being stored"):
        values.encode(File(path), File, "x")
    assert storage.objects == {}


def test_a_file_that_grows_before_it_is_hashed_is_an_input_error(
    values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a", LARGE)
    read = contents._bytes_of
    monkeypatch.setattr(contents, "_bytes_of", lambda *args: [*read(*args), b"more"])
    with pytest.raises(InputError, match="changed while it was being stored"):
        values.encode(File(path), File)


def directory(*entries: list[Any], data: bytes = b"") -> dict[str, Any]:
    return {"$": "directory", "name": b"d", "mode": 0o755, "entries": [*entries], "data": data}


HOSTILE: list[dict[str, Any]] = (
    [
        {"$": "file", "name": name, "mode": 0o644, "data": b"evil"}
        for name in (b"", b".", b"..", b"../evil", b"/tmp/evil", b"a/b", b"nul\0", "text", None)
    ]
    + [
        directory([name, 0o644, 4], data=b"evil")
        for name in (b"", b".", b"..", b"../evil", b"/evil", b"a/../../evil", b"gone/evil", b"a\0b")
    ]
    + [
        directory([b"f", 0o644, 0], [b"f/evil", 0o644, 4], data=b"evil"),
        directory([b"f", 0o644, 5], data=b"evil"),
        directory([b"f", 0o644, 3], data=b"evil"),
    ]
)


@pytest.mark.parametrize("plain", HOSTILE, ids=range(len(HOSTILE)))
def test_a_stored_tree_that_would_leave_its_place_is_corrupt_and_leaves_nothing(
    values: Values, tmp_path: Path, plain: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointCorrupt):
        os.fspath(values.decode(plain))
    assert copies(tmp_path) == []
    assert [p.name for p in tmp_path.iterdir()] == ["scratch"]


def test_special_bits_stay_behind(values: Values, tmp_path: Path) -> None:
    make(tmp_path / "a", SMALL).chmod(0o4755)
    plain = values.encode(File(tmp_path / "a"), File)
    assert plain["mode"] == 0o755
    back = values.decode(plain | {"mode": 0o6777}, File)
    assert stat.S_IMODE(back.path.stat().st_mode) == 0o777


@pytest.mark.parametrize("data", [LARGE, HUGE], ids=["object", "pack"])
def test_a_damaged_file_is_never_handed_out(
    values: Values, storage: MemoryStorage, tmp_path: Path, data: bytes
) -> None:
    plain = values.encode(File(make(tmp_path / "a", data)), File)
    stored = max(storage.objects.values(), key=len)
    stored[-1] ^= 1
    back = values.decode(plain, File)
    with pytest.raises(CheckpointCorrupt, match="is damaged"):
        open(back)  # noqa: SIM115  # it does not get that far
    assert copies(tmp_path) == []
    stored[-1] ^= 1
    assert back.path.read_bytes() == data  # the fault passed: looking again fetches it


def test_a_file_inside_a_pickle_is_refused_with_a_way_out(values: Values, tmp_path: Path) -> None:
    holder = Holder()
    holder.file = File(tmp_path)
    with pytest.raises(
        InputError, match=r"a File cannot travel inside a pickled object.*dataclass"
    ):
        values.encode(holder)
    for refused in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="a Directory cannot travel"):
            refused(Directory(tmp_path))


def test_copies_go_when_the_process_that_made_them_ends(
    storage: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda *call: ends.append(call))
    values = Values(storage, PREFIX)
    back = values.decode(values.encode(make(tmp_path / "a", SMALL), Path), Path)
    ((remove, root, owner),) = ends
    assert back.is_relative_to(root)
    remove(root, owner + 1)  # a forked child ends: its parent still needs them
    assert back.exists()
    remove(root, owner)
    assert not root.exists()
    values.close()
    values.close()

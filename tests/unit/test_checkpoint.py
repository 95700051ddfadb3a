"""The rules of `current_context().checkpoint`: exactly what was saved, newest valid, never guessed."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path

import pytest

from headway.checkpoint.handle import Checkpoint, history_of
from headway.checkpoint.save import INLINE
from headway.checkpoint.source import PIECE
from headway.model.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointFenced,
    InputError,
    StorageDenied,
    StorageFull,
    StorageUnavailable,
)
from headway.model.program import Saved, Warned
from headway.model.settings import Best, Keep
from headway.storage.local import LocalStorage

PREFIX = "runs/r/nodes/train"
MEGABYTE = os.urandom(1 << 20)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    home = tmp_path / "home"
    home.mkdir()
    return LocalStorage(home)


class Attempts:
    """Hands out checkpoints of one node, an attempt each, and keeps what they said."""

    def __init__(self, storage: LocalStorage) -> None:
        self.storage = storage
        self.saved: list[Saved] = []
        self.warned: list[Warned] = []
        self._next = 0

    def __call__(
        self, inputs: str = "i", *, keep: Keep = None, keep_best: Best | None = None
    ) -> Checkpoint:
        attempt, self._next = self._next, self._next + 1
        return Checkpoint(
            self.storage,
            PREFIX,
            attempt=attempt,
            inputs=inputs,
            on_saved=self.saved.append,
            on_warning=self.warned.append,
            keep=keep,
            keep_best=keep_best,
        )

    def packs(self) -> list[Path]:
        folder = self.storage.path(f"{PREFIX}/packs")
        return sorted(folder.iterdir()) if folder.exists() else []

    def flip(self, path: Path, at: int) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)


@pytest.fixture
def attempts(storage: LocalStorage) -> Attempts:
    return Attempts(storage)


def tree(root: Path) -> dict[str, tuple[str, int, bytes]]:
    """What a directory holds: name -> (kind, mode, content)."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        kind, data = ("d", b"") if path.is_dir() else ("f", path.read_bytes())
        found[path.relative_to(root).as_posix()] = kind, mode, data
    return found


class TestBytes:
    def test_nothing_was_saved_yet(self, attempts: Attempts) -> None:
        first = attempts()
        assert not first.prev_exists()
        assert first.read() is None
        assert first.restore() is None
        assert first.history() == []

    @pytest.mark.parametrize(
        "size", [0, 1, INLINE, INLINE + 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7]
    )
    def test_any_size_comes_back_in_the_next_attempt(self, attempts: Attempts, size: int) -> None:
        data = (MEGABYTE * 4)[:size]
        attempts().write(data)
        after = attempts()
        assert after.prev_exists()
        assert after.read() == data
        assert [r.size for r in after.history()] == [size]

    def test_empty_bytes_are_not_nothing(self, attempts: Attempts) -> None:
        attempts().write(b"")
        assert attempts().read() == b""

    def test_an_attempt_reads_its_own_writes(self, attempts: Attempts) -> None:
        mine = attempts()
        mine.write(b"1")
        mine.write(bytearray(b"2"))
        assert mine.read() == b"2"
        mine.write(memoryview(b"3"))
        assert mine.read() == b"3"

    def test_attempts_that_died_before_they_wrote_lose_nothing(self, attempts: Attempts) -> None:
        attempts().write(b"zero")
        attempts().prev_exists()
        attempts()
        assert attempts().read() == b"zero"

    def test_numbers_and_attempts_are_listed(self, attempts: Attempts) -> None:
        attempts().write(b"a")
        second = attempts()
        second.write(b"bb")
        second.write(b"ccc")
        listed = [(r.number, r.attempt, r.size, r.kind, r.valid) for r in second.history()]
        assert listed == [
            (1, 0, 1, "bytes", True),
            (2, 1, 2, "bytes", True),
            (3, 1, 3, "bytes", True),
        ]
        assert history_of(attempts.storage, PREFIX) == second.history()
        assert [s.number for s in attempts.saved] == [1, 2, 3]

    def test_text_is_refused_with_the_cure(self, attempts: Attempts) -> None:
        with pytest.raises(InputError, match=r"got str: write\(text.encode\(\)\)"):
            attempts().write("text")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="got int"):
            attempts().write(3)  # type: ignore[arg-type]

    def test_threads_do_not_mix_their_writes(self, attempts: Attempts) -> None:
        mine = attempts(keep="all")
        threads = [
            threading.Thread(target=lambda n=n: mine.write(bytes([n]) * 50_000)) for n in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        mine.flush()
        after = attempts()
        data = after.read()
        assert data is not None
        assert len(data) == 50_000
        assert len(set(data)) == 1
        assert [r.number for r in after.history()] == [1, 2, 3, 4, 5, 6]


class TestSources:
    def test_a_reader_is_read_to_its_end_in_pieces(self, attempts: Attempts) -> None:
        class Dribble(io.RawIOBase):
            def __init__(self) -> None:
                self.left = 2 * PIECE + 5

            def read(self, size: int = -1) -> bytes:
                assert size <= PIECE
                some = min(self.left, 700_001)
                self.left -= some
                return b"r" * some

        attempts().save(Dribble())
        assert attempts().read() == b"r" * (2 * PIECE + 5)

    def test_a_text_reader_is_refused(self, attempts: Attempts) -> None:
        with pytest.raises(InputError, match='mode "rb"'):
            attempts().save(io.StringIO("text"))  # type: ignore[arg-type]

    def test_a_file_keeps_its_name_and_mode(self, attempts: Attempts, tmp_path: Path) -> None:
        source = tmp_path / "model.bin"
        source.write_bytes(MEGABYTE)
        source.chmod(0o640)
        attempts().save(str(source))
        after = attempts()
        place = after.restore()
        assert place is not None
        assert tree(place) == {"model.bin": ("f", 0o640, MEGABYTE)}
        assert after.read() == MEGABYTE

    def test_a_directory_comes_back_whole(self, attempts: Attempts, tmp_path: Path) -> None:
        source = tmp_path / "state"
        (source / "a" / "b").mkdir(parents=True)
        (source / "empty").mkdir(mode=0o750)
        (source / "a" / "x").write_bytes(b"x")
        (source / "a" / "b" / "big").write_bytes(MEGABYTE + b"tail")
        (source / "zero").touch(mode=0o600)
        (source / "naïve name\n").write_bytes(b"odd")
        attempts().save(source)
        target = tmp_path / "out" / "deep"
        assert attempts().restore(target) == target
        assert tree(target) == tree(source)

    def test_read_of_a_directory_says_what_to_do(self, attempts: Attempts, tmp_path: Path) -> None:
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "a").touch()
        (tmp_path / "two" / "b").touch()
        attempts().save(tmp_path / "two")
        with pytest.raises(CheckpointError, match=r"2 files.*restore\(\)"):
            attempts().read()

    def test_no_leftovers_from_the_checkpoint_before(
        self, attempts: Attempts, tmp_path: Path
    ) -> None:
        source = tmp_path / "s"
        source.mkdir()
        (source / "old").write_bytes(b"1")
        mine = attempts()
        mine.save(source)
        (source / "old").unlink()
        (source / "new").write_bytes(b"2")
        mine.save(source)
        place = attempts().restore()
        assert place is not None
        assert list(tree(place)) == ["new"]

    def test_links_are_refused_and_nothing_is_saved(
        self, attempts: Attempts, tmp_path: Path
    ) -> None:
        source = tmp_path / "s"
        source.mkdir()
        (source / "a").write_bytes(MEGABYTE)
        (source / "link").symlink_to("/etc/passwd")
        mine = attempts()
        with pytest.raises(InputError, match="symbolic link"):
            mine.save(source)
        with pytest.raises(InputError, match="symbolic link"):
            mine.save(source / "link")
        assert mine.history() == []
        assert attempts.packs() == []

    def test_what_is_no_file_is_refused(self, attempts: Attempts, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        mine = attempts()
        with pytest.raises(InputError, match="not a regular file"):
            mine.save(tmp_path / "pipe")
        with pytest.raises(InputError, match="does not exist"):
            mine.save(tmp_path / "nowhere")
        with pytest.raises(InputError, match=r"for bytes use write"):
            mine.save(b"bytes")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="got int"):
            mine.save(7)  # type: ignore[arg-type]

    def test_a_name_that_is_not_utf8_is_refused(self, attempts: Attempts, tmp_path: Path) -> None:
        (tmp_path / "s").mkdir()
        with open(os.fsencode(tmp_path / "s") + b"/\xff", "wb"):
            pass
        with pytest.raises(InputError, match="UTF-8"):
            attempts().save(tmp_path / "s")

    def test_a_file_that_changes_meanwhile_is_refused(
        self, attempts: Attempts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = tmp_path / "growing"
        source.write_bytes(b"1" * PIECE)
        real = os.read

        def read(fd: int, size: int) -> bytes:
            data = real(fd, size)
            with open(source, "ab") as more:
                more.write(b"2")
            return data if data.count(b"1") else b""

        mine = attempts()
        with monkeypatch.context() as patched:
            patched.setattr("headway.checkpoint.source.os.read", read)
            with pytest.raises(InputError, match="changed while it was being saved"):
                mine.save(source)
        assert not mine.prev_exists()

    def test_a_file_of_the_users_that_cannot_be_read_is_named(
        self, attempts: Attempts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = tmp_path / "secret"
        source.write_bytes(b"s")

        def refuse(*_: object, **__: object) -> int:
            raise PermissionError(13, "no")

        mine = attempts()
        mine.prev_exists()
        monkeypatch.setattr("headway.checkpoint.source.os.open", refuse)
        with pytest.raises(StorageDenied, match=r"mode of .*secret"):
            mine.save(source)


class TestChunks:
    def test_what_did_not_change_is_not_written_again(
        self, attempts: Attempts, tmp_path: Path
    ) -> None:
        source = tmp_path / "s"
        source.mkdir()
        (source / "frozen").write_bytes(os.urandom(3 << 20))
        (source / "hot").write_bytes(b"1")
        mine = attempts()
        mine.save(source)
        (source / "hot").write_bytes(b"2")
        mine.save(source)
        first, second = attempts.packs()
        assert first.stat().st_size == (3 << 20) + 1
        assert second.stat().st_size == 1
        place = attempts().restore()
        assert place is not None
        assert tree(place) == tree(source)

    def test_chunks_that_nobody_verified_are_not_built_upon(self, attempts: Attempts) -> None:
        data = os.urandom(2 << 20)
        attempts().write(data)
        attempts.flip(attempts.packs()[0], 5)
        attempts().write(data)  # did not read first: must not trust the pack
        assert attempts().read() == data

    def test_chunks_that_were_verified_are(self, attempts: Attempts) -> None:
        data = os.urandom(2 << 20)
        attempts().write(data)
        after = attempts()
        assert after.read() == data
        after.write(data)
        assert len(attempts.packs()) == 1
        assert attempts().read() == data


class TestDamage:
    def test_an_older_checkpoint_stands_in_with_a_warning(self, attempts: Attempts) -> None:
        mine = attempts()
        mine.write(b"1" * 100_000)
        mine.write(b"2" * 100_000)
        attempts.flip(attempts.packs()[1], 99)
        after = attempts()
        assert after.read() == b"1" * 100_000
        assert [w.kind for w in attempts.warned] == ["damaged"]
        assert "checkpoint 2" in attempts.warned[0].message
        assert [r.valid for r in after.history()] == [True, False]
        after.write(b"3")
        assert after.read() == b"3"
        assert [r.number for r in after.history()] == [1, 2, 3]

    def test_a_missing_pack_is_damage_too(self, attempts: Attempts) -> None:
        mine = attempts()
        mine.write(b"1")
        mine.write(b"2" * 100_000)
        attempts.packs()[0].unlink()
        assert attempts().read() == b"1"

    def test_a_damaged_record_is_skipped(self, attempts: Attempts) -> None:
        mine = attempts()
        for text in (b"one", b"two", b"three"):
            mine.write(text)
        (log,) = attempts.storage.path(f"{PREFIX}/ledger").iterdir()
        attempts.flip(log, log.read_bytes().index(b"three"))
        after = attempts()
        assert after.read() == b"two"
        assert [w.kind for w in attempts.warned] == ["damaged"]
        after.write(b"four")
        assert after.history()[-1].number == 4, "a damaged checkpoint's number is not used again"

    def test_when_nothing_is_readable_it_is_an_error_and_stays_one(
        self, attempts: Attempts
    ) -> None:
        attempts().write(b"only one")
        log = min(attempts.storage.path(f"{PREFIX}/ledger").iterdir())
        attempts.flip(log, log.read_bytes().index(b"only"))
        for _ in range(2):
            for use in (Checkpoint.prev_exists, Checkpoint.read, Checkpoint.restore):
                with pytest.raises(CheckpointCorrupt, match="none is left"):
                    use(attempts())
            with pytest.raises(CheckpointCorrupt):
                attempts().write(b"over it")

    def test_when_every_pack_is_damaged_it_is_an_error(self, attempts: Attempts) -> None:
        attempts().write(b"1" * 100_000)
        attempts.flip(attempts.packs()[0], 0)
        after = attempts()
        with pytest.raises(CheckpointCorrupt, match="none of the 1 checkpoints"):
            after.read()
        with pytest.raises(CheckpointCorrupt, match="headway run"):
            after.prev_exists()

    def test_an_unfinished_save_is_skipped_and_said(self, attempts: Attempts) -> None:
        mine = attempts()
        mine.write(b"1")
        mine.write(b"2" * 8000)
        (log,) = attempts.storage.path(f"{PREFIX}/ledger").iterdir()
        data = bytearray(log.read_bytes())
        at = data.index(b"2" * 8000)
        data[at + 4000 :] = bytes(len(data) - at - 4000)  # a write that stopped half-way
        log.write_bytes(data)
        assert attempts().read() == b"1"
        assert [w.kind for w in attempts.warned] == ["unfinished"]

    def test_a_first_save_that_never_finished_is_no_checkpoint(self, attempts: Attempts) -> None:
        attempts().write(b"2" * 8000)
        (log,) = attempts.storage.path(f"{PREFIX}/ledger").iterdir()
        data = bytearray(log.read_bytes())
        at = data.index(b"2" * 8000)
        data[at + 4000 :] = bytes(len(data) - at - 4000)
        log.write_bytes(data)
        assert attempts().read() is None

    def test_a_record_of_a_newer_headway_is_an_error(self, attempts: Attempts) -> None:
        from headway.ledger.write import Ledger

        ledger = Ledger.open(attempts.storage, f"{PREFIX}/ledger")
        ledger.append(b"\x81\xa6record\xa4what")
        ledger.close()
        with pytest.raises(CheckpointCorrupt, match="newer headway"):
            attempts().read()


class TestFaults:
    def fail(self, monkeypatch: pytest.MonkeyPatch, call: str, code: int, times: int) -> list[int]:
        """Make the next `times` calls of `os.<call>` in the storage fail; returns the count."""
        real = getattr(os, call)
        counted: list[int] = []

        def fault(*args: object, **kwargs: object) -> object:
            if len(counted) < times:
                counted.append(code)
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        monkeypatch.setattr(f"headway.storage.local.os.{call}", fault)
        return counted

    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize(
        ("call", "code", "kind"),
        [
            ("fdatasync", 5, StorageUnavailable),
            ("fsync", 5, StorageUnavailable),
            ("pwrite", 28, StorageFull),
            ("pwrite", 122, StorageFull),
            ("open", 24, StorageFull),
            ("open", 30, StorageDenied),
            ("stat", 5, StorageUnavailable),
        ],
    )
    def test_a_failed_save_raises_and_leaves_the_earlier_ones(
        self,
        attempts: Attempts,
        monkeypatch: pytest.MonkeyPatch,
        call: str,
        code: int,
        kind: type[Exception],
        big: bool,
    ) -> None:
        data = os.urandom(100_000) if big else b"new"
        mine = attempts()
        mine.write(b"good")
        with monkeypatch.context() as patched:
            counted = self.fail(patched, call, code, times=1)
            happens = big or call in {"fdatasync", "pwrite", "stat"}
            if happens:
                with pytest.raises(kind):
                    mine.write(data)
                assert len(counted) == 1, "the fault happened once, and was not tried again"
            else:
                mine.write(data)
                assert not counted
        expected = b"good" if happens else data
        assert mine.read() == expected
        assert attempts().read() == expected
        again = attempts()
        again.write(b"after")
        assert attempts().read() == b"after"

    def test_the_same_attempt_can_save_again_after_a_fault(
        self, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = attempts()
        with monkeypatch.context() as patched:
            self.fail(patched, "fdatasync", 28, times=1)
            with pytest.raises(StorageFull):
                mine.write(b"1")
        mine.write(b"2")
        assert [attempts().read(), mine.read()] == [b"2", b"2"]

    def test_a_fault_while_loading_is_never_no_checkpoint(
        self, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attempts().write(b"1" * 100_000)
        after = attempts()
        assert after.prev_exists()

        def broken(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr("headway.storage.local.os.pread", broken)
            with pytest.raises(StorageUnavailable):
                after.read()
            with pytest.raises(StorageUnavailable):
                after.restore()
        assert after.read() == b"1" * 100_000
        assert attempts.warned == []

    def test_an_unmounted_home_is_not_an_empty_one(self, tmp_path: Path) -> None:
        (tmp_path / "headway.json").touch()
        storage = LocalStorage(tmp_path, marker="headway.json")
        Checkpoint(storage, PREFIX).write(b"1")
        os.rename(tmp_path / "headway.json", tmp_path / "gone")
        os.rename(tmp_path / "runs", tmp_path / "gone-runs")
        for use in (Checkpoint.prev_exists, Checkpoint.read):
            with pytest.raises(StorageUnavailable, match="mounted"):
                use(Checkpoint(LocalStorage(tmp_path, marker="headway.json"), PREFIX))
        assert not (tmp_path / "runs").exists()

    def test_an_interrupt_in_the_middle_of_a_save_leaves_it_usable(
        self, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = attempts()
        mine.write(b"1")
        for call in ("fdatasync", "pwrite", "stat"):
            with monkeypatch.context() as patched:

                def interrupt(*_: object, **__: object) -> None:
                    raise KeyboardInterrupt

                patched.setattr(f"headway.storage.local.os.{call}", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    mine.write(b"2")
            mine.write(b"after " + call.encode())
            assert attempts().read() == b"after " + call.encode()
            mine = attempts()

    def test_an_interrupted_turn_over_does_not_fence_itself(
        self, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The claim is made, and the process is told to leave before it knows: it is still ours."""
        mine = attempts()
        mine.write(b"1")
        real = LocalStorage.create_log

        def interrupted(self: LocalStorage, key: str, head: bytes, room: int) -> object:
            real(self, key, head, room).close()
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(LocalStorage, "create_log", interrupted)
            with pytest.raises(KeyboardInterrupt):
                mine.write(b"2" * 30_000)  # does not fit into the first log
        mine.write(b"3")
        assert attempts().read() == b"3"


class TestFencing:
    def test_a_zombie_is_told_and_never_seen(self, attempts: Attempts) -> None:
        zombie = attempts()
        zombie.write(b"0")
        alive = attempts()
        assert alive.read() == b"0"
        for data in (b"stale", b"s" * 100_000):
            with pytest.raises(CheckpointFenced):
                zombie.write(data)
        alive.write(b"1")
        with pytest.raises(CheckpointFenced, match="headway show"):
            zombie.write(b"stale")
        assert attempts().read() == b"1"
        assert [r.size for r in attempts().history()] == [1, 1]

    def test_a_fenced_turn_over_is_fenced(self, attempts: Attempts) -> None:
        zombie = attempts()
        zombie.write(b"0")
        alive = attempts()
        alive.prev_exists()
        with pytest.raises(CheckpointFenced):
            zombie.write(b"x" * 30_000)
        assert attempts().read() == b"0"

    def test_other_inputs_have_other_checkpoints(self, attempts: Attempts) -> None:
        attempts("a").write(b"a")
        assert attempts("b").read() is None
        attempts("b").write(b"b")
        assert attempts("a").read() == b"a"
        assert attempts("b").read() == b"b"

    def test_a_closed_checkpoint_says_so(self, attempts: Attempts) -> None:
        mine = attempts()
        mine.write(b"1")
        mine.close()
        mine.close()
        with pytest.raises(CheckpointError, match="has ended"):
            mine.write(b"2")
        with pytest.raises(CheckpointError, match="has ended"):
            mine.flush()

    def test_a_forked_child_is_refused(self, attempts: Attempts) -> None:
        mine = attempts()
        mine.write(b"1")
        child = os.fork()
        if child == 0:  # pragma: no cover - runs in the child
            try:
                mine.write(b"2")
            except CheckpointError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert attempts().read() == b"1"


class TestRestore:
    @pytest.fixture
    def state(self, attempts: Attempts, tmp_path: Path) -> Path:
        source = tmp_path / "state"
        (source / "sub").mkdir(parents=True)
        (source / "sub" / "w").write_bytes(MEGABYTE)
        (source / "epoch").write_bytes(b"3")
        attempts().save(source)
        return source

    def test_files_of_the_checkpoint_are_replaced(
        self, attempts: Attempts, state: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "work"
        (target / "sub").mkdir(parents=True)
        (target / "epoch").write_bytes(b"half-written 4")
        attempts().restore(str(target))
        assert tree(target) == tree(state)

    @pytest.mark.parametrize("name", ["other", "sub/other", "epoch/"])
    def test_other_files_are_refused_before_anything_changes(
        self, attempts: Attempts, state: Path, tmp_path: Path, name: str
    ) -> None:
        target = tmp_path / "work"
        other = target / name
        other.parent.mkdir(parents=True)
        if name.endswith("/"):
            other.mkdir()
        else:
            other.write_bytes(b"mine")
        before = tree(target)
        with pytest.raises(InputError, match="never mixed"):
            attempts().restore(target)
        assert tree(target) == before

    def test_a_link_in_the_target_is_not_followed(
        self, attempts: Attempts, state: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "sub").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InputError, match="never mixed"):
            attempts().restore(tmp_path / "work")
        with pytest.raises(InputError, match="not a directory"):
            attempts().restore(tmp_path / "work" / "sub")
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_what_a_killed_restore_left_is_removed(
        self, attempts: Attempts, state: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "work"
        (target / ".headway-restore-0123456789abcdef").mkdir(parents=True)
        (target / ".headway-restore-0123456789abcdef" / "epoch").touch()
        attempts().restore(target)
        assert tree(target) == tree(state)

    def test_a_damaged_checkpoint_leaves_the_target_as_it_was(
        self, attempts: Attempts, state: Path, tmp_path: Path
    ) -> None:
        (state / "epoch").write_bytes(b"4")
        (state / "sub" / "w").write_bytes(os.urandom(1 << 20))
        attempts().save(state)
        attempts.flip(attempts.packs()[-1], 500_000)
        target = tmp_path / "work"
        attempts().restore(target)
        assert (target / "epoch").read_bytes() == b"3"
        assert (target / "sub" / "w").read_bytes() == MEGABYTE

    def test_a_fresh_directory_is_reused_and_goes_with_the_attempt(
        self, attempts: Attempts, state: Path
    ) -> None:
        mine = attempts()
        place = mine.restore()
        assert place is not None
        assert tree(place) == tree(state)
        assert mine.restore() == place
        mine.write(b"newer")
        newer = mine.restore()
        assert newer is not None
        assert newer != place
        assert not place.exists()
        mine.close()
        assert not newer.exists()

    def test_a_fault_while_restoring_to_a_fresh_directory_leaves_none(
        self, attempts: Attempts, state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        mine = attempts()
        mine.prev_exists()

        def broken(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr("headway.storage.local.os.pread", broken)
            with pytest.raises(StorageUnavailable):
                mine.restore()
        assert list(tmp_path.glob("headway-*")) == []
        place = mine.restore()
        assert place is not None
        assert tree(place) == tree(state)

    def test_a_full_target_names_the_target(
        self, attempts: Attempts, state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("headway.checkpoint.directory.os.fchmod", full)
        with pytest.raises(StorageFull, match=f"restore into {tmp_path}"):
            attempts().restore(tmp_path / "work")
        assert tree(tmp_path / "work") == {}

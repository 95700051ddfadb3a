"""The power fails at any instant: what a filesystem may have kept, and what headway makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.counting import count
from tests.crash.actors import Violation
from tests.crash.jobs import Judge, Plan, run_all
from tests.crash.mutants import Edit, Mutant, planted, real

pytestmark = pytest.mark.reliability("R3")


@pytest.mark.timeout(600)  # under coverage, on a busy machine
def test_no_power_loss_loses_what_was_acknowledged(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    judge = Judge(real())
    run_all(judge.code, tmp_path / "home", judge, Plan(most=256))
    record_property("states", judge.homes)
    count("R3", "states after a power loss", judge.homes)
    count("R3", "of them different", judge.different)
    assert judge.homes > 100_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_power_loss_of_a_million_does(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    judge = Judge(real())
    run_all(judge.code, tmp_path / "home", judge, Plan(most=4096, pairs=3))
    record_property("states", judge.homes)
    count("R3", "states after a power loss", judge.homes)
    count("R3", "of them different", judge.different)
    assert judge.homes > 1_000_000


MUTANTS = [
    Mutant(
        "a new file is not flushed",
        (
            Edit(
                "local",
                "                os.fsync(fd)\n                try:\n",
                "                try:\n",
            ),
        ),
    ),
    Mutant(
        "a new file's directory is not flushed",
        (
            Edit(
                "local",
                "                sync_directory(path.parent)\n                born = True\n",
                "                born = True\n",
            ),
        ),
    ),
    Mutant(
        "a new directory's parent is not flushed",
        (Edit("local", "            sync_directory(step.parent)\n", ""),),
    ),
    Mutant(
        "a directory that somebody else made is taken for durable",
        (
            Edit(
                "local",
                "            with contextlib.suppress(FileExistsError):\n"
                "                step.mkdir(mode=0o755)\n"
                "            sync_directory(step.parent)\n",
                "            with contextlib.suppress(FileExistsError):\n"
                "                step.mkdir(mode=0o755)\n"
                "                sync_directory(step.parent)\n",
            ),
        ),
    ),
    Mutant(
        "a new file is linked before it is flushed",
        (
            Edit(
                "local",
                "                os.fsync(fd)\n                try:\n",
                "                try:\n",
            ),
            Edit(
                "local",
                "                sync_directory(path.parent)\n                born = True\n",
                "                os.fsync(fd)\n"
                "                sync_directory(path.parent)\n                born = True\n",
            ),
        ),
    ),
    Mutant(
        "a new file is written in place",
        (
            Edit(
                "local",
                'temporary = path.parent / f"{_HIDDEN}{secrets.token_hex(8)}"',
                "temporary = path",
            ),
            Edit("local", "os.link(temporary, path)", "pass"),
            Edit("local", "temporary.unlink()", "pass"),
        ),
    ),
    Mutant(
        "an append is not flushed",
        (
            Edit(
                "local",
                "            write_all(self._fd, data, self._position)\n"
                "            os.fdatasync(self._fd)\n",
                "            write_all(self._fd, data, self._position)\n",
            ),
        ),
    ),
    Mutant(
        "an append is flushed before it is written",
        (
            Edit(
                "local",
                "            write_all(self._fd, data, self._position)\n"
                "            os.fdatasync(self._fd)\n",
                "            os.fdatasync(self._fd)\n"
                "            write_all(self._fd, data, self._position)\n",
            ),
        ),
    ),
    Mutant(
        "a flush that failed is tried again",
        (
            Edit(
                "local",
                "            write_all(self._fd, data, self._position)\n"
                "            os.fdatasync(self._fd)\n",
                "            write_all(self._fd, data, self._position)\n"
                "            try:\n"
                "                os.fdatasync(self._fd)\n"
                "            except OSError:\n"
                "                os.fdatasync(self._fd)\n",
            ),
        ),
    ),
    Mutant(
        "a log grows as it is written",
        (Edit("local", "write_all(fd, head + bytes(room), 0)", "write_all(fd, head, 0)"),),
    ),
    Mutant(
        "a pack is not flushed",
        (Edit("packs", "            os.fsync(self._fd)\n            sync", "            sync"),),
    ),
    Mutant(
        "a pack's directory is not flushed",
        (
            Edit(
                "packs",
                "            os.fsync(self._fd)\n            sync_directory(self._path.parent)\n",
                "            os.fsync(self._fd)\n",
            ),
        ),
    ),
    Mutant(
        "a recycled pack's directory is not flushed",
        (
            Edit(
                "packs",
                "        self._ahead = True\n",
                "        self._new = not recycled\n        self._ahead = True\n",
            ),
            Edit(
                "packs",
                "            sync_directory(self._path.parent)\n",
                "            if self._new:\n                sync_directory(self._path.parent)\n",
            ),
        ),
    ),
    Mutant(
        "a pack is flushed before its last piece is written",
        (
            Edit("packs", "            os.fsync(self._fd)\n            sync", "            sync"),
            Edit(
                "packs",
                "            size = self._base + self._filled\n",
                "            os.fsync(self._fd)\n            size = self._base + self._filled\n",
            ),
        ),
    ),
    Mutant(
        "a pack is flushed before its end is cut",
        (
            Edit("packs", "            os.fsync(self._fd)\n            sync", "            sync"),
            Edit(
                "packs",
                "            if self._file_size > size:\n",
                "            os.fsync(self._fd)\n            if self._file_size > size:\n",
            ),
        ),
    ),
    Mutant(
        "a recycled pack keeps its old end",
        (
            Edit(
                "packs", "                os.ftruncate(self._fd, size)\n", "                pass\n"
            ),
        ),
    ),
    Mutant(
        "what was read is not settled",
        (Edit("write", "storage.settle(key, chain.last.start, chain.last.raw)", "pass"),),
    ),
    Mutant(
        "settling does not flush",
        (
            Edit(
                "local",
                "                write_all(fd, data, offset)\n                os.fdatasync(fd)\n",
                "                write_all(fd, data, offset)\n",
            ),
        ),
    ),
    Mutant(
        "settling flushes and does not write",
        (
            Edit(
                "local",
                "                write_all(fd, data, offset)\n                os.fdatasync(fd)\n",
                "                os.fdatasync(fd)\n",
            ),
        ),
    ),
    Mutant(
        "a record is acknowledged without looking at its payload",
        (
            Edit(
                "record",
                "whole = len(payload) == header.length and xxh3_128_digest(payload) == header.hash",
                "whole = len(payload) == header.length",
            ),
        ),
    ),
    Mutant(
        "a torn record is taken for damage",
        (
            Edit(
                "record",
                "        if data.count(0, start, stop) == stop - start:\n",
                "        if False:\n",
            ),
        ),
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_each_flush_is_needed(mutant: Mutant, tmp_path: Path) -> None:
    with planted(mutant) as code, pytest.raises(Violation):
        run_all(code, tmp_path / "home", Judge(code), Plan(most=24))
    count("R3", "mutants caught")


def test_a_record_before_its_pack_is_found_out(tmp_path: Path) -> None:
    judge = Judge(real())
    with pytest.raises(Violation, match="names a pack that is not there"):
        run_all(judge.code, tmp_path / "home", judge, Plan(most=24, record_first=True))


def test_space_that_is_taken_before_it_is_given_up_is_found_out(tmp_path: Path) -> None:
    judge = Judge(real())
    with pytest.raises(Violation, match="names a pack that is not there, or not whole"):
        run_all(judge.code, tmp_path / "home", judge, Plan(most=24, drop_last=True))

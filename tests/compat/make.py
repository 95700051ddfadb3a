"""Make a golden home: `python -m tests.compat.make NAME` writes `tests/compat/homes/NAME.tar.gz`.

It holds what the format of now makes of an interrupted run, of lineages with several terms, a zombie's
record, a torn end, tensors, working directories, and of signed records; and the fingerprint of the format,
so that a change of it without a new golden home is found. Homes that are there already are never made
again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent
HOMES = HERE / "homes"
LARGEST = 200 * 1024  # bytes of an archive
KEY = bytes(range(32)).hex()
"""With which the records of `signed` are signed."""


def main() -> None:
    """Make the home that the command line names."""
    if sys.argv[1] == "--drive":
        drive(Path(sys.argv[2]))
        return
    name = sys.argv[1]
    archive = HOMES / f"{name}.tar.gz"
    if archive.exists():
        raise SystemExit(f"{archive} is there already; a golden home is never made again")
    with tempfile.TemporaryDirectory(prefix="headway-golden-") as scratch:
        place = Path(scratch, "golden")
        place.mkdir()
        make_run(place / "home", Path(scratch))
        make_lineages(place / "home")
        make_directories(place / "home")
        make_signed(place / "signed")
        (place / "golden.json").write_text(json.dumps(fingerprint(), indent=1) + "\n")
        forget_this_machine(place)
        pack(place, archive)
    print(f"made {archive.relative_to(Path.cwd())}: {archive.stat().st_size} bytes")


def make_run(home: Path, scratch: Path) -> None:
    """A run whose driver was killed when its last task had saved."""
    work = scratch / "work"
    work.mkdir()
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.compat.make", "--drive", str(home)],
        cwd=HERE.parents[1],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("HEADWAY")},
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
            "GOLDEN_STOPS_HERE": "1",
            "GOLDEN_WORK": str(work),
        },
        start_new_session=True,
    )
    while not (work / "stands").exists():
        if driver.poll() is not None:
            raise SystemExit("the run ended before it stood where it is to be killed")
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    with suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGKILL)


def drive(home: Path) -> None:
    """Be the driver of the run."""
    from unittest import mock

    from headway import runtime
    from headway.engine import loading

    os.chdir(os.environ["GOLDEN_WORK"])
    module, _ = loading.load_module("headway_golden")
    nowhere = os.uname_result(("Linux", "golden", "", "", ""))
    standing = loading._standing_roots() | {HERE}
    with (
        mock.patch.object(os, "uname", return_value=nowhere),
        mock.patch.object(loading, "_standing_roots", return_value=standing),
    ):
        runtime.run(runtime.open_home(str(home)), module.golden, {"n": 3}, jobs=2)


def make_lineages(home: Path) -> None:
    """Lineages outside of the run: several terms, a zombie, a torn end; and tensors."""
    from tests.compat import headway_golden as golden

    from headway import CheckpointFenced, StorageError, open_checkpoint
    from headway.checkpoint.handle import Checkpoint
    from headway.storage.local import LocalStorage
    from headway.testing.faults import Fail, Tear

    for turn in range(4):
        with open_checkpoint(f"{home}/terms", keep="all") as checkpoint:
            checkpoint.save(golden.state(turn, large=turn % 2 == 0))
            checkpoint.write(golden.pattern(f"turn {turn}", 9_000))  # fills its log: a new term
    zombie = Checkpoint(LocalStorage(home), "lineages/terms", attempt=0)
    assert zombie.prev_exists()
    with open_checkpoint(f"{home}/terms", keep="all") as checkpoint:
        checkpoint.write(b"after the zombie")
    try:
        zombie.write(b"zombie")
    except CheckpointFenced:
        pass
    torn = Tear(LocalStorage(home), None, only="append", share=0.6)
    no_more = Fail(torn, None, only="create_log", lasting=True)
    checkpoint = Checkpoint(no_more, "lineages/torn")
    checkpoint.write(b"whole")
    torn.arm()
    no_more.arm()
    try:
        checkpoint.write(golden.pattern("torn", 5_000))
    except StorageError:
        assert torn.struck == 1
    with open_checkpoint(f"{home}/tensors") as checkpoint:
        for step in range(2):
            checkpoint.save(golden.tensors(step))


def make_directories(home: Path) -> None:
    """A lineage with working directories beside bytes, files and state; one attempt never asks for them."""
    from tests.compat import headway_golden as golden

    from headway import open_checkpoint

    url = f"{home}/directories"
    with open_checkpoint(url, keep="all") as checkpoint:
        checkpoint.write(b"before there was any")
        place = checkpoint.directory("crawl")
        (checkpoint.directory("small") / "note").write_bytes(b"a note")
        golden.crawl(place, 1)
        checkpoint.write(b"small")
        golden.crawl(place, 2)
        checkpoint.save(golden.state(2, large=True))
        golden.crawl(place, 3)
        checkpoint.save(golden.state(3, large=True), wait=False).wait()
        golden.crawl(place, 4)
        checkpoint.save(place / "same")
    with open_checkpoint(url, keep="all") as checkpoint:
        checkpoint.save(golden.state(5, large=False))


def make_signed(home: Path) -> None:
    """A lineage whose records are signed."""
    from tests.compat import headway_golden as golden

    program = (
        "import sys; from headway import open_checkpoint; import headway_golden as golden\n"
        "with open_checkpoint(sys.argv[1] + '/signed') as checkpoint:\n"
        "    checkpoint.save(golden.state(1, large=True))\n"
        "    checkpoint.write(b'signed')\n"
    )
    assert golden.TREE
    subprocess.run(
        [sys.executable, "-c", program, str(home)],
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
            "HEADWAY_KEY": KEY,
        },
    )


def fingerprint() -> dict[str, Any]:
    """What the format is, as far as it can be told from the code: changes when the format does."""
    from headway import __version__, compose
    from headway.ledger import record
    from headway.model import events, manifest

    parts: list[Any] = [compose.FORMAT]
    for module in (manifest, events):
        for name, value in sorted(vars(module).items()):
            if isinstance(value, type) and issubclass(value, msgspec.Struct):
                config = value.__struct_config__
                fields = [(f.encode_name, str(f.type)) for f in msgspec.structs.fields(value)]
                parts.append([name, config.tag, bool(config.array_like), fields])
    for name, value in sorted(vars(record).items()):
        if isinstance(value, struct.Struct):
            parts.append([name, value.format])
        elif name.isupper() and isinstance(value, int | bytes):
            parts.append([name, repr(value)])
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return {"format": compose.FORMAT, "headway": __version__, "fingerprint": digest}


def forget_this_machine(place: Path) -> None:
    """Nothing of where a home was made may be in it."""
    paths = (HERE.parents[1], place.parent, Path.home())
    secrets = {*(str(path).encode() for path in paths), msgspec.msgpack.encode(os.uname().nodename)}
    for path in place.rglob("*"):
        if path.is_file():
            if path.suffix == ".lock":
                path.unlink()
                continue
            data = path.read_bytes()
            for secret in secrets:
                assert secret not in data, f"{path} holds {secret!r}"


def pack(place: Path, archive: Path) -> None:
    """An archive that says nothing of who made it."""

    def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mtime = 0
        return info

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.add(place, arcname=".", filter=anonymous)
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(gzip.compress(raw.getvalue(), mtime=0))
    size = archive.stat().st_size
    if size > LARGEST:
        archive.unlink()
        raise SystemExit(f"{archive} would have {size} bytes, and {LARGEST} is the most")


if __name__ == "__main__":
    main()

"""Homes that older releases wrote stay readable, to the last bit, and can be gone on from (P19)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.compat import headway_golden as golden
from tests.compat.make import HERE, HOMES, KEY, LARGEST, fingerprint

from headway import compose, open_checkpoint, runtime
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.checkpoint.load import state_of
from headway.checkpoint.restore import content
from headway.engine.journal import read_journal
from headway.engine.keys import node_prefix, values_prefix
from headway.engine.values import Values
from headway.model.events import AttemptEnded
from headway.model.manifest import Manifest
from headway.ports import Storage
from headway.testing.comparing import difference
from headway.testing.playing import files_in

ARCHIVES = sorted(HOMES.glob("*.tar.gz"))
EVERY: list[Callable[[], Any]] = [
    lambda: {"data": (0o644, b"small")},
    lambda: {"data": (0o644, golden.pattern("bytes", 40_000))},
    lambda: {"run.sh": golden.TREE["bin/run.sh"]},
    lambda: golden.TREE,
    lambda: golden.state(5, large=False),
    lambda: golden.state(6, large=True),
    lambda: golden.state(7, large=True),
]
"""What the checkpoints of the node `every` hold."""


@dataclass
class Home:
    """A golden home, unpacked."""

    place: Path

    @property
    def path(self) -> Path:
        return self.place / "home"

    @property
    def storage(self) -> Storage:
        return compose.open_storage(str(self.path))

    @property
    def run(self) -> str:
        (run,) = runtime.runs(runtime.open_home(str(self.path)))
        return run.run


@pytest.fixture(params=ARCHIVES, ids=[path.name.removesuffix(".tar.gz") for path in ARCHIVES])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    with tarfile.open(request.param) as tar:
        tar.extractall(tmp_path, filter="data")
    return Home(tmp_path)


def held(storage: Storage, prefix: str, manifest: Manifest) -> Any:
    """What a checkpoint holds, like `EVERY` has it."""
    if manifest.kind == "state":
        return state_of(storage, f"{prefix}/packs", manifest)
    return {
        entry.name: (
            entry.mode,
            b"".join(content(storage, f"{prefix}/packs", manifest, entry)),
        )
        for entry in manifest.entries
        if entry.kind == "file"
    }


def test_a_run_is_shown(home: Home) -> None:
    report = runtime.show(runtime.open_home(str(home.path)), home.run)
    assert report.status == "interrupted"
    assert {node.name: node.status for node in report.nodes} == {
        "files": "succeeded",
        "produce": "succeeded",
        "every": "succeeded",
        "dropping": "succeeded",
        "last": "ready",  # its attempt died with the driver
    }
    attempts = {node.name: [a.outcome for a in node.attempts] for node in report.nodes}
    assert attempts["every"] == ["killed", "succeeded"]
    numbers = {
        node.name: [c.number for a in node.attempts for c in a.checkpoints] for node in report.nodes
    }
    assert numbers == {
        "files": [],
        "produce": [],
        "every": [1, 2, 3, 4, 5, 6, 7],
        "dropping": [4, 5],
        "last": [1],
    }


def test_every_checkpoint_holds_what_was_saved(home: Home) -> None:
    prefix = node_prefix(home.run, "every")
    manifests = read_lineage(home.storage, prefix).manifests
    assert len(manifests) == len(EVERY)
    for manifest, saved in zip(manifests, EVERY, strict=True):
        assert difference(held(home.storage, prefix, manifest), saved()) == "", manifest.number


def test_what_is_kept_holds_what_was_saved(home: Home) -> None:
    prefix = node_prefix(home.run, "dropping")
    manifests = read_lineage(home.storage, prefix).manifests
    for manifest, step in zip(manifests, (3, 4), strict=True):
        found = held(home.storage, prefix, manifest)
        assert difference(found, golden.state(step, large=True)) == ""


def test_values_are_what_was_returned(home: Home) -> None:
    events, notes = read_journal(home.storage, home.run)
    assert notes == []
    values = Values(home.storage, values_prefix(home.run))
    outputs = {
        event.node: event.outputs
        for event in events
        if isinstance(event, AttemptEnded) and event.outputs is not None
    }
    found = values.decode(outputs["produce"]["o0"], dict[str, list[int]])
    assert found == golden.produce.function(3)


def test_the_run_can_be_resumed(home: Home) -> None:
    program = (
        "import sys; from headway import runtime\n"
        "home = runtime.open_home(sys.argv[1])\n"
        "report = runtime.resume(home)\n"
        "print(report.status, len(report.nodes), sum(len(n.attempts) for n in report.nodes))\n"
        "print(report.result)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(home.path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=home.place,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    ended, result = done.stdout.splitlines()[-2:]
    assert (
        ended == "succeeded 5 7"
    )  # one attempt more than there were: of the node that had not finished
    items = sorted(golden.produce.function(3).items())
    digest = hashlib.sha256(repr(items).encode()).hexdigest()
    assert result == f"{digest} 3 70000 {['a.txt', 'bin', 'large', 'run.sh', 'void', 'ünï']}"


def test_a_lineage_of_several_terms_is_whole_and_goes_on(home: Home) -> None:
    prefix = "lineages/terms"
    lineage = read_lineage(home.storage, prefix)
    assert lineage.damage == ()
    saved: list[Any] = []
    for turn in range(4):
        saved += [
            golden.state(turn, large=turn % 2 == 0),
            {"data": (0o644, golden.pattern(f"turn {turn}", 9_000))},
        ]
    saved.append({"data": (0o644, b"after the zombie")})
    found = [held(home.storage, prefix, manifest) for manifest in lineage.manifests]
    assert difference(found, saved) == ""
    with open_checkpoint(f"{home.path}/terms", keep="all") as checkpoint:
        assert checkpoint.read() == b"after the zombie"
        checkpoint.save(golden.state(9, large=True))
    with open_checkpoint(f"{home.path}/terms") as checkpoint:
        assert difference(checkpoint.load(), golden.state(9, large=True)) == ""
        assert len(checkpoint.history()) == len(saved) + 1


def test_working_directories_come_back_with_what_they_were_saved_with(home: Home) -> None:
    prefix = "lineages/directories"
    manifests = read_lineage(home.storage, prefix).manifests
    if not manifests:
        pytest.skip("a home from before there were any")
    given = [
        {"data": (0o644, b"before there was any")},
        {"data": (0o644, b"small")},
        golden.state(2, large=True),
        golden.state(3, large=True),
        {"same": (0o644, golden.pattern("same", 50_000))},
        golden.state(5, large=False),
    ]
    packs = f"{prefix}/packs"
    for manifest, saved, step in zip(manifests, given, [0, 1, 2, 3, 4, 4], strict=True):
        found = held(home.storage, prefix, manifest.only(manifest.given))
        assert difference(found, saved) == "", manifest.number
        files = {
            entry.name: b"".join(content(home.storage, packs, manifest, entry))
            for entry in manifest.beside
            if entry.kind == "file"
        }
        crawled = {f"crawl/{name}": data for name, data in golden.crawled(step).items()}
        assert files == ({**crawled, "small/note": b"a note"} if step else {})
    with open_checkpoint(f"{home.path}/directories") as checkpoint:
        place = checkpoint.directory("crawl")
        assert files_in(place) == golden.crawled(4)
        assert difference(checkpoint.load(), golden.state(5, large=False)) == ""
        golden.crawl(place, 5)
        checkpoint.write(b"on")
    with open_checkpoint(f"{home.path}/directories") as checkpoint:
        assert files_in(checkpoint.directory("crawl")) == golden.crawled(5)


def test_a_torn_end_is_told_and_passed_over(home: Home) -> None:
    told: list[str] = []
    checkpoint = Checkpoint(
        home.storage, "lineages/torn", on_warning=lambda warned: told.append(warned.kind)
    )
    assert checkpoint.read() == b"whole"
    assert told == ["unfinished"]
    checkpoint.close()


@pytest.mark.frameworks
def test_tensors_come_back(home: Home) -> None:
    pytest.importorskip("torch")
    with open_checkpoint(f"{home.path}/tensors") as checkpoint:
        assert len(checkpoint.history()) == 2
        assert difference(checkpoint.load(), golden.tensors(1)) == ""


def test_signed_records_are_read_with_their_key_and_refused_without(home: Home) -> None:
    program = (
        "import sys; from headway import open_checkpoint; import headway_golden as golden\n"
        "from headway.testing.comparing import difference\n"
        "with open_checkpoint(sys.argv[1] + '/signed') as checkpoint:\n"
        "    assert checkpoint.read() == b'signed'\n"
        "    assert [c.number for c in checkpoint.history()] == [1, 2]\n"
        "    checkpoint.save(golden.state(3, large=True))\n"
        "    assert difference(checkpoint.load(), golden.state(3, large=True)) == ''\n"
    )

    def read(key: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, str(home.place / "signed")],
            capture_output=True,
            text=True,
            check=False,
            env={**environment(), "HEADWAY_KEY": key},
        )

    refused = read(KEY[::-1])
    assert refused.returncode == 1
    assert "headway.model.errors." in refused.stderr
    accepted = read(KEY)
    assert accepted.returncode == 0, accepted.stderr


def environment() -> dict[str, str]:
    """Of a process that can import the program of the homes."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HEADWAY", "GOLDEN"))}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [kept.get("PYTHONPATH")])]),
    }


def test_the_format_of_now_has_a_golden_home() -> None:
    assert ARCHIVES
    made = []
    for archive in ARCHIVES:
        assert archive.stat().st_size <= LARGEST
        with tarfile.open(archive) as tar:
            file = tar.extractfile("./golden.json")
            assert file is not None
            made.append(json.load(file))
    now = fingerprint()
    assert now in made, (
        "the format of records has changed since the newest golden home was made. If homes of that "
        "format were released, see that they are still read, and add one of the new format: "
        "python -m tests.compat.make NAME. Then say so in docs/design/format.md and CHANGELOG.md."
    )
    assert compose.FORMAT in {home["format"] for home in made}


def test_a_format_that_changed_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    assert fingerprint() == before
    monkeypatch.setattr(compose, "FORMAT", compose.FORMAT + 1)
    assert fingerprint()["fingerprint"] != before["fingerprint"]

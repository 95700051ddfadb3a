"""`kill -9` at random instants of bodies that keep files and state (P1, P18): whatever attempt goes on
finds the files that belong to its state, and what comes out is what an undisturbed one makes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.counting import count
from tests.crash import crawling
from tests.crash.mounts import disk
from tests.crash.nursery import MARK, Nursery, descendants, survivors
from tests.crash.tracing import log_of, needs_strace, points, run_traced, sample

from headway import open_checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.checkpoint.turn import Turn
from headway.storage.local import LocalStorage

pytestmark = pytest.mark.reliability("R2", "R9")

BODY = "tests.crash.crawling:lineage"
WAYS = ["state", "directory first", "background", "bytes"]
PAGES, FEW = 30, 4
SAMPLE, RELEASE = 10, int(os.environ.get("HEADWAY_KILLS", "100"))
MOST = 40  # attempts of one lineage

amount = pytest.mark.parametrize(
    "kills",
    [
        pytest.param(SAMPLE, id="sample"),
        pytest.param(RELEASE, id="release", marks=pytest.mark.slow),
    ],
)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@amount
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout(1800)
def test_files_and_state_stay_together(
    nursery: Nursery, tmp_path: Path, way: str, kills: int
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {"TMPDIR": str(scratch)}
    began = time.monotonic()
    alone = nursery.child(BODY, f"{tmp_path}/alone/crawl", PAGES, way, env=env)
    alone.go()
    assert alone.wait() == 0, alone.said()
    took = time.monotonic() - began
    source = random.Random(f"{way} {kills}")
    struck = lineages = 0
    seen: set[int] = set()
    while struck < kills or len(seen) < 4:
        lineages += 1
        url = f"{tmp_path}/{lineages}/crawl"
        for _ in range(MOST):
            child = nursery.child(BODY, url, PAGES, way, env=env)
            child.go()
            time.sleep(source.uniform(0, took))
            if not child.ended():
                os.kill(child.pid, signal.SIGKILL)
            code = child.wait()
            assert code in {0, -signal.SIGKILL}, child.said()
            if code == 0:
                break
            struck += 1
            seen.add(_saved(url))
        else:
            nursery.run(BODY, url, PAGES, way)
        with open_checkpoint(url) as checkpoint:
            assert crawling.found(checkpoint.directory("crawl")) == crawling.expected(PAGES)
    count("R2", f"kills while files and state are saved: {way}", struck)
    count("R9", "interrupted runs with the result of an uninterrupted one", lineages)


def _saved(url: str) -> int:
    """How many checkpoints there were."""
    home, _, name = url.rpartition("/")
    return read_lineage(LocalStorage(Path(home)), f"lineages/{name}").newest


class Struck:
    """Crawls that are killed before one system call each.

    Args:
        nursery: where children come from.
        place: a directory for what is not the home.
        homes: a directory for homes.
        cut: cuts the power, and gives it back.
    """

    def __init__(
        self, nursery: Nursery, place: Path, homes: Path, cut: Callable[[], None] = lambda: None
    ) -> None:
        self.nursery = nursery
        self.place = place
        self.homes = homes
        self.cut = cut
        self.count = self.saved = 0
        (place / "scratch").mkdir()

    def crawl(self, name: str, *inject: str) -> int:
        """One attempt; how it ended."""
        arguments = f"{self.homes}/{name}/crawl", FEW, "state", f"{self.place}/{name}.side"
        child = self.nursery.child(BODY, *arguments, env={"TMPDIR": f"{self.place}/scratch"})
        code = run_traced(child, self.place / "log", *inject)
        assert code in {0, -signal.SIGKILL}, child.said()
        return code

    def points(self) -> list[tuple[str, int]]:
        """The calls that concern the home."""
        assert self.crawl("whole") == 0
        return points(log_of(self.place / "log"), self.homes)

    def strike(self, name: str, n: int) -> None:
        """Kill before the n-th call of a name. What was acknowledged is there, and the body, which looks
        whether files and state belong together, goes on to the end."""
        case = f"{name}-{n}"
        if self.crawl(case, f"{name}:signal=SIGKILL:when={n}") == 0:
            return
        self.count += 1
        self.cut()
        side = self.place / f"{case}.side"
        acked = len(side.read_text().splitlines()) if side.exists() else 0
        url = f"{self.homes}/{case}/crawl"
        with open_checkpoint(url) as checkpoint:
            state = checkpoint.load() or {"pages": 0}
            assert acked <= state["pages"] <= acked + 1
            self.saved += acked > 0
            assert crawling.found(checkpoint.directory("crawl")) == crawling.expected(
                state["pages"]
            )
        assert self.crawl(case) == 0
        with open_checkpoint(url) as checkpoint:
            assert crawling.found(checkpoint.directory("crawl")) == crawling.expected(FEW)
        shutil.rmtree(self.homes / case)


@needs_strace
@pytest.mark.reliability("R1")
@pytest.mark.parametrize(
    "every", [pytest.param(9, id="sample"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
@pytest.mark.timeout(1800)
def test_killed_before_any_call(nursery: Nursery, tmp_path: Path, every: int) -> None:
    (tmp_path / "homes").mkdir()
    struck = Struck(nursery, tmp_path, tmp_path / "homes")
    where = sample(struck.points(), every)
    for point in where:
        struck.strike(*point)
    assert struck.count >= 0.9 * len(where)
    assert struck.saved > 5
    count("R1", "kill points of saves with a directory", struck.count)


@needs_strace
@pytest.mark.root
@pytest.mark.reliability("R3")
@pytest.mark.parametrize(
    "every", [pytest.param(8, id="sample"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
@pytest.mark.timeout(1800)
def test_when_the_power_fails(nursery: Nursery, tmp_path: Path, every: int) -> None:
    (tmp_path / "place").mkdir()
    with disk(tmp_path, "ext4") as plugged:

        def cut() -> None:
            plugged.fail()
            plugged.power_cycle()

        struck = Struck(nursery, tmp_path / "place", plugged.root, cut)
        where = sample(struck.points(), every)
        for point in where:
            struck.strike(*point)
    assert struck.count >= 0.9 * len(where)
    assert struck.saved > 2
    count("R3", "power cuts of saves with a directory", struck.count)


PROGRAM = Path(crawling.__file__)


class Crawl:
    """A run of the tracked loop, in a process of its own."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.mark = f"{place}"
        self.log = place / "log"
        (place / "scratch").mkdir()
        self.scratch = place / "scratch"
        command = [sys.executable, "-m", "headway", "run", str(PROGRAM), "crawl", "--json"]
        self.process = subprocess.Popen(
            [*command, "--pages", str(PAGES), "--log", str(self.log)],
            env={
                **os.environ,
                "HEADWAY_HOME": str(place / "home"),
                "TMPDIR": str(self.scratch),
                MARK: self.mark,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def worker(self) -> int | None:
        """The process that runs the body now."""
        for pid in descendants(self.mark):
            with suppress(OSError):
                if Path("/proc", str(pid), "comm").read_text().strip() == "headway worker"[:15]:
                    return pid
        return None

    def report(self) -> dict[str, Any]:
        """What it ended with."""
        said, errors = self.process.communicate(timeout=100)
        assert self.process.returncode == 0, (errors, said)
        found: dict[str, Any] = json.loads(said)
        return found

    @property
    def begun(self) -> list[int]:
        """From which page each attempt went on."""
        if not self.log.exists():
            return []
        return [int(line.split()[0]) for line in self.log.read_text().splitlines()]


@amount
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
@pytest.mark.timeout(1800)
def test_of_a_tracked_loop_too(tmp_path: Path, number: signal.Signals, kills: int) -> None:
    alone = Crawl(tmp_path / "alone")
    while not alone.begun:
        time.sleep(0.01)
    began = time.monotonic()
    expected = alone.report()["result"]
    took = time.monotonic() - began
    source = random.Random(f"{number} {kills}")
    sent = runs = later = 0
    while sent < kills or not later:
        runs += 1
        crawl = Crawl(tmp_path / f"{runs}")
        for attempt in range(1, 5):
            while len(crawl.begun) < attempt and crawl.process.poll() is None:
                time.sleep(0.005)
            time.sleep(source.uniform(0, took / 2))
            worker = crawl.worker()
            if worker is None or crawl.process.poll() is not None:
                break
            with suppress(ProcessLookupError):
                os.kill(worker, number)
                sent += 1
        report = crawl.report()
        assert report["result"] == expected
        (node,) = report["nodes"]
        assert {attempt["outcome"] for attempt in node["attempts"]} <= {
            "succeeded",
            "killed",
            "preempted",
        }, node
        assert survivors(crawl.mark) == []
        assert list(crawl.scratch.iterdir()) == [], "what attempts had for themselves is gone"
        later += sum(page > 0 for page in crawl.begun)
        directories = [c["directories"] for a in node["attempts"] for c in a["checkpoints"]]
        assert directories and all(names in ([], ["crawl"]) for names in directories)
    count("R2", f"{number.name}s to tracked loops with files", sent)
    count("R9", "interrupted runs with the result of an uninterrupted one", runs)


def test_a_pair_that_parts_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories in a record of their own, before that of the state."""
    real = Turn.commit
    url = f"{tmp_path}/home/crawl"

    def two(self: Turn, *arguments: Any, beside: Any = None, **named: Any) -> Any:
        if beside is not None:
            with suppress(AttributeError):
                old = self.latest
                assert old is not None
                real(
                    self, 0.0, old.kind, old.size, old.given, old.packs, old.skeleton, beside=beside
                )
            if two_calls.append(1) or len(two_calls) == 3:  # type: ignore[func-returns-value]
                raise KeyboardInterrupt  # as a kill would
        return real(self, *arguments, beside=beside, **named)

    two_calls: list[int] = []
    with open_checkpoint(url) as checkpoint:  # so that there is a state to go before
        place = checkpoint.directory("crawl")
        crawling.fetch(place, 0)
        checkpoint.write(b"1")
    monkeypatch.setattr(Turn, "commit", two)
    with pytest.raises(KeyboardInterrupt):
        crawling.lineage(url, PAGES, "bytes")
    monkeypatch.setattr(Turn, "commit", real)
    with pytest.raises(AssertionError, match="the state says"):
        crawling.lineage(url, PAGES, "bytes")

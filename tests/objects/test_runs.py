"""Whole runs with a home in a bucket, through the real command line, on a real server."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="needs obstore: pip install 'headway[object]'")

from tests.crash import flow
from tests.objects import servers
from tests.objects.cloud import STEPS, Cloud, attempts, done, outage, until
from tests.objects.counting import counting

pytestmark = [pytest.mark.objects, pytest.mark.timeout(240)]

SERVERS = {"s3": "seaweed", "az": "azurite"}
PROGRAMS = {"s3": ("weed", servers.seaweedfs), "az": ("azurite-blob", servers.azurite)}

schemes = pytest.mark.parametrize(
    "scheme", ["s3", pytest.param("az", marks=[pytest.mark.azure, pytest.mark.slow])]
)


@pytest.fixture
def scheme() -> str:
    """Which kind of store, unless a test says that it is for several."""
    return "s3"


@pytest.fixture
def cloud(request: pytest.FixtureRequest, tmp_path: Path, scheme: str) -> Cloud:
    return Cloud(request.getfixturevalue(SERVERS[scheme]), tmp_path, scheme)


@pytest.fixture
def mortal(tmp_path: Path, scheme: str) -> Iterator[Cloud]:
    """On a server of its own, which may be killed."""
    name, begin = PROGRAMS[scheme]
    if servers.program(name) is None:
        pytest.skip(f"needs {name}, see `make objects`")
    with begin() as server:
        yield Cloud(server, tmp_path, scheme)


# Every command


@schemes
def test_a_run_in_a_bucket_is_seen_and_handled_from_every_machine(cloud: Cloud) -> None:
    assert cloud.headway("run", "program.py", "speak", "--number", "20") == "126\n"
    [summary] = json.loads(cloud.headway("runs", "--json", machine="b"))
    assert (summary["status"], summary["finished"]) == ("succeeded", 3)
    shown = cloud.headway("show", machine="b")
    assert "result: 126" in shown and "checkpoint 1" in shown
    assert cloud.headway("logs", machine="b") == "── talk, attempt 0\nthe number is 21\n"
    assert cloud.headway("resume", summary["run"], machine="b") == "126\n"
    assert list(cloud.place.glob("a/headway/*/runs/*/logs/*/*")) == []
    cloud.headway("delete", "--yes", summary["run"], machine="b")
    assert json.loads(cloud.headway("runs", "--json")) == []


@schemes
def test_python_and_open_checkpoint_take_a_bucket_too(cloud: Cloud) -> None:
    assert done(cloud.start("program.py"))[0] == "126\n"
    count = (
        "import sys; from headway import open_checkpoint\n"
        "with open_checkpoint(sys.argv[1]) as cp:\n"
        "    state = cp.load() or {'n': 0}\n"
        "    cp.save({'n': state['n'] + 1}); print(cp.load()['n'])"
    )
    for number, machine in enumerate("abb", 1):
        out = done(cloud.start("-c", count, f"{cloud.home}/nightly", machine=machine))[0]
        assert out == f"{number}\n"


def test_a_command_goes_on_on_another_machine(cloud: Cloud) -> None:
    """What it tracks and what it keeps is in the bucket."""
    (cloud.place / "fit.py").write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from headway import track\n"
        "state = track(total=0, every=0.001)\n"
        "out = Path('out'); out.mkdir(exist_ok=True)\n"
        "print('from', state.total, sorted(os.listdir(out)))\n"
        "for i in state.range(6):\n"
        "    state.total += i\n"
        "(out / os.environ['HEADWAY_ATTEMPT']).touch()\n"
        "sys.exit(1 - int(os.environ['HEADWAY_ATTEMPT']))\n"
    )
    cloud.headway("exec", "--keep", "out", "--", sys.executable, "fit.py", code=1)
    (cloud.place / "out").rename(cloud.place / "elsewhere")
    cloud.headway("resume", "--take-over", machine="b")
    assert "from 15 ['0']" in cloud.headway("logs", machine="a")
    assert sorted(each.name for each in (cloud.place / "out").iterdir()) == ["0", "1"]


def test_a_task_costs_two_requests(cloud: Cloud) -> None:
    with counting(cloud.server.endpoint) as proxy:
        cloud.endpoint = proxy.endpoint
        cloud.headway("run", "program.py", "speak", "--number", "20")
        proxy.requests.clear()
        cloud.headway("run", "--quiet", "--jobs", "1", "program.py", "many", "--number", "1")
        print(f"20 tasks: {len(proxy.requests)} requests, {proxy.methods()}")
        assert 40 <= len(proxy.requests) <= 40 + 30


@pytest.mark.slow
def test_a_run_is_cancelled_from_another_machine(cloud: Cloud) -> None:
    driver = cloud.count()
    cloud.saves(1, driver)
    run = json.loads(cloud.headway("runs", "--json", machine="b"))[0]
    assert run["status"] == "running"
    os.kill(attempts(cloud.side, "count")[0], signal.SIGSTOP)  # it shall not end meanwhile
    cloud.headway("cancel", run["run"], machine="b")
    _, err = done(driver, 6)
    assert "cancelled" in err


# Deaths


@schemes
def test_a_killed_worker_is_followed_by_one_that_goes_on(cloud: Cloud) -> None:
    driver = cloud.count()
    for _ in range(2):
        cloud.saves(4, driver)
        os.kill(attempts(cloud.side, "count")[-1], signal.SIGKILL)
        before = len(attempts(cloud.side, "count"))
        until(lambda before=before: len(attempts(cloud.side, "count")) > before)  # type: ignore[misc]
    cloud.judge(done(driver)[0])
    assert len(attempts(cloud.side, "count")) == 3


@schemes
def test_a_killed_driver_is_resumed_here_at_once_and_elsewhere_by_taking_over(cloud: Cloud) -> None:
    driver = cloud.count()
    cloud.saves(4, driver)
    driver.kill()
    done(driver, -signal.SIGKILL)
    again = cloud.start("-m", "headway", "resume")
    cloud.saves(4, again)
    again.kill()
    _, err = done(again, -signal.SIGKILL)
    assert "watching" not in err
    cloud.judge(cloud.headway("resume", "--take-over", machine="b"))
    assert len(attempts(cloud.side, "first")) == 1
    assert len(attempts(cloud.side, "count")) == 3


@pytest.mark.slow
def test_a_killed_driver_is_resumed_elsewhere_once_it_has_been_silent(cloud: Cloud) -> None:
    driver = cloud.count()
    cloud.saves(4, driver)
    driver.kill()
    done(driver, -signal.SIGKILL)
    began = time.monotonic()
    out, err = done(cloud.start("-m", "headway", "resume", machine="b"))
    assert "watching for up to 30 s" in err
    assert time.monotonic() - began > 30
    cloud.judge(out)


def test_a_driver_that_was_stopped_and_taken_over_from_says_so_and_leaves(cloud: Cloud) -> None:
    driver = cloud.count()
    cloud.saves(4, driver)
    driver.send_signal(signal.SIGSTOP)
    out = cloud.headway("resume", "--take-over", machine="b")
    driver.send_signal(signal.SIGCONT)
    _, err = done(driver, 5)
    assert "took run" in err and "left" in err
    assert out.strip() == flow.expected(STEPS)
    report = json.loads(cloud.headway("show", "--json"))
    assert (report["status"], report["result"]) == ("succeeded", flow.expected(STEPS))


@schemes
def test_a_server_that_is_killed_and_comes_back_costs_time_and_nothing_else(mortal: Cloud) -> None:
    driver = mortal.count()
    for _ in range(3):
        mortal.saves(4, driver)
        with outage(mortal):
            time.sleep(0.5)  # so that requests meet a closed door
            assert driver.poll() is None
    mortal.judge(done(driver)[0])
    assert len(attempts(mortal.side, "count")) == 1


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_run_in_good_order(mortal: Cloud) -> None:
    driver = mortal.count(HEADWAY_STORE_PATIENCE="1")
    mortal.saves(4, driver)
    with outage(mortal):
        out, err = done(driver, 4)
        assert (out, "go on with: headway resume" in err) == ("", True), err
        assert all(not Path(f"/proc/{pid}").exists() for pid in attempts(mortal.side, "count"))
        mortal.headway("resume", code=4, HEADWAY_STORE_PATIENCE="1")
    mortal.judge(mortal.headway("resume"))
    assert len(attempts(mortal.side, "first")) == 1


@pytest.mark.slow
def test_everything_dies_at_once(mortal: Cloud) -> None:
    driver = mortal.count()
    mortal.saves(4, driver)
    with outage(mortal):
        os.kill(attempts(mortal.side, "count")[-1], signal.SIGKILL)
        driver.kill()
        done(driver, -signal.SIGKILL)
    mortal.judge(mortal.headway("resume"))

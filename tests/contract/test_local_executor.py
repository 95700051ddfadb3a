"""What is special about processes on this machine: keepers, and deaths of every party."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.contract.bench import SOON, Bench, alive, until

from headway.executors.local import LocalExecutor, NoProcess
from headway.model.errors import HeadwayError
from headway.model.program import Died, Program, Raised, Returned

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    executor = LocalExecutor(2)
    yield Bench(executor, tmp_path)
    executor.close()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def number_in(file: Path) -> int:
    until(lambda: file.exists() and file.read_text().strip())
    return int(file.read_text())


def family_of(pid_file: Path) -> list[int]:
    """Worker, keeper, the worker's child and its daemon, once the body `family` is at rest."""
    worker = number_in(pid_file)
    child = number_in(pid_file.with_name(pid_file.name + ".child"))
    daemon = number_in(pid_file.with_name(pid_file.name + ".daemon"))
    return [worker, parent(worker), child, daemon]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("how", ["alone", "forked"])
def test_no_process_is_left_when_the_driver_is_killed(tmp_path: Path, how: str) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.driver", str(tmp_path), how], cwd=ROOT
    )
    try:
        pids = [pid for n in range(2) for pid in family_of(tmp_path / f"{n}.pid")]
        fork = number_in(tmp_path / "fork.pid") if how == "forked" else None
        assert len(set(pids)) == 8
        assert all(map(alive, pids))
    finally:
        driver.kill()
        driver.wait()
    try:
        until(lambda: not any(map(alive, pids)))
    finally:
        if fork is not None:
            assert alive(fork)
            os.kill(fork, signal.SIGKILL)


def test_no_process_is_left_when_the_driver_is_killed_while_workers_are_frozen(
    tmp_path: Path,
) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.driver", str(tmp_path), "alone"], cwd=ROOT
    )
    try:
        pids = [pid for n in range(2) for pid in family_of(tmp_path / f"{n}.pid")]
        for worker in (pids[0], pids[4]):
            os.kill(worker, signal.SIGSTOP)
    finally:
        driver.kill()
        driver.wait()
    until(lambda: not any(map(alive, pids)))


def test_a_keeper_that_is_killed_takes_its_worker_along_and_is_replaced(bench: Bench) -> None:
    file = bench.directory / "pid"
    spec = bench.submit("family", pid_file=str(file))
    until(lambda: bench.executor.poll(0.01) is not None and file.exists())
    worker, keeper, child, daemon = family_of(file)
    os.kill(keeper, signal.SIGKILL)
    assert bench.last(spec) == Died(-signal.SIGKILL)
    assert not any(map(alive, (worker, keeper, child, daemon)))
    assert bench.value("double", number=4) == 8


def test_a_keeper_that_is_killed_while_idle_is_replaced(bench: Bench) -> None:
    _, worker = bench.value("identity")
    os.kill(parent(worker), signal.SIGKILL)
    until(lambda: not alive(worker))
    bench.executor.poll(0.05)
    assert bench.value("double", number=4) == 8


def test_an_idle_worker_that_is_killed_is_replaced(bench: Bench) -> None:
    _, worker = bench.value("identity")
    os.kill(worker, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{worker}").exists())
    assert bench.value("double", number=4) == 8


def test_signals_to_a_keeper_do_not_reach_the_attempt(bench: Bench) -> None:
    spec, worker = bench.waiting("finish_when_told")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(parent(worker), number)
    assert bench.stop(spec, SOON) == Returned({"o0": "saved"}, clean=False)


def test_a_keeper_serves_one_attempt_after_the_other(bench: Bench) -> None:
    keepers = set()
    for _ in range(3):
        _, worker = bench.value("identity")
        keepers.add(parent(worker))
        bench.end("exit_process", code=1)
    assert len(keepers) == 1


def test_nothing_is_left_open_by_fifty_attempts(bench: Bench) -> None:
    bench.value("double", number=1)
    before = open_descriptors()
    _, worker = bench.value("identity")
    in_keeper = len(os.listdir(f"/proc/{parent(worker)}/fd"))
    in_worker = len(os.listdir(f"/proc/{worker}/fd"))
    keeper = parent(worker)
    for number in range(50):
        if number % 10 == 0:
            bench.end("fail", how="value")
        else:
            bench.value("double", number=number)
    _, worker = bench.value("identity")
    assert parent(worker) == keeper
    assert len(os.listdir(f"/proc/{keeper}/fd")) == in_keeper
    assert len(os.listdir(f"/proc/{worker}/fd")) == in_worker
    assert open_descriptors() == before


def test_close_leaves_nothing_open(tmp_path: Path) -> None:
    before = open_descriptors()
    executor = LocalExecutor(2)
    bench = Bench(executor, tmp_path)
    bench.value("double", number=1)
    executor.close()
    assert open_descriptors() == before


def test_an_idle_worker_ends_with_its_exit_handlers_at_close(tmp_path: Path) -> None:
    executor = LocalExecutor(1)
    bench = Bench(executor, tmp_path)
    bench.value("touch_at_exit", path=str(tmp_path / "ended"))
    assert not (tmp_path / "ended").exists()
    executor.close()
    assert (tmp_path / "ended").exists()


def test_an_idle_worker_of_another_program_makes_room(bench: Bench) -> None:
    (bench.directory / "other.py").write_text(
        "from headway import task\n\n@task\ndef answer() -> int:\n    return 42\n"
    )
    bench.value("double", number=1)
    where = str(bench.directory)
    spec = msgspec.structs.replace(
        bench.spec("answer"),
        task="other:answer",
        program=Program("other", f"{where}/other.py", (where,), "x"),
    )
    bench.start(spec)
    last = bench.last(spec)
    assert isinstance(last, Returned)
    assert (last.outputs, last.clean) == ({"o0": 42}, True)
    assert bench.value("double", number=2) == 4


def test_the_lock_is_held_until_the_last_process_is_gone_and_not_by_programs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    ours = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(ours, fcntl.LOCK_EX)
    executor = LocalExecutor(1, lock_fd=ours)
    os.close(os.dup(ours))
    bench = Bench(executor, tmp_path)
    bench.submit("family", pid_file=str(tmp_path / "pid"))
    worker, keeper, child, _ = family_of(tmp_path / "pid")

    def holds(pid: int) -> bool:
        fds = Path(f"/proc/{pid}/fd")
        return any(os.readlink(fd) == str(path) for fd in fds.iterdir())

    assert holds(worker)
    assert holds(keeper)
    assert not holds(child)
    other = os.open(path, os.O_RDWR)
    os.close(ours)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    executor.close()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_without_descriptors_submit_says_so_and_leaks_nothing(bench: Bench) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    free = os.dup(0)  # the limit is on numbers, and others may have left holes
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        with pytest.raises(NoProcess, match="ulimit -n") as caught:
            bench.executor.submit(bench.spec("double", number=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(caught.value, HeadwayError)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EMFILE
    assert open_descriptors() == before
    assert bench.value("double", number=1) == 2


def test_an_interpreter_that_cannot_start_a_keeper_is_an_error_and_not_an_attempt_that_died(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    bench.executor.submit(bench.spec("double", number=1))
    with pytest.raises(HeadwayError, match=r"could not start \(exit code 1\)"):
        bench.executor.poll(SOON)


def test_jobs_must_be_positive_and_default_to_the_cores() -> None:
    with pytest.raises(HeadwayError, match="at least 1"):
        LocalExecutor(0)
    executor = LocalExecutor()
    assert executor.slots == len(os.sched_getaffinity(0))
    executor.close()


def test_no_warning_comes_from_keepers_and_workers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Python 3.12 warns when a process with threads forks: a keeper has none."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert bench.value("double", number=1) == 2
    assert isinstance(bench.end("fail", how="value"), Raised)
    assert bench.value("double", number=1) == 2
    bench.executor.close()
    assert capfd.readouterr() == ("", "")


def test_the_next_body_runs_soon_after_a_kill(bench: Bench) -> None:
    """The figure E2, shown with `pytest -s` and not asserted: machines are shared."""
    spec, pid = bench.waiting("wait")
    took = []
    for _ in range(3):
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        assert bench.last(spec) == Died(-signal.SIGKILL)
        spec, pid = bench.waiting("wait")
        took.append(1000 * (time.perf_counter() - began))
    print(f"from kill -9 to the next body: {', '.join(f'{ms:.0f}' for ms in took)} ms")

"""Runs in a home that is no directory: what this machine keeps, what others see, who drives.

The store is in memory and shared; a "machine" is a directory for state of its own, for that is all by
which two of them differ here.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from headway import compose, runtime
from headway.engine import lease, logs, seat, service, session
from headway.engine.call import run_body
from headway.engine.home import Home
from headway.engine.journal import Journal
from headway.engine.kept import here, keep
from headway.engine.keys import cancel_key, driver_prefix, log_key, values_prefix
from headway.engine.lease import Lease, seems_alive, wait_for_silence
from headway.engine.loading import find_entity, load, load_file
from headway.engine.logs import LogFile, Logs, Sender
from headway.engine.place import Place
from headway.engine.service import Service
from headway.engine.task import Task
from headway.engine.values import Values
from headway.model.errors import (
    CheckpointFenced,
    InputError,
    RunBusy,
    StorageUnavailable,
    UntrustedState,
)
from headway.model.program import AttemptSpec, Message, Program, Raised, Returned
from headway.ports import AttemptKey
from headway.testing.memory import MemoryStorage

URL = "memory://bucket/prefix"
RUN = "1tq4zk-8f3d"
PROGRAM = """
from headway import task, workflow


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
def fragile(x: int) -> int:
    from pathlib import Path
    if Path(PLACE, "broken").exists():
        raise ValueError("it is broken")
    return x * 2


@workflow
def flow(n: int = 1) -> int:
    return add(a=fragile(x=add(a=n)), b=10)
"""


class Inline:
    """An executor whose attempts are over before `submit` returns. Each prints a line, but for `quiet`."""

    def __init__(self) -> None:
        self.heard: list[tuple[AttemptKey, Message]] = []
        self.specs: list[AttemptSpec] = []
        self.quiet: set[str] = set()
        self.during: Callable[[AttemptSpec], None] = lambda spec: None

    slots = 1

    def submit(self, spec: AttemptSpec) -> None:
        self.specs.append(spec)
        key = (spec.node, spec.attempt)
        if spec.node not in self.quiet:
            os.makedirs(os.path.dirname(spec.log), exist_ok=True)
            Path(spec.log).write_bytes(b"output of %s\n" % spec.node.encode())
        try:
            self.during(spec)
            load(spec.program)
            task = find_entity(spec.task, spec.program)
            assert isinstance(task, Task)
            storage = compose.open_storage(spec.home)
            outputs = run_body(task, spec.inputs, Values(storage, values_prefix(spec.run)))
        except Exception as error:  # noqa: BLE001  # reported, as a worker does
            kind = type(error).__name__
            self.heard.append((key, Raised("app error", kind, str(error), "trace")))
        else:
            self.heard.append((key, Returned(outputs, clean=True)))

    def stop(self, key: AttemptKey, grace: float) -> None:
        pass

    def poll(self, timeout: float | None) -> Sequence[tuple[AttemptKey, Message]]:
        heard, self.heard = self.heard, []
        return heard

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Inline:
    inline = Inline()
    monkeypatch.setattr(compose, "make_executor", lambda jobs, lock_fd: inline)
    return inline


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStorage:
    made = MemoryStorage(URL)
    made.create(compose.MARKER, b'{"format":1}\n')
    monkeypatch.setattr(compose, "open_storage", lambda url, create=False: made)
    return made


Machine = Callable[[str], Home]


@pytest.fixture
def on(store: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`on(name)`: from here on this process is on that machine; returns the home as opened there."""

    def move(name: str) -> Home:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / name))
        return runtime.open_home(URL)

    return move


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / f"program_{tmp_path.name}.py"
    path.write_text(f"PLACE = {str(tmp_path)!r}\n{PROGRAM}")
    before = list(sys.path)
    yield load_file(path)[0].flow
    sys.modules.pop(path.stem, None)
    sys.path[:] = before


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.now = 0.0
        self.during = during

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.during()


def watch(store: MemoryStorage, place: str, clock: Clock, said: list[str] | None = None) -> None:
    wait_for_silence(
        store,
        RUN,
        place,
        say=(said if said is not None else []).append,
        monotonic=clock.monotonic,
        sleep=clock.sleep,
    )


# What is where


def test_a_run_that_succeeded_leaves_nothing_on_this_machine(
    store: MemoryStorage, on: Machine, executor: Inline, flow: Any
) -> None:
    home = on("a")
    executor.quiet = {"fragile"}
    report = runtime.run(home, flow, {"n": 4})
    assert (report.status, report.result) == ("succeeded", 20)
    assert not home.directory(report.run).exists()
    assert Logs(store, report.run)._place.root == home.place.root
    assert store.read(log_key(report.run, "add", 0)) == b"output of add\n"
    assert store.list(driver_prefix(report.run)) == []
    assert executor.specs[0].log.startswith(str(home.place.root))


def test_every_machine_sees_the_same_run(on: Machine, executor: Inline, flow: Any) -> None:
    executor.quiet = {"add-2"}
    report = runtime.run(on("a"), flow, {"n": 4})
    there = on("b")
    assert runtime.show(there, report.run) == report
    assert [summary.status for summary in runtime.runs(there)] == ["succeeded"]
    assert runtime.result(there, report.run) == 20
    found = runtime.logs(there, report.run)
    assert [(log.node, log.attempt, log.read(0)) for log in found] == [
        ("add", 0, b"output of add\n"),
        ("fragile", 0, b"output of fragile\n"),
    ]
    assert [node.attempts[0].log for node in report.nodes] == [
        f"{URL}/{log_key(report.run, 'add', 0)}",
        f"{URL}/{log_key(report.run, 'fragile', 0)}",
        "",
    ]


def test_the_newest_runs_are_read_and_no_others(
    store: MemoryStorage, on: Machine, executor: Inline, flow: Any
) -> None:
    home = on("a")
    made = [runtime.run(home, flow, {"n": 1}).run for _ in range(10)]
    store.create("runs/zzzzzz-zzzz/ledger/x", b"of a driver that died at once")
    assert [summary.run for summary in runtime.runs(home)] == made[::-1]
    store.calls.clear()
    assert [summary.run for summary in runtime.runs(home, 3)] == made[:-4:-1]
    assert not any(made[0] in key for _, key in store.calls)
    assert len(runtime.runs(home, 99)) == 10


def test_a_running_attempts_log_is_read_where_it_is_written(
    store: MemoryStorage, on: Machine, executor: Inline, flow: Any
) -> None:
    home = on("a")
    seen: list[list[bytes]] = []

    def look(spec: AttemptSpec) -> None:
        if spec.node == "fragile":
            assert runtime.show(home, spec.run).nodes[1].attempts[0].log == spec.log
            seen.append([log.read(0) for log in runtime.logs(home, spec.run, "fragile")])
            assert store.list(f"runs/{spec.run}/logs/fragile") == []

    executor.during = look
    runtime.run(home, flow, {"n": 4})
    assert seen == [[b"output of fragile\n"]]


def test_a_deleted_run_is_gone_from_the_store_and_from_this_machine(
    store: MemoryStorage, on: Machine, executor: Inline, flow: Any, tmp_path: Path
) -> None:
    home = on("a")
    (tmp_path / "broken").touch()
    run = runtime.run(home, flow, {"n": 4}).run
    assert home.directory(run).exists()
    runtime.delete(home, run)
    assert not home.directory(run).exists()
    assert store.list("runs") == []


def test_a_workflow_that_is_wrong_leaves_nothing_of_its_run(
    store: MemoryStorage, on: Machine, executor: Inline, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> Any:
        raise InputError("wrong")

    monkeypatch.setattr(session, "trace", wrong)
    home = on("a")
    with pytest.raises(InputError, match="wrong"):
        runtime.run(home, flow, {"n": 4})
    assert store.list("runs") == []
    assert list((home.place.root / "runs").iterdir()) == []


def test_an_id_that_another_machine_drew_is_not_used_again(
    store: MemoryStorage, on: Machine, executor: Inline, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runtime.run(on("a"), flow, {"n": 1}).run
    before = {key: bytes(data) for key, data in store.objects.items()}
    ids = iter([first, "000000-0001"])
    monkeypatch.setattr(seat, "new_run_id", lambda now: next(ids))
    there = on("b")
    assert runtime.run(there, flow, {"n": 2}).run == "000000-0001"
    assert {key: bytes(data) for key, data in store.objects.items() if first in key} == {
        key: data for key, data in before.items() if first in key
    }
    assert not there.directory(first).exists()


# The place


def test_the_place_of_a_directory_is_the_directory(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    assert place.is_home
    assert place.root == tmp_path
    place.prepare()
    place.forget(RUN)
    assert list(tmp_path.iterdir()) == []


def test_the_place_of_a_store_is_private_and_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place, other = Place(URL), Place(f"{URL}2")
    place.prepare()
    assert not place.is_home
    assert place.root.parent == tmp_path / "state" / "headway"
    assert place.root != other.root
    assert place.root.stat().st_mode & 0o777 == 0o700
    assert (place.root / "home.txt").read_text() == f"{URL}\n"
    assert place.identity() == Place(URL).identity() != other.identity()
    assert len(place.identity()) == 16
    assert sorted(path.name for path in place.root.iterdir()) == ["home.txt", "place"]


def test_a_directory_for_state_that_is_relative_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("state", ""):
        monkeypatch.setenv("XDG_STATE_HOME", named)
        assert Place(URL).root.parent == tmp_path / ".local" / "state" / "headway"


def test_a_place_that_cannot_be_made_is_a_storage_error(
    on: Machine, executor: Inline, flow: Any, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("in the way")
    home = on("a")
    home.storage.create(f"runs/{RUN}/x", b"")
    for ask in (lambda: runtime.run(home, flow, {"n": 1}), lambda: runtime.delete(home, RUN)):
        with pytest.raises(StorageUnavailable, match="or name another place with XDG_STATE_HOME"):
            ask()


def test_a_user_without_a_home_directory_is_told_what_to_name(
    store: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(InputError, match="export XDG_STATE_HOME="):
        runtime.open_home(URL)


# Who drives


def test_a_run_of_this_machine_is_resumed_at_once(
    on: Machine, executor: Inline, flow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PAUSE", None)  # whoever waits fails
    home = on("a")
    (tmp_path / "broken").touch()
    run = runtime.run(home, flow, {"n": 4}).run
    (tmp_path / "broken").unlink()
    Lease(home.storage, run, home.place.identity(), lambda: 0.0).show()  # as if it had been killed
    report = runtime.resume(home, run)
    assert report.result == 20
    assert home.storage.list(driver_prefix(run)) == []


def test_a_driver_elsewhere_that_still_gives_signs_is_left_in_peace(store: MemoryStorage) -> None:
    driver = Lease(store, RUN, "b" * 16, lambda: 5.0)
    driver.show()
    said: list[str] = []
    clock = Clock(lambda: driver.show() if clock.now == 10 else None)
    with pytest.raises(RunBusy, match=f"process {os.getpid()} on {os.uname().nodename}"):
        watch(store, "a" * 16, clock, said)
    assert clock.now == 10
    assert len(said) == 1 and "--take-over" in said[0]


def test_a_driver_elsewhere_that_is_silent_is_given_up(store: MemoryStorage) -> None:
    Lease(store, RUN, "b" * 16, lambda: 5.0).show()
    clock = Clock()
    watch(store, "a" * 16, clock)
    assert clock.now == lease.SILENCE


def test_a_driver_elsewhere_that_leaves_is_not_waited_for(store: MemoryStorage) -> None:
    driver = Lease(store, RUN, "b" * 16, lambda: 5.0)
    driver.show()
    clock = Clock(driver.leave)
    watch(store, "a" * 16, clock)
    assert clock.now == lease.PAUSE


def test_where_nobody_drives_nothing_is_waited_for(store: MemoryStorage) -> None:
    clock = Clock()
    watch(store, "a" * 16, clock)
    Lease(store, RUN, "a" * 16, lambda: 5.0).show()  # of this machine, whose lock is free
    store.create(f"{driver_prefix(RUN)}/something", b"else")
    watch(store, "a" * 16, clock)
    assert clock.now == 0


def test_a_sign_that_cannot_be_read_is_still_a_sign(store: MemoryStorage) -> None:
    key = f"{driver_prefix(RUN)}/{'b' * 16}-00000001"
    store.create(key, b"nonsense")
    said: list[str] = []

    def renew() -> None:
        store.create(f"{key[:-1]}2", b"nonsense")

    with pytest.raises(RunBusy, match="a process on another machine"):
        watch(store, "a" * 16, Clock(renew), said)
    assert said == []
    assert not seems_alive(store, RUN, "a" * 16, 5.0)


def test_a_lease_is_one_object_however_long_it_is_held(store: MemoryStorage) -> None:
    driver = Lease(store, RUN, "b" * 16, lambda: 100.0)
    names = set()
    for _ in range(5):
        driver.show()
        names.update(found := store.list(driver_prefix(RUN)))
        assert len(found) == 1
    assert len(names) == 5
    assert seems_alive(store, RUN, "a" * 16, 100.0 + lease.SEEMS - 1)
    assert not seems_alive(store, RUN, "a" * 16, 100.0 + lease.SEEMS + 1)
    assert not seems_alive(store, RUN, "b" * 16, 100.0)
    again = Lease(store, RUN, "b" * 16, lambda: 100.0)  # one that was killed and comes back
    for _ in range(5):
        again.show()
    again.leave()
    again.leave()
    assert store.list(driver_prefix(RUN)) == [f"{'b' * 16}-00000005"]
    again.clear()
    assert store.list(driver_prefix(RUN)) == []


def test_whoever_resumes_elsewhere_is_told_that_the_run_is_busy(
    store: MemoryStorage, on: Machine, executor: Inline, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PAUSE", 0.01)
    monkeypatch.setattr(service, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(service, "RENEW_EVERY", 0.02)
    home, busy = on("a"), []

    def meddle(spec: AttemptSpec) -> None:
        if spec.node != "fragile":
            return
        there = on("b")
        for ask in (runtime.resume, runtime.delete):
            with pytest.raises(RunBusy, match="is being driven by process") as caught:
                ask(there, spec.run)
            busy.append(caught.value)
        with pytest.raises(RunBusy):
            runtime.resume(there)
        assert [summary.status for summary in runtime.runs(there)] == ["running"]
        on("a")

    executor.during = meddle
    assert runtime.run(home, flow, {"n": 4}).result == 20
    assert len(busy) == 2


def test_a_driver_that_is_taken_over_from_elsewhere_stops_and_says_so(
    store: MemoryStorage, on: Machine, executor: Inline, flow: Any
) -> None:
    home, reports = on("a"), []

    def take(spec: AttemptSpec) -> None:
        if spec.node == "fragile" and spec.attempt == 0:
            reports.append(runtime.resume(on("b"), spec.run, take_over=True))
            on("a")

    executor.during = take
    with pytest.raises(RunBusy, match="another process took run"):
        runtime.run(home, flow, {"n": 4})
    [report] = reports
    assert (report.status, report.result) == ("succeeded", 20)
    assert [len(node.attempts) for node in report.nodes] == [1, 2, 1]
    shown = runtime.show(on("c"), report.run)
    assert shown.result == 20
    assert store.list(driver_prefix(report.run)) == []


def test_a_run_is_cancelled_from_another_machine(
    store: MemoryStorage, on: Machine, executor: Inline, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PAUSE", 0.01)
    monkeypatch.setattr(service, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(service, "RENEW_EVERY", 0.02)
    monkeypatch.setattr("headway.engine.driver._LOOK_EVERY", 0.0)
    home = on("a")

    def ask(spec: AttemptSpec) -> None:
        if spec.node == "fragile":
            runtime.cancel(on("b"), spec.run)
            on("a")
            store.calls.clear()
            look = ("has", cancel_key(spec.run))
            until(lambda: look in store.calls and store.calls[-1] != look)

    executor.during = ask
    report = runtime.run(home, flow, {"n": 4})
    assert report.status == "cancelled"
    assert [node.status for node in report.nodes] == ["succeeded", "succeeded", "cancelled"]


def test_a_run_whose_driver_elsewhere_went_silent_is_cancelled_here(
    on: Machine, executor: Inline, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PAUSE", 0.01)
    monkeypatch.setattr(lease, "SILENCE", 0.05)
    down = Down(URL)
    down.create(compose.MARKER, b'{"format":1}\n')
    monkeypatch.setattr(compose, "open_storage", lambda url, create=False: down)
    home = on("a")

    def fall(spec: AttemptSpec) -> None:
        until(lambda: bool(down.list(driver_prefix(spec.run))))
        down.down = True

    executor.during = fall
    with pytest.raises(StorageUnavailable):
        runtime.run(home, flow, {"n": 4})
    down.down = False
    [run] = down.list("runs")
    assert down.list(driver_prefix(run)) != []
    said: list[str] = []
    there = on("b")
    runtime.cancel(there, run, said.append)
    assert "--take-over" in said[0]
    assert runtime.show(there, run).status == "cancelled"


# What goes on beside the loop


class Down(MemoryStorage):
    """A store that does not answer while it is `down`."""

    down = False
    refused = 0

    def at(self, method: str, key: str) -> threading.RLock:
        if self.down:
            self.refused += 1
            raise StorageUnavailable("the store does not answer")
        return super().at(method, key)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen within 10 s")


def test_a_newer_driver_and_a_cancel_are_seen_by_the_thread_that_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "LOOK_EVERY", 0.01)
    down = Down(URL)
    journal = Journal.open(down, RUN)
    asked = threading.Event()
    down.create(f"{driver_prefix(RUN)}/{'c' * 16}-00000007", b"of a driver before")
    held = Lease(down, RUN, "a" * 16, lambda: 1.0)
    with Service(journal, asked.is_set, held, resumed=True) as beside:
        until(lambda: down.list(driver_prefix(RUN)) == [f"{'a' * 16}-00000001"])
        beside.check()
        down.down = True  # not knowing is no reason to stop
        until(lambda: down.refused > 2)
        beside.check()
        assert not beside.cancelled()
        down.down = False
        asked.set()
        until(beside.cancelled)
        Journal.open(down, RUN).close()
        until(lambda: beside._fenced is not None)
        with pytest.raises(CheckpointFenced):
            beside.check()
        with pytest.raises(CheckpointFenced):
            beside.append()
    assert down.list(driver_prefix(RUN)) == []


def test_a_store_that_does_not_answer_at_the_end_is_left_alone() -> None:
    down = Down(URL)
    journal = Journal.open(down, RUN)
    with Service(journal, lambda: False, Lease(down, RUN, "a" * 16, lambda: 1.0), resumed=False):
        until(lambda: len(down.objects) == 2)
        down.down = True
    down.down = False
    assert len(down.list(driver_prefix(RUN))) == 1


# Logs


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Place(URL)


def write(place: Place, node: str, attempt: int, data: bytes) -> Path:
    path = place.log(RUN, node, attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)
    return path


def whole(store: MemoryStorage, place: Place, node: str, attempt: int) -> bytes:
    log = Logs(store, RUN).find(node, attempt)
    if log is None:
        return b""
    data = b""
    while piece := log.read(len(data)):
        data += piece
    return data


def test_an_empty_log_that_is_handed_on_while_it_is_read_shows_nothing_of_the_next_attempt(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = place.log(RUN, "before", 0), place.log(RUN, "after", 0)
    before.parent.mkdir(parents=True)
    before.touch()
    pread, handed_on = os.pread, []

    def hand_on(fd: int, size: int, offset: int) -> bytes:
        if before.exists():
            before.parent.rename(after.parent)
            after.write_text("of the next attempt")
            handed_on.append(True)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", hand_on)
    assert LogFile("before", 0, before).read(0) == b""
    assert handed_on
    assert LogFile("after", 0, after).read(0) == b"of the next attempt"


def test_a_long_log_is_sent_in_pieces_while_it_grows(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "PIECE", 10)
    store = MemoryStorage(URL)
    sender = Sender(store, place, RUN, every=0.01)
    sender.start()
    path = write(place, "n", 3, b"0123456789abcdef")
    until(lambda: len(store.objects) == 2)
    assert whole(store, place, "n", 3) == b"0123456789abcdef"
    path.rename(path.with_suffix(".hidden"))  # as on another machine
    assert whole(store, place, "n", 3) == b"0123456789abcdef"
    path.with_suffix(".hidden").rename(path)
    write(place, "n", 3, b"the end")
    sender.over(("n", 3))
    assert sender.close() == []
    assert not path.exists()
    assert whole(store, place, "n", 3) == b"0123456789abcdefthe end"
    names = store.list(f"runs/{RUN}/logs/n")
    assert names[:2] == ["3.log", "3.log.0000000000000010"]
    log = Logs(store, RUN).find("n", 3)
    assert log is not None and [log.read(at) for at in (4, 12, 23, 99)] == [
        b"456789",
        b"cdef",
        b"",
        b"",
    ]


def test_what_a_killed_driver_left_is_sent_by_the_next_one_on_its_machine(place: Place) -> None:
    store = MemoryStorage(URL)
    key = log_key(RUN, "n", 0)
    store.create(key, b"sent already, ")  # while the attempt ran
    write(place, "n", 0, b"sent already, and not yet")
    write(place, "n", 10, b"ten")
    write(place, "m", 0, b"")
    (place.run(RUN) / "logs" / "stray").write_text("not a directory")
    sender = Sender(store, place, RUN)
    sender.start()
    assert sender.close() == []
    assert whole(store, place, "n", 0) == b"sent already, and not yet"
    assert whole(store, place, "n", 10) == b"ten"
    assert whole(store, place, "m", 0) == b""
    assert list(place.run(RUN).rglob("*.log")) == [place.log(RUN, "m", 0)]


def test_a_reply_that_was_lost_makes_no_line_appear_twice(place: Place) -> None:
    class Lossy(MemoryStorage):
        lost = 0

        def create(self, key: str, data: bytes) -> None:
            super().create(key, data)
            if not self.lost:
                self.lost += 1
                raise StorageUnavailable("the reply was lost")

    store = Lossy(URL)
    path = write(place, "n", 0, b"one\n")
    sender = Sender(store, place, RUN)
    sender.start()
    until(lambda: store.lost == 1)
    write(place, "n", 0, b"two\n")
    sender.over(("n", 0))
    assert sender.close() == []
    assert whole(store, place, "n", 0) == b"one\ntwo\n"
    assert not path.exists()


def test_logs_that_cannot_be_sent_stay_and_are_told_of(place: Place) -> None:
    down = Down(URL)
    down.down = True
    paths = [write(place, "n", attempt, b"x") for attempt in (0, 1)]
    sender = Sender(down, place, RUN)
    sender.start()
    assert sender.close() == paths
    sender = Sender(down, place, RUN)
    sender.start()
    assert sender.close(send=False) == paths
    down.down = False
    sender = Sender(down, place, RUN)
    sender.start()
    assert sender.close() == []


def test_an_empty_log_that_is_handed_on_is_not_taken_for_the_attempt_before(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStorage(URL)
    path = write(place, "n", 0, b"")
    following = place.log(RUN, "n-2", 0)
    pread = os.pread
    handed: list[Path] = []

    def late(fd: int, length: int, offset: int) -> bytes:
        """Between the sender's opening and its reading the next attempt takes the log and prints."""
        if not handed:
            path.parent.rename(following.parent)
            handed.append(write(place, "n-2", 0, b"of the next"))
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", late)
    sender = Sender(store, place, RUN)
    sender.start()
    sender.over(("n", 0))
    until(lambda: bool(handed))
    assert sender.close() == []
    assert store.list(f"runs/{RUN}/logs") == ["n-2"]
    assert whole(store, place, "n-2", 0) == b"of the next"


def test_an_empty_log_is_left_to_whoever_hands_it_on(place: Place) -> None:
    path = write(place, "n", 0, b"")
    sender = Sender(MemoryStorage(URL), place, RUN)
    sender.start()
    sender.over(("n", 0))
    assert sender.close() == []
    assert path.exists()


def test_a_piece_that_is_there_and_not_listed_is_no_endless_loop(place: Place) -> None:
    class Blind(MemoryStorage):
        def list(self, prefix: str) -> list[str]:
            return []

    store = Blind(URL)
    store.create(log_key(RUN, "n", 0), b"there")
    path = write(place, "n", 0, b"there, and more")
    sender = Sender(store, place, RUN)
    sender.start()
    assert sender.close() == [path]


def test_a_driver_whose_store_stops_answering_says_where_the_logs_are(
    monkeypatch: pytest.MonkeyPatch, on: Machine, executor: Inline, flow: Any
) -> None:
    down = Down(URL)
    down.create(compose.MARKER, b'{"format":1}\n')
    monkeypatch.setattr(compose, "open_storage", lambda url, create=False: down)
    home = on("a")
    said: list[str] = []

    def fall(spec: AttemptSpec) -> None:
        down.down = spec.node == "fragile" and not said

    executor.during = fall
    with pytest.raises(StorageUnavailable):
        runtime.run(home, flow, {"n": 4}, say=said.append)
    down.down = False
    [text] = said
    assert "the logs of" in text and str(home.place.root) in text
    report = runtime.resume(home)
    assert report.result == 20
    assert [len(node.attempts) for node in report.nodes] == [1, 2, 1]
    found = {(log.node, log.attempt): log.read(0) for log in runtime.logs(home, report.run)}
    assert found["fragile", 0] == found["fragile", 1] == b"output of fragile\n"


def test_a_report_without_a_store_that_answers_names_no_log(
    on: Machine, executor: Inline, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runtime.run(on("a"), flow, {"n": 4}).run

    def fails(self: Any, prefix: str) -> list[str]:
        if prefix.endswith(("logs", "nodes")):
            raise StorageUnavailable("the store does not answer")
        return [*listed(self, prefix)]

    listed = MemoryStorage.list
    monkeypatch.setattr(MemoryStorage, "list", fails)
    report = runtime.show(on("b"), run)
    assert [node.attempts[0].log for node in report.nodes] == ["", "", ""]
    assert "does not answer" in report.notes[0]


def test_a_log_that_is_nowhere_has_nothing_to_read(tmp_path: Path) -> None:
    assert LogFile("n", 0, tmp_path / "0.log").read(0) == b""
    store = MemoryStorage(URL)
    assert LogFile("n", 0, tmp_path / "0.log", store, log_key(RUN, "n", 0)).read(0) == b""


# Programs from a URL


def test_a_kept_program_is_copied_to_this_machine_to_be_imported(
    store: MemoryStorage, on: Machine
) -> None:
    home = on("a")
    path = keep(home, "prog.py", b"x = 1")
    assert keep(home, "prog.py", b"x = 1") == path
    assert path.read_bytes() == b"x = 1"
    assert path.is_relative_to(home.place.root)
    program = Program("prog", str(path), (str(path.parent),), "digest")
    assert here(home, program) == program
    path.write_bytes(b"evil")
    with pytest.raises(InputError, match="somebody changed it"):
        here(home, program)


def test_a_kept_program_runs_elsewhere_only_when_the_store_is_trusted(
    store: MemoryStorage, on: Machine
) -> None:
    path = keep(on("a"), "prog.py", b"x = 1")
    program = Program("prog", str(path), (str(path.parent),), "digest")
    there = on("b")
    store.trusted = False
    with pytest.raises(UntrustedState, match="nobody has agreed"):
        here(there, program)
    store.trusted = True
    found = here(there, program)
    assert Path(found.path).is_relative_to(there.place.root)
    assert Path(found.path).read_bytes() == b"x = 1"
    assert found.search == (str(Path(found.path).parent),)
    store.trusted = False  # what is here was proven
    assert here(there, program) == found


def test_a_program_of_the_users_own_is_where_it_is(on: Machine, tmp_path: Path) -> None:
    for path in ("/elsewhere/prog.py", "", f"{tmp_path}/programs/x/prog.py"):
        program = Program("prog", path)
        assert here(on("a"), program) is program

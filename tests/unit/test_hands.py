"""Work spread over threads: all of it is done, and none of it goes on after the caller does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from headway.checkpoint.hands import spread


class Interrupted(BaseException):
    """What a signal handler raises."""


@pytest.fixture
def interrupting() -> Iterator[None]:
    def handler(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("threads", [1, 2, 4, 50])
@pytest.mark.parametrize("count", [0, 1, 2, 37])
def test_each_item_is_done_once_and_the_results_are_in_order(count: int, threads: int) -> None:
    done: list[int] = []

    def double(item: int) -> int:
        done.append(item)
        return 2 * item

    assert spread(double, range(count), threads) == [2 * item for item in range(count)]
    assert sorted(done) == list(range(count))


def test_several_threads_are_at_work_at_once() -> None:
    together = threading.Barrier(4)
    spread(lambda _: together.wait(30), range(4), 4)
    assert "headway-hand" not in {thread.name for thread in threading.enumerate()}


def test_one_item_is_done_by_the_caller_itself() -> None:
    assert spread(lambda _: threading.get_ident(), [0], 4) == [threading.get_ident()]


@pytest.mark.parametrize("fails", [0, 3, 39])
def test_an_error_comes_out_once_nobody_is_at_work_any_more(fails: int) -> None:
    at_work: set[int] = set()
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        at_work.add(item)
        try:
            time.sleep(0.002)
            if item == fails:
                raise ValueError(f"item {item}")
        finally:
            at_work.discard(item)

    with pytest.raises(ValueError, match=f"item {fails}"):
        spread(work, range(40), 4)
    assert not at_work
    assert fails in begun and (fails == 39 or len(begun) < 40)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_that_raises_waits_for_the_hands(interrupting: None, signals: int) -> None:
    main = threading.get_ident()
    at_work = threading.Event()
    ended: list[int] = []

    def work(item: int) -> None:
        if threading.get_ident() == main:
            at_work.wait(30)
            return
        at_work.set()
        for _ in range(signals):  # the main thread is waiting, or about to
            time.sleep(0.05)
            signal.pthread_kill(main, signal.SIGUSR1)
        time.sleep(0.05)
        ended.append(item)

    with pytest.raises(Interrupted):
        spread(work, range(2), 2)
    assert len(ended) == 1


def test_no_signal_at_any_instant_leaves_a_hand_at_work(interrupting: None) -> None:
    main = threading.get_ident()
    at_work: set[int] = set()
    struck = 0

    def work(item: int) -> None:
        at_work.add(item)
        sum(range(200))
        at_work.discard(item)

    for number in range(300):
        sender = threading.Timer(number * 0.00001, signal.pthread_kill, args=(main, signal.SIGUSR1))
        try:
            sender.start()
            while True:
                spread(work, range(20), 4)
        except Interrupted:
            struck += 1
        before = set(at_work)
        # What was cut short in the caller's own hand stays in the set; nothing comes or goes any more.
        time.sleep(0.0005)
        assert at_work == before
        at_work.clear()
        sender.join()
    assert struck == 300


def test_without_more_threads_the_caller_does_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert spread(lambda item: item, range(9), 4) == list(range(9))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_hands_of_its_own() -> None:
    spread(lambda item: item, range(8), 4)
    child = os.fork()
    if child == 0:
        os._exit(0 if spread(lambda item: item, range(8), 4) == list(range(8)) else 1)
    assert os.waitpid(child, 0)[1] == 0

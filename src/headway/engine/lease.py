"""How a driver shows other machines that it lives, when the home is a store: a lease.

Under `runs/<run>/driver` the driver keeps one small object, and every ten seconds puts another one in its
place, under the next number. Who wants the run watches the names: when they change, somebody drives it;
when they have not changed for 30 s of the watcher's own clock, nobody does. Times of two machines are never
compared for that. (For the word in a list, where nobody would wait, they are: `seems_alive`.)

This is for courtesy only, as are the locks of `liveness`. A driver that is slow, cut off or stopped for
longer loses its lease and may still write: it is fenced by the journal, whatever the lease says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from headway.engine.keys import driver_prefix
from headway.model.errors import RunBusy
from headway.ports import KeyExists, KeyMissing, Storage

RENEW_EVERY = 10.0
"""Seconds between two signs of life."""
SILENCE = 30.0
"""Seconds without a new one after which the driver is given up."""
PAUSE = 2.0
"""Seconds between two looks of a watcher."""
SEEMS = 60.0
"""Age in seconds, by the clocks of two machines, up to which a driver is listed as alive."""


class Sign(msgspec.Struct, frozen=True):
    """What a sign of life says, for people: which process, and when (Unix seconds, its own clock)."""

    host: str
    pid: int
    time: float


class _Name(NamedTuple):
    """The name of a sign: whose it is, and its number."""

    place: str
    number: int


class Lease:
    """A driver's signs of life.

    Args:
        storage: the home.
        run: which run.
        place: identity of this machine's place (`Place.identity`).
        now: tells the wall-clock time.
    """

    def __init__(self, storage: Storage, run: str, place: str, now: Callable[[], float]) -> None:
        self._storage = storage
        self._prefix = driver_prefix(run)
        self._place = place
        self._now = now
        self._number = 0
        self._shown = ""

    def show(self) -> None:
        """Give the next sign of life, then take the last one away.

        Raises:
            StorageError: it could not be given; the last one may still be there.
        """
        sign = Sign(os.uname().nodename, os.getpid(), self._now())
        while True:
            self._number += 1
            key = f"{self._prefix}/{self._place}-{self._number:08d}"
            try:
                self._storage.create(key, msgspec.json.encode(sign))
                break
            except KeyExists:
                continue  # one of ours whose reply was lost, or one that a killed driver left
        before, self._shown = self._shown, key
        if before:
            self._storage.delete(before)

    def clear(self) -> None:
        """Take away what the drivers before this one left.

        Raises:
            StorageError: it may still be there.
        """
        self._storage.delete(self._prefix)

    def leave(self) -> None:
        """Take the last sign away.

        Raises:
            StorageError: it may still be there, and be watched in vain.
        """
        shown, self._shown = self._shown, ""
        if shown:
            self._storage.delete(shown)


def wait_for_silence(
    storage: Storage,
    run: str,
    place: str,
    *,
    say: Callable[[str], None] = lambda _: None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once it is clear that no other machine drives the run, or that its driver has gone silent.

    Args:
        storage: the home.
        run: which run.
        place: identity of this machine's place; its own signs are of the dead, for whoever asks holds
            the lock here.
        say: told when there is something to wait for.
        monotonic, sleep: the time.

    Raises:
        RunBusy: a driver on another machine lives.
        StorageError: the home could not be read.
    """
    first = _foreign(storage, run, place)
    if not first:
        return
    sign = _read(storage, run, first)
    if sign is not None:
        say(
            f"run {run} was driven by process {sign.pid} on {sign.host}; watching for up to {SILENCE:g} s "
            "whether that still lives (`headway resume --take-over` does not wait)"
        )
    end = monotonic() + SILENCE
    while monotonic() < end:
        sleep(PAUSE)
        now = _foreign(storage, run, place)
        if not now:
            return
        if now != first:
            raise _busy(run, _read(storage, run, now))


def seems_alive(storage: Storage, run: str, place: str, now: float) -> bool:
    """Whether the run is to be listed as driven by another machine: for show, and never relied upon.

    Raises:
        StorageError: the home could not be read.
    """
    names = _foreign(storage, run, place)
    sign = _read(storage, run, names) if names else None
    return sign is not None and abs(now - sign.time) < SEEMS


def _foreign(storage: Storage, run: str, place: str) -> frozenset[_Name]:
    """The signs that other places gave."""
    found = set()
    for name in storage.list(driver_prefix(run)):
        whose, _, number = name.rpartition("-")
        if number.isdecimal() and whose != place:
            found.add(_Name(whose, int(number)))
    return frozenset(found)


def _read(storage: Storage, run: str, names: frozenset[_Name]) -> Sign | None:
    """What the newest of these signs says; None when it is gone already, or is no sign."""
    newest = max(names, key=lambda name: name.number)
    key = f"{driver_prefix(run)}/{newest.place}-{newest.number:08d}"
    try:
        return msgspec.json.decode(storage.read(key), type=Sign)
    except (KeyMissing, msgspec.DecodeError):
        return None


def _busy(run: str, sign: Sign | None) -> RunBusy:
    who = f"process {sign.pid} on {sign.host}" if sign else "a process on another machine"
    return RunBusy(
        f"run {run} is being driven by {who}. Watch it with `headway show {run}`, stop it with `headway "
        f"cancel {run}`; to take it from there all the same, `headway resume --take-over {run}`."
    )

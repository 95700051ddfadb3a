"""Where contestants perform: starts them, lets them take turns, leaves nothing of them behind."""

from __future__ import annotations

import contextlib
import json
import selectors
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from benchmarks.peers import OPEN, Peer, environment

ROOT = Path(__file__).parents[1]
PATIENCE = 180.0  # seconds until a contestant that says nothing counts as stuck
FAREWELL = 30.0  # seconds that it may take to end


T = TypeVar("T")


class Stuck(Exception):
    """A contestant failed or said nothing for too long; the text holds the end of what it printed."""


class Contestant:
    """A program of `benchmarks.contestants` that has prepared itself and waits to be asked.

    Args:
        module: its module below `benchmarks.contestants`.
        name: which contestant of that module.
        place: an empty directory of its own.
        options: what it takes, JSON-able.
        peer: whose environment it needs; None is headway's own.
        patience: seconds until it counts as stuck when it says nothing.

    Raises:
        Stuck: it could not prepare itself.
    """

    def __init__(
        self,
        module: str,
        name: str,
        place: Path,
        options: Mapping[str, Any],
        *,
        peer: Peer | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._patience = patience
        self.label = f"{module} {name}"
        self._log: IO[bytes] = (place / "output").open("w+b")
        command = [sys.executable, "-m", f"benchmarks.contestants.{module}"]
        if peer is not None:
            need = "required" if peer.name in OPEN else "wanted"
            command = [peer.python, "-m", "benchmarks.contestants.alone", need, module]
        self._process = subprocess.Popen(
            [*command, name, str(place), json.dumps(options)],
            cwd=ROOT,
            env=environment(place),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self._hear()
        except BaseException:
            self.close()
            raise

    def round(self) -> list[float]:
        """Let it do one round; returns what it measured.

        Raises:
            Stuck: it failed.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: `_hear` says what its last words were
        measured: list[float] = self._hear()["measured"]
        return measured

    def close(self) -> None:
        """Let it end by itself, then make sure that it did."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            spoke = bool(selector.select(self._patience))
            line = self._process.stdout.readline() if spoke else b""
        if not line:
            if spoke:  # it said that it ends: let it say why
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(FAREWELL)
            self._process.kill()
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()[-12:]
            raise Stuck(f"{self.label} failed:\n" + "\n".join(said))
        answer: dict[str, Any] = json.loads(line)
        return answer


class Undertaker(Protocol):
    """Ends what contestants left behind (`benchmarks.orphans`)."""

    def end(self) -> None:
        """Called when no contestant is on the stage."""
        ...


@dataclass
class Stage:
    """What a row needs to be measured.

    Attributes:
        place: a directory on the disk that is measured.
        peers: by name; some are not installed.
        quick: a tenth of the work, to see that everything runs.
        huge: take part in what needs minutes.
        say: takes a line of progress.
        orphans: what contestants left behind.
    """

    place: Path
    peers: dict[str, Peer]
    quick: bool
    huge: bool
    say: Callable[[str], None]
    orphans: Undertaker
    _made: int = 0
    _living: int = 0
    _known: dict[str, Any] = field(default_factory=dict)

    def some(self, full: int, quick: int) -> int:
        """How many: `full`, or `quick` when it is only to be seen that everything runs."""
        return quick if self.quick else full

    @contextlib.contextmanager
    def directory(self, label: str) -> Iterator[Path]:
        """A fresh directory, gone afterwards."""
        self._made += 1
        place = self.place / f"{label}-{self._made}"
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    @contextlib.contextmanager
    def contestant(
        self,
        module: str,
        name: str,
        options: Mapping[str, Any],
        peer: str = "",
        patience: float = PATIENCE,
    ) -> Iterator[Contestant]:
        """A contestant on the stage until the block ends.

        Args:
            module, name, options, patience: see `Contestant`.
            peer: whose environment it needs; "" is headway's.
        """
        with self.directory(name) as place:
            self._living += 1
            try:
                with contextlib.closing(
                    Contestant(
                        module, name, place, options, peer=self.peers.get(peer), patience=patience
                    )
                ) as contestant:
                    yield contestant
            finally:
                self._living -= 1
                if not self._living:  # a child that is nobody's contestant is an orphan only now
                    self.orphans.end()

    def play(
        self, cast: Mapping[str, Play], rounds: int, *, warm_up: bool = True
    ) -> tuple[Measured, Missing]:
        """Prepare contestants, and let them take turns.

        Args, returns and raises: see `take_turns`.
        """
        missing: Missing = {}
        with contextlib.ExitStack() as stack:
            performers: dict[str, Performer] = {}
            for label, play in cast.items():
                if play.peer and (why := self.peers[play.peer].why_not):
                    missing[label] = why
                    continue
                self.say(f"  preparing {label}")
                with _forgiving(label, missing, ours=play.ours):
                    part = self.contestant(play.module, play.name, play.options, play.peer)
                    contestant = stack.enter_context(part)
                    performers[label] = Performer(contestant.round, play.rounds, play.ours)
            measured, failed = self.take_turns(performers, rounds, warm_up=warm_up)
            return measured, missing | failed

    def debuts(self, cast: Mapping[str, Play], rounds: int) -> tuple[Measured, Missing]:
        """Let contestants take turns of which each is the first and only one of a fresh process.

        Args, returns and raises: see `take_turns`.
        """

        def debut(play: Play) -> Performer:
            def round_() -> list[float]:
                with self.contestant(play.module, play.name, play.options, play.peer) as contestant:
                    return contestant.round()

            return Performer(round_, play.rounds, play.ours)

        absent = {label: self.peers[play.peer].why_not for label, play in cast.items() if play.peer}
        missing = {label: why for label, why in absent.items() if why}
        there = {label: debut(play) for label, play in cast.items() if label not in missing}
        measured, failed = self.take_turns(there, rounds, warm_up=False)
        return measured, missing | failed

    def once(self, name: str, measure: Callable[[], T]) -> T:
        """What several rows are read off, measured for the first of them."""
        if name not in self._known:
            self._known[name] = measure()
        known: T = self._known[name]
        return known

    def take_turns(
        self, performers: Mapping[str, Performer], rounds: int, *, warm_up: bool = True
    ) -> tuple[Measured, Missing]:
        """Let performers take turns: A B C A B C …, after a round that does not count.

        Args:
            performers: what they are called in the result -> what they do.
            rounds: how often; those with `rounds` of their own leave earlier.
            warm_up: False leaves out the round that does not count.

        Returns:
            What each measured, a list a round; and for those that failed, why.

        Raises:
            Stuck: one of headway's own failed. A peer that fails is only missing.
        """
        missing: Missing = {}
        measured: Measured = {label: [] for label in performers}
        for number in range(0 if warm_up else 1, rounds + 1):
            if rounds <= 10 or number % 10 == 0:
                self.say(f"  round {number} of {rounds}" if number else "  warming up")
            for label, performer in performers.items():
                if label in measured and number <= (performer.rounds or rounds):
                    with _forgiving(label, missing, ours=performer.ours):
                        taken = performer.round()
                        if number:
                            measured[label].append(taken)
                    if label in missing:
                        del measured[label]
        return measured, missing


Measured = dict[str, list[list[float]]]
"""Contestant -> for each round what it measured."""

Missing = dict[str, str]
"""Contestant -> why it is not among the measured."""


@dataclass(frozen=True)
class Performer:
    """Something that can be measured once a round.

    Attributes:
        round: does it, and returns what it measured; raises `Stuck`.
        rounds: how often, when it is too slow for all rounds; 0 is all.
        ours: it is headway's or Python's own, so that it must not fail.
    """

    round: Callable[[], list[float]]
    rounds: int = 0
    ours: bool = True


@contextlib.contextmanager
def _forgiving(label: str, missing: Missing, *, ours: bool) -> Iterator[None]:
    try:
        yield
    except Stuck as error:
        if ours:
            raise
        missing[label] = f"failed: {str(error).splitlines()[-1]}"


@dataclass(frozen=True)
class Play:
    """A contestant in a cast.

    Attributes:
        module, name, options: see `Contestant`.
        peer: whose environment it needs; "" is headway's.
        rounds: when it is too slow for all of them; 0 is all.
        own: it is headway that is measured in the peer's environment: it must not fail.
    """

    module: str
    name: str
    options: Mapping[str, Any]
    peer: str = ""
    rounds: int = 0
    own: bool = False

    @property
    def ours(self) -> bool:
        """Whether the row fails with it."""
        return self.own or not self.peer

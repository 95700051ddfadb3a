"""Does a task that was killed and resumed make what it would have made? Run it both ways, and compare.

All runs are ordinary ones, in a home of their own that is removed at the end. The undisturbed run says
which boundaries there are. Then the task is killed at boundaries, and at instants between them, drawn
with the seed, and each time resumed by a new driver: with new processes, in which sets have another order,
from a checkpoint some steps before the kill. So what was done twice is compared as well as what came after.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from headway import compose
from headway.engine import parting, watching
from headway.engine.home import Home
from headway.engine.loading import load, program_of
from headway.engine.parting import Parting, Trail, short, text_of
from headway.engine.session import Means, begin, go_on
from headway.engine.state import AttemptState, RunState
from headway.engine.task import Task
from headway.model.errors import InputError, TaskFailed
from headway.model.outcome import Outcome, RunStatus
from headway.model.program import Program, Watch
from headway.model.report import Difference, VerifyReport
from headway.model.settings import Steps, TaskOptions

__all__ = ["Progress", "Stopped", "text_of", "verify"]

_HASHSEED = "PYTHONHASHSEED"
_WINDOW = 6  # boundaries before a kill at which saves are waited for
_SLOWEST = 3  # steps between two saves, at most


def called(module: str, path: str, search: list[str], name: str, inputs: dict[str, Any]) -> Any:
    """The body of a task that calls a plain function, found in its program by its name."""
    function: Any = load(Program(module, path, tuple(search)))
    for part in name.split("."):
        function = getattr(function, part)
    return function(**inputs)


_CALLED: Task[..., Any] = Task(called, TaskOptions())


class Stopped(Exception):
    """A signal told this process to leave."""


@dataclass
class Progress:
    """What a verification is doing, for whoever shows it. Read from any thread.

    Attributes:
        phase: what is going on.
        folder: where the files are that grow meanwhile.
        tell: takes a line about each new thing.
    """

    tell: Callable[[str], None] = lambda _: None
    phase: str = ""
    folder: Path | None = None
    _counted: dict[Path, tuple[int, int]] = field(default_factory=dict)  # bytes, and lines in them

    def enter(self, phase: str, folder: Path) -> None:
        """Something new begins."""
        self.phase, self.folder = phase, folder
        self.tell(phase)

    @property
    def boundaries(self) -> int:
        """How many boundaries were reached since it began."""
        folder = self.folder
        if folder is not None:
            with contextlib.suppress(OSError):  # it is being removed
                for file in folder.iterdir():
                    self._count(file)
        return sum(lines for file, (_, lines) in self._counted.items() if file.parent == folder)

    def _count(self, file: Path) -> None:
        read, lines = self._counted.get(file, (0, 0))
        with file.open("rb") as stream:
            stream.seek(read)
            new = stream.read()
        self._counted[file] = read + len(new), lines + new.count(b"\n")


def verify(
    task: Task[..., Any] | Callable[..., Any],
    inputs: Mapping[str, Any],
    *,
    kills: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> VerifyReport:
    """Run a task undisturbed, and killed and resumed, and compare.

    Args:
        task: what to run, a task or a function that could be one; it has a loop of `track`.
        inputs: parameter name -> value; defaults are filled in.
        kills: how often it is killed.
        seed: of the choice of the moments.
        progress: is told what goes on.

    Raises:
        InputError: an input is wrong, or the task has no tracked loop that could be compared.
        DefinitionError: that function could not be a task.
        TaskFailed: the undisturbed run failed.
        Stopped: a signal told this process to leave.
    """
    if kills < 1:
        raise InputError(f"--kills must be 1 or more, got {kills}")
    found = task if isinstance(task, Task) else Task(task, TaskOptions())
    bound = found.interface.bind((), inputs)
    found.interface.check_inputs(bound)
    name, run = found.name, found
    if run is not task:
        program = program_of(found)
        bound = {
            "module": program.module,
            "path": program.path,
            "search": list(program.search),
            "name": found.function.__qualname__,
            "inputs": bound,
        }
        run = _CALLED
    with tempfile.TemporaryDirectory(prefix="headway-verify-") as folder, _as_tested(run):
        trial = _Trial(run, name, bound, Path(folder), seed, progress or Progress())
        return trial.verified(kills)


@contextlib.contextmanager
def _as_tested(task: Task[..., Any]) -> Iterator[None]:
    """While it is verified, a task that is killed ends its driver, and has all the time that it takes."""
    before = task.options
    task.options = msgspec.structs.replace(before, max_interruptions=0, timeout=None)
    try:
        yield
    finally:
        task.options = before


@dataclass
class _Trial:
    task: Task[..., Any]
    name: str
    inputs: dict[str, Any]
    folder: Path
    seed: int
    progress: Progress
    runs: int = 0
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        storage = compose.open_storage(str(self.folder / "home"), create=True)
        self._home = Home(storage, storage.url)
        self._seeds = self._hash_seeds()

    def verified(self, kills: int) -> VerifyReport:
        first = self._undisturbed(0, "undisturbed")
        numbers = parting.numbers(first.steps)
        if not any(numbers.values()):
            raise InputError(self._nothing_to_compare(first))
        self.names = list(numbers)
        plans = self._plans(kills)
        killed: list[int] = []
        difference = None
        while plans and difference is None:
            second, done, failed = self._interrupted(plans, numbers)
            killed += [numbers[plan.kill] for plan in plans[:done]]
            plans = plans[done:]
            if plans:  # it was over before the next kill came, which came too late, then
                plans[0] = msgspec.structs.replace(plans[0], late=0.0)
            found = parting.parting(first, second)
            if failed is not None:
                difference = self._failure(found, numbers, failed, len(second.attempts) - 1)
            elif found is not None:
                difference = self._explained(first, found, numbers)
        return VerifyReport(
            self.name, difference is None, max(numbers.values()), killed, self.seed, difference
        )

    def _explained(self, first: Trail, found: Parting, numbers: dict[str, int]) -> Difference:
        """A difference with its likely cause, for which the task is run undisturbed once or twice more."""
        ordered = steady = self._same(first, 1)
        if not ordered and self._seeds[0] is not None:
            steady = self._same(first, 0)
        used = parting.drawn(first.steps)
        if found.step:
            names = [n for n in found.entries if n in used or not n.endswith(watching.UNTRACKED)]
        else:
            names = [self._shown(name) for name in found.entries]
        return Difference(
            _number(found.step, numbers),
            parting.words(found.step) if found.step else "",
            names,
            found.attempt,
            numbers.get(found.resumed, 0),
            parting.cause(found, used, steady=steady, ordered=ordered),
        )

    def _same(self, first: Trail, which: int) -> bool:
        again = self._undisturbed(which, "they differ; undisturbed again, to see why")
        return parting.parting(first, again) is None

    def _shown(self, output: str) -> str:
        return "the result" if list(self.task.interface.outputs) == [output] else output

    @staticmethod
    def _failure(
        found: Parting | None, numbers: dict[str, int], failed: AttemptState, attempt: int
    ) -> Difference:
        step = found.step if found is not None and not found.missing else ""
        return Difference(
            _number(step, numbers),
            parting.words(step) if step else "",
            found.entries if found is not None and step else [],
            attempt,
            numbers.get(found.resumed, 0) if found is not None else 0,
            "",
            error=failed.traceback or failed.error,
        )

    # Running

    def _undisturbed(self, which: int, phase: str) -> Trail:
        files = self._files(phase)
        state = self._drive(
            lambda means: begin(self._home, self.task, self.inputs, means),
            Watch("", self.seed),
            files,
            self._seeds[which],
        )
        if state.status is not RunStatus.SUCCEEDED:
            last = _last(state)
            raise TaskFailed(
                f"{short(self.name)} failed without being killed, so there is nothing to compare: "
                f"{last.outcome}\n{last.traceback or last.error}".rstrip(),
                run=state.run,
                outcome=last.outcome,
            )
        return Trail(_lines(files, state), state.result)

    def _interrupted(
        self, plans: list[Watch], numbers: dict[str, int]
    ) -> tuple[Trail, int, AttemptState | None]:
        """What an interrupted run left, how often it was killed, and how it failed by itself if it did."""
        count = f"{len(plans)} {'time' if len(plans) == 1 else 'times'}"
        files = self._files(f"to be killed {count}")
        last = Watch("", self.seed, every=self._every(len(self.names)))
        state: RunState | None = None
        done = 0
        while True:
            watch = plans[done] if done < len(plans) else last
            run = None if state is None else state.run
            state = self._drive(
                lambda means, run=run: (
                    begin(self._home, self.task, self.inputs, means)  # type: ignore[misc]
                    if run is None
                    else go_on(self._home, run, means)
                ),
                watch,
                files,
                self._seeds[1 + done % (len(self._seeds) - 1)],
            )
            lines = _lines(files, state)
            if state.status is RunStatus.SUCCEEDED:
                return Trail(lines, state.result), done, None
            if _last(state).outcome != Outcome.KILLED or not _killed_itself(lines):
                return Trail(lines), done, _last(state)
            done += 1
            self.progress.tell(f"killed at step {numbers[watch.kill]}, resumed")

    def _drive(
        self,
        start: Callable[[Means], RunState],
        watch: Watch,
        files: Path,
        hash_seed: str | None,
    ) -> RunState:
        def watched(attempt: int) -> Watch:
            # A generator that nobody sets is as new in each attempt as it would be elsewhere.
            return msgspec.structs.replace(
                watch, file=str(files / str(attempt)), seed=watch.seed + attempt
            )

        means = Means(
            clock=compose.make_clock(),
            executor=lambda lock_fd: compose.make_executor(1, lock_fd=lock_fd),
            watch=watched,
        )
        with _hashed(hash_seed):
            state = start(means)
        if state.status is RunStatus.INTERRUPTED:
            raise Stopped
        return state

    def _files(self, phase: str) -> Path:
        self.runs += 1
        files = self.folder / f"seen-{self.runs}"
        files.mkdir()
        self.progress.enter(phase, files)
        return files

    # Choosing

    def _hash_seeds(self) -> list[str | None]:
        """For the undisturbed run, and for the attempts of the other one. Where one is set for all runs, it
        stays."""
        if os.environ.get(_HASHSEED, "random") != "random":
            return [None, None]
        return [str(self._dice.randrange(1, 1 << 32)) for _ in range(4)]

    def _plans(self, kills: int) -> list[Watch]:
        """When the attempts die. Not at the first boundary: nothing would be saved yet."""
        last = len(self.names) - 1
        at = sorted(self._dice.randint(min(1, last), last) for _ in range(kills))
        return [
            Watch(
                "",
                self.seed,
                every=self._every(index),
                durable=tuple(self.names[max(0, index - _WINDOW) : index]),
                kill=self.names[index],
                late=self._dice.uniform(0.05, 1.5) if number % 2 else 0.0,
            )
            for number, index in enumerate(at)
        ]

    def _every(self, room: int) -> float | Steps:
        """How often to save: at each boundary, or every few steps where there is room for it."""
        steps = self._dice.randint(1, _SLOWEST)
        return 0.0 if steps == 1 or room <= 2 * steps else Steps(steps)

    def _nothing_to_compare(self, seen: Trail) -> str:
        name = short(self.name)
        if not any(line.tracked for lines in seen.attempts for line in lines):
            return (
                f"{name} never calls track(), so there is nothing to compare. Track the state of its loop: "
                "state = track(…), and go over state.range(…) or state.iterate(…)."
            )
        return (
            f"{name} calls track(), and made no step: no loop of it goes over state.range(…) or "
            "state.iterate(…), or there was nothing to go over with these inputs."
        )


@contextlib.contextmanager
def _hashed(seed: str | None) -> Iterator[None]:
    """Processes that are started meanwhile have sets in this order; None is as it was."""
    if seed is None:
        yield
        return
    before = os.environ.get(_HASHSEED)
    os.environ[_HASHSEED] = seed
    try:
        yield
    finally:
        if before is None:
            del os.environ[_HASHSEED]
        else:
            os.environ[_HASHSEED] = before


def _lines(files: Path, state: RunState) -> list[list[watching.Line]]:
    (node,) = state.nodes.values()
    return [watching.lines_of(files / str(tried.number)) for tried in node.attempts]


def _number(step: str, numbers: dict[str, int]) -> int | None:
    """Of a boundary; those that the undisturbed run never came to come after it."""
    return numbers.get(step, max(numbers.values()) + 1) if step else None


def _last(state: RunState) -> AttemptState:
    (node,) = state.nodes.values()
    return node.attempts[-1]


def _killed_itself(lines: list[list[watching.Line]]) -> bool:
    return bool(lines) and any(line.killed for line in lines[-1])

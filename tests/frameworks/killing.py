"""Runs of one example: left alone, killed at random instants and resumed, or killed with a real signal."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
from tests.counting import count
from tests.docs.markdown import ROOT

import headway
from headway.checkpoint.handle import Checkpoint
from headway.engine.context import Context, entered
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/nodes/train"
KILLS = 20

Forget = Callable[[int], None]
"""Sets global random generators to something else, as they are in a new process."""


class Killed(BaseException):
    """The attempt ends here."""


def _killed() -> None:
    raise Killed


class Lines:
    """Counts the lines of one module that run; calls `strike` before one of them."""

    def __init__(
        self,
        module: ModuleType,
        after: int | None = None,
        strike: Callable[[], None] = _killed,
    ) -> None:
        self._file = module.__file__
        self._after = after
        self._strike = strike
        self.count = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        """A trace function."""
        if frame.f_code.co_filename != self._file:
            return None
        if event == "line":
            if self.count == self._after:
                self._strike()
            self.count += 1
        return self

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Count what runs in here."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)


class Example:
    """An example, run again and again in this process, which saves after every step.

    Args:
        name: `examples.NAME` is it; `examples.plain.NAME` is the same without headway.
        forget: see `Forget`.
        arguments: of its `train`.
    """

    def __init__(self, name: str, forget: Forget, **arguments: Any) -> None:
        self.name = name
        self._forget = forget
        self._arguments = arguments
        self._module = importlib.import_module(f"examples.{name}")
        self._attempts = itertools.count()
        self._resumed = 0

    def plain(self) -> str:
        """What it makes without headway."""
        module = importlib.import_module(f"examples.plain.{self.name}")
        made: str = module.train(**self._arguments)
        return made

    def attempt(self, storage: MemoryStorage, lines: Lines) -> str:
        """One attempt."""
        number = next(self._attempts)
        self._forget(number)
        checkpoint = Checkpoint(storage, PREFIX, attempt=number)
        self._resumed += bool(checkpoint.history())
        every: Any = functools.partial(headway.track, every=0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._module, "track", every)
            try:
                with entered(Context("r", "train", number, 0, checkpoint)), lines.traced():
                    made: str = self._module.train(**self._arguments)
                return made
            finally:
                checkpoint.close()

    def check(self, seed: int = 1) -> None:
        """Kill it at random instants; it makes what it makes when it is left alone."""
        wanted = self.plain()
        whole = Lines(self._module)
        assert self.attempt(MemoryStorage(), whole) == wanted
        source, storage = random.Random(seed), MemoryStorage()
        kills = self._resumed = 0
        while kills < KILLS:
            lines = Lines(self._module, source.randrange(1, max(whole.count // 6, 30)))
            try:
                made = self.attempt(storage, lines)
            except Killed:
                kills += 1
                continue
            assert made == wanted
            storage = MemoryStorage()
        assert self.attempt(storage, Lines(self._module)) == wanted
        assert self._resumed >= KILLS // 2
        count("R9", "interrupted attempts of frameworks", kills)

    def check_signal(self, home: Path) -> None:
        """Run it with `headway run`, where its process sends itself SIGKILL, twice at least."""
        wanted = self.plain()
        whole = Lines(self._module)
        self.attempt(MemoryStorage(), whole)
        text = textwrap.dedent(f"""\
                import functools
                import os
                import signal
                import sys
                import headway
                import examples.{self.name} as example
                from tests.frameworks.killing import Lines

                example.track = functools.partial(headway.track, every=0)

                @headway.task(interruptible=True, retries=3)
                def train() -> str:
                    context = headway.current_context()
                    assert context.attempt == 0 or context.checkpoint.history()

                    def strike():
                        context.checkpoint.flush()  # a slow disk has none yet
                        os.kill(os.getpid(), signal.SIGKILL)

                    after = None if context.attempt == 3 else {whole.count // 2}
                    lines = Lines(example, after, strike)
                    with lines.traced():
                        return example.train(**{self._arguments!r})
            """)
        result, (*killed, last) = run_program(home, text)
        assert result == wanted
        assert last == "succeeded"
        assert killed == ["killed"] * max(2, len(killed))
        count("R9", "SIGKILLs of frameworks", len(killed))


def run_program(
    place: Path, text: str, *arguments: str, timeout: float = 100
) -> tuple[Any, list[str]]:
    """What the task `train` of a program returns, run with `headway run`, and how its attempts ended.

    Args:
        place: an empty directory; the program is in it, works there, and has its home there.
        text: the program.
        arguments: of the task, as on the command line.
        timeout: seconds.
    """
    program = place / "program.py"
    program.write_text(text)
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "headway", "run", str(program), "train", "--json", *arguments],
        env={
            **os.environ,
            "HEADWAY_HOME": str(place / "home"),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    return report["result"], [attempt["outcome"] for attempt in report["nodes"][0]["attempts"]]


class Trial:
    """Attempts of one body, one after the other, which save after every step.

    Args:
        storage: where.
    """

    Killed = Killed

    def __init__(self, storage: MemoryStorage | None = None) -> None:
        self._storage = MemoryStorage() if storage is None else storage
        self._attempts = 0
        self.warnings: list[str] = []

    def kill(self) -> None:
        """End the attempt, once what is being saved is there."""
        self._checkpoint.flush()
        raise Killed

    def _warned(self, warned: Any) -> None:
        self.warnings.append(warned.kind)

    def attempt(self, body: Callable[[Callable[..., Any]], Any]) -> Any:
        """One attempt: the body gets `track`."""
        self._checkpoint = Checkpoint(self._storage, PREFIX, attempt=self._attempts)
        context = Context("r", "train", self._attempts, 0, self._checkpoint, warn=self._warned)
        self._attempts += 1
        try:
            with entered(context):
                return body(functools.partial(headway.track, every=0))
        finally:
            self._checkpoint.close()


def saved_and_restored(before: Any, after: Any) -> Any:
    """What `before`, which an attempt saved, is in an attempt that begins with `after`."""
    trial = Trial(MemoryStorage(trusted=False))

    def save(track: Any) -> None:
        state = track(value=after)
        for _ in state.range(1):
            state.value = before

    trial.attempt(save)
    return trial.attempt(lambda track: track(value=after).value)


def added_lines(name: str) -> list[str]:
    """Lines of an example that its plain version does not have, blank ones left out."""
    plain = (ROOT / "examples" / "plain" / f"{name}.py").read_text().splitlines()
    return [
        line
        for line in (ROOT / "examples" / f"{name}.py").read_text().splitlines()
        if line.strip() and line not in plain
    ]

"""What tests of executors need: an executor in one line, and ways to wait for and look at processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headway.compose import open_storage
from headway.model.program import AttemptSpec, Died, Message, Program, Raised, Returned
from headway.ports import AttemptKey, Executor

HERE = Path(__file__).parent
BODIES = Program("bodies", str(HERE / "bodies.py"), (str(HERE),), "1")
SOON = 20.0
"""Seconds after which something that should happen at once has failed to."""


def is_last(message: Message) -> bool:
    return isinstance(message, Returned | Raised | Died)


def until(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + SOON
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class Bench:
    """An executor with what is needed to use it in one line."""

    def __init__(self, executor: Executor, directory: Path) -> None:
        self.executor = executor
        self.directory = directory
        self.count = 0
        self.running: list[AttemptSpec] = []
        open_storage(str(directory / "home"), create=True)

    def spec(self, body: str, *, program: Program = BODIES, **inputs: Any) -> AttemptSpec:
        self.count += 1
        return AttemptSpec(
            home=str(self.directory / "home"),
            run="1tq4zk-8f3d",
            node=f"{body}-{self.count}",
            attempt=self.count,
            program=program,
            task=f"bodies:{body}",
            inputs=inputs,
            inputs_digest="d",
            log=str(self.directory / "logs" / f"{body}-{self.count}" / "0.log"),
            retries_left=3,
        )

    def submit(self, body: str, **inputs: Any) -> AttemptSpec:
        return self.start(self.spec(body, **inputs))

    def start(self, spec: AttemptSpec) -> AttemptSpec:
        self.executor.submit(spec)
        self.running.append(spec)
        return spec

    def finish(self, *specs: AttemptSpec) -> dict[AttemptKey, list[Message]]:
        """All messages of attempts, until each has had its last one."""
        heard: dict[AttemptKey, list[Message]] = {(s.node, s.attempt): [] for s in specs}
        end = time.monotonic() + SOON
        while not all(messages and is_last(messages[-1]) for messages in heard.values()):
            assert time.monotonic() < end, heard
            for key, message in self.executor.poll(1.0):
                assert not (heard[key] and is_last(heard[key][-1])), "news after the last message"
                heard[key].append(message)
        self.running = [spec for spec in self.running if spec not in specs]
        return heard

    def clear(self) -> None:
        for spec in self.running:
            self.executor.stop((spec.node, spec.attempt), 0)
        self.finish(*self.running)

    def messages(self, body: str, **inputs: Any) -> list[Message]:
        spec = self.submit(body, **inputs)
        return self.finish(spec)[spec.node, spec.attempt]

    def last(self, spec: AttemptSpec) -> Message:
        return self.finish(spec)[spec.node, spec.attempt][-1]

    def end(self, body: str, **inputs: Any) -> Message:
        return self.messages(body, **inputs)[-1]

    def value(self, body: str, **inputs: Any) -> Any:
        message = self.end(body, **inputs)
        assert isinstance(message, Returned), message
        return message.outputs["o0"]

    def waiting(self, body: str) -> tuple[AttemptSpec, int]:
        """Start a body that waits; gives its pid once it does."""
        file = self.directory / f"{body}.pid"
        file.unlink(missing_ok=True)
        spec = self.submit(body, pid_file=str(file))
        until(lambda: self.executor.poll(0.01) is not None and file.exists())
        return spec, int(file.read_text())

    def stop(self, spec: AttemptSpec, grace: float) -> Message:
        self.executor.stop((spec.node, spec.attempt), grace)
        return self.last(spec)

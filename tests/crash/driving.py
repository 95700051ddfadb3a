"""Drivers as children of the nursery, and what has to hold of a run whatever was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.crash.bodies import Notes, notes_in
from tests.crash.flow import expected
from tests.crash.nursery import Child, Nursery, survivors

from headway import runtime
from headway.engine.core import RunState
from headway.engine.journal import read_journal
from headway.engine.loading import load_file
from headway.model.errors import HeadwayError
from headway.model.events import AttemptEnded, Event, RunCreated
from headway.model.report import RunReport
from headway.storage.local import LocalStorage

FLOW = Path(__file__).with_name("flow.py")


class Witness:
    """An observer that notes what the driver has told the world: that cannot be taken back."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def started(self, run_id: str) -> None:
        self._notes("run", run_id)

    def event(self, event: Event, state: RunState) -> None:
        if isinstance(event, AttemptEnded):
            self._notes("outcome", event.node, event.attempt, event.outcome, event.error)
            if event.outcome == "succeeded":
                self._notes("committed", event.node)

    def output(self, node: str, attempt: int, data: bytes) -> None:
        pass


def begin(home: str, side: str, inputs: dict[str, Any], entity: str = "chain") -> None:
    """A driver that runs a workflow of `flow.py`."""
    notes = Notes(side)
    module, _ = load_file(FLOW)
    try:
        opened = runtime.open_home(home)
        report = runtime.run(
            opened, getattr(module, entity), {"side": side, **inputs}, observer=Witness(notes)
        )
    except HeadwayError as error:
        notes("error", type(error).__name__, str(error))
        raise SystemExit(3) from error
    notes("ended", report.status, report.result, report.error)


def go_on(home: str, side: str, run_id: str) -> None:
    """A driver that resumes."""
    notes = Notes(side)
    try:
        report = runtime.resume(runtime.open_home(home), run_id, observer=Witness(notes))
    except HeadwayError as error:
        notes("error", type(error).__name__, str(error))
        raise SystemExit(3) from error
    notes("ended", report.status, report.result, report.error)


def delete(home: str, run_id: str) -> None:
    """`headway delete`."""
    runtime.delete(runtime.open_home(home), run_id)


class Runs:
    """A home with one run of `chain`, driven by one child after the other.

    Args:
        nursery: where drivers come from.
        place: an empty directory.
        n, large, pause: steps of the count, whether its checkpoints need packs, seconds a step.
        home: where the run is kept; below `place` by default.
        entity, inputs: what to run, when it is not `chain`.
    """

    def __init__(
        self,
        nursery: Nursery,
        place: Path,
        *,
        n: int = 6,
        home: Path | None = None,
        large: bool = True,
        pause: float = 0.0,
        entity: str = "chain",
        inputs: dict[str, Any] | None = None,
    ) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.nursery = nursery
        self.n = n
        self.entity = entity
        self.inputs = {"n": n, "large": large, "pause": pause} if inputs is None else inputs
        self.home = home or place / "home"
        self.side = place / "side"
        self.marks: list[str] = []

    def driver(self) -> Child:
        """The next driver: the first one runs, later ones resume. It waits for `go`."""
        run_id = self.run_id()
        where = str(self.home), str(self.side)
        if run_id is None:
            begin = "tests.crash.driving:begin"
            child = self.nursery.child(begin, *where, self.inputs, self.entity)
        else:
            child = self.nursery.child("tests.crash.driving:go_on", *where, run_id)
        self.marks.append(child.mark)
        return child

    def notes(self, *kinds: str) -> list[list[Any]]:
        """What was noted, in order; of some kinds only, if given."""
        return [note for note in notes_in(self.side) if not kinds or note[0] in kinds]

    def storage(self) -> LocalStorage:
        return LocalStorage(self.home)

    def run_id(self) -> str | None:
        """The run in the home that can be resumed; None when the first driver died too early."""
        for name in self.storage().list("runs"):
            events, _ = read_journal(self.storage(), name)
            if events:
                assert isinstance(events[0], RunCreated)
                return name
        assert not self.notes("run"), "a run that was announced is gone"
        return None

    def finished(self) -> set[str]:
        """Nodes whose success is in the journal."""
        return {
            event.node
            for name in self.storage().list("runs")
            for event in read_journal(self.storage(), name)[0]
            if isinstance(event, AttemptEnded) and event.outcome == "succeeded"
        }

    def starts(self) -> list[str]:
        """Nodes in the order in which bodies began."""
        return [note[1] for note in self.notes("start")]

    def finish(self) -> None:
        """Resume, undisturbed, until the run has ended."""
        driver = self.driver()
        driver.go()
        code = driver.wait()
        assert code == 0, (driver.said(), self.notes("error"))

    def judge(self, *, doubled: bool = False) -> None:
        """Check all that was promised of a run that has ended, and that nobody is left.

        Args:
            doubled: an attempt was stopped by the test and given up, so there may be two of it.
        """
        ends = self.notes("ended")
        assert ends and ends[-1][1:3] == ["succeeded", expected(self.n)], ends
        committed: set[str] = set()
        acked = saving = -1
        for kind, *words in self.notes():
            match kind:
                case "committed":
                    committed.add(words[0])
                case "start":
                    assert words[0] not in committed, f"{words[0]} had finished, and ran again"
                case "saving":
                    saving = words[0]
                case "acked":
                    acked = words[0]
                case "read":
                    assert acked <= words[0] <= saving, f"acked {acked}, and read {words[0]}"
                case "doubled" if not doubled:
                    raise AssertionError(f"two attempts of {words[0]} at once")
        self.judge_history(acked)
        for mark in self.marks:
            assert not survivors(mark), f"left over: {survivors(mark, 0)}"

    def judge_history(self, acked: int) -> None:
        """`show` tells the same story: done nodes, one success each, checkpoints in order."""
        home = runtime.open_home(str(self.home))
        found = [run.run for run in runtime.runs(home)]
        assert found == [self.run_id()]
        report = runtime.show(home, found[0])
        assert report.status == "succeeded" and report.result == expected(self.n)
        for node in report.nodes:
            outcomes = [attempt.outcome for attempt in node.attempts]
            assert outcomes.count("succeeded") == 1 and outcomes[-1] == "succeeded", outcomes
            assert "running" not in outcomes
        saved = [
            checkpoint.number
            for node in report.nodes
            for attempt in node.attempts
            for checkpoint in attempt.checkpoints
        ]
        assert saved == sorted(set(saved)) and len(saved) >= acked + 1

    def report(self) -> RunReport:
        """What `show` says."""
        run_id = self.run_id()
        assert run_id is not None
        return runtime.show(runtime.open_home(str(self.home)), run_id)

    def __repr__(self) -> str:
        return f"{self.home}: {self.notes()[-12:]}"

"""A world for the driver, all of it a function of one seed: a clock, a journal that can die at any
append, an executor whose attempts end in every possible way, and a judge that trusts none of them.

The judge looks at what was durable in the journal and at what reached the executor, never at the
driver's state, and counts budgets by its own arithmetic.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from headway.engine.core import RunState, fold
from headway.engine.driver import Driver
from headway.model.events import (
    AttemptEnded,
    AttemptStarted,
    CancelRequested,
    CheckpointSaved,
    DriverStarted,
    Event,
    NodePlan,
    RunCreated,
    RunEnded,
)
from headway.model.outcome import NodeStatus, RunStatus
from headway.model.program import (
    AttemptSpec,
    Died,
    Message,
    Program,
    Raised,
    Returned,
    Saved,
    Started,
    Warned,
)
from headway.model.settings import Backoff, TaskOptions
from headway.ports import AttemptKey

FAILURES = ("app error", "recoverable", "oom", "timeout")
STEPS = 5_000


class Violation(AssertionError):
    """The judge saw something that must never happen."""


class Crash(BaseException):
    """The driver's process is gone."""


def must(holds: bool, says: str) -> None:
    if not holds:
        raise Violation(says)


class World:
    """Everything outside the driver, over all the drivers of one run."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_000.0
        self.steps = 0
        self.journal: list[Event] = []  # durable
        self.plans = self._graph()
        self.slots = self.random.randint(1, 4)
        self.stormy = self.random.random() < 0.15  # nearly every attempt is interrupted
        self.crashes = self.random.choice([0, 1, 3, 6])
        self.nuisances = self.random.choice([0, 0, 1, 2])  # signals and cancels
        self.submitted: set[AttemptKey] = set()
        self.checkpoints: dict[str, int] = {}
        self.told: dict[AttemptKey, int] = {}  # newest checkpoint number delivered
        self.faults = 0
        self.cancel = False

    def _graph(self) -> list[NodePlan]:
        r = self.random
        plans: list[NodePlan] = []
        for index in range(r.randint(1, 12)):
            after = tuple(p.name for p in plans if r.random() < 0.3)
            options = TaskOptions(
                retries=r.randint(0, 3),
                max_interruptions=r.choice([None, None, 0, 1, 4]),
                timeout=r.choice([None, None, 3.0]),
                backoff=r.choice([None, Backoff(initial=r.random(), maximum=20)]),
            )
            plans.append(NodePlan(f"n{index}", "m:t", options, {}, after, ("o0",)))
        return plans

    def step(self) -> None:
        self.steps += 1
        must(self.steps < STEPS, "the run does not end")

    def maybe_crash(self, chance: float) -> None:
        if self.crashes and self.random.random() < chance:
            self.crashes -= 1
            self.faults += 1
            raise Crash

    def maybe_disturb(self, driver: Driver) -> None:
        """A signal to the driver, or the user's cancel."""
        if self.nuisances and self.random.random() < 0.02:
            self.nuisances -= 1
            self.faults += 1
            if self.random.random() < 0.4:
                self.cancel = True
            else:
                driver.leave()

    # ports.Clock

    def time(self) -> float:
        return self.now + 1e9

    def monotonic(self) -> float:
        return self.now


class SimJournal:
    """All or none, and the driver may die before, or after, the write that it never hears about."""

    def __init__(self, world: World) -> None:
        self.world = world

    def append(self, *events: Event) -> None:
        self.world.step()
        must(bool(events), "an empty append costs a disk write")
        self.world.maybe_crash(0.03)
        self.world.journal.extend(events)
        self.world.maybe_crash(0.03)

    def check(self) -> None:
        pass


class SimExecutor:
    """Attempts as lists of (time, message); every kind of end, in any order between attempts."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.scripts: dict[AttemptKey, list[tuple[float, Message]]] = {}
        self.driver: Driver | None = None
        self.closed = False

    @property
    def slots(self) -> int:
        return self.world.slots

    def submit(self, spec: AttemptSpec) -> None:
        world, key = self.world, (spec.node, spec.attempt)
        world.step()
        world.maybe_crash(0.02)
        must(not self.closed, "a submit after close")
        self._check_submit(key)
        world.submitted.add(key)
        if world.random.random() < 0.02:
            raise OSError("no process today")
        self.scripts[key] = self._script(spec.node)
        must(len(self.scripts) <= self.slots, "more attempts than slots")
        world.maybe_crash(0.02)

    def _check_submit(self, key: AttemptKey) -> None:
        journal, (name, number) = self.world.journal, key
        must(key not in self.world.submitted, f"{key} is submitted twice")
        must(
            all(a < number for n, a in self.world.submitted if n == name),
            f"{key}: attempt numbers go back",
        )
        must(
            any(isinstance(e, AttemptStarted) and (e.node, e.attempt) == key for e in journal),
            f"{key} acts before its start is in the journal",
        )
        done = {e.node for e in journal if isinstance(e, AttemptEnded) and e.outcome == "succeeded"}
        must(name not in done, f"{name} succeeded and runs again")
        [plan] = [p for p in self.world.plans if p.name == name]
        must(set(plan.after) <= done, f"{name} starts before what it needs has been committed")

    def _script(self, node: str) -> list[tuple[float, Message]]:
        r, time = self.world.random, self.world.now
        script: list[tuple[float, Message]] = [(time, Started(1))]
        for _ in range(r.choice([0, 0, 1, 3])):
            time += r.random()
            self.world.checkpoints[node] = number = self.world.checkpoints.get(node, 0) + 1
            script.append((time, Saved(number, 10, time)))
        if r.random() < 0.1:
            script.append((time, Warned("odd", "something")))
        time += r.choice([0.0, r.random(), 5 * r.random()])
        kinds = ["app error", "recoverable", "oom", "non-recoverable", "preempted"]
        ends: list[Message] = [
            *[Returned({"o0": f"{node}@{time}"}, clean=True)] * (0 if self.world.stormy else 6),
            Raised(r.choice(kinds), "E", "text", "trace"),
            *[Died(r.choice([-9, -15, -9, -11, 1, 0]))] * 2,
            *[Died(-9)] * (60 if self.world.stormy else 0),
            *[Returned({"o0": "at last"}, clean=True)] * (4 if self.world.stormy else 0),
        ]
        return [*script, (time, r.choice(ends))]

    def stop(self, key: AttemptKey, grace: float) -> None:
        world = self.world
        world.step()
        script = self.scripts.get(key)
        must(script is not None, f"{key} is stopped and does not run")
        assert script is not None
        at = world.now + world.random.random() * grace
        if script[-1][0] > at:
            end: Message = Died(-9 if world.random.random() < 0.5 else -15)
            if world.random.random() < 0.3:
                end = Raised("preempted", "Preempted", "", "")
            self.scripts[key] = [entry for entry in script[:-1] if entry[0] <= at] + [(at, end)]

    def poll(self, timeout: float | None) -> Sequence[tuple[AttemptKey, Message]]:
        world = self.world
        world.step()
        world.maybe_crash(0.01)
        assert self.driver is not None
        assert timeout is not None
        world.maybe_disturb(self.driver)
        times = [script[0][0] for script in self.scripts.values()]
        world.now = max(world.now, min([world.now + timeout, *times]))
        heard: list[tuple[AttemptKey, Message]] = []
        if world.submitted and world.random.random() < 0.1:
            late = world.random.choice(sorted(world.submitted))
            if late not in self.scripts:
                heard.append((late, Returned({"o0": "late"}, clean=True)))
        while due := [k for k, script in self.scripts.items() if script[0][0] <= world.now]:
            key = world.random.choice(due)
            message = self.scripts[key].pop(0)[1]
            if isinstance(message, Saved):
                world.told[key] = message.number
            if not self.scripts[key]:
                del self.scripts[key]
            heard.append((key, message))
            if world.random.random() < 0.2:
                break
        return heard

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class SimAssigner:
    def spec(self, state: RunState, node: str, attempt: int) -> AttemptSpec:
        left = state.nodes[node].retries_left
        return AttemptSpec("h", "r", node, attempt, state.program, "m:t", {}, "d", "", left)

    def outputs(self, state: RunState) -> dict[str, Any]:
        return {"o0": "done"}


def live(world: World, make: Callable[..., Driver] = Driver) -> RunState | None:
    """One driver's life; None when it crashed."""
    state = fold(world.journal)
    opening: list[Event] = []
    if not world.journal:
        program = Program("m", digest="d")
        plans = tuple(world.plans)
        opening.append(RunCreated("r", "m:f", program, {}, world.time(), "0", plans, {}))
    opening.append(DriverStarted(world.time(), 1, "h", "d", resumed=bool(world.journal)))
    executor = SimExecutor(world)
    driver = make(
        state,
        SimJournal(world),
        executor,
        SimAssigner(),
        world,
        cancelled=lambda: world.cancel,
        draw=world.random.random,
    )
    executor.driver = driver
    try:
        state = driver.run(opening)
    except Crash:
        return None
    finally:
        must(executor.closed, "the driver left without closing its executor")
    again = fold(world.journal)
    must(
        (again.nodes, again.results, again.status, again.counts, again.failed)
        == (state.nodes, state.results, state.status, state.counts, state.failed),
        "reading the journal gives another state than living it",
    )
    return state


def simulate(seed: int, make: Callable[..., Driver] = Driver) -> World:
    """One run over as many drivers as it takes, judged. Raises `Violation`."""
    world = World(seed)
    resumes = world.random.choice([0, 0, 1, 2])
    for _ in range(40):
        world.cancel = False
        state = live(world, make)
        Judge(world).judge()
        if state is None or state.status is RunStatus.INTERRUPTED:
            continue
        must(state.over, "the driver left a run that is not over")
        if state.status is RunStatus.SUCCEEDED or not resumes:
            return world
        resumes -= 1
    raise Violation("the run does not end")


class Judge:
    """Reads a journal from its first event and objects."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.plans = {plan.name: plan for plan in world.plans}
        self.done: dict[str, Any] = {}
        self.dead: set[str] = set()
        self.counts = {name: [0, 0, 0] for name in self.plans}  # failures, interruptions, idle
        self.running: dict[str, int] = {}
        self.saved: dict[AttemptKey, int] = {}
        self.cancelled = False

    def judge(self) -> None:
        for event in self.world.journal:
            match event:
                case DriverStarted():
                    self._driver_started()
                case AttemptStarted():
                    must(event.node not in self.dead, f"{event.node} failed and runs again")
                    must(not self.cancelled, f"{event.node} starts in a cancelled run")
                    must(event.node not in self.running, f"{event.node} runs twice at once")
                    self.running[event.node] = event.attempt
                case CheckpointSaved():
                    self.saved[event.node, event.attempt] = event.number
                case AttemptEnded():
                    self._ended(event)
                case CancelRequested():
                    self.cancelled = True
                case RunEnded():
                    self._run_ended(event)
                case _:
                    pass
        final = fold(self.world.journal)
        must(final.results == self.done, "a committed result changed or went missing")

    def _lost(self, name: str) -> bool:
        """Whether the node, or anything it needs, failed."""
        return name in self.dead or any(self._lost(need) for need in self.plans[name].after)

    def _driver_started(self) -> None:
        for name in self.plans:
            if name not in self.done and (self.cancelled or self._lost(name)):
                self.counts[name] = [0, 0, 0]
        self.dead.clear()
        self.running.clear()
        self.cancelled = False

    def _ended(self, event: AttemptEnded) -> None:
        name, key = event.node, (event.node, event.attempt)
        must(self.running.pop(name, None) == event.attempt, f"{key} ends and does not run")
        must(
            self.saved.get(key) == self.world.told.get(key), f"{key}: a checkpoint is not recorded"
        )
        if event.outcome == "succeeded":
            must(name not in self.done, f"{name} has two results")
            self.done[name] = event.outputs
            return
        if not event.charged:
            return
        options, counts = self.plans[name].options, self.counts[name]
        if event.outcome in FAILURES:
            counts[0] += 1
            counts[2] = 0
            over = counts[0] == options.retries + 1
        elif event.outcome in {"non-recoverable", "cancelled"}:
            over = True
        else:
            counts[1] += 1
            counts[2] = 0 if self.saved.get(key) else counts[2] + 1
            limit = options.max_interruptions
            over = counts[2] == 10 if limit is None else counts[1] == limit + 1
        if over and not self.cancelled:
            self.dead.add(name)

    def _run_ended(self, event: RunEnded) -> None:
        status = event.status
        must(not self.running or status == "interrupted", "a run ends and something still runs")
        if status == "succeeded":
            must(set(self.done) == set(self.plans), "a run succeeds with nodes undone")
        if status == "failed":
            must(bool(self.dead), "a run fails and no node did")
            nodes = fold(self.world.journal).nodes
            for name in self.plans:
                must(name in self.done or self._lost(name), f"{name} was given up too early")
                skipped = nodes[name].status is NodeStatus.SKIPPED
                last = event is self.world.journal[-1]
                must(
                    not last or skipped == (name not in self.done and name not in self.dead),
                    f"{name} is not shown as skipped",
                )
        must(status != "cancelled" or self.cancelled, "a run is cancelled and nobody asked")


def statuses(world: World) -> set[NodeStatus]:
    return {node.status for node in fold(world.journal).nodes.values()}

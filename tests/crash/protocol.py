"""Every interleaving of the real ledger code, over a simulated store.

**The world** is the store's content and each actor's history (`actors`). A search goes through all
worlds that any schedule can reach, one atomic step at a time. Creating a log and appending to one are
two steps each: visible, then durable and answered. An actor that is killed is one that no later step
belongs to, and every world is judged as if everyone in it were dead, so a kill at every step is in
there without being a step of its own. Faults are steps: a call that fails before or after its effect (a
lost reply, a failed flush), a page that is evicted after its flush failed, and a power loss, which
kills who has begun, and keeps or drops each thing that was visible and not yet durable.

**Judged in every world**: what was acknowledged is in the chain, once, in order; no damage is reported;
what an opener was given, and what it then had acknowledged, is how the chain begins; a record whose
failure was reported is outside for good once its writer went on. **Judged at the step**: who
is told that it is in, or that a record is, has no rival; who is told that it is fenced has one. A rival
has a newer claim, or one of a higher rank; a newer claim of a lower rank is no rival's.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

from tests.crash.actors import PREFIX, Actor, Op, Said, Violation
from tests.crash.mutants import Code
from tests.crash.shelf import (
    HALF,
    Outcome,
    Store,
    StoreView,
    evictions,
    file_of,
    power_losses,
    steps_of,
    written,
)

from headway.ledger.record import CLAIM_SIZE

NAMES = "ABCDEFG"
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Scope:
    """What a search covers.

    Attributes:
        writers: the payloads that each actor appends; () is a claimant that only opens.
        ranks: of the writers; () is 0 for all.
        faults: storage calls that fail, in all.
        losses: power losses, in all.
        evictions: pages dropped after a failed flush, in all.
        halves: an append is visible in part first (a reader beside it sees that).
        exclusive: False: the store lets two create the same log, which the protocol cannot survive.
        reduce: steps whose order nobody can tell are taken in one order only.
    """

    writers: tuple[tuple[bytes, ...], ...]
    ranks: tuple[int, ...] = ()
    faults: int = 0
    losses: int = 0
    evictions: int = 0
    halves: bool = False
    exclusive: bool = True
    reduce: bool = True

    def unreduced(self) -> Scope:
        """The same, with every order tried."""
        return replace(self, reduce=False)


class World(NamedTuple):
    """A state of everything, as numbers.

    `actors`: 2 * history, plus 1 when its next operation is half done; for one that has ended or was
    killed, ~(number of what it said).
    """

    store: int
    actors: tuple[int, ...]
    acked: int
    faults: int
    losses: int
    evictions: int


class _Numbers(Generic[T]):
    """Gives equal things the same small number."""

    def __init__(self) -> None:
        self.things: list[T] = []
        self._known: dict[T, int] = {}

    def of(self, thing: T) -> int:
        number = self._known.get(thing)
        if number is None:
            number = self._known[thing] = len(self.things)
            self.things.append(thing)
        return number


class _When(enum.Enum):
    """When nobody can tell if a step came now or later, and nothing that comes in between changes its
    answer: then the other orders lead to the same worlds and need not be tried."""

    NEVER = enum.auto()
    ALWAYS = enum.auto()
    CLOSED = enum.auto()  # once the log's owner has ended
    CALM = enum.auto()  # when no power loss or eviction is to come


class _Plan(NamedTuple):
    steps: list[_Step]
    when: _When
    owner: int  # of the log that the operation is about


class _Step(NamedTuple):
    label: str
    store: int
    history: int  # of the actor afterwards
    half: bool
    said: int | None  # number of what it said, when it has ended
    acked: tuple[bytes, ...]
    cost: int


class Search:
    """All worlds of a scope.

    Attributes:
        states: how many different worlds were judged.
        terminal: how many of them have no next step.
    """

    actor = Actor

    def __init__(self, code: Code, scope: Scope) -> None:
        self._code = code
        self._scope = scope
        self._ranks = scope.ranks or (0,) * len(scope.writers)
        self._actors = [
            self.actor(code, n, payloads, rank)
            for n, (payloads, rank) in enumerate(zip(scope.writers, self._ranks, strict=True))
        ]
        self._stores: _Numbers[Store] = _Numbers()
        self._acked: _Numbers[tuple[bytes, ...]] = _Numbers()
        self._said: _Numbers[Said] = _Numbers()
        self._plans: dict[tuple[int, int, int], _Plan] = {}
        self._said_known: dict[tuple[int, int], int] = {}
        self._chains: dict[int, tuple[bytes, ...]] = {}
        self._good: set[tuple[int, int, tuple[int, ...]]] = set()
        self._came: dict[World, World | None] = {}
        self.states = 0
        self.terminal = 0

    @property
    def stores(self) -> int:
        """How many different contents of the store a reader was given."""
        return len(self._chains)

    @property
    def runs(self) -> int:
        """How often the real code was run from its start."""
        return sum(actor.runs for actor in self._actors)

    def run(self, limit: int | None = None) -> None:
        """Judge every world that can be reached.

        Args:
            limit: more states than that are an error of the test.

        Raises:
            Violation: with the steps that led there.
        """
        scope = self._scope
        start = World(
            self._stores.of(()),
            (0,) * len(self._actors),
            self._acked.of(()),
            scope.faults,
            scope.losses,
            scope.evictions,
        )
        self._came[start] = None
        todo = deque([start])
        world = start
        try:
            while todo:
                world = todo.popleft()
                self._judge(world)
                self.states += 1
                if limit is not None and self.states > limit:
                    raise AssertionError(f"more than {limit} states")
                ended = True
                for _, after in self._next(world):
                    ended = False
                    if after not in self._came:
                        self._came[after] = world
                        todo.append(after)
                self.terminal += ended
        except Violation as violation:
            raise Violation(f"{violation}\n{self._story(world)}") from None

    def ends(self) -> set[tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[Said, ...]]]:
        """(chain, acknowledged, what each said) of the worlds that have no next step."""
        return {
            (
                self._chain(world.store),
                self._acked.things[world.acked],
                tuple(self._said.things[~actor] for actor in world.actors),
            )
            for world in self._came
            if all(actor < 0 for actor in world.actors)
        }

    def _story(self, world: World) -> str:
        lines: list[str] = []
        while (before := self._came[world]) is not None:
            lines += [label for label, after in self._next(before) if after == world][:1]
            world = before
        return "\n".join(reversed(lines))

    # Steps

    def _next(self, world: World) -> Iterator[tuple[str, World]]:
        store, reduce = world.store, self._scope.reduce and not world.faults
        moves: list[tuple[int, _Plan]] = []
        begun: set[tuple[int, int]] = set()  # twins begin in the order of their numbers
        for number, actor in enumerate(world.actors):
            if actor < 0:
                continue
            if actor == 0:
                kind = (len(self._scope.writers[number]), self._ranks[number])
                if kind in begun:
                    continue
                begun.add(kind)
            plan = self._plans.get((store, number, actor)) or self._plan(store, number, actor)
            when = plan.when
            if (
                when is not _When.NEVER
                and reduce
                and (
                    when is _When.ALWAYS
                    or (when is _When.CLOSED and world.actors[plan.owner] < 0)
                    or (when is _When.CALM and not world.losses and not world.evictions)
                )
            ):
                moves = [(number, plan)]
                break
            moves.append((number, plan))
        else:
            if world.losses or world.evictions:
                yield from self._disasters(world)
        for number, plan in moves:
            for step in plan.steps:
                if step.cost <= world.faults:
                    yield step.label, self._after(world, number, step)

    def _after(self, world: World, number: int, step: _Step) -> World:
        _, actors, acked, faults, losses, evicted = world
        actor = 2 * step.history + step.half if step.said is None else ~step.said
        if step.acked:
            acked = self._acked.of(self._acked.things[acked] + step.acked)
        actors = (*actors[:number], actor, *actors[number + 1 :])
        return World(step.store, actors, acked, faults - max(0, step.cost), losses, evicted)

    def _disasters(self, world: World) -> Iterator[tuple[str, World]]:
        store = self._stores.things[world.store]
        if world.evictions:
            for label, after in evictions(store):
                yield (
                    label,
                    world._replace(store=self._stores.of(after), evictions=world.evictions - 1),
                )
        if world.losses:
            # Who has not begun yet begins on what the power loss left.
            actors = tuple(
                actor if actor <= 0 else ~self._said_of(number, actor)
                for number, actor in enumerate(world.actors)
            )
            for label, after in power_losses(store):
                yield (
                    label,
                    world._replace(
                        store=self._stores.of(after), actors=actors, losses=world.losses - 1
                    ),
                )

    def _plan(self, store: int, number: int, actor: int) -> _Plan:
        history, half = actor >> 1, bool(actor & 1)
        op = self._actors[number].moment(history).op
        assert op is not None
        before = self._stores.things[store]
        halves, exclusive = self._scope.halves, self._scope.exclusive
        outcomes = steps_of(before, number, op, half, halves=halves, exclusive=exclusive)
        steps = [self._step(number, history, op, outcome) for outcome in outcomes]
        file = file_of(before, op)
        plan = _Plan(steps, self._when(before, op, half), file.owner if file else -1)
        self._plans[store, number, actor] = plan
        return plan

    def _step(self, number: int, history: int, op: Op, outcome: Outcome) -> _Step:
        actor = self._actors[number]
        label = f"{NAMES[number]}: {op.name} {op.term or ''} {outcome.label}"
        store = self._stores.of(outcome.store)
        if outcome.answer is HALF or outcome.cost < 0:
            return _Step(label, store, history, outcome.answer is HALF, None, (), outcome.cost)
        after = actor.after(history, outcome.answer)
        before, (next_op, now) = actor.moment(history).said, actor.moment(after)
        acked = now.acked[len(before.acked) :]
        rival = self._has_rival(outcome.store, number)
        if rival and (acked or now.opened != before.opened):
            raise Violation(f"{label}: told {now}, and a rival's claim is there")
        if now.fenced and not rival:
            raise Violation(f"{label}: told that it is fenced, and no rival's claim is there")
        said = self._said.of(now) if next_op is None else None
        return _Step(label, store, after, False, said, acked, outcome.cost)

    def _has_rival(self, store: Store, number: int) -> bool:
        mine = max((i for i, file in enumerate(store) if file and file.owner == number), default=-1)
        rank = self._ranks[number]
        return any(
            file is not None
            and file.owner != number
            and (self._ranks[file.owner] > rank or (i > mine and self._ranks[file.owner] == rank))
            for i, file in enumerate(store)
        )

    def _when(self, store: Store, op: Op, half: bool) -> _When:
        file = file_of(store, op)
        if half:
            return _When.CALM  # visible already: only durability is to come
        if file is None:
            return _When.NEVER
        if op.name == "has" or (op.name == "range" and op.offset + op.room <= CLAIM_SIZE):
            return _When.ALWAYS  # claims stay, and so do their bytes
        if op.name == "read" and not file.lost:
            # Nobody goes back to an older log of his own: `Replay` sees to that.
            newer = any(later and later.owner == file.owner for later in store[op.term :])
            return _When.ALWAYS if newer else _When.CLOSED
        if op.name == "settle" and written(file.seen, op.offset, op.data) == file.seen:
            return _When.CALM
        return _When.NEVER

    # Judgement

    def _said_of(self, number: int, actor: int) -> int:
        if actor < 0:
            return ~actor
        key = (number, actor >> 1)
        found = self._said_known.get(key)
        if found is None:
            moment = self._actors[number].moment(actor >> 1)
            found = self._said_known[key] = self._said.of(moment.said)
        return found

    def _judge(self, world: World) -> None:
        said = tuple([self._said_of(number, actor) for number, actor in enumerate(world.actors)])
        key = (world.store, world.acked, said)
        if key in self._good:
            return
        chain = self._chain(world.store)
        acked = self._acked.things[world.acked]
        if len(set(chain)) != len(chain):
            raise Violation(f"a record stands twice: {_short(chain)}")
        held = tuple(payload for payload in chain if payload in acked)
        if held != acked:
            raise Violation(f"acknowledged {_short(acked)}, but the chain is {_short(chain)}")
        for number, which in enumerate(said):
            now = self._said.things[which]
            known = (*(now.opened or ()), *now.acked)
            if chain[: len(known)] != known:
                raise Violation(
                    f"{NAMES[number]} goes on from {_short(known)}, but the chain is {_short(chain)}"
                )
            if any(payload in chain for payload in now.left_out):
                raise Violation(f"a failed record came back: {_short(chain)}")
        self._good.add(key)

    def _view(self, store: Any) -> Any:
        """A storage that reads a store."""
        return StoreView(store)

    def _chain(self, store: int) -> tuple[bytes, ...]:
        found = self._chains.get(store)
        if found is None:
            chain = self._code.read.read_ledger(self._view(self._stores.things[store]), PREFIX)
            for damage in chain.damage:
                if not damage.tail and not self._scope.halves:
                    raise Violation(f"damage is reported where there is none: {damage}")
            found = self._chains[store] = tuple(record.payload for record in chain.records)
        return found


def _short(payloads: tuple[bytes, ...]) -> str:
    return "[" + " ".join(payload[:2].decode() for payload in payloads) + "]"

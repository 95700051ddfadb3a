"""The protocol search of `tests.crash.protocol`, one floor down: the real `Ledger` on the real
`ObjectStorage`, over a simulated bucket.

A step is one request. A write that is not answered has one of two fates: the store has it (the reply was
lost), or it is on its way and may arrive at any later step, or never (then nothing is to be done: each
world is judged without it, too). A request that arrives late finds its path free and creates the object,
or finds it taken and changes nothing. Power losses are none of ours: what a bucket shows is durable.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

from tests.crash.actors import Actor, Op, Pause
from tests.crash.mutants import Code
from tests.crash.protocol import Search, World, _Plan, _When
from tests.crash.shelf import Outcome

from headway.ledger.record import Claim
from headway.storage.bucket import Found, Kind, Listed, Refusal

Put = tuple[str, bytes]


class Shelf(NamedTuple):
    """What a bucket holds, and the writes that are on their way; both sorted."""

    objects: tuple[Put, ...] = ()
    late: tuple[Put, ...] = ()

    def get(self, path: str) -> bytes | None:
        """The object under a path."""
        return next((data for name, data in self.objects if name == path), None)

    def put(self, path: str, data: bytes) -> Shelf:
        """With an object, in place of the one that is there."""
        others = [put for put in self.objects if put[0] != path]
        return self._replace(objects=tuple(sorted([*others, (path, data)])))


def shelf_of(store: Any) -> Shelf:
    """`store` as the search keeps it; an empty one is ()."""
    return Shelf(*store)


class _Inline:
    """A pool that runs everything at once, in the order in which it is asked: a history is one line."""

    def map(self, call: Any, *arguments: Any) -> list[Any]:
        return [call(*each) for each in zip(*arguments, strict=True)]

    def submit(self, call: Any, *arguments: Any) -> Future[Any]:
        raise NotImplementedError


class _ReplayBucket:
    """Answers from a history; see `tests.crash.actors.Replay`."""

    def __init__(self, history: list[Any]) -> None:
        self._history = history
        self._next = 0

    def _call(self, op: Op) -> Any:
        if self._next == len(self._history):
            raise Pause(op)
        answer = self._history[self._next]
        self._next += 1
        if isinstance(answer, Kind):
            raise Refusal(answer, "planted")
        return answer

    def put(self, path: str, data: bytes) -> None:
        self._call(Op("put", name_of(path), data=bytes(data)))

    def get(self, path: str, start: int, end: int) -> Found:
        found: bytes = self._call(Op("get", name_of(path)))
        if start >= len(found):
            raise Refusal(Kind.BEYOND, "")
        return Found(memoryview(found)[start:end], len(found))

    def below(self, prefix: str) -> Listed:
        paths: tuple[str, ...] = self._call(Op("below", name_of(prefix)))
        return Listed([path for path in paths if "." in path], [p for p in paths if "." not in p])

    def all_below(self, prefix: str) -> list[tuple[str, int]]:
        return [*self._call(Op("all", name_of(prefix)))]


def name_of(path: str) -> Any:
    """A path, where an operation of the other search has the number of a log."""
    return path


class ObjectActor(Actor):
    """An actor whose storage is a real `ObjectStorage`: each request is sent twice at most."""

    def _same(self, history: int, answer: Any) -> int:
        return history

    def _storage(self, history: list[Any]) -> Any:
        bucket: Any = _ReplayBucket(history)
        storage = self._code.object.ObjectStorage(bucket, "s3://model", pool=_Inline())
        storage._tries = lambda: iter((False, True))
        return storage


class _View:
    """A bucket as a reader finds it when nobody moves."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def get(self, path: str, start: int, end: int) -> Found:
        found = self._shelf.get(path)
        if found is None:
            raise Refusal(Kind.MISSING, "")
        return Found(memoryview(found)[start:end], len(found))

    def below(self, prefix: str) -> Listed:
        paths = _below(self._shelf, prefix)
        return Listed([path for path in paths if "." in path], [p for p in paths if "." not in p])

    def all_below(self, prefix: str) -> list[tuple[str, int]]:
        return [*_all(self._shelf, prefix)]


def _below(shelf: Shelf, prefix: str) -> tuple[str, ...]:
    start = f"{prefix}/"
    names = {path.removeprefix(start).partition("/")[0] for path, _ in shelf.objects}
    return tuple(sorted(start + name for name in names))


def _all(shelf: Shelf, prefix: str) -> tuple[tuple[str, int], ...]:
    return tuple((p, len(data)) for p, data in shelf.objects if p.startswith(f"{prefix}/"))


class ObjectSearch(Search):
    """All worlds of a scope, in which `losses` is how many writes may arrive late, in all."""

    actor = ObjectActor

    def _view(self, store: Any) -> Any:
        view: Any = _View(shelf_of(store))
        return self._code.object.ObjectStorage(view, "s3://model", pool=_Inline())

    def _plan(self, store: int, number: int, actor: int) -> _Plan:
        history = actor >> 1
        op = self._actors[number].moment(history).op
        assert op is not None
        before = shelf_of(self._stores.things[store])
        outcomes = _steps(before, op, self._scope.exclusive)
        steps = [self._step(number, history, op, outcome) for outcome in outcomes]
        # An object that is there stays as it is: nobody can tell when it was read.
        there = (
            self._scope.exclusive and op.name == "get" and len(steps) and outcomes[0].label == ""
        )
        plan = _Plan(steps, _When.ALWAYS if there else _When.NEVER, -1)
        self._plans[store, number, actor] = plan
        return plan

    def _disasters(self, world: World) -> Iterator[tuple[str, World]]:
        shelf = shelf_of(self._stores.things[world.store])
        for path, data in shelf.late:
            after = shelf._replace(late=tuple(put for put in shelf.late if put != (path, data)))
            label = f"late, {path} arrives"
            if shelf.get(path) is None or not self._scope.exclusive:
                after = after.put(path, data)
            else:
                label += ", and changes nothing"
            yield label, world._replace(store=self._number(after), losses=world.losses - 1)

    def _number(self, store: Any) -> int:
        return self._stores.of(store)

    def _has_rival(self, store: Any, number: int) -> bool:
        claims = [
            (claim.term, claim.writer[0] - 1)
            for path, data in shelf_of(store).objects
            if ".parts" not in path and (claim := Claim.decode(data)) is not None
        ]
        mine = max((term for term, owner in claims if owner == number), default=0)
        rank = self._ranks[number]
        return any(
            owner != number
            and (self._ranks[owner] > rank or (term > mine and self._ranks[owner] == rank))
            for term, owner in claims
        )


def _steps(shelf: Shelf, op: Op, exclusive: bool) -> list[Outcome]:
    """What a request can lead to. Those with a cost need a fault to be left."""
    path = str(op.term)
    store: Any = shelf
    unanswered = Outcome("is not answered", store, Kind.UNKNOWN, 1)
    if op.name == "below":
        return [Outcome("", store, _below(shelf, path)), unanswered]
    if op.name == "all":
        return [Outcome("", store, _all(shelf, path)), unanswered]
    there = shelf.get(path)
    if op.name == "get":
        if there is None:
            return [Outcome("finds nothing", store, Kind.MISSING), unanswered]
        return [Outcome("", store, there), unanswered]
    assert op.name == "put"
    if there is not None and exclusive:
        return [Outcome("finds it taken", store, Kind.TAKEN), unanswered]
    done: Any = shelf.put(path, op.data)
    late: Any = shelf._replace(late=tuple(sorted({*shelf.late, (path, op.data)})))
    return [
        Outcome("", done, None),
        Outcome("is done, the reply is lost", done, Kind.UNKNOWN, 1),
        Outcome("is on its way", late, Kind.UNKNOWN, 1),
    ]


def search(code: Code, scope: Any) -> ObjectSearch:
    """Judge every world of a scope."""
    found = ObjectSearch(code, scope)
    found.run()
    return found

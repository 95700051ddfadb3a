"""PyTorch's data loaders: going on in the midst of an epoch, with the order and the random numbers it had.

A loader's processes draw random numbers too, for augmentations. Each batch brings with it what the random
states of its process were when it was made, if they changed; a process that goes on begins with those of
its last batch that was given to the loop. Batches that were made ahead, and not given out, are made again.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from headway.checkpoint import randomness
from headway.checkpoint.loops import Items


def items(iterable: Any) -> Items | None:
    """See `adapters`."""
    if isinstance(iterable, DataLoader):
        if hasattr(iterable, "load_state_dict"):  # torchdata's StatefulDataLoader
            return _Stateful(iterable)
        return _Loader(iterable)
    return None


def _generators(loader: Any) -> list[Any]:
    """The generators that a loader was given, for itself or for its sampler."""
    found = [loader.generator, getattr(getattr(loader, "sampler", None), "generator", None)]
    return [each for each in dict.fromkeys(found) if isinstance(each, torch.Generator)]


class _Stateful(Items):
    """A loader that knows its own position."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._loader = loader
        self._before: Any = None
        self._processes = _Processes(loader, None)
        self.generators = _generators(loader)

    def start(self, at: int, position: Any) -> Iterator[Any]:
        """See `Items`."""
        if position is not None:
            self._loader.load_state_dict(position["loader"])
        self._processes = _Processes(self._loader, position)
        made = self._processes.begin(lambda: iter(self._loader))
        return self._noted(made)

    def _noted(self, made: Iterator[Any]) -> Iterator[Any]:
        while True:
            self._before = self._loader.state_dict()
            try:
                item = next(made)
            except StopIteration:
                return
            yield item

    def position(self, *, done: bool) -> Any:
        """See `Items`."""
        loader = self._loader.state_dict() if done else self._before
        return {"loader": loader, **self._processes.position(done=done)}


class _Loader(Items):
    """A plain loader: the sampler is asked for the indices of the batches that are done, and their data is
    not made again. The order is the same, because a sampler draws it from generators that are set to where
    they were. A loader of a stream (`IterableDataset`) has no indices: its items are passed over.
    """

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._loader = loader
        self.generators = _generators(loader)
        self._begun: list[Any] = []
        self._now: list[Any] = []
        self._processes = _Processes(loader, None)

    def start(self, at: int, position: Any) -> Iterator[Any]:
        """See `Items`. The batch sampler makes way for one that begins later while the iterator is made:
        its first batches are drawn then, or, with workers, even fetched."""
        loader = self._loader
        if position is not None:
            self._set(position["begun"])
        self._begun = self._get()
        stream = isinstance(loader.dataset, IterableDataset)
        self._processes = _Processes(loader, None if stream else position)
        if stream or not at:
            made = self._processes.begin(lambda: super(_Loader, self).start(at, None))
            return self._noted(made)
        name = "batch_sampler" if loader.batch_sampler is not None else "sampler"
        later = _Later(getattr(loader, name), at, self._processes.idle(at))
        with _instead(loader, **{name: later}):
            made = self._processes.begin(lambda: iter(loader))
        later.skip()
        if position is not None:
            self._set(position["now"])
        return self._noted(made)

    def _noted(self, made: Iterator[Any]) -> Iterator[Any]:
        while True:
            self._now = self._get()
            try:
                item = next(made)
            except StopIteration:
                return
            yield item

    def _get(self) -> list[Any]:
        return [generator.get_state() for generator in self.generators]

    def _set(self, states: Sequence[Any]) -> None:
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)

    def position(self, *, done: bool) -> Any:
        """See `Items`; the loader's own generators, and its processes."""
        processes = self._processes.position(done=done)
        if not self.generators and not processes:
            return None
        return {"begun": self._begun, "now": self._get() if done else self._now, **processes}


class _Processes:
    """The random states of a loader's processes.

    They are not looked at where processes outlive an epoch, or batches come out of order; nor where no
    batches are made of what the dataset gives.

    Args:
        loader: of PyTorch, or of torchdata.
        position: what `position` said, with more beside it; None at the beginning.
    """

    def __init__(self, loader: Any, position: Any) -> None:
        self._loader = loader
        self._looked_at = (
            loader.num_workers > 0
            and loader.batch_sampler is not None
            and not loader.persistent_workers
            and getattr(loader, "in_order", True)
            and not isinstance(loader.dataset, IterableDataset)
        )
        saved = (position or {}).get("processes") if self._looked_at else None
        self._before: dict[int, bytes] = {}
        self._after: dict[int, bytes] = dict(saved or ())

    def idle(self, at: int) -> int:
        """Batches without indices that have to come before number `at`, so that each process gets what it
        would have got."""
        if not self._looked_at or not _takes_nothing(self._loader.dataset):
            return 0
        return int(at % self._loader.num_workers)

    def begin(self, make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """The batches of the iterator that `make` makes."""
        if not self._looked_at:
            return make()
        loader = self._loader
        collate = _Collate(loader.collate_fn)
        begin = _Begin(loader.worker_init_fn, dict(self._after))
        with _instead(loader, collate_fn=collate, worker_init_fn=begin):
            made = make()
        return self._batches(made)

    def _batches(self, made: Iterator[Any]) -> Iterator[Any]:
        for worker, states, idle, batch in made:
            if idle:
                continue
            self._before = self._after
            if states is not None:
                self._after = {**self._after, worker: states}
            yield batch

    def position(self, *, done: bool) -> dict[str, Any]:
        """What to begin with after the last batch, or before it; {} when that is nothing."""
        states = self._after if done else self._before
        return {"processes": states} if states else {}


class _Collate:
    """In place of a loader's `collate_fn`, in its processes."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, data: Any) -> Any:
        worker = get_worker_info().id
        if isinstance(data, list) and not data:
            return worker, None, True, None
        batch = self._collate(data)
        return worker, _news(), False, batch


class _Begin:
    """In place of a loader's `worker_init_fn`: what that does, and then the states that were saved."""

    def __init__(self, before: Callable[[int], Any] | None, states: dict[int, bytes]) -> None:
        self._before, self._states = before, states

    def __call__(self, worker: int) -> None:
        if self._before is not None:
            self._before(worker)
        if worker in self._states:
            randomness.restore(msgspec.msgpack.decode(self._states[worker]))
        _news()


_told: list[bytes] = []  # in a loader's process: the states that were told last


def _news() -> bytes | None:
    """The random states of this process, if they are not as they were told last."""
    now = msgspec.msgpack.encode(randomness.snapshot())
    if _told == [now]:
        return None
    _told[:] = [now]
    return now


def _takes_nothing(dataset: Any) -> bool:
    """Whether a batch without indices can be asked of it."""
    several = getattr(dataset, "__getitems__", None)
    if several is None:
        return True
    try:
        return bool(several([]) == [])
    except Exception:  # noqa: BLE001  # a user's dataset may raise anything
        return False


class _Later:
    """A sampler without its first items. They are drawn when it is first asked for one, or by `skip`: after
    the loader drew its own seed, as it was when it began at the first.

    Args:
        sampler: of batches, or of items.
        at: how many items come first.
        idle: batches without indices before the rest.
    """

    def __init__(self, sampler: Any, at: int, idle: int) -> None:
        self._sampler = sampler
        self._at = at
        self._idle = idle
        self._iterator: Iterator[Any] | None = None
        self._skipped = False

    def __iter__(self) -> Iterator[Any]:
        self._iterator = iter(self._sampler)
        return self

    def __len__(self) -> int:
        return len(self._sampler)

    def __next__(self) -> Any:
        self.skip()
        if self._idle:
            self._idle -= 1
            return []
        assert self._iterator is not None
        return next(self._iterator)

    def skip(self) -> None:
        """Draw those that are done."""
        if not self._skipped and self._iterator is not None:
            self._skipped = True
            next(itertools.islice(self._iterator, self._at - 1, self._at), None)


@contextlib.contextmanager
def _instead(loader: Any, **others: Any) -> Iterator[None]:
    """Other attributes for a while; in the instance's dict, because a loader refuses them."""
    before = {name: vars(loader)[name] for name in others}
    vars(loader).update(others)
    try:
        yield
    finally:
        vars(loader).update(before)

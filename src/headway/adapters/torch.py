"""PyTorch: modules, generators, data loaders. Optimizers, schedulers and scalers need nothing of their own:
they have `state_dict` and `load_state_dict`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from headway.checkpoint.loops import Items
from headway.model.errors import InputError
from headway.ports import StateAdapter, Steady


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    if isinstance(value, torch.nn.Module):
        return _Module()
    if isinstance(value, torch.Generator):
        return _Generator()
    if isinstance(value, torch.Stream | torch.Event):
        return _Handle()
    return None


def items(iterable: Any) -> Items | None:
    """See `adapters`."""
    if isinstance(iterable, DataLoader):
        if hasattr(iterable, "load_state_dict"):  # torchdata's StatefulDataLoader
            return _Stateful(iterable)
        return _Loader(iterable)
    return None


def owner(value: Any) -> Steady | None:
    """See `adapters`."""
    if isinstance(value, torch.optim.Optimizer):
        return _Optimizer(value)
    return None


class _Optimizer:
    """The parameters that an optimizer changes in `step()`, and what it remembers of them. Gradients, which
    the passes change, are not state."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        if not getattr(type(optimizer).step, "hooked", False):
            raise InputError(
                f"track(overlap=True): {type(optimizer).__name__} does not call the hooks that PyTorch's "
                "optimizers call before a step. Leave overlap out."
            )
        self._optimizer = optimizer

    def _tensors(self) -> Iterator[torch.Tensor]:
        for group in self._optimizer.param_groups:
            yield from group["params"]
        for kept in self._optimizer.state.values():
            yield from (each for each in kept.values() if isinstance(each, torch.Tensor))

    def memory(self) -> list[tuple[int, int]]:
        """See `Steady`."""
        return [
            (tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size())
            for tensor in self._tensors()
            if tensor.device.type == "cpu" and tensor.is_contiguous()
        ]

    def marks(self) -> object:
        """See `Steady`; PyTorch counts the changes of each tensor."""
        return [(each.data_ptr(), each._version) for each in self._tensors()]  # noqa: SLF001  # its only name

    def before_change(self, wait: Callable[[], None]) -> None:
        """See `Steady`."""
        self._optimizer.register_step_pre_hook(lambda *_: wait())


class _Module:
    def capture(self, value: Any, path: str) -> Any:
        return value.state_dict()

    def restore(self, value: Any, data: Any, path: str) -> Any:
        live = value.state_dict()
        if live.keys() == data.keys() and all(_same(live[key], data[key]) for key in live):
            return value  # it was read straight into place
        value.load_state_dict(data)
        return value


def _same(one: Any, other: Any) -> bool:
    """Whether these are the same memory, so that there is nothing to copy."""
    return (
        isinstance(one, torch.Tensor)
        and isinstance(other, torch.Tensor)
        and one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.numel() > 0
    )


class _Generator:
    def capture(self, value: Any, path: str) -> Any:
        return value.get_state()

    def restore(self, value: Any, data: Any, path: str) -> Any:
        value.set_state(data)
        return value


class _Handle:
    """What belongs to a device as long as this process lives."""

    def capture(self, value: Any, path: str) -> Any:
        raise InputError(
            f"{path} is a {type(value).__name__} of a device: make it anew, and leave it out"
        )

    def restore(self, value: Any, data: Any, path: str) -> Any:
        return self.capture(value, path)


def _generators(loader: Any) -> list[Any]:
    """The generators that a loader was given, for itself or for its sampler."""
    found = [loader.generator, getattr(getattr(loader, "sampler", None), "generator", None)]
    return [each for each in dict.fromkeys(found) if isinstance(each, torch.Generator)]


class _Stateful(Items):
    """A loader that knows its own position."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._loader = loader
        self.generators = _generators(loader)

    def start(self, at: int, position: Any) -> Iterator[Any]:
        """See `Items`."""
        if position is not None:
            self._loader.load_state_dict(position)
        return iter(self._loader)

    def position(self) -> Any:
        """See `Items`."""
        return self._loader.state_dict()


class _Loader(Items):
    """A plain loader: the sampler is asked for the indices of the batches that are done, and their data is
    not made again. The order is the same, because a sampler draws it from generators that are set to where
    they were. A loader of a stream (`IterableDataset`) has no indices: its items are passed over.

    The random numbers of worker processes start anew: augmentations that are drawn there differ after a
    restart.
    """

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._loader = loader
        self.generators = _generators(loader)
        self._begun: list[Any] = []

    def start(self, at: int, position: Any) -> Iterator[Any]:
        """See `Items`. The batch sampler makes way for one that begins later while the iterator is made:
        its first batches are drawn then, or, with workers, even fetched."""
        loader = self._loader
        if position is not None:
            for generator, state in zip(self.generators, position["begun"], strict=True):
                generator.set_state(state)
        self._begun = [generator.get_state() for generator in self.generators]
        if isinstance(loader.dataset, IterableDataset) or not at:
            return super().start(at, None)
        name = "batch_sampler" if loader.batch_sampler is not None else "sampler"
        later = _Later(getattr(loader, name), at)
        vars(loader)[name], before = later, vars(loader)[name]
        try:
            made: Iterator[Any] = iter(loader)
        finally:
            vars(loader)[name] = before
        later.skip()
        if position is not None:
            for generator, state in zip(self.generators, position["now"], strict=True):
                generator.set_state(state)
        return made

    def position(self) -> Any:
        """See `Items`; the loader's own generators."""
        if not self.generators:
            return None
        return {
            "begun": self._begun,
            "now": [generator.get_state() for generator in self.generators],
        }


class _Later:
    """A sampler without its first items. They are drawn when it is first asked for one, or by `skip`: after
    the loader drew its own seed, as it was when it began at the first."""

    def __init__(self, sampler: Any, at: int) -> None:
        self._sampler = sampler
        self._at = at
        self._iterator: Iterator[Any] | None = None
        self._skipped = False

    def __iter__(self) -> Iterator[Any]:
        self._iterator = iter(self._sampler)
        return self

    def __len__(self) -> int:
        return len(self._sampler)

    def __next__(self) -> Any:
        self.skip()
        assert self._iterator is not None
        return next(self._iterator)

    def skip(self) -> None:
        """Draw those that are done."""
        if not self._skipped and self._iterator is not None:
            self._skipped = True
            next(itertools.islice(self._iterator, self._at - 1, self._at), None)

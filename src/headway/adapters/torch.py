"""PyTorch: modules, generators, schedules of learning rates. Optimizers and scalers need nothing of their
own: they have `state_dict` and `load_state_dict`."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from headway.adapters.loaders import items
from headway.model.errors import InputError
from headway.ports import StateAdapter, Steady

__all__ = ["adapter", "items", "owner"]

_FUNCTIONS = types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, partial


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    if isinstance(value, torch.nn.Module):
        return _Module()
    if isinstance(value, torch.Generator):
        return _Generator()
    if isinstance(value, torch.optim.lr_scheduler.LRScheduler):
        return _Schedule()
    if isinstance(value, torch.Stream | torch.Event):
        return _Handle()
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
        for kept in list(self._optimizer.state.values()):  # at once: a save asks from its thread
            yield from (each for each in list(kept.values()) if isinstance(each, torch.Tensor))

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


class _Schedule:
    """Its `state_dict`, which may have in it what is not data: functions, which are the program's, and
    milestones in a Counter."""

    def capture(self, value: Any, path: str) -> Any:
        return _without_functions(value.state_dict())

    def restore(self, value: Any, data: Any, path: str) -> Any:
        value.load_state_dict(_counted(value.state_dict(), data))
        return value


def _without_functions(state: Any) -> Any:
    """A state with plain dicts; those of schedules in a schedule too."""
    if isinstance(state, dict):
        kept = {key: item for key, item in state.items() if not isinstance(item, _FUNCTIONS)}
        return {key: _without_functions(item) for key, item in kept.items()}
    if type(state) is list:
        return [_without_functions(item) for item in state]
    return state


def _counted(live: Any, data: Any) -> Any:
    """The data with Counters where the live state has some."""
    if isinstance(live, dict) and isinstance(data, dict):
        made = {key: _counted(live.get(key), item) for key, item in data.items()}
        return Counter(made) if type(live) is Counter else made
    if type(live) is list and type(data) is list and len(live) == len(data):
        return [_counted(old, new) for old, new in zip(live, data, strict=True)]
    return data


class _Handle:
    """What belongs to a device as long as this process lives."""

    def capture(self, value: Any, path: str) -> Any:
        raise InputError(
            f"{path} is a {type(value).__name__} of a device: make it anew, and leave it out"
        )

    def restore(self, value: Any, data: Any, path: str) -> Any:
        return self.capture(value, path)

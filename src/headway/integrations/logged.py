"""What a Lightning `Trainer` knows of an epoch that is not over, and that its own checkpoints lack.

That is: sums for the means that `self.log(…, on_epoch=True)` asks for, metrics of torchmetrics, and the
last values of all of them, which schedules and early stopping look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torchmetrics


def logged(trainer: Any) -> dict[str, Any]:
    """All of that, as data."""
    results = trainer.fit_loop.epoch_loop._results  # noqa: SLF001
    connector = trainer._logger_connector  # noqa: SLF001
    waiting = results.waiting if isinstance(results, _Waiting) else {}
    sums = {key: _state(result) for key, result in results.items() if result.is_tensor}
    return {
        "sums": {**waiting, **sums},
        "first": connector._first_loop_iter,  # noqa: SLF001
        "hook": connector._current_fx,  # noqa: SLF001
        "metrics": {
            name: _state(metric) for name, metric in _metrics(trainer) if metric.metric_state
        },
        "values": _values(trainer.callback_metrics),
        "to the logger": _values(trainer.logged_metrics),
    }


def log_again(trainer: Any, saved: Mapping[str, Any]) -> None:
    """Put it back, between two batches."""
    connector = trainer._logger_connector  # noqa: SLF001
    results = trainer.fit_loop.epoch_loop._results  # noqa: SLF001
    # What a sum is for is known again when its value is logged next: then it begins with this.
    results.__class__ = _waiting_kind(type(results))
    results.waiting = dict(saved["sums"])
    connector._first_loop_iter = saved["first"]  # noqa: SLF001
    connector._current_fx = saved["hook"]  # noqa: SLF001
    for name, metric in _metrics(trainer):
        if name in saved["metrics"]:
            _put(metric, saved["metrics"][name])
    device = trainer.strategy.root_device
    trainer.callback_metrics.update(_values(saved["values"], device))
    trainer.logged_metrics.update(_values(saved["to the logger"], device))


class _Waiting(dict[str, Any]):
    """Results that begin with what was saved."""

    waiting: dict[str, Any]

    def __setitem__(self, key: str, result: Any) -> None:
        super().__setitem__(key, result)
        saved = self.waiting.pop(key, None)
        if saved is not None and result.is_tensor:
            _put(result, saved)


def _waiting_kind(kind: type[Any]) -> type[Any]:
    return kind if issubclass(kind, _Waiting) else type("Results", (_Waiting, kind), {})


def _metrics(trainer: Any) -> list[tuple[str, Any]]:
    return [
        (name, module)
        for name, module in trainer.lightning_module.named_modules()
        if isinstance(module, torchmetrics.Metric)
    ]


def _state(metric: Any) -> dict[str, Any]:
    return {
        "updates": int(metric._update_count),  # noqa: SLF001
        "values": {
            name: [*value] if isinstance(value, list) else value
            for name, value in metric.metric_state.items()
        },
    }


def _put(metric: Any, saved: Mapping[str, Any]) -> None:
    metric._update_count = saved["updates"]  # noqa: SLF001
    metric._computed = None  # noqa: SLF001
    for name, value in saved["values"].items():
        setattr(metric, name, _on(value, metric.device))


def _on(value: Any, device: Any) -> Any:
    if isinstance(value, list):
        return [_on(item, device) for item in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _values(found: Mapping[str, Any], device: Any = None) -> dict[str, Any]:
    return {
        name: value.detach().clone() if device is None else value.to(device)
        for name, value in found.items()
        if isinstance(value, torch.Tensor)
    }

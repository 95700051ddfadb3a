"""PyTorch and the same states: torch.save, safetensors, and torch.distributed.checkpoint (DCP).

Whatever does not make its files durable by itself gets an fsync of them; DCP does so by itself.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from benchmarks.contestants import big
from benchmarks.contestants.protocol import Measured, Round, serve

warnings.filterwarnings("ignore")  # of DCP, about running on one host without a GPU
Tensors = dict[str, Any]


@contextlib.contextmanager
def background(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """As `headway_states.background`; with `tool` "torch.save" all of it blocks."""
    tensors = _tensors(options["layers"])
    begin = WAYS[options["tool"]].begin

    def once() -> Measured:
        change(tensors)
        target = place / "checkpoint"
        began = time.perf_counter()
        wait = begin(tensors, target)
        blocked = time.perf_counter() - began
        used = big.processor_seconds()
        wait()
        measured = [blocked, time.perf_counter() - began, big.processor_seconds() - used]
        big.remove(target)
        return measured

    with group(place):
        yield lambda: [
            sorted(each)[len(each) // 2] for each in zip(*_some(once, options), strict=True)
        ]


@contextlib.contextmanager
def first(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """As `headway_states.first`."""
    tensors = _tensors(options["layers"])
    begin = WAYS[options["tool"]].begin

    def once() -> float:
        change(tensors)
        began = time.perf_counter()
        wait = begin(tensors, place / "checkpoint")
        blocked = time.perf_counter() - began
        wait()
        big.remove(place / "checkpoint")
        return blocked

    with group(place):

        def round_() -> Measured:
            blocked = [once() for _ in range(4)]
            return [blocked[0], sorted(blocked[1:])[1]]

        yield round_


@contextlib.contextmanager
def fresh(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """A durable save into new files; seconds."""
    save, target = WAYS[options["tool"]].save, place / "checkpoint"

    def round_() -> Measured:
        tensors = _tensors(options["layers"])
        taken = big.seconds(lambda: save(tensors, target))
        tensors.clear()
        big.release()
        big.remove(target)
        return [taken]

    with group(place):
        yield round_


@contextlib.contextmanager
def restore(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Restore into live tensors, from the disk and then from the system's memory: seconds of both."""
    layers, target = options["layers"], place / "checkpoint"
    way = WAYS[options["tool"]]

    def once() -> float:
        live = {name: torch.from_numpy(each) for name, each in big.blank(layers).items()}
        taken = big.seconds(lambda: way.load(live, target))
        big.prove_equal(live, layers)
        live.clear()
        big.release()
        return taken

    def round_() -> Measured:
        big.forget(target)
        cold = once()
        big.warm(target)
        return [cold, once()]

    with group(place):
        way.save(_tensors(layers), target)
        big.release()
        yield round_


@contextlib.contextmanager
def memory(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """As `headway_states.memory`."""
    way = WAYS[options["tool"]]
    begin = way.begin if options["background"] else lambda *of: (way.save(*of), lambda: None)[1]
    with group(place):
        begin({"small": torch.zeros(4)}, place / "small")()
        tensors = _tensors(options["layers"])

        def round_() -> Measured:
            peak = big.Peak()
            for _ in range(2):
                change(tensors)
                begin(tensors, place / "checkpoint")()
                big.remove(place / "checkpoint")
            return [float(peak.more())]

        yield round_


@contextlib.contextmanager
def changes(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Bytes that a second save writes when nothing has changed."""
    tensors = _tensors(options["layers"])
    save, target = WAYS[options["tool"]].save, place / "checkpoint"
    with group(place):

        def round_() -> Measured:
            save(tensors, target)
            before = big.bytes_written()
            save(tensors, place / "second")
            written = big.bytes_written() - before
            big.remove(place / "second")
            return [float(written)]

        yield round_


def change(tensors: Tensors) -> None:
    """Change every number in place, as an optimizer does."""
    big.change(each.numpy() for each in tensors.values())


class _Torch:
    """torch.save and torch.load, as everybody uses them, and an fsync."""

    @staticmethod
    def save(tensors: Tensors, target: Path) -> None:
        torch.save(tensors, target)
        big.sync(target)

    @classmethod
    def begin(cls, tensors: Tensors, target: Path) -> Callable[[], object]:
        cls.save(tensors, target)
        return lambda: None

    @staticmethod
    def load(live: Tensors, target: Path) -> None:
        _into(live, torch.load(target, weights_only=True))


class _Safetensors:
    """safetensors, and an fsync."""

    @staticmethod
    def save(tensors: Tensors, target: Path) -> None:
        save_file(tensors, target)
        big.sync(target)

    @classmethod
    def begin(cls, tensors: Tensors, target: Path) -> Callable[[], object]:
        cls.save(tensors, target)
        return lambda: None

    @staticmethod
    def load(live: Tensors, target: Path) -> None:
        _into(live, load_file(target))


class _Distributed:
    """DCP in a group of one. It fsyncs its files by itself, and loads in place."""

    @staticmethod
    def save(tensors: Tensors, target: Path) -> None:
        dcp.save(tensors, checkpoint_id=target)

    @staticmethod
    def begin(tensors: Tensors, target: Path) -> Callable[[], object]:
        answer: Callable[[], object] = dcp.async_save(tensors, checkpoint_id=target).result
        return answer

    @staticmethod
    def load(live: Tensors, target: Path) -> None:
        dcp.load(live, checkpoint_id=target)


WAYS: dict[str, Any] = {"torch.save": _Torch, "safetensors": _Safetensors, "DCP": _Distributed}


def _into(live: Tensors, loaded: Tensors) -> None:
    for name, tensor in loaded.items():
        live[name].copy_(tensor)


def _tensors(layers: int) -> Tensors:
    return {name: torch.from_numpy(each) for name, each in big.state(layers).items()}


def _some(once: Callable[[], Measured], options: dict[str, Any]) -> list[Measured]:
    return [once() for _ in range(options["times"])]


@contextlib.contextmanager
def group(place: Path) -> Iterator[None]:
    """A process group of one: `async_save` asks for it."""
    dist.init_process_group(
        "gloo", init_method=f"file://{place / 'rendezvous'}", rank=0, world_size=1
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    serve(
        {
            "background": background,
            "first": first,
            "fresh": fresh,
            "restore": restore,
            "memory": memory,
            "changes": changes,
        }
    )

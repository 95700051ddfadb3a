"""Orbax and the same states, as NumPy arrays: like those of the others they change in place.

(JAX's own arrays never change, so that Orbax need not copy them before it goes on.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # before it is imported

import orbax.checkpoint as ocp

from benchmarks.contestants import big
from benchmarks.contestants.protocol import Measured, Round, serve

logging.disable(logging.WARNING)


@contextlib.contextmanager
def background(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """As `headway_states.background`."""
    weights = big.state(options["layers"])
    with _saver() as saver:

        def round_() -> Measured:
            turns = [_one(saver, weights, place / "checkpoint") for _ in range(options["times"])]
            return [statistics.median(column) for column in zip(*turns, strict=True)]

        yield round_


@contextlib.contextmanager
def first(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """As `headway_states.first`."""
    weights = big.state(options["layers"])
    with _saver() as saver:

        def round_() -> Measured:
            blocked = [_one(saver, weights, place / "checkpoint")[0] for _ in range(3)]
            return [blocked[0], blocked[-1]]

        yield round_


@contextlib.contextmanager
def fresh(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """A save until it is durable; seconds."""
    with _saver() as saver:

        def round_() -> Measured:
            weights = big.state(options["layers"])
            _, durable, _ = _one(saver, weights, place / "checkpoint")
            weights.clear()
            big.release()
            return [durable]

        yield round_


@contextlib.contextmanager
def restore(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Restore, which gives new arrays, and copy them into the live ones: seconds from disk, and from
    the system's memory."""
    layers, target = options["layers"], place / "checkpoint"
    with _saver() as saver:
        saver.save(target, args=ocp.args.PyTreeSave(big.state(layers)))
        saver.wait_until_finished()
        big.release()

        def load(live: big.State) -> None:
            kinds = {name: ocp.RestoreArgs(restore_type=type(each)) for name, each in live.items()}
            found = saver.restore(target, args=ocp.args.PyTreeRestore(restore_args=kinds))
            for name, weights in found.items():
                live[name][...] = weights

        def once() -> float:
            live = big.blank(layers)
            taken = big.seconds(lambda: load(live))
            big.prove_equal(live, layers)
            live.clear()
            big.release()
            return taken

        def round_() -> Measured:
            big.forget(target)
            cold = once()
            big.warm(target)
            return [cold, once()]

        yield round_


@contextlib.contextmanager
def memory(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """As `headway_states.memory`."""
    with _saver() as saver:
        _one(saver, big.state(1), place / "small")
        weights = big.state(options["layers"])

        def round_() -> Measured:
            peak = big.Peak()
            for _ in range(2):
                _one(saver, weights, place / "checkpoint")
            return [float(peak.more())]

        yield round_


def _one(saver: Any, weights: big.State, target: Path) -> list[float]:
    big.change(weights.values())
    began = time.perf_counter()
    saver.save(target, args=ocp.args.PyTreeSave(weights))
    blocked = time.perf_counter() - began
    used = big.processor_seconds()
    saver.wait_until_finished()
    measured = [blocked, time.perf_counter() - began, big.processor_seconds() - used]
    big.remove(target)
    return measured


@contextlib.contextmanager
def _saver() -> Iterator[Any]:
    with contextlib.closing(ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())) as saver:
        yield saver


if __name__ == "__main__":
    serve(
        {
            "background": background,
            "first": first,
            "fresh": fresh,
            "restore": restore,
            "memory": memory,
        }
    )

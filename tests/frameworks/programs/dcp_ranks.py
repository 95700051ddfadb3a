"""Ranks of a training, in processes of their own: `python … dcp_ranks.py HOME ACTION [SEED]`.

This process imports PyTorch once, and forks the ranks of each attempt. They meet over loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from headway import open_checkpoint
from headway.integrations.distributed import Reader, Writer

Body = Callable[[int, Any], Any]
"""Is given its rank, and the coordinator's checkpoint (None for others); what it returns is JSON."""


class Ranks:
    """The ranks of one attempt.

    Args:
        home: a lineage.
        world: how many.
        body: of each.
    """

    def __init__(self, home: str, world: int, body: Body) -> None:
        self._meeting = tempfile.mkdtemp()
        self.processes = []
        self._pipes = []
        for rank in range(world):
            reading, writing = os.pipe()
            process = os.fork()
            if process == 0:
                os.close(reading)
                self._run(home, rank, world, body, writing)
            os.close(writing)
            self.processes.append(process)
            self._pipes.append(reading)

    def _run(self, home: str, rank: int, world: int, body: Body, pipe: int) -> None:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                dist.init_process_group(
                    "gloo", init_method=f"file://{self._meeting}/at", rank=rank, world_size=world
                )
                place: Any = open_checkpoint(home) if rank == 0 else contextlib.nullcontext()
                with place as checkpoint:
                    os.write(pipe, json.dumps(body(rank, checkpoint)).encode())
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
        sys.stderr.flush()
        os._exit(code)

    def wait(self) -> list[Any]:
        """What each returned; None of one that ended in another way."""
        made = []
        for process, pipe in zip(self.processes, self._pipes, strict=True):
            with open(pipe, "rb") as reading:
                said = reading.read()
            os.waitpid(process, 0)
            made.append(json.loads(said) if said else None)
        return made


def state_at(step: int, world: int, *, rows: int = 30) -> dict[str, Any]:
    """A state whose every number says which step it is of."""
    mesh = init_device_mesh("cpu", (world,))
    whole = torch.arange(rows * 7, dtype=torch.float32).reshape(rows, 7) + step
    return {
        "model": {
            "weight": distribute_tensor(whole, mesh, [Shard(0)]),
            "half": distribute_tensor(whole.bfloat16(), mesh, [Shard(1)]),
            "bias": distribute_tensor(whole[0].clone(), mesh, [Replicate()]),
            "plain": torch.full((3,), step),
        },
        "step": step,
        "rates": [0.1 * step, str(step)],
    }


def plain(value: Any) -> Any:
    """Everything that is in a state, all shards of it."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.reshape(-1).view(torch.uint8).tolist()]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def resharded(home: str) -> None:
    """Saved by 2 ranks; loaded by 1, 2 and 3, which get the same."""

    def save(rank: int, checkpoint: Any) -> Any:
        writer = Writer(checkpoint)
        dcp.save(state_at(1, 2), storage_writer=writer)
        future = dcp.async_save(state_at(2, 2), storage_writer=writer)
        future.result()
        return None if checkpoint is None else len(checkpoint.history())

    assert Ranks(home, 2, save).wait() == [2, None]
    for world in (1, 2, 3):

        def load(rank: int, checkpoint: Any, world: int = world) -> Any:
            reader = Reader(checkpoint)
            assert reader.found
            state = state_at(0, world)
            dcp.load(state, storage_reader=reader)
            assert plain(state) == plain(state_at(2, world))
            return plain(state)

        made = Ranks(home, world, load).wait()
        assert made[0] is not None, world
        assert made == [made[0]] * world, world
    print(json.dumps("same"))


def damaged(home: str) -> None:
    """The newest checkpoint is damaged: all ranks get the one before; or the error, if all are."""

    def save(rank: int, checkpoint: Any) -> Any:
        for step in (1, 2):
            dcp.save(state_at(step, 2, rows=6000), storage_writer=Writer(checkpoint))

    Ranks(home, 2, save).wait()

    def load(rank: int, checkpoint: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reader = Reader(checkpoint)
            except Exception as error:  # noqa: BLE001  # its name is what is asked for
                return type(error).__name__
        state = state_at(0, 2, rows=6000)
        dcp.load(state, storage_reader=reader)
        return [state["step"], plain(state) == plain(state_at(state["step"], 2, rows=6000))]

    older, newest = sorted(Path(home).parent.rglob("packs/*"), key=lambda p: p.stat().st_mtime_ns)
    said = []
    for pack in (newest, older):
        content = bytearray(pack.read_bytes())
        content[len(content) // 3] ^= 4
        pack.write_bytes(content)
        said.append(Ranks(home, 2, load).wait())
    print(json.dumps(said))


def killed(home: str, seed: str) -> None:
    """Ranks that do nothing but save, killed at random instants: one of them, or all."""
    source = random.Random(int(seed))
    rows = 60_000
    kills, within = 12, 0
    notes, begun = Path(home).parent / "notes", Path(home).parent / "begun"

    def train(rank: int, checkpoint: Any) -> Any:
        reader = Reader(checkpoint)
        state = state_at(0, 2, rows=rows)
        if reader.found:
            dcp.load(state, storage_reader=reader)
        step = state["step"]
        assert plain(state) == plain(state_at(step, 2, rows=rows)), "torn"
        acknowledged = int(notes.read_text()) if notes.exists() else 0
        assert step in {acknowledged, acknowledged + 1}, (step, acknowledged)
        if len(ended) == kills:
            return step
        writer = Writer(checkpoint)
        for number in range(step + 1, 1000):
            state = state_at(number, 2, rows=rows)
            if rank == 0:
                note(begun, number)
            dcp.save(state, storage_writer=writer)
            if rank == 0:
                note(notes, number)
            (notes.parent / f"going-{len(ended)}").touch()
        return None

    ended: list[int] = []
    while len(ended) < kills:
        ranks = Ranks(home, 2, train)
        until = time.monotonic() + 60
        while not (notes.parent / f"going-{len(ended)}").exists():
            assert time.monotonic() < until
            assert os.waitpid(-1, os.WNOHANG) == (0, 0), "a rank ended"
            time.sleep(0.005)
        time.sleep(source.uniform(0, 0.15))
        chosen = source.choice([ranks.processes[:1], ranks.processes[1:], ranks.processes])
        for process in chosen:
            os.kill(process, signal.SIGKILL)
        for process in set(ranks.processes) - set(chosen):
            time.sleep(0.05)
            os.kill(process, signal.SIGKILL)
        ranks.wait()
        ended.append(len(chosen))
        within += begun.read_text() != notes.read_text()
    final = Ranks(home, 2, train).wait()
    assert final[0] == final[1] is not None, final
    print(json.dumps({"kills": len(ended), "within a save": within}))


def note(where: Path, number: int) -> None:
    """Write down a number, whole or not at all."""
    fresh = where.with_suffix(".new")
    fresh.write_text(str(number))
    fresh.replace(where)


if __name__ == "__main__":
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    globals()[sys.argv[2]](sys.argv[1], *sys.argv[3:])

"""A training by several ranks, as `headway exec -- torchrun …` starts it: `… torchrun_ranks.py FOLDER`. In
its first two attempts a rank is killed: the one that has no checkpoint, and the one that has it."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from headway.integrations.distributed import Reader, Writer

STEPS = 9


def main(folder: Path, kills: bool) -> None:
    """Train."""
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cpu", (world,))
    torch.manual_seed(rank)
    weight = distribute_tensor(torch.zeros(501, 40), mesh, [Shard(0)])
    state = {"weight": weight, "step": 0, "rng": [torch.get_rng_state() for _ in range(world)]}
    reader, writer = Reader(), Writer()
    if reader.found:
        dcp.load(state, storage_reader=reader)
        torch.set_rng_state(state["rng"][rank])
    attempt = len([*folder.glob("attempt-*")])
    dist.barrier()
    if rank == 0:
        (folder / f"attempt-{attempt}-from-{state['step']}").touch()
    for step in range(state["step"], STEPS):
        weight.to_local().add_(torch.randn(weight.to_local().shape))
        mine = torch.get_rng_state()
        state["rng"] = [torch.empty_like(mine) for _ in range(world)]
        dist.all_gather(state["rng"], mine)
        state["step"] = step + 1
        dcp.save(state, storage_writer=writer)
        if kills and (attempt, step, rank) in {(0, 2, 1), (1, 5, 0)}:
            os.kill(os.getpid(), signal.SIGKILL)
    whole = weight.full_tensor()
    if rank == 0:
        (folder / "made").write_text(hashlib.sha256(whole.numpy().tobytes()).hexdigest())
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), kills=sys.argv[2:] == ["killed"])

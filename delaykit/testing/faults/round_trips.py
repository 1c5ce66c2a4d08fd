"""Checkpoints of models that several processes share, or that are sent to another: one file, and back to the bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import delaykit as dk

INPUT = torch.rand(3, 2, 6, generator=torch.Generator().manual_seed(0))
ALONE = {"spawn", "accelerate"}
KINDS = ("ddp", "fully_shard", "spawn")
ACCELERATE = ("accelerate", "accelerate on two")  # the library that launches them is there, or not


class Loop(nn.Module):
    """A connection, a readout, and the time loop: what is spread over processes has to hold its loop itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run a sequence ``(time, batch, 6)``."""
        return torch.stack([self.last(self.first(step).relu()) for step in x])


def build(seed: int) -> nn.Module:
    """Make the bare net."""
    torch.manual_seed(seed)
    return Loop()


def wrapped(config: Any, seed: int = 0) -> nn.Module:
    """Make the net with ``config`` on its first connection."""
    return dk.wrap_(build(seed), {"first": config}, example=INPUT)


def trained(net: nn.Module, model: Any) -> None:
    """Take one step of training."""
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.1, delay_lr=0.1))
    dk.attach(optimizer, net)
    model(INPUT).square().sum().backward()
    optimizer.step()


def check_round_trip(config: Any, folder: Path, kind: str) -> None:
    """Train a net on two processes, save and load it there, and load the file in this one.

    Args:
        config: what is put on the net's first connection.
        folder: an empty one.
        kind: one of :data:`KINDS` or :data:`ACCELERATE`. On two processes but for ``spawn``, to which the wrapped net
            itself is sent, and ``accelerate``.

    Raises:
        AssertionError: something came back other than it was.
    """
    one = wrapped(config)
    if kind == "spawn":
        mp.spawn(_sent, (wrapped(config), str(folder)), nprocs=1)
    else:
        mp.spawn(_on_a_rank, (config, str(folder), kind), nprocs=1 if kind in ALONE else 2)
    trained(one, one)
    assert [path.name for path in folder.glob("*.safetensors")] == ["shared.safetensors"]
    both = dk.load(build(1), folder / "shared")
    for key, value in one.state_dict().items():
        torch.testing.assert_close(both.state_dict()[key], value)


def _sent(rank: int, net: nn.Module, folder: str) -> None:
    torch.set_num_threads(1)
    trained(net, net)
    _saved_and_loaded(net, f"{folder}/shared")


def _on_a_rank(rank: int, config: Any, folder: str, kind: str) -> None:
    torch.set_num_threads(1)
    if kind not in ALONE:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        net = wrapped(config)
        if kind.startswith("accelerate"):
            _accelerated(net, folder)
            return
        if kind == "ddp":
            model: Any = nn.parallel.DistributedDataParallel(net)
        else:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            model = fully_shard(net, mesh=init_device_mesh("cpu", (2,)))
        trained(net, model)
        _saved_and_loaded(model, f"{folder}/shared")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _accelerated(net: nn.Module, folder: str) -> None:
    """Do the same with accelerate; and save and load its own state, which holds model and optimizer."""
    if dist.is_initialized():
        rank = str(dist.get_rank())  # as a launcher tells it
        os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == (2 if dist.is_initialized() else 1)
    optimizer: Any = torch.optim.SGD(dk.param_groups(net, lr=0.1, delay_lr=0.1))
    model, optimizer = accelerator.prepare(net, optimizer)
    dk.attach(optimizer, net)
    accelerator.backward(model(INPUT).square().sum())
    optimizer.step()
    _saved_and_loaded(model, f"{folder}/shared")
    accelerator.save_state(f"{folder}/state")
    accelerator.wait_for_everyone()
    with torch.no_grad():
        before = model(INPUT)
        for parameter in model.parameters():
            parameter.mul_(0.5)
        accelerator.load_state(f"{folder}/state")
        assert torch.equal(model(INPUT), before)


@torch.no_grad()
def _saved_and_loaded(model: Any, path: str) -> None:
    dk.save(model, path, with_model=True)
    if dist.is_initialized():
        dist.barrier()
    before = model(INPUT)
    for parameter in model.parameters():
        parameter.mul_(0.5)
    assert dk.load(model, path) is model
    assert torch.equal(model(INPUT), before)

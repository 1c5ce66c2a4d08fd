"""Checkpoints of a model on two processes: one file under DDP, whole tensors under ``fully_shard``."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import delaykit as dk

CONFIGS = {"axonal": dk.FreeDelay("axonal", max_delay=3), "synaptic": dk.FreeDelay("synaptic", max_delay=3)}
INPUT = torch.rand(5, 2, 6, generator=torch.Generator().manual_seed(0))


def bare(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def wrapped(config, seed=0):
    return dk.wrap_(bare(seed), {"0": dk.At(config, reset="manual", time_dim=0)}, example=INPUT)


def trained(net, model):
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.1, delay_lr=0.1))
    dk.attach(optimizer, net)
    model(INPUT).square().sum().backward()
    optimizer.step()


def on_a_rank(rank, folder, kind):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{kind}", rank=rank, world_size=2)
    try:
        for name, config in CONFIGS.items():
            net = wrapped(config)
            if kind == "ddp":
                model = nn.parallel.DistributedDataParallel(net)
            else:
                from torch.distributed.device_mesh import init_device_mesh
                from torch.distributed.fsdp import fully_shard

                model = fully_shard(net, mesh=init_device_mesh("cpu", (2,)))
            trained(net, model)
            dk.save(model, f"{folder}/{kind}-{name}-{rank}", with_model=True)
            dk.save(model, f"{folder}/{kind}-{name}", with_model=True)
            dist.barrier()
            with torch.no_grad():
                before = model(INPUT)
                for parameter in model.parameters():
                    parameter.mul_(0.5)
                assert dk.load(model, f"{folder}/{kind}-{name}") is model
                assert torch.equal(model(INPUT), before)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fully_shard"])
def test_two_processes_save_what_one_process_learns(tmp_path, kind):
    mp.spawn(on_a_rank, (str(tmp_path), kind), nprocs=2)
    for name, config in CONFIGS.items():
        assert (tmp_path / f"{kind}-{name}-0.safetensors").exists()
        assert not (tmp_path / f"{kind}-{name}-1.safetensors").exists()  # rank 0 writes
        one = wrapped(config)
        trained(one, one)
        both = dk.load(bare(1), tmp_path / f"{kind}-{name}")
        for key, value in one.state_dict().items():
            torch.testing.assert_close(both.state_dict()[key], value)

"""Two processes that share one batch: what DistributedDataParallel does with a wrapped net."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

import delaykit as dk
from delaykit.testing.kit import loss_of
from delaykit.testing.nets.tiny import Record, TinyNet, input_spikes

RANKS = 2


@dataclasses.dataclass(frozen=True)
class Job:
    """One net to train on two processes; everything in it is pickled, so configs must be importable.

    Args:
        tiny: net whose loop is inside ``forward``.
        rules: what to wrap.
        state: state dict of the wrapped net.
        spikes: ``(time, batch, pre)``, an even batch.
    """

    tiny: TinyNet
    rules: dict[str, Any]
    state: dict[str, Tensor]
    spikes: Tensor


def gradients_of_two_processes(jobs: list[Job], folder: Path) -> list[dict[str, Tensor]]:
    """Run half of each job's batch on each of two processes; return the gradients of the whole by parameter name.

    Args:
        jobs: run one after the other.
        folder: for the rendezvous and the results.
    """
    mp.spawn(_rank, (jobs, str(folder)), nprocs=RANKS)
    found: list[dict[str, Tensor]] = torch.load(folder / "gradients.pt", weights_only=True)
    return [{name: value * RANKS for name, value in each.items()} for each in found]  # the loss is a sum, DDP averages


def _rank(rank: int, jobs: list[Job], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    try:
        found = [_gradients(rank, job) for job in jobs]
        if rank == 0:
            torch.save(found, f"{folder}/gradients.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _gradients(rank: int, job: Job) -> dict[str, Any]:
    net, example = job.tiny.build(), input_spikes(4, 2)
    dk.wrap_(net, job.rules, example=lambda: job.tiny.run(net, example))
    net.load_state_dict(job.state)
    spread = torch.nn.parallel.DistributedDataParallel(net)
    record = job.tiny.run(spread, job.spikes.chunk(RANKS, 1)[rank])
    _loss(record, rank).backward()
    return {name: p.grad for name, p in net.named_parameters() if p.requires_grad}


def _loss(record: Record, rank: int) -> Tensor:
    """Weigh this rank's rows as the loss of the whole batch does."""
    zeros = [torch.zeros_like(value) for value in record]
    rows = [torch.cat([z, v] if rank else [v, z], 1) for v, z in zip(record, zeros, strict=True)]
    return loss_of(Record(*rows))

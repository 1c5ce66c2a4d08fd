"""Two processes that share one batch: what DistributedDataParallel does with a wrapped net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

import delaykit as dk
from delaykit.testing.kit import loss_of
from delaykit.testing.nets import Record, TinyNet, input_spikes

RANKS = 2


def gradients_of_two_processes(
    tiny: TinyNet, rules: dict[str, Any], state: dict[str, Tensor], spikes: Tensor, folder: Path
) -> dict[str, Tensor]:
    """Run half of the batch on each of two processes; return the gradients of the whole by parameter name.

    Args:
        tiny: net whose loop is inside ``forward``.
        rules: what to wrap; pickled, so configs must be importable.
        state: state dict of the wrapped net.
        spikes: ``(time, batch, pre)``.
        folder: for the rendezvous and the result.
    """
    mp.spawn(_rank, (tiny, rules, state, spikes, str(folder)), nprocs=RANKS)
    found: dict[str, Tensor] = torch.load(folder / "gradients.pt", weights_only=True)
    return {name: value * RANKS for name, value in found.items()}  # DDP averages; the loss is a sum


def _rank(
    rank: int, tiny: TinyNet, rules: dict[str, Any], state: dict[str, Tensor], spikes: Tensor, folder: str
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    try:
        net, example = tiny.build(), input_spikes(4, 2)
        dk.wrap_(net, rules, example=lambda: tiny.run(net, example))
        net.load_state_dict(state)
        spread = torch.nn.parallel.DistributedDataParallel(net)
        mine = spikes.chunk(RANKS, 1)[rank]
        record = tiny.run(spread, mine)
        _loss(record, rank).backward()
        if rank == 0:
            torch.save({n: p.grad for n, p in net.named_parameters() if p.requires_grad}, f"{folder}/gradients.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _loss(record: Record, rank: int) -> Tensor:
    """Weigh this rank's rows as the loss of the whole batch does."""
    zeros = [torch.zeros_like(value) for value in record]
    rows = [torch.cat([z, v] if rank else [v, z], 1) for v, z in zip(record, zeros, strict=True)]
    return loss_of(Record(*rows))

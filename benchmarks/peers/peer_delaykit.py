"""delaykit on the snnTorch network: its loop and fused, without and with delays of whole connections."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measure import Way
from peer_snntorch import Net
from torch import Tensor
from work import Work

import delaykit as dk

PACKAGES = ["snntorch==1.0.0"]


def ways(work: Work, tensors: dict[str, Tensor]) -> Iterator[Way]:
    """Wrapped networks are judged by their own step loops, which the tests judge by the definition."""
    bare = Net(work, tensors)
    sites = "layer.recurrent" if work.kind == "recurrent" else "connections.*"
    nets = {"none": bare}
    for granularity in ("axonal", "synaptic"):
        rule = {sites: dk.FreeDelay(granularity, max_delay=work.depth)}  # type: ignore[arg-type]
        nets[granularity] = dk.wrap(bare, rule, tensors["x"][:3], generator=torch.Generator().manual_seed(1))
    for name, net in nets.items():
        parameters = list(net.parameters())
        if name != "none":
            yield Way(f"{name}, loop", net, parameters, "next", net)
        fused = dk.fused(net, example=tensors["x"][:5])
        for path, how in fused.report().items():
            if how != "ahead":
                raise SystemExit(f"{path} runs {how}")
        yield Way(f"{name}, fused", fused, parameters, "next", None if name == "none" else net)

"""Norse's LIF-box neurons, stepped eagerly and as one compiled step; what it has no equal for is left out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measure import Way
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step
from norse.torch.functional.reset import reset_subtract
from torch import Tensor
from work import BETA, THRESHOLD, Work

PACKAGES = ["norse==1.1.0"]
RATE = 1 - BETA  # of a step: Norse's membrane takes up this share of the current


def ways(work: Work, tensors: dict[str, Tensor]) -> Iterator[Way]:
    """The loop."""
    weights = [tensors[f"weight{k}"].clone().requires_grad_() for k in range(len(work.sizes) - 1)]
    recurrent = tensors["recurrent"].clone().requires_grad_() if work.kind == "recurrent" else None
    p = LIFBoxParameters(
        tau_mem_inv=torch.tensor(RATE / 0.001), v_leak=torch.tensor(0.0), v_th=torch.tensor(THRESHOLD),
        v_reset=torch.tensor(0.0), reset_method=reset_subtract,
    )  # fmt: skip

    def step(x: Tensor, last: Tensor, membranes: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        after = []
        for k, membrane in enumerate(membranes):
            drive = x @ weights[k].t() if weights else x + last @ recurrent.t()  # type: ignore[union-attr]
            x, state = lif_box_feed_forward_step(drive / RATE, LIFBoxFeedForwardState(v=membrane), p)
            after.append(state.v)
        return x, after

    def over_time(one: object) -> object:
        def run(x: Tensor) -> Tensor:
            sizes = work.sizes[1:] or work.sizes
            membranes = [x.new_zeros(x.shape[1], size) for size in sizes]
            last, spikes = membranes[-1], []
            for t in range(len(x)):
                last, membranes = one(x[t], last, membranes)  # type: ignore[operator]
                spikes.append(last)
            return torch.stack(spikes)

        return run

    parameters = weights if recurrent is None else [recurrent]
    yield Way("loop", over_time(step), parameters, "same")  # type: ignore[arg-type]
    yield Way("compiled step", over_time(torch.compile(step)), parameters, "same")  # type: ignore[arg-type]

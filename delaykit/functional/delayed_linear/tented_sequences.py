"""A whole sequence through synapses whose triangles have one width: two numbers a synapse, for any spread.

Spikes, which are bits, go the way of a rollout's recurrent connection; inputs of other sizes that of a step loop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.delayed_linear.operator import delayed_linear
from delaykit.functional.dispatch import kernel_of
from delaykit.functional.inputs import as_it_is
from delaykit.functional.recurrence import numba
from delaykit.functional.recurrence.connection.base import Inputs
from delaykit.functional.recurrence.connection.numba import ringed
from delaykit.functional.second_differences import triangle_taps
from delaykit.functional.step_tape.cells.tents import Overlap, TentFilter
from delaykit.functional.tents import Grid, Tents


def tented_linear(spikes: Tensor, weight: Tensor, tents: Tents) -> Tensor:
    """Do what ``delayed_linear`` does with the taps of these tents, step by step over a line of cells.

    ``current[t, b, j] = sum_i weight[j, i] sum_tau max(0, s - |tau - d[j, i]|) / s^2 spikes[t - tau, b, i]``

    Args:
        spikes: ``(time, batch, pre)`` in the dtype of the weight.
        weight: ``(post, pre)``, times what the tents are scaled by.
        tents: a delay for each synapse and their width, for which there is a grid.

    Returns:
        Current ``(time, batch, post)``, without a bias.
    """
    out: Tensor = _Tented.apply(spikes, as_it_is(tents.delays), as_it_is(weight), tents)
    return out


class _Tented(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, delays: Tensor, weight: Tensor, tents: Tents) -> Tensor:
        ctx.save_for_backward(spikes, delays, weight)
        ctx.tents = tents._replace(delays=delays.detach())
        return _run(spikes.detach(), weight.detach(), ctx.tents)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _differentiable(ctx, grad)
        spikes, delays, weight = ctx.saved_tensors
        back = _masked_back if _by_masks(spikes, weight, ctx.tents) is not None else _back
        return *back(spikes, delays, weight, grad, ctx), None


def _by_masks(spikes: Tensor, weight: Tensor, tents: Tents) -> Any:
    """Return the connection of a rollout where it serves: spikes, all 0 or 1, which it takes as bits; else None."""
    if kernel_of("recurrence", spikes.device) is not numba.recurrence:
        return None  # the connection is that backend's
    if not bool(((spikes == 0) | (spikes == 1)).all()):
        return None
    return ringed(tents.delays.detach(), weight.detach(), Grid.of(tents.width), *spikes.shape[:2])


def _run(spikes: Tensor, weight: Tensor, tents: Tents) -> Tensor:
    time, batch, pre = spikes.shape
    out = weight.new_empty(time, batch, len(weight))
    ring = _by_masks(spikes, weight, tents)
    if ring is not None:
        ring.begin(time, batch)
        for t, x in enumerate(spikes.contiguous()):
            out[t] = ring.current(t, x)
        return out
    filter, rows = TentFilter(tents, weight), _rows(spikes)
    line = filter.line(pre, batch)
    for t in range(time):
        line.write(rows, t)
        filter.read(line.rows, line.now, out[t].t().unsqueeze(2))
    return out


def _masked_back(spikes: Tensor, delays: Tensor, weight: Tensor, grad: Tensor, ctx: Any) -> tuple[Tensor | None, ...]:
    wants_input, wants_delays, wants_weight = ctx.needs_input_grad[:3]
    time, batch, _ = spikes.shape
    ring = _by_masks(spikes, weight, ctx.tents)
    inputs = Inputs(spikes[0].contiguous(), spikes.roll(-1, 0))  # where x[t] is found at t - 1
    ring.inputs = inputs if wants_delays or wants_weight else None
    ring.begin_backward(time, batch)
    grad, grad_spikes = grad.contiguous(), torch.empty_like(spikes, memory_format=torch.contiguous_format)
    for t in range(time - 1, -1, -1):
        grad_spikes[t] = ring.pull(t, grad[t])
    grad_weight, grad_delays = (
        ring.gradients(inputs, None, grad, (wants_weight, wants_delays)) if ring.inputs is not None else (None, None)
    )
    grad_delays = None if grad_delays is None else grad_delays.to(delays.dtype)
    return grad_spikes if wants_input else None, grad_delays, grad_weight


def _back(spikes: Tensor, delays: Tensor, weight: Tensor, grad: Tensor, ctx: Any) -> tuple[Tensor | None, ...]:
    time, batch, _ = spikes.shape
    filter = TentFilter(ctx.tents._replace(delays=delays), weight)
    rows, gradients = _rows(spikes), _rows(grad)
    line, overlap = filter.line(len(weight), batch), Overlap(filter, weight.device)
    wants_input, learns = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
    grad_spikes = torch.empty_like(spikes, memory_format=torch.contiguous_format) if wants_input else None
    for t in range(time - 1, -1, -1):
        line.write(gradients, t)
        if grad_spikes is not None:
            filter.read_back(line.rows, line.now, grad_spikes[t].t().unsqueeze(2))
        if learns:
            overlap.add(line, rows, t)
    return grad_spikes, *(overlap.gradients(rows, gradients) if learns else (None, None))


def _rows(x: Tensor) -> Tensor:
    """Turn ``(time, batch, neuron)`` into contiguous ``(neuron, time, batch)``."""
    return x.detach().permute(2, 0, 1).contiguous()


def _differentiable(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Give gradients that have gradients, through taps."""
    spikes, delays, weight = ctx.saved_tensors
    width = torch.full_like(delays, ctx.tents.width, dtype=torch.float64)
    taps = triangle_taps(delays.double(), width, None)
    wanted = [x for x, wants in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False) if wants]
    found = iter(torch.autograd.grad(delayed_linear(spikes, weight, taps), wanted, grad, create_graph=True))
    return *(next(found) if wants else None for wants in ctx.needs_input_grad[:3]), None

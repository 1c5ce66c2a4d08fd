"""The judge of the rollout: a current for every synapse, step after step, and plain autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from delaykit_hetsyn.reset_currents import Jumps
from delaykit_hetsyn.surrogates import Surrogate

Look = Callable[[int, Tensor], tuple[Tensor, Tensor]]  # step and membrane -> spikes and membrane


def layer(
    drive: Tensor, weight: Tensor | None, decay: Tensor | None, jumps: Jumps, surrogate: Surrogate, threshold: float,
    detach_reset: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run a layer; see :func:`delaykit_hetsyn.rollout.rollout`, whose arguments these are."""
    return _run(drive, weight, decay, jumps, lambda _, v: (surrogate(v - threshold), v), detach_reset)


def rollout(
    drive: Tensor, weight: Tensor, decay: Tensor, kappa: Tensor, amplitude: Tensor, wipes: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Run forwards; see :func:`delaykit_hetsyn.torch.rollout`."""
    jumps = Jumps(kappa, amplitude, wipes)
    return _run(drive, *_turned(weight, decay), jumps, lambda _, v: ((v > threshold).to(v), v), False)


@torch.enable_grad()
def adjoint(
    grad_spikes: Tensor, grad_membrane: Tensor, slope: Tensor, spikes: Tensor, membrane: Tensor, weight: Tensor,
    decay: Tensor, kappa: Tensor, amplitude: Tensor, wipes: Tensor, through_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Run backwards, by autograd; see :func:`delaykit_hetsyn.torch.adjoint`.

    The layer runs again, with the membrane and the spikes of the run before as values, and ``slope`` as the derivative
    of a spike by its membrane.
    """
    given = torch.zeros_like(membrane), weight, decay, kappa, amplitude
    drive, weight, decay, kappa, amplitude = leaves = [x.detach().requires_grad_() for x in given]

    def look(t: int, found: Tensor) -> tuple[Tensor, Tensor]:
        moved = found - found.detach()  # zero in value
        return spikes[t] + slope[t] * moved, membrane[t] + moved

    out = _run(drive, *_turned(weight, decay), Jumps(kappa, amplitude, wipes), look, not through_reset)
    found = torch.autograd.grad(out, leaves, (grad_spikes, grad_membrane), allow_unused=True)
    grads = [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
    return grads[0], grads[1], grads[2], grads[3], grads[4]


def _turned(weight: Tensor, decay: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Lay recurrent synapses out ``(post, pre)``; None where there are none."""
    return (weight.T, decay.T) if len(weight) else (None, None)


def _run(
    drive: Tensor, weight: Tensor | None, decay: Tensor | None, jumps: Jumps, look: Look, detach_reset: bool
) -> tuple[Tensor, Tensor]:
    _, batch, post = drive.shape
    synapses, own = drive.new_zeros(batch, post, post), drive.new_zeros(batch, len(jumps.wipes), post)
    fired = membrane = drive.new_zeros(batch, post)
    spikes, membranes = [], []
    for t, current in enumerate(drive):
        if weight is not None and decay is not None:
            synapses = decay * synapses + weight * fired[:, None, :]
        early = fired.detach() if detach_reset else fired
        jump = jumps.amplitude + jumps.wipes[:, None] * jumps.decay * membrane[:, None]
        own = jumps.decay * own + jump * early[:, None]
        fired, membrane = look(t, current + synapses.sum(2) - own.sum(1))
        spikes.append(fired)
        membranes.append(membrane)
    if not spikes:
        return drive.clone(), drive.clone()
    return torch.stack(spikes), torch.stack(membranes)

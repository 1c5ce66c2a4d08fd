"""A layer's whole sequence in plain torch, for every device: backend ``torch``; never a synapse's state a step."""

from __future__ import annotations

import torch
from torch import Tensor


def rollout(
    drive: Tensor, weight: Tensor, decay: Tensor, kappa: Tensor, amplitude: Tensor, wipes: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Run a layer forwards.

    Args:
        drive: ``(time, batch, post)``.
        weight: of the recurrent synapses, ``(pre, post)``, with ``pre = post``, or ``(0, post)`` for none.
        decay: ``(pre, post)``, or ``(1, post)`` for one a postsynaptic neuron.
        kappa: decays of the reset currents, ``(currents, post)``.
        amplitude: their jumps, ``(currents, post)``.
        wipes: ``(currents,)``, bool: those that take the membrane as well.
        threshold: a spike is due above it.

    Returns:
        ``(spikes, membrane)``, ``(time, batch, post)`` each.
    """
    spikes, membrane = torch.empty_like(drive), torch.empty_like(drive)
    time, batch, post = drive.shape
    state = drive.new_zeros(batch, len(decay) if len(weight) else 0, post)
    own = drive.new_zeros(batch, len(kappa), post)
    for t in range(time):
        now = drive[t].clone()
        if t > 0:
            earlier = spikes[t - 1]
            if len(weight):
                state = state.mul_(decay).add_(_arriving(earlier, weight, decay))
                now += state.sum(1)
            jump = amplitude + wipes[:, None] * kappa * membrane[t - 1].unsqueeze(1)
            own = own.mul_(kappa).add_(jump * earlier.unsqueeze(1))
            now -= own.sum(1)
        membrane[t], spikes[t] = now, (now > threshold).to(now.dtype)
    return spikes, membrane


def adjoint(
    grad_spikes: Tensor, grad_membrane: Tensor, slope: Tensor, spikes: Tensor, membrane: Tensor, weight: Tensor,
    decay: Tensor, kappa: Tensor, amplitude: Tensor, wipes: Tensor, through_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Run a layer backwards.

    Args:
        grad_spikes: of the loss by the spikes, ``(time, batch, post)``.
        grad_membrane: of the loss by the membrane, same.
        slope: ds/dV, same.
        spikes: of the forward run, same.
        membrane: of the forward run, same.
        weight: as in :func:`rollout`, and so ``decay``, ``kappa``, ``amplitude``, ``wipes``.
        through_reset: let gradients pass through the spikes that start reset currents.

    Returns:
        Gradients by drive, weight, decay, kappa and amplitude.
    """
    grads = [torch.zeros_like(t) for t in (spikes, weight, decay, kappa, amplitude)]
    time, batch, post = spikes.shape
    chain = spikes.new_zeros(batch, len(decay) if len(weight) else 0, post)
    slower = torch.zeros_like(chain)
    own = spikes.new_zeros(batch, len(kappa), post)
    later, back = torch.zeros_like(own), spikes.new_zeros(batch, post)
    for t in range(time - 1, -1, -1):
        fired, now = spikes[t].unsqueeze(1), membrane[t].unsqueeze(1)
        jump = amplitude + wipes[:, None] * kappa * now
        grads[3] += (fired * (jump * later + wipes[:, None] * now * own)).sum(0)
        grads[4] += (fired * own).sum(0)
        grad_spike = grad_spikes[t] + back
        if through_reset:
            grad_spike = grad_spike + (jump * own).sum(1)
        flow = grad_membrane[t] + slope[t] * grad_spike + (wipes[:, None] * kappa * fired * own).sum(1)
        grads[0][t] = flow
        later = own + kappa * later
        own = kappa * own - flow.unsqueeze(1)
        if t > 0 and len(weight):
            slower = slower.mul_(decay).add_(chain)
            chain = chain.mul_(decay).add_(flow.unsqueeze(1))
            back = _returning(chain, weight, decay)
            _meet(spikes[t - 1], chain, slower, weight, decay, grads[1], grads[2])
    return grads[0], grads[1], grads[2], grads[3], grads[4]


def _arriving(spikes: Tensor, weight: Tensor, decay: Tensor) -> Tensor:
    if len(decay) == 1:
        return (spikes @ weight).unsqueeze(1)
    return spikes.unsqueeze(2) * weight


def _returning(chain: Tensor, weight: Tensor, decay: Tensor) -> Tensor:
    if len(decay) == 1:
        return chain.squeeze(1) @ weight.T
    return (chain * weight).sum(2)


def _meet(
    spikes: Tensor,
    chain: Tensor,
    slower: Tensor,
    weight: Tensor,
    decay: Tensor,
    grad_weight: Tensor,
    grad_decay: Tensor,
) -> None:
    """Add what the spikes of one step find in the chains to the gradients of weight and decay."""
    if len(decay) == 1:
        grad_weight += spikes.T @ chain.squeeze(1)
        grad_decay += (slower.squeeze(1) * (spikes @ weight)).sum(0)
    else:
        grad_weight += torch.einsum("bi,bij->ij", spikes, chain)
        grad_decay += weight * torch.einsum("bi,bij->ij", spikes, slower)

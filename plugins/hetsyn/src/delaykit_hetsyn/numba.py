"""A layer's whole sequence for the CPU, by Numba: backend ``cpu``; :mod:`delaykit_hetsyn.rollout` has the equations.

Weights and decays lie ``(pre, post)``, so that every loop runs over a contiguous row of postsynaptic neurons and is
vectorised. The state of one batch element, ``(pre, post)``, is all that there ever is of the synapses: backwards, both
chains of a synapse run from the last step to the first, and meet the spikes on the way.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, compiled, in_threads


def rollout(
    drive: Tensor, weight: Tensor, decay: Tensor, kappa: Tensor, amplitude: Tensor, wipes: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Run forwards; see :func:`delaykit_hetsyn.torch.rollout`."""
    spikes, membrane = torch.empty_like(drive), torch.empty_like(drive)
    given = [t.numpy() for t in (drive, weight, decay, kappa, amplitude, wipes)]
    out = spikes.numpy(), membrane.numpy()
    theta = given[0].dtype.type(threshold)
    in_threads(lambda first, last: _forward(*given, theta, *out, first, last), drive.shape[1], _work(drive, weight))
    return spikes, membrane


def adjoint(
    grad_spikes: Tensor, grad_membrane: Tensor, slope: Tensor, spikes: Tensor, membrane: Tensor, weight: Tensor,
    decay: Tensor, kappa: Tensor, amplitude: Tensor, wipes: Tensor, through_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Run backwards; see :func:`delaykit_hetsyn.torch.adjoint`."""
    grad_drive = torch.empty_like(spikes)
    sequences = [t.numpy() for t in (grad_spikes, grad_membrane, slope, spikes, membrane)]
    fixed = [t.numpy() for t in (weight, decay, kappa, amplitude, wipes)]
    shares: dict[int, list[np.ndarray]] = {}

    def share(first: int, last: int) -> None:
        own = [np.zeros_like(array) for array in fixed[:4]]
        _backward(*sequences, *fixed, through_reset, grad_drive.numpy(), *own, first, last)
        shares[first] = own

    in_threads(share, spikes.shape[1], 2 * _work(spikes, weight))
    ordered = [shares[first] for first in sorted(shares)]  # the same sum whichever thread was first
    sums = [torch.from_numpy(np.sum([own[k] for own in ordered], 0)) for k in range(4)]
    return grad_drive, sums[0], sums[1], sums[2], sums[3]


def _work(drive: Tensor, weight: Tensor) -> int:
    return drive.shape[0] * drive.shape[1] * (weight.numel() + drive.shape[2])


# Rows are indexed in place: a slice bound to a name would count references, which costs more than the row itself.
@compiled()
def _forward(drive, weight, decay, kappa, amplitude, wipes, theta, spikes, membrane, first, last):
    time, _, post = drive.shape
    pre, shared = weight.shape[0], decay.shape[0] == 1
    state = np.empty((1 if shared else pre, post), drive.dtype)
    own, total = np.empty((kappa.shape[0], post), drive.dtype), np.empty(post, drive.dtype)
    awake = np.empty(pre, np.bool_)
    for b in range(first, last):
        state[:], own[:], awake[:] = 0, 0, False
        for t in range(time):
            for j in range(post):
                total[j] = drive[t, b, j]
            if t > 0 and shared and pre > 0:
                for j in range(post):
                    state[0, j] *= decay[0, j]
                for i in range(pre):
                    if spikes[t - 1, b, i] != 0:
                        for j in range(post):
                            state[0, j] += weight[i, j]
                for j in range(post):
                    total[j] += state[0, j]
            elif t > 0:
                for i in range(pre):
                    if spikes[t - 1, b, i] != 0:
                        awake[i] = True
                        for j in range(post):
                            new = decay[i, j] * state[i, j] + weight[i, j]
                            state[i, j] = new
                            total[j] += new
                    elif awake[i]:  # a neuron that has not fired yet sends nothing
                        for j in range(post):
                            new = decay[i, j] * state[i, j]
                            state[i, j] = new
                            total[j] += new
            if t > 0:
                for m in range(kappa.shape[0]):
                    if wipes[m]:
                        for j in range(post):
                            own[m, j] += spikes[t - 1, b, j] * membrane[t - 1, b, j]
                    for j in range(post):
                        own[m, j] = kappa[m, j] * own[m, j] + amplitude[m, j] * spikes[t - 1, b, j]
                    for j in range(post):
                        total[j] -= own[m, j]
            for j in range(post):
                membrane[t, b, j] = total[j]
                spikes[t, b, j] = 1 if total[j] > theta else 0


@compiled(DOT_PRODUCTS)
def _backward(
    grad_spikes, grad_membrane, slope, spikes, membrane, weight, decay, kappa, amplitude, wipes, through_reset,
    grad_drive, grad_weight, grad_decay, grad_kappa, grad_amplitude, first, last,
):  # fmt: skip
    time, _, post = spikes.shape
    pre, shared = weight.shape[0], decay.shape[0] == 1
    rows = 1 if shared else pre
    chain, slower = np.empty((rows, post), spikes.dtype), np.empty((rows, post), spikes.dtype)  # p and dp/dr
    own, later = np.empty((kappa.shape[0], post), spikes.dtype), np.empty((kappa.shape[0], post), spikes.dtype)
    back, grad_spike, flow = np.empty(post, spikes.dtype), np.empty(post, spikes.dtype), np.empty(post, spikes.dtype)
    for b in range(first, last):
        chain[:], slower[:], own[:], later[:], back[:] = 0, 0, 0, 0, 0
        for t in range(time - 1, -1, -1):
            for j in range(post):
                grad_spike[j] = grad_spikes[t, b, j] + back[j]
                flow[j] = grad_membrane[t, b, j]
            for m in range(kappa.shape[0]):
                for j in range(post):
                    grad_kappa[m, j] += spikes[t, b, j] * amplitude[m, j] * later[m, j]
                    grad_amplitude[m, j] += spikes[t, b, j] * own[m, j]
                if through_reset:
                    for j in range(post):
                        grad_spike[j] += amplitude[m, j] * own[m, j]
                if wipes[m]:
                    for j in range(post):
                        taken = spikes[t, b, j] * membrane[t, b, j]
                        grad_kappa[m, j] += taken * (own[m, j] + kappa[m, j] * later[m, j])
                        flow[j] += kappa[m, j] * spikes[t, b, j] * own[m, j]
                    if through_reset:
                        for j in range(post):
                            grad_spike[j] += kappa[m, j] * membrane[t, b, j] * own[m, j]
            for j in range(post):
                flow[j] += slope[t, b, j] * grad_spike[j]
                grad_drive[t, b, j] = flow[j]
            for m in range(kappa.shape[0]):
                for j in range(post):
                    later[m, j] = own[m, j] + kappa[m, j] * later[m, j]
                    own[m, j] = kappa[m, j] * own[m, j] - flow[j]
            if t > 0 and shared and pre > 0:
                for j in range(post):
                    slower[0, j] = chain[0, j] + decay[0, j] * slower[0, j]
                    chain[0, j] = flow[j] + decay[0, j] * chain[0, j]
                for i in range(pre):
                    total = weight.dtype.type(0)
                    for j in range(post):
                        total += weight[i, j] * chain[0, j]
                    back[i] = total
                    if spikes[t - 1, b, i] != 0:
                        for j in range(post):
                            grad_weight[i, j] += chain[0, j]
                            grad_decay[0, j] += weight[i, j] * slower[0, j]
            elif t > 0:
                for i in range(pre):
                    total = weight.dtype.type(0)
                    for j in range(post):
                        old = chain[i, j]
                        new = flow[j] + decay[i, j] * old
                        slower[i, j] = old + decay[i, j] * slower[i, j]
                        chain[i, j] = new
                        total += weight[i, j] * new
                    back[i] = total
                    if spikes[t - 1, b, i] != 0:
                        for j in range(post):
                            grad_weight[i, j] += chain[i, j]
                            grad_decay[i, j] += weight[i, j] * slower[i, j]

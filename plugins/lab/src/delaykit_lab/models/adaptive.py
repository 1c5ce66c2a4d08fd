"""Richer neurons instead of delays: a recurrent neuron whose threshold rises with each of its spikes.

    V[t] = beta V[t-1] + I[t] + sum_i R_ji s_i[t-1] - theta_j[t-1] s_j[t-1]
    a[t] = rho a[t-1] + s[t-1],   theta[t] = 1 + kappa a[t],   s[t] = H(V[t] - theta[t])

Reference: Bellec et al. 2018, "Long short-term memory and learning-to-learn in networks of spiking neurons",
arXiv 1803.09574, the adaptive neuron; rho and kappa are learned here, one of each a neuron.
"""

from __future__ import annotations

import torch
from snntorch import surrogate
from torch import Tensor, nn


class AdaptiveLeaky(nn.Module):
    """A layer of adaptive neurons over a whole sequence.

    Args:
        size: number of neurons.
        beta: decay of the membrane a step.
        rho: decay of the adaptation a step, at the start.
        kappa: rise of the threshold with a spike, at the start.
        recurrent: whether the layer drives itself.

    Example:
        >>> layer = AdaptiveLeaky(4)
        >>> layer(torch.rand(10, 2, 4))[0].shape
        torch.Size([10, 2, 4])
    """

    def __init__(self, size: int, beta: float = 0.5, rho: float = 0.95, kappa: float = 0.3, recurrent: bool = True):
        super().__init__()
        self.beta = beta
        self.rho = nn.Parameter(torch.full((size,), rho))
        self.kappa = nn.Parameter(torch.full((size,), kappa))
        self.recurrent = nn.Linear(size, size) if recurrent else None
        self.spike = surrogate.atan(alpha=5.0)

    def forward(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membranes ``(time, batch, neuron)`` of currents ``(time, batch, neuron)``, from rest."""
        membrane = adaptation = spikes = torch.zeros_like(currents[0])
        threshold, rho = torch.ones_like(currents[0]), self.rho.clamp(0.0, 1.0)
        fired, membranes = [], []
        for now in currents:
            current = now if self.recurrent is None else now + self.recurrent(spikes)
            membrane = self.beta * membrane + current - threshold.detach() * spikes
            adaptation = rho * adaptation + spikes
            threshold = 1.0 + self.kappa * adaptation
            spikes = self.spike(membrane - threshold)
            fired.append(spikes)
            membranes.append(membrane)
        return torch.stack(fired), torch.stack(membranes)

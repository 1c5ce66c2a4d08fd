r"""An approximation: every decay is made of the two nearest of Q shared ones, so that Q products do for all synapses.

    r^\tau  ~  (1 - a) \rho_q^\tau + a \rho_{q+1}^\tau,      a = (r - \rho_q) / (\rho_{q+1} - \rho_q)

It is exact at tau = 0 and 1 and for r on the grid, and never too small, a chord of a convex curve. The gradient of r is
that of ``a``. Each shared decay filters the spikes once, whatever the number of synapses.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.functional.filtered_linear import filtered_linear
from delaykit.functional.step_tape import Passes, chained
from delaykit.synapse import Engine

LONGEST = 200.0  # steps, the time constant of the last shared decay before 1


def grid(count: int, leak: float | None = None) -> Tensor:
    """Place shared decays: 0 and 1, and in between time constants that grow by a factor, from 1 to 200 steps.

    Args:
        count: number of shared decays, >= 3.
        leak: decay of the neuron behind, which then takes the place of the nearest, so that r can begin there exactly.

    Returns:
        ``(count,)``, ascending, float64.

    Example:
        >>> grid(4, 0.9).tolist()
        [0.0, 0.36787944117144233, 0.9, 1.0]
    """
    tau = torch.logspace(0.0, math.log10(LONGEST), count - 2, dtype=torch.float64)
    inner = torch.exp(-1.0 / tau)
    if leak is not None and 0.0 < leak < 1.0:
        inner[(inner - leak).abs().argmin()] = leak
    return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])


def shares(decay: Tensor, shared: Tensor) -> Tensor:
    """Split each decay between its two neighbours on the grid.

    Args:
        decay: ``(post, pre)``, in [0, 1].
        shared: ``(groups,)``, ascending from 0 to 1.

    Returns:
        ``(groups, post, pre)``; they add up to 1, and with ``shared`` as weights to ``decay``.

    Example:
        >>> shares(torch.tensor([[0.25]]), torch.tensor([0.0, 0.5, 1.0])).flatten().tolist()
        [0.5, 0.5, 0.0]
    """
    low = (torch.bucketize(decay.detach(), shared, right=True) - 1).clamp(0, len(shared) - 2)
    upper = (decay - shared[low]) / (shared[low + 1] - shared[low])
    which = torch.arange(len(shared), device=decay.device).reshape(-1, 1, 1)
    return torch.where(which == low, 1 - upper, torch.where(which == low + 1, upper, torch.zeros_like(upper)))


class GroupEngine(Engine):
    """A connection whose currents linger by shared decays.

    Args:
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None.
        split: of :func:`shares`.
        shared: of :func:`grid`.
        leak: the driven neuron's own decay, (1, 1) or (post, 1), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, split: Tensor, shared: Tensor, leak: Tensor | None) -> None:
        self.weight, self.bias, self.shared, self.leak = weight, bias, shared, leak
        self.strength = weight * split  # (groups, post, pre)
        beyond = shared.reshape(-1, 1, 1) if leak is None else shared.reshape(-1, 1, 1) - leak
        self.beyond = self.strength * beyond  # (groups, post, pre): what is left a step later

    def sequence(self, spikes: Tensor) -> Tensor:
        """Run (time, batch, pre) -> (time, batch, post)."""
        current = F.linear(spikes, self.weight, self.bias)
        for decay, beyond in zip(self.shared, self.beyond, strict=True):
            rest = filtered_linear(spikes[:-1], beyond, decay.reshape(1, 1))
            current = current + F.pad(rest, (0, 0, 0, 0, 1, 0))[: len(spikes)]
        return current

    def tape(self) -> GroupTape:
        """Start with nothing that lingers."""
        return GroupTape(self)

    def rebind(self, tape: Any) -> None:
        """Go on with the parameters of this segment."""
        tape.rebind(self)


class GroupTape:
    """Step mode: the spikes since a cut as each shared decay has left them, ``(groups, batch, pre)``, by autograd."""

    def __init__(self, engine: GroupEngine) -> None:
        self.engine = engine
        self.past: Tensor | None = None
        self.passes = Passes()
        self.earlier: Tensor | None = None  # (groups, batch, post): currents from before the last cut
        self._constant = False  # whether the spikes were left by a step without gradients

    def step(self, x: Tensor) -> Tensor:
        """Run one step: (batch, pre) -> (batch, post)."""
        if self._constant and torch.is_grad_enabled():
            self._settle()
        self._constant = not torch.is_grad_enabled()
        e, past, earlier = self.engine, self.past, self.earlier
        current, shared = F.linear(x, e.weight, e.bias), e.shared.reshape(-1, 1, 1)
        if earlier is not None:
            beyond = shared if e.leak is None else shared - e.leak.reshape(1, 1, -1)
            current, self.earlier = current + (beyond * earlier).sum(0), shared * earlier
        if past is None:
            self.past = x.clone().expand(len(e.shared), *x.shape)  # the caller may write over it
            return chained(current, self.passes)
        self.past = shared * past + x
        return chained(current + torch.bmm(past, e.beyond.transpose(1, 2)).sum(0), self.passes)

    def rebind(self, engine: GroupEngine) -> None:
        """Go on with the parameters of a new segment; a current keeps what it has summed."""
        self.detach()
        self.engine = engine

    @torch.no_grad()
    def _settle(self) -> None:
        """Make currents of the spikes that linger, constants from now on."""
        if self.past is not None:
            currents = torch.bmm(self.past, self.engine.strength.transpose(1, 2))
            self.earlier = currents if self.earlier is None else self.earlier.detach() + currents
        self.past = None

    def detach(self) -> None:
        """Cut the graph, keep what lingers."""
        self.passes = Passes()
        self._settle()
        self.earlier = None if self.earlier is None else self.earlier.detach()

    def silent(self, before_last: bool = False) -> bool:
        """Tell whether nothing lingers."""
        return not any(state is not None and bool(state.any()) for state in (self.past, self.earlier))

    def graph_under_way(self) -> bool:
        """Tell whether a later gradient has to reach an input of this segment, or the weight that made a current."""
        recorded = self.past is not None and not self._constant
        return recorded and (self.past.requires_grad or self.engine.strength.requires_grad)  # type: ignore[union-attr]

r"""A weight matrix whose synapses linger, each with a time constant of its own.

    I_ji[t] = r_ji I_ji[t - 1] + w_ji z_i[t],      current_j = sum_i I_ji

A connection that nothing spikes behind is a readout: its current is the membrane.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from delaykit.errors import ConfigError
from delaykit.functional.filtered_linear import filtered_linear
from delaykit_hetsyn.time_constants import Taus, decay_of, draw, tau_of

GRANULARITIES = ("synaptic", "post", "pre", "layer")


class Connection(nn.Module):
    """Hold ``weight (post, pre)`` and ``decay``, one a synapse, neuron or layer, in [0, 1].

    Args:
        pre: number of inputs.
        post: number of outputs.
        granularity: ``synaptic``, ``post``, ``pre`` or ``layer``.
        tau: initial time constants in ms, see :mod:`delaykit_hetsyn.time_constants`.
        dt_ms: length of a step in ms.
        learn: train the decays.
        frozen: share of the decays that stay as they were drawn, in [0, 1].
        gain: weights are drawn from a normal distribution of standard deviation ``gain / sqrt(pre)``.
        share: use the decays of this connection (one Parameter) instead of own ones.
        generator: source of the draws.

    Example:
        >>> Connection(3, 2, tau=20.0)(torch.zeros(5, 1, 3)).shape
        torch.Size([5, 1, 2])
    """

    decay: Tensor
    frozen: Tensor | None
    drawn: Tensor | None

    def __init__(
        self,
        pre: int,
        post: int,
        granularity: str = "synaptic",
        tau: Taus = ("normal", 20.0, 5.0),
        dt_ms: float = 1.0,
        learn: bool = True,
        frozen: float = 0.0,
        gain: float = 1.0,
        share: Connection | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if granularity not in GRANULARITIES:
            raise ConfigError("Connection.granularity", repr(granularity), f"one of {GRANULARITIES}")
        if not 0.0 <= frozen <= 1.0:
            raise ConfigError("Connection.frozen", f"{frozen}", "a share in [0, 1]")
        if not (math.isfinite(dt_ms) and dt_ms > 0):
            raise ConfigError("Connection.dt_ms", f"{dt_ms}", "a finite number of ms > 0")
        if pre < 0 or post < 0:
            raise ConfigError("Connection", f"{pre} inputs and {post} outputs", "numbers >= 0")
        self.dt_ms = float(dt_ms)
        self.weight = nn.Parameter(torch.randn(post, pre, generator=generator) * (gain / math.sqrt(max(pre, 1))))
        self.register_buffer("frozen", None)
        self.register_buffer("drawn", None)
        if share is not None:
            self._share(share)
            return
        shape = {"synaptic": (post, pre), "post": (post, 1), "pre": (1, pre), "layer": (1, 1)}[granularity]
        decay = decay_of(draw(tau, shape, generator), self.dt_ms)
        if not learn:
            self.register_buffer("decay", decay)
            return
        self.decay = nn.Parameter(decay)
        if frozen > 0:
            order = torch.randperm(decay.numel(), generator=generator)
            chosen = torch.zeros(decay.numel(), dtype=torch.bool)
            chosen[order[: round(frozen * decay.numel())]] = True
            self.frozen, self.drawn = chosen.view(shape), decay.clone()

    def _share(self, other: Connection) -> None:
        if other.decay.shape[1] != 1 or other.decay.shape[0] not in (1, self.weight.shape[0]):
            expected = "decays one a layer or a postsynaptic neuron"
            raise ConfigError("Connection.share", f"decays {tuple(other.decay.shape)}", expected)
        if isinstance(other.decay, nn.Parameter):
            self.decay = other.decay
        else:
            self.register_buffer("decay", other.decay)
        self.frozen, self.drawn = other.frozen, other.drawn

    def decays(self) -> Tensor:
        """Return the decays, two-dimensional; no gradient reaches frozen ones."""
        return self.decay if self.frozen is None else torch.where(self.frozen, self.decay.detach(), self.decay)

    def tau_ms(self) -> Tensor:
        """Return the time constants in ms, detached."""
        return tau_of(self.decay.detach(), self.dt_ms)

    def forward(self, spikes: Tensor) -> Tensor:
        """Let a sequence pass: ``(time, batch, pre) -> (time, batch, post)``."""
        return filtered_linear(spikes, self.weight, self.decays())

    def start(self, batch: int) -> Tensor:
        """Return the state before the first step: as much as the decays need, ``(batch, ...)``."""
        (post, pre), (rows, columns) = self.weight.shape, self.decay.shape
        shape = (batch, pre) if rows == 1 else (batch, post) if columns == 1 else (batch, post, pre)
        return self.weight.new_zeros(shape)

    def step(self, spikes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Advance one step by plain autograd: ``(batch, pre), state -> (batch, post), state``."""
        decay = self.decays()
        if decay.shape[0] == 1:
            state = decay * state + spikes
            return F.linear(state, self.weight), state
        if decay.shape[1] == 1:
            state = decay.T * state + F.linear(spikes, self.weight)
            return state, state
        state = decay * state + self.weight * spikes.unsqueeze(1)
        return state.sum(-1), state

    @torch.no_grad()
    def project_(self) -> None:
        """Bring the decays back into [0, 1], and frozen ones to where they were."""
        self.decay.clamp_(0.0, 1.0)
        if self.frozen is not None and self.drawn is not None:
            self.decay.copy_(torch.where(self.frozen, self.drawn, self.decay))

    def extra_repr(self) -> str:
        post, pre = self.weight.shape
        tau, (rows, columns) = self.tau_ms(), self.decay.shape
        grain = ("layer" if columns == 1 else "pre") if rows == 1 else ("post" if columns == 1 else "synaptic")
        kind = "learned" if isinstance(self.decay, nn.Parameter) else "fixed"
        if self.frozen is not None:
            kind += f", {float(self.frozen.double().mean()):.0%} frozen"
        return f"{pre} -> {post}, {grain} tau {float(tau.min()):.1f}..{float(tau.max()):.1f} ms, {kind}"

r"""A weight matrix whose synapses linger, each with a time constant of its own.

    I_ji[t] = r_ji I_ji[t - 1] + w_ji z_i[t],      current_j = sum_i I_ji

A connection that nothing spikes behind is a readout: its current is the membrane.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from delaykit import ConfigError, Site, checks
from delaykit.functional.filtered_linear import filtered_linear
from delaykit_hetsyn.component import Decays
from delaykit_hetsyn.config import HetSyn
from delaykit_hetsyn.time_constants import Taus

FORMER = {"decay": "r", "frozen": "frozen", "drawn": "held"}  # names of what older files hold


@checks.annotated
class HetSynConnection(nn.Module):
    """Hold ``weight (post, pre)`` and the decays of :class:`~delaykit_hetsyn.HetSyn`, in ``heterogeneity``.

    Args:
        pre: number of inputs.
        post: number of outputs.
        granularity: ``synaptic``, ``dendritic``, ``axonal`` or ``layer``, see :class:`~delaykit_hetsyn.HetSyn`.
        tau: initial time constants in ms, see :mod:`delaykit_hetsyn.time_constants`.
        dt_ms: length of a step in ms.
        learn: train the decays.
        frozen: share of the decays that stay as they were drawn, in [0, 1].
        gain: weights are drawn from a normal distribution of standard deviation ``gain / sqrt(pre)``.
        share: use the decays of this connection instead of own ones.
        generator: source of the draws.

    Example:
        >>> HetSynConnection(3, 2, tau=20.0)(torch.zeros(5, 1, 3)).shape
        torch.Size([5, 1, 2])
    """

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
        share: HetSynConnection | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        checks.number("HetSynConnection.dt_ms", dt_ms, above=0, what="number of ms")
        checks.whole("HetSynConnection.pre", pre, what="number of inputs")
        checks.whole("HetSynConnection.post", post, what="number of neurons")
        checks.flag("HetSynConnection.learn", learn)
        checks.number("HetSynConnection.gain", gain)
        if share is not None and not isinstance(share, HetSynConnection):
            raise ConfigError(
                "HetSynConnection.share", f"a {type(share).__name__}", "a HetSynConnection", "pass such a one"
            )
        config = HetSyn(granularity, tau=tau, dt_ms=dt_ms, train=learn, frozen=frozen if learn else 0.0)
        self.weight = nn.Parameter(torch.randn(post, pre, generator=generator) * (gain / math.sqrt(max(pre, 1))))
        self.heterogeneity = (
            Decays(config, Site("HetSynConnection", pre, post), generator) if share is None else self._shared(share)
        )

    def _shared(self, other: HetSynConnection) -> Decays:
        if other.decay.shape[1] != 1 or other.decay.shape[0] not in (1, self.weight.shape[0]):
            expected = "decays one a layer or a postsynaptic neuron"
            fix = "share between connections of one size"
            raise ConfigError("HetSynConnection.share", f"decays {tuple(other.decay.shape)}", expected, fix)
        return other.heterogeneity

    @property
    def decay(self) -> nn.Parameter:
        """Decays as the optimizer knows them."""
        return self.heterogeneity.r

    @property
    def frozen(self) -> Tensor | None:
        """Which of them stay as they were drawn."""
        return self.heterogeneity.frozen

    def decays(self) -> Tensor:
        """Return the decays, two-dimensional; no gradient reaches frozen ones."""
        return self.heterogeneity.decay()

    def tau_ms(self) -> Tensor:
        """Return the time constants in ms, detached."""
        return self.heterogeneity.tau_ms()

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

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for former, name in FORMER.items():
            if prefix + former in state:
                state[f"{prefix}heterogeneity.{name}"] = state.pop(prefix + former)
        super()._load_from_state_dict(state, prefix, *rest)

    def extra_repr(self) -> str:
        post, pre = self.weight.shape
        tau = self.tau_ms()
        return f"{pre} -> {post}, tau {float(tau.min()):.1f}..{float(tau.max()):.1f} ms"


Connection = HetSynConnection  # its former name

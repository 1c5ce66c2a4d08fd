r"""HetSynLIF: a layer of spiking neurons that integrate in their synapses.

    I_ji[t] = r_ji I_ji[t - 1] + w_ji z_i[t]           input synapses
    R_jk[t] = q_jk R_jk[t - 1] + u_jk s_k[t - 1]       recurrent synapses
    V_j[t]  = sum_i I_ji + sum_k R_jk - sum_m J_mj     reset currents J: see reset_currents
    s_j[t]  = [V_j[t] > threshold]

With one decay for all synapses of a neuron and for its reset it is the usual leaky neuron (Proposition 1 of the paper).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit import checks
from delaykit.errors import ConfigError
from delaykit_hetsyn.component import Decays
from delaykit_hetsyn.connection import HetSynConnection
from delaykit_hetsyn.reset_currents import Jumps, ResetCurrent, SelfCurrent, gather
from delaykit_hetsyn.rollout import rollout
from delaykit_hetsyn.surrogates import Surrogate, TriangularSurrogate
from delaykit_hetsyn.time_constants import Taus

RESET_MS = 20.0  # time constant of the reset current in the paper's speech and pattern tasks


class State(NamedTuple):
    """What a layer remembers between two steps."""

    input: Tensor
    recurrent: Tensor | None
    own: Tensor
    spikes: Tensor
    membrane: Tensor


@checks.annotated
class HetSynLIF(nn.Module):
    """A layer of neurons with synapse-specific time constants.

    Args:
        pre: number of inputs.
        post: number of neurons.
        granularity: of the decays: ``synaptic``, ``dendritic``, ``axonal`` or ``layer``.
        recurrent: connect the neurons with each other.
        recurrent_granularity: of the recurrent decays; None: the same.
        share_decay: the recurrent connection uses the input's decays, one a layer or a neuron.
        tau: initial time constants in ms, see :mod:`delaykit_hetsyn.time_constants`.
        dt_ms: length of a step in ms.
        learn: train the decays.
        frozen: share of the decays that stay as drawn, in [0, 1].
        reset: reset currents; None: one, of jump ``threshold`` and 20 ms.
        threshold: a spike is due above it.
        surrogate: slope of a spike in the backward pass.
        detach_reset: True lets no gradient through the spikes that start reset currents.
        gain: of the input weights' normal distribution, see :class:`HetSynConnection`.
        recurrent_gain: of the recurrent weights'.
        generator: source of the draws.

    Raises:
        ConfigError: a value outside its range, or a reset that is no list of currents.

    Example:
        >>> layer = HetSynLIF(3, 4, recurrent=True, dt_ms=5.0)
        >>> spikes, membrane = layer(torch.ones(10, 2, 3))
        >>> spikes.shape, membrane.shape
        (torch.Size([10, 2, 4]), torch.Size([10, 2, 4]))

    Reference:
        Deng et al., "HetSyn: versatile timescale integration in spiking neural networks via heterogeneous synapses".
    """

    def __init__(
        self,
        pre: int,
        post: int,
        *,
        granularity: str = "synaptic",
        recurrent: bool = False,
        recurrent_granularity: str | None = None,
        share_decay: bool = False,
        tau: Taus = ("normal", 20.0, 5.0),
        dt_ms: float = 1.0,
        learn: bool = True,
        frozen: float = 0.0,
        reset: Sequence[SelfCurrent] | None = None,
        threshold: float = 1.0,
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        gain: float = 1.0,
        recurrent_gain: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        checks.number("HetSynLIF.threshold", threshold, above=0)
        for flag, value in (("recurrent", recurrent), ("share_decay", share_decay), ("detach_reset", detach_reset)):
            checks.flag(f"HetSynLIF.{flag}", value)
        options: dict[str, Any] = {"tau": tau, "dt_ms": dt_ms, "learn": learn, "frozen": frozen, "generator": generator}
        self.input = HetSynConnection(pre, post, granularity, gain=gain, **options)
        self.recurrent: HetSynConnection | None = None
        if recurrent:
            self.recurrent = HetSynConnection(
                post, post, recurrent_granularity or granularity, gain=recurrent_gain,
                share=self.input if share_decay else None, **options,
            )  # fmt: skip
        if reset is None:
            reset = [ResetCurrent(math.exp(-dt_ms / RESET_MS), threshold)]
        if not isinstance(reset, (tuple, list)) or not all(isinstance(current, SelfCurrent) for current in reset):
            fix = "pass reset=[ResetCurrent(kappa, theta)], [] for no reset"
            raise ConfigError("HetSynLIF.reset", checks.shown(reset), "a list of reset currents", fix)
        self.reset = nn.ModuleList(reset)
        self.threshold = float(threshold)
        self.surrogate = surrogate or TriangularSurrogate(self.threshold)
        self.detach_reset = detach_reset
        self.jumps(self.input.decay)  # says at once if a reset has no decay to follow

    def jumps(self, like: Tensor) -> Jumps:
        """Return the reset currents, in the dtype and on the device of ``like``."""
        decay = self.input.decays()
        synapses = decay.flatten() if decay.shape[1] == 1 else None
        return gather(list(self.reset), synapses, like, self.post)  # type: ignore[arg-type]

    @property
    def post(self) -> int:
        """Number of neurons."""
        return self.input.weight.shape[0]

    def forward(self, spikes: Tensor) -> tuple[Tensor, Tensor]:
        """Run a sequence: ``(time, batch, pre) -> (spikes, membrane)``, ``(time, batch, post)`` each."""
        drive = self.input(spikes)
        weight, decay = (None, None) if self.recurrent is None else (self.recurrent.weight, self.recurrent.decays())
        return rollout(drive, weight, decay, self.jumps(drive), self.surrogate, self.threshold, self.detach_reset)

    def start(self, batch: int) -> State:
        """Return the state before the first step."""
        zero = self.input.weight.new_zeros(batch, self.post)
        recurrent = None if self.recurrent is None else self.recurrent.start(batch)
        return State(self.input.start(batch), recurrent, zero.new_zeros(batch, len(self.reset), self.post), zero, zero)

    def step(self, spikes: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance one step by plain autograd: the judge of the fused sequence.

        Args:
            spikes: ``(batch, pre)``.
            state: from :meth:`start` or from here.

        Returns:
            Spikes ``(batch, post)``, and the state, which holds the membrane.
        """
        current, kept = self.input.step(spikes, state.input)
        jumps = self.jumps(current)
        membrane, recurrent = current, state.recurrent
        if self.recurrent is not None and recurrent is not None:
            back, recurrent = self.recurrent.step(state.spikes, recurrent)
            membrane = membrane + back
        early = (state.spikes.detach() if self.detach_reset else state.spikes).unsqueeze(1)
        jump = jumps.amplitude + jumps.wipes[:, None] * jumps.decay * state.membrane.unsqueeze(1)
        own = jumps.decay * state.own + jump * early
        membrane = membrane - own.sum(1)
        fired = self.surrogate(membrane - self.threshold)
        return fired, State(kept, recurrent, own, fired, membrane)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold:g}, {self.surrogate}" + (", detached reset" if self.detach_reset else "")


@checks.annotated
def project_(net: nn.Module) -> None:
    """Bring all decays of a model's HetSyn layers back into [0, 1], and frozen ones to where they were.

    Args:
        net: a model with HetSyn layers.
    """
    for module in net.modules():
        if isinstance(module, (Decays, SelfCurrent)):
            module.project_()


@checks.annotated
def attach(optimizer: torch.optim.Optimizer, net: nn.Module) -> torch.utils.hooks.RemovableHandle:
    """Project the decays after every step of the optimizer: :func:`delaykit.attach`, which layers take part in, too.

    Args:
        optimizer: what trains the decays.
        net: a model with HetSyn layers, or a wrapped one.
    """
    return dk.attach(optimizer, net)


@checks.annotated
def param_groups(net: nn.Module, lr: float, decay_lr: float | None = None) -> list[dict[str, Any]]:
    """Split a model's parameters as :func:`delaykit.param_groups` does, with one rate for weights and decays.

    Args:
        net: a model with HetSyn layers.
        lr: rate of the weights.
        decay_lr: rate of the decays; None: the same.

    Returns:
        Two groups, named ``weights`` and ``decays``; decays get no weight decay, which would shorten them.
    """
    weights, decays = dk.param_groups(net, lr, decay_lr or lr)
    del weights["weight_decay"]  # the optimizer's own
    return [weights | {"name": "weights"}, decays | {"name": "decays"}]

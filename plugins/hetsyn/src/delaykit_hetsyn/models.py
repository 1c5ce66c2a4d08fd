"""The paper's four models, each feed-forward or recurrent: eight configurations of one class of layer.

| model | decays | threshold |
|---|---|---|
| ``HomNeuLIF`` | one for all, fixed | fixed |
| ``HomNeuALIF`` | one for all, fixed | adapts, by a second current |
| ``HetNeuLIF`` | one a neuron, learned | fixed |
| ``HetSynLIF`` | one a synapse, learned | fixed |

The reset current decays with one fixed time constant tau_J, the same in all four; it follows no learned decay.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import ConfigError
from delaykit_hetsyn.connection import HetSynConnection
from delaykit_hetsyn.layer import HetSynLIF
from delaykit_hetsyn.reset_currents import AdaptationCurrent, ResetCurrent, SelfCurrent
from delaykit_hetsyn.surrogates import Surrogate, TriangularSurrogate
from delaykit_hetsyn.time_constants import Taus, mean

MODELS = ("HomNeuLIF", "HomNeuALIF", "HetNeuLIF", "HetSynLIF")


@checks.annotated
@dataclasses.dataclass(frozen=True)
class Neurons:
    """What the neurons of a network have in common.

    Args:
        dt_ms: length of a step in ms.
        tau: distribution of time constants in ms, of heterogeneous models.
        tau_homogeneous: the time constant of homogeneous models in ms; None: the mean of ``tau``.
        tau_reset: tau_J, time constant of the reset current in ms; None: the decay of the neuron's synapses, which
            makes the usual leaky neuron and is not to be had with HetSynLIF.
        tau_adaptation: of HomNeuALIF's adaptation in ms.
        adaptation: its jump.
        threshold: a spike is due above it.
        surrogate: slope of a spike; None: a triangle as wide as the threshold.
        detach_reset: True lets no gradient through the spikes that start reset currents.
        gain: of the input weights of every layer.
        recurrent_gain: of the recurrent weights.
        readout_gain: of the readout's weights.
        frozen: share of a layer's decays that are not learned, in [0, 1].
    """

    dt_ms: float = 1.0
    tau: Taus = ("normal", 20.0, 5.0)
    tau_reset: float | None = 20.0
    tau_adaptation: float = 500.0
    adaptation: float = 0.01
    threshold: float = 1.0
    surrogate: Surrogate | None = None
    detach_reset: bool = False
    gain: float = 1.0
    recurrent_gain: float = 1.0
    readout_gain: float = 1.0
    frozen: float = 0.0
    tau_homogeneous: float | None = None

    def __post_init__(self) -> None:
        for name in ("dt_ms", "tau_adaptation"):
            checks.number(f"Neurons.{name}", getattr(self, name), above=0, what="number of ms")
        for name in ("tau_reset", "tau_homogeneous"):
            if getattr(self, name) is not None:
                checks.number(f"Neurons.{name}", getattr(self, name), above=0, what="number of ms")


class Answer(NamedTuple):
    """What a network did with a sequence.

    Args:
        readout: membrane of the readout, ``(time, batch, out)``.
        spikes: of every hidden layer, ``(time, batch, neuron)`` each, before dropout.
        membranes: of every hidden layer, same.
    """

    readout: Tensor
    spikes: list[Tensor]
    membranes: list[Tensor]


@checks.annotated
class HetSynNet(nn.Module):
    """Layers of one of the paper's models, and a readout that integrates and never spikes.

    Args:
        model: one of :data:`MODELS`.
        sizes: numbers of inputs, of neurons of each hidden layer, and of outputs.
        recurrent: connect the neurons of each hidden layer with each other (the paper's R-), or not (F-).
        neurons: what they have in common.
        dropout: probability with which a hidden neuron's spike is lost on its way to the next layer, in training.
        generator: source of the draws.

    Example:
        >>> net = HetSynNet("HetSynLIF", (3, 8, 2), recurrent=True)
        >>> net(torch.ones(10, 4, 3)).readout.shape
        torch.Size([10, 4, 2])
    """

    def __init__(
        self,
        model: str,
        sizes: Sequence[int],
        recurrent: bool = False,
        neurons: Neurons | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 3:
            fix = "pass e.g. (4, 8, 2)"
            raise ConfigError("HetSynNet.sizes", f"{tuple(sizes)}", "inputs, at least one hidden layer, outputs", fix)
        neurons = neurons or Neurons()
        checks.number("HetSynNet.dropout", dropout, least=0, most=1, what="probability")
        hidden = zip(sizes[:-2], sizes[1:-1], strict=True)
        self.layers = nn.ModuleList(make_layer(model, pre, post, recurrent, neurons, generator) for pre, post in hidden)
        self.readout = HetSynConnection(
            sizes[-2], sizes[-1], gain=neurons.readout_gain, generator=generator, **_decays(model, neurons)
        )
        self.dropout = dropout

    def forward(self, spikes: Tensor) -> Answer:
        """Run a sequence ``(time, batch, in)``."""
        fired, membranes = [], []
        for layer in self.layers:
            out, membrane = layer(spikes)
            fired.append(out)
            membranes.append(membrane)
            spikes = F.dropout(out, self.dropout, self.training) if self.dropout else out
        return Answer(self.readout(spikes), fired, membranes)


@checks.annotated
def make_layer(
    model: str, pre: int, post: int, recurrent: bool, neurons: Neurons, generator: torch.Generator | None = None
) -> HetSynLIF:
    """Configure one layer as one of the paper's models.

    Args:
        model: one of :data:`MODELS`.
        pre: number of inputs.
        post: number of neurons.
        recurrent: connect the neurons with each other.
        neurons: what they have in common.
        generator: source of the draws.

    Raises:
        ConfigError: no such model.
    """
    own = model == "HetSynLIF"
    kappa = None if neurons.tau_reset is None else math.exp(-neurons.dt_ms / neurons.tau_reset)
    reset: list[SelfCurrent] = [ResetCurrent(kappa, neurons.threshold)]
    if model == "HomNeuALIF":
        slow = math.exp(-neurons.dt_ms / neurons.tau_adaptation)
        reset.append(AdaptationCurrent(slow, neurons.adaptation))
    return HetSynLIF(
        pre, post, recurrent=recurrent, share_decay=not own, reset=reset, threshold=neurons.threshold,
        surrogate=neurons.surrogate or TriangularSurrogate(neurons.threshold), detach_reset=neurons.detach_reset,
        gain=neurons.gain, recurrent_gain=neurons.recurrent_gain, generator=generator, **_decays(model, neurons),
    )  # fmt: skip


def _decays(model: str, neurons: Neurons) -> dict[str, Any]:
    """Return what a model says about the decays of a connection."""
    common: dict[str, Any] = {"dt_ms": neurons.dt_ms, "tau": neurons.tau}
    if model in ("HomNeuLIF", "HomNeuALIF"):
        fixed = mean(neurons.tau) if neurons.tau_homogeneous is None else neurons.tau_homogeneous
        return {**common, "granularity": "layer", "tau": fixed, "learn": False}
    if model in ("HetNeuLIF", "HetSynLIF"):
        grain = "dendritic" if model == "HetNeuLIF" else "synaptic"
        return {**common, "granularity": grain, "learn": True, "frozen": neurons.frozen}
    raise ConfigError("model", repr(model), f"one of {MODELS}", "name one of them")

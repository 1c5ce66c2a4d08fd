"""snnTorch networks whose neurons have a synaptic current: what exact gradients need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.testing.nets.reference import Layer, ReferenceNeuron, surrogate_spike
from delaykit.testing.nets.snntorch import RecurrentLoop, SharedLoop
from delaykit.testing.nets.tiny import HIDDEN, LoopInside, TinyNet

ALPHA, BETA = 0.6, 0.75


class TwoStates(ReferenceNeuron):
    """``i[t] = alpha i[t-1] + I[t]``, ``V[t] = beta V[t-1] + i[t] - theta s[t-1]``; the reset passes no gradient.

    Args:
        neuron: a ``Synaptic`` or ``RSynaptic``, for its numbers.
    """

    def __init__(self, neuron: Any) -> None:
        self.neuron = neuron
        self.current: Tensor | None = None
        self.membrane: Tensor | None = None

    def step(self, current: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.zeros_like(current) if self.membrane is None else self.membrane
        kept = 0.0 if self.current is None else self.neuron.alpha * self.current
        self.current = kept + current
        reset = (before > self.neuron.threshold).to(current.dtype)
        self.membrane = self.neuron.beta * before + self.current - reset * self.neuron.threshold
        return surrogate_spike(self.membrane - self.neuron.threshold), self.membrane

    def detach(self) -> None:
        self.current = None if self.current is None else self.current.detach()
        self.membrane = None if self.membrane is None else self.membrane.detach()


class SynapticLoop(LoopInside):
    """Linear, RSynaptic, Linear, Synaptic; the time loop and the states are inside ``forward``."""

    name, library, sites = "snntorch-synaptic-loop", "snntorch", ("fc1", "rsyn1.recurrent", "fc2")

    def make(self) -> nn.Module:
        import snntorch as snn

        def recurrent() -> nn.Module:
            return snn.RSynaptic(ALPHA, BETA, linear_features=HIDDEN, spike_grad=surrogate_spike)

        net: Any = RecurrentLoop(("rsyn1", recurrent), ("syn2", _synaptic))
        with torch.no_grad():
            net.fc1.weight.mul_(1.2)
            net.fc1.bias.mul_(0.2)
            net.rsyn1.recurrent.weight.mul_(0.6)
            net.rsyn1.recurrent.bias.mul_(0.1)
            net.fc2.weight.mul_(2.5)
            net.fc2.bias.mul_(0.2)
        return net

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("fc1", "rsyn1.recurrent", TwoStates(net.rsyn1)), Layer("fc2", None, TwoStates(net.syn2))]


class SynapticShared(LoopInside):
    """One Linear under two names, before each of two Synaptic layers."""

    name, library, sites = "snntorch-synaptic-shared", "snntorch", ("a", "b")

    def make(self) -> nn.Module:
        return SharedLoop(("syn1", _synaptic), ("syn2", _synaptic))

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("a", None, TwoStates(net.syn1)), Layer("b", None, TwoStates(net.syn2))]


def _synaptic() -> nn.Module:
    import snntorch as snn

    return snn.Synaptic(ALPHA, BETA, spike_grad=surrogate_spike)


SHARED = SynapticShared()
NETS: tuple[TinyNet, ...] = (SynapticLoop(),)

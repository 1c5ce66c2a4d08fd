"""snnTorch networks whose neurons have a synaptic current: what exact gradients need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.testing.nets import HIDDEN, OUT, PRE, LoopInside, Record, TinyNet
from delaykit.testing.reference_net import Layer, ReferenceNeuron, surrogate_spike

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


class _LoopModel(nn.Module):
    def __init__(self) -> None:
        import snntorch as snn

        super().__init__()
        options: Any = {"alpha": ALPHA, "beta": BETA, "spike_grad": surrogate_spike}
        self.fc1 = nn.Linear(PRE, HIDDEN)
        self.rsyn1 = snn.RSynaptic(linear_features=HIDDEN, **options)
        self.fc2 = nn.Linear(HIDDEN, OUT)
        self.syn2 = snn.Synaptic(**options)
        with torch.no_grad():
            self.fc1.weight.mul_(1.2)
            self.fc1.bias.mul_(0.2)
            self.rsyn1.recurrent.weight.mul_(0.6)
            self.rsyn1.recurrent.bias.mul_(0.1)
            self.fc2.weight.mul_(2.5)
            self.fc2.bias.mul_(0.2)

    def forward(self, x: Tensor) -> Record:
        spk1, cur1, mem1 = self.rsyn1.reset_mem()
        cur2, mem2 = self.syn2.reset_mem()
        steps = []
        for step in x:
            spk1, cur1, mem1 = self.rsyn1(self.fc1(step), spk1, cur1, mem1)
            spk2, cur2, mem2 = self.syn2(self.fc2(spk1), cur2, mem2)
            steps.append((torch.cat([spk1, spk2], -1), torch.cat([mem1, mem2], -1)))
        return Record.of(steps)


class SynapticLoop(LoopInside):
    """Linear, RSynaptic, Linear, Synaptic; the time loop and the states are inside ``forward``."""

    name, library, sites = "snntorch-synaptic-loop", "snntorch", ("fc1", "rsyn1.recurrent", "fc2")

    def make(self) -> nn.Module:
        return _LoopModel()

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("fc1", "rsyn1.recurrent", TwoStates(net.rsyn1)), Layer("fc2", None, TwoStates(net.syn2))]


class _SharedModel(nn.Module):
    def __init__(self) -> None:
        import snntorch as snn

        super().__init__()
        self.a = nn.Linear(PRE, PRE)
        self.b = self.a
        self.syn1, self.syn2 = (snn.Synaptic(ALPHA, BETA, spike_grad=surrogate_spike) for _ in range(2))

    def forward(self, x: Tensor) -> Record:
        (cur1, mem1), (cur2, mem2) = self.syn1.reset_mem(), self.syn2.reset_mem()
        steps = []
        for step in x:
            spk1, cur1, mem1 = self.syn1(self.a(step), cur1, mem1)
            spk2, cur2, mem2 = self.syn2(self.b(spk1), cur2, mem2)
            steps.append((torch.cat([spk1, spk2], -1), torch.cat([mem1, mem2], -1)))
        return Record.of(steps)


class SynapticShared(LoopInside):
    """One Linear under two names, before each of two Synaptic layers."""

    name, library, sites = "snntorch-synaptic-shared", "snntorch", ("a", "b")

    def make(self) -> nn.Module:
        return _SharedModel()

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("a", None, TwoStates(net.syn1)), Layer("b", None, TwoStates(net.syn2))]


SHARED = SynapticShared()
NETS: tuple[TinyNet, ...] = (SynapticLoop(),)

"""snnTorch networks: the loop inside ``forward``, and ``Sequential`` with hidden states stepped from outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.testing.nets import HIDDEN, OUT, PRE, LoopInside, Record, TinyNet
from delaykit.testing.reference_net import Layer, SubtractReset, surrogate_spike


class _LoopModel(nn.Module):
    def __init__(self) -> None:
        import snntorch as snn

        super().__init__()
        self.fc1 = nn.Linear(PRE, HIDDEN)
        self.rlif1 = snn.RLeaky(beta=0.8, linear_features=HIDDEN, threshold=0.9, spike_grad=surrogate_spike)
        self.fc2 = nn.Linear(HIDDEN, OUT)
        self.lif2 = snn.Leaky(beta=0.7, threshold=0.6, spike_grad=surrogate_spike)
        _louder_(self.fc1, 3.0)
        _louder_(self.fc2, 4.0)

    def forward(self, x: Tensor) -> Record:
        spk1, mem1 = self.rlif1.init_rleaky()
        mem2 = self.lif2.init_leaky()
        steps = []
        for step in x:
            spk1, mem1 = self.rlif1(self.fc1(step), spk1, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            steps.append((torch.cat([spk1, spk2], -1), torch.cat([mem1, mem2], -1)))
        return Record.of(steps)


class SnnTorchLoop(LoopInside):
    """Linear, RLeaky, Linear, Leaky; the time loop and the states are inside ``forward``."""

    name, library, sites = "snntorch-loop", "snntorch", ("fc1", "rlif1.recurrent", "fc2")

    def make(self) -> nn.Module:
        return _LoopModel()

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("fc1", "rlif1.recurrent", _neuron(net.rlif1)), Layer("fc2", None, _neuron(net.lif2))]


class SnnTorchSequential(TinyNet):
    """``nn.Sequential`` with ``init_hidden=True``, stepped by the user after ``snntorch.utils.reset``."""

    name, library, sites, segment_sites = "snntorch-sequential", "snntorch", ("0", "2"), ("0", "2")

    def make(self) -> nn.Module:
        import snntorch as snn

        hidden = snn.Leaky(beta=0.8, threshold=0.9, init_hidden=True, spike_grad=surrogate_spike)
        out = snn.Leaky(beta=0.7, threshold=0.6, init_hidden=True, output=True, spike_grad=surrogate_spike)
        first, second = nn.Linear(PRE, HIDDEN), nn.Linear(HIDDEN, OUT)
        _louder_(first, 3.0)
        _louder_(second, 4.0)
        return nn.Sequential(first, hidden, second, out)

    def start(self, net: nn.Module) -> None:
        from snntorch import utils

        utils.reset(net)

    def advance(self, net: nn.Module, spikes: Tensor, state: Any) -> tuple[Record, Any]:
        steps = []
        for step in spikes:
            spk, mem = net(step)
            hidden = net[1].mem  # type: ignore[index]
            fired = surrogate_spike(hidden - net[1].threshold)  # type: ignore[index]
            steps.append((torch.cat([fired, spk], -1), torch.cat([hidden, mem], -1)))
        return Record.of(steps), None

    def cut(self, net: nn.Module, state: Any) -> Any:
        import snntorch as snn

        snn.Leaky.detach_hidden()

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("0", None, _neuron(net[1])), Layer("2", None, _neuron(net[3]))]  # type: ignore[index]

    def connection(self, net: nn.Module, site: str) -> tuple[Tensor, Tensor | None]:
        return _linear(net, site)


def _louder_(linear: nn.Linear, factor: float) -> None:
    """Make a default-initialised layer strong enough to fire its neurons."""
    with torch.no_grad():
        linear.weight.mul_(factor)
        linear.bias.mul_(0.5)


def _neuron(module: Any) -> SubtractReset:
    return SubtractReset(module.beta, module.threshold)


def _linear(net: nn.Module, site: str) -> tuple[Tensor, Tensor | None]:
    module: Any = net.get_submodule(site)
    return module.weight, module.bias


class _SharedModel(nn.Module):
    def __init__(self) -> None:
        import snntorch as snn

        super().__init__()
        self.a = nn.Linear(PRE, PRE)
        self.b = self.a
        self.lif1 = snn.Leaky(beta=0.8, threshold=0.9, spike_grad=surrogate_spike)
        self.lif2 = snn.Leaky(beta=0.8, threshold=0.9, spike_grad=surrogate_spike)
        _louder_(self.a, 3.0)

    def forward(self, x: Tensor) -> Record:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        steps = []
        for step in x:
            spk1, mem1 = self.lif1(self.a(step), mem1)
            spk2, mem2 = self.lif2(self.b(spk1), mem2)
            steps.append((torch.cat([spk1, spk2], -1), torch.cat([mem1, mem2], -1)))
        return Record.of(steps)


class SnnTorchShared(LoopInside):
    """One Linear under two names, before each of two Leaky layers."""

    name, library, sites = "snntorch-shared", "snntorch", ("a", "b")

    def make(self) -> nn.Module:
        return _SharedModel()

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("a", None, _neuron(net.lif1)), Layer("b", None, _neuron(net.lif2))]


SHARED = SnnTorchShared()
NETS: tuple[TinyNet, ...] = (SnnTorchLoop(), SnnTorchSequential())

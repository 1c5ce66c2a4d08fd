"""snnTorch networks: the loop inside ``forward``, and ``Sequential`` with hidden states stepped from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.testing.nets.reference import Layer, SubtractReset, surrogate_spike
from delaykit.testing.nets.tiny import HIDDEN, OUT, PRE, LoopInside, Record, TinyNet

Named = tuple[str, Callable[[], nn.Module]]


class RecurrentLoop(nn.Module):
    """Linear, recurrent neurons, Linear, neurons; the time loop and the states are inside ``forward``.

    Args:
        recurrent: name and maker of the first neurons, whose states are ``(spk, ..., mem)``.
        last: name and maker of the second ones, whose states are ``mem`` or ``(..., mem)``.
    """

    def __init__(self, recurrent: Named, last: Named) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PRE, HIDDEN)
        self.add_module(recurrent[0], recurrent[1]())
        self.fc2 = nn.Linear(HIDDEN, OUT)
        self.add_module(last[0], last[1]())
        self.names = recurrent[0], last[0]

    def forward(self, x: Tensor) -> Record:
        recurrent, last = (self.get_submodule(name) for name in self.names)
        spk1, *rest1 = _at_rest(recurrent)
        rest2 = _at_rest(last)
        steps = []
        for step in x:
            spk1, *rest1 = recurrent(self.fc1(step), spk1, *rest1)
            spk2, *rest2 = last(self.fc2(spk1), *rest2)
            steps.append((torch.cat([spk1, spk2], -1), torch.cat([rest1[-1], rest2[-1]], -1)))
        return Record.of(steps)


class SharedLoop(nn.Module):
    """One Linear under two names, ``a`` and ``b``, before each of two layers of neurons.

    Args:
        first: name and maker of the neurons after ``a``, whose states are ``mem`` or ``(..., mem)``.
        second: the same after ``b``.
    """

    def __init__(self, first: Named, second: Named) -> None:
        super().__init__()
        self.a = nn.Linear(PRE, PRE)
        self.b = self.a
        for name, make in (first, second):
            self.add_module(name, make())
        self.names = first[0], second[0]

    def forward(self, x: Tensor) -> Record:
        first, second = (self.get_submodule(name) for name in self.names)
        rest1, rest2 = _at_rest(first), _at_rest(second)
        steps = []
        for step in x:
            spk1, *rest1 = first(self.a(step), *rest1)
            spk2, *rest2 = second(self.b(spk1), *rest2)
            steps.append((torch.cat([spk1, spk2], -1), torch.cat([rest1[-1], rest2[-1]], -1)))
        return Record.of(steps)


def _at_rest(neuron: Any) -> list[Tensor]:
    states = neuron.reset_mem()
    return list(states) if isinstance(states, tuple) else [states]


class SnnTorchLoop(LoopInside):
    """Linear, RLeaky, Linear, Leaky; the time loop and the states are inside ``forward``."""

    name, library, sites = "snntorch-loop", "snntorch", ("fc1", "rlif1.recurrent", "fc2")

    def make(self) -> nn.Module:
        import snntorch as snn

        def recurrent() -> nn.Module:
            return snn.RLeaky(beta=0.8, linear_features=HIDDEN, threshold=0.9, spike_grad=surrogate_spike)

        net = RecurrentLoop(("rlif1", recurrent), ("lif2", lambda: _leaky(0.7, 0.6)))
        _louder_(net.fc1, 3.0)
        _louder_(net.fc2, 4.0)
        return net

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


def _leaky(beta: float, threshold: float) -> nn.Module:
    import snntorch as snn

    return snn.Leaky(beta=beta, threshold=threshold, spike_grad=surrogate_spike)


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


class SnnTorchShared(LoopInside):
    """One Linear under two names, before each of two Leaky layers."""

    name, library, sites = "snntorch-shared", "snntorch", ("a", "b")

    def make(self) -> nn.Module:
        net = SharedLoop(("lif1", lambda: _leaky(0.8, 0.9)), ("lif2", lambda: _leaky(0.8, 0.9)))
        _louder_(net.a, 3.0)
        return net

    def layers(self, net: nn.Module) -> list[Layer]:
        return [Layer("a", None, _neuron(net.lif1)), Layer("b", None, _neuron(net.lif2))]


SHARED = SnnTorchShared()
NETS: tuple[TinyNet, ...] = (SnnTorchLoop(), SnnTorchSequential())

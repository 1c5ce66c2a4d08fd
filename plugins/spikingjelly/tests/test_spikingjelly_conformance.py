"""The laws that every adapter owes, on networks as users of SpikingJelly write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from delaykit.testing import AdapterConformance, LibraryNet
from delaykit_spikingjelly import SpikingJellyAdapter


def loud(linear: Any, factor: float) -> Any:
    with torch.no_grad():
        linear.weight.mul_(factor)
    return linear


class Stepped(LibraryNet):
    """Step by step, the loop outside, the state in the nodes."""

    name, sites = "stepped", ("0", "2")
    neurons = {"1": "kept", "3": "kept"}

    def make(self) -> nn.Module:
        first, second = neuron.IFNode(), neuron.ParametricLIFNode(decay_input=False, detach_reset=True)
        return nn.Sequential(loud(nn.Linear(6, 8), 2.5), first, loud(layer.Linear(8, 4), 5.0), second)

    def run(self, net: Any, spikes: Tensor) -> Tensor:
        functional.reset_net(net)
        return torch.stack([net(step) for step in spikes])


class Nonlinear(Stepped):
    """Nodes that bend their membranes, or have a second state."""

    name, sites = "nonlinear", ("0", "2", "4", "6")
    neurons = {"1": "kept", "3": "kept", "5": "kept", "7": "kept"}

    def make(self) -> nn.Module:
        layers = [loud(nn.Linear(6, 6), 4.0) for _ in range(4)]
        nodes = [neuron.QIFNode(), neuron.EIFNode(), neuron.IzhikevichNode(a=0.1, b=0.2), neuron.CUBALIFNode()]
        return nn.Sequential(*(part for pair in zip(layers, nodes, strict=True) for part in pair))


class MultiStep(LibraryNet):
    """Whole sequences, time first, with a readout that does not spike."""

    name, sites = "multi-step", ("0", "2", "4")
    neurons = {"1": "sequence", "3": "sequence"}
    time_dims = {"0": 0, "2": 0, "4": 0}

    def make(self) -> nn.Module:
        first = neuron.LIFNode(decay_input=False, v_reset=None, step_mode="m")
        second = neuron.ParametricLIFNode(decay_input=False, step_mode="m")
        between = loud(layer.Linear(8, 6, step_mode="m"), 5.0)
        return nn.Sequential(loud(nn.Linear(6, 8), 3.0), first, between, second, nn.Linear(6, 3))

    def run(self, net: Any, spikes: Tensor) -> Tensor:
        functional.reset_net(net)
        return net(spikes)


class Contained(MultiStep):
    """A time loop inside a container, and a feedback by concatenation."""

    name, sites = "contained", ("0.0", "1.rc")
    neurons = {"0.1": "kept", "1.sub_module": "kept"}
    time_dims: Mapping[str, int] = {}

    def make(self) -> nn.Module:
        steps = layer.MultiStepContainer(loud(nn.Linear(6, 8), 3.0), neuron.IFNode())
        feedback = layer.LinearRecurrentContainer(neuron.LIFNode(decay_input=False), 8, 8, step_mode="m")
        loud(feedback.rc, 3.0)
        return nn.Sequential(steps, feedback)


class Merged(MultiStep):
    """Time and batch in one dimension; by hand, the same layers on sequences as they are."""

    name, sites = "merged", ("0.0", "2.0")
    neurons = {"1": "sequence", "3": "sequence"}

    def make(self) -> nn.Module:
        nodes = [neuron.LIFNode(decay_input=False, step_mode="m") for _ in range(2)]
        first = layer.SeqToANNContainer(loud(nn.Linear(6, 8), 3.0))
        second = layer.StepModeContainer(False, "m", loud(nn.Linear(8, 4), 5.0))
        return nn.Sequential(first, nodes[0], second, nodes[1])

    def by_hand(self, net: Any, spikes: Tensor, delays: Mapping[str, Tensor], granularity: str) -> Tensor:
        flat = nn.Sequential(net[0][0], net[1], net[2][0], net[3])
        return Flat().by_hand(flat, spikes, {site[0]: delay for site, delay in delays.items()}, granularity)


class Flat(MultiStep):
    """The layers of :class:`Merged` without their containers."""

    time_dims = {"0": 0, "2": 0}


class TestSpikingJelly(AdapterConformance):
    adapter = SpikingJellyAdapter
    nets = (Stepped(), Nonlinear(), MultiStep(), Contained(), Merged())

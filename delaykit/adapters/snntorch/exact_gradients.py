"""snnTorch's ``Synaptic`` and ``RSynaptic`` with exact gradients of spike times and resets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.exact_gradients.neurons import ExactNeuron, Slopes
from delaykit.functional.eager import eager
from delaykit.functional.event_gradients.rule import Continued, Emission, Replaced

SUBTRACT, ZERO = 0, 1  # snnTorch's reset_mechanism_val


class ExactSynaptic:
    """Mixin between snnTorch's own hooks: ``mem_reset`` begins a step, ``fire`` ends it.

    A spike of step t - 1 resets in step t: ``mem[t] = beta mem[t-1] + syn[t] - theta``, or 0. Either way the gradient
    is that of ``beta v+ + syn[t]``, v+ the membrane behind the reset.
    """

    keeps_signature = True

    @eager
    def mem_reset(self, mem: Tensor) -> Tensor:
        """Begin a step: what the last spike left behind goes on with the gradient of a reset."""
        reset = super().mem_reset(mem)  # type: ignore[misc]
        own: Any = self
        exact = _exact(own)
        exact.restarted = None
        if not exact.active or not mem.requires_grad:
            return reset
        slopes = _slopes(own, mem)
        with torch.no_grad():
            decayed = slopes.alpha * own.syn
            before = slopes.at(decayed, mem)
            subtracts = int(own.reset_mechanism_val) == SUBTRACT
            after = slopes.at(decayed, mem - slopes.threshold if subtracts else 0.0)
            ratio = torch.where(reset > 0, after / slopes.firing(before), 1.0)
        mem = Continued.apply(mem, ratio, mem)
        if subtracts:
            own.mem = mem
        elif int(own.reset_mechanism_val) == ZERO:
            exact.restarted = mem
        return reset

    @eager
    def fire(self, mem: Tensor) -> Tensor:
        """End a step: spikes as the library makes them, whose times have a gradient."""
        own: Any = self
        exact = _exact(own)
        restarted, exact.restarted = exact.restarted, None
        if restarted is not None:
            own.mem = mem = Replaced.apply(mem, own.beta.clamp(0, 1) * restarted + own.syn, own.reset)
        spikes = super().fire(mem)  # type: ignore[misc]
        if not exact.active or not mem.requires_grad:
            return spikes
        slopes = _slopes(own, mem)
        with torch.no_grad():
            slope = slopes.firing(slopes.at(slopes.alpha * own.syn, mem))
        return Emission.apply(spikes, mem, slope)


def _exact(neuron: nn.Module) -> ExactNeuron:
    exact: ExactNeuron = neuron.__dict__["_dk"].exact
    return exact


def _slopes(neuron: Any, like: Tensor) -> Slopes:
    constants = (neuron.alpha, neuron.beta, neuron.threshold, neuron.reset_mechanism_val)
    return _exact(neuron).slopes(neuron, constants, like)

"""Neurons in exact gradients: which of them the rule holds for, and what a spike and a reset do to a gradient.

A wrapped neuron goes on computing its library's own values, bit by bit. Its mixin adds to each step
:class:`~delaykit.functional.event_gradients.Emission` and :class:`~delaykit.functional.event_gradients.Continued`,
which turn the gradients of spike times and of reset membranes into those of continuous time. Only neurons with an exact
connection into them or out of them get one; with all of these switched off (``dk.disabled``) the mixin does nothing.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.attachment import Attachment
from delaykit.attaching.neuron_reading import ReadsNeurons
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.engine_base import version_of
from delaykit.functional.event_gradients.rule import NeuronConstants

DELTA = "it has no synaptic current: its membrane jumps when a spike arrives, so that spikes coincide with arrivals"
Number = float | Tensor


def refusal(dynamics: LIFDynamics | None, emits: bool) -> str:
    """Say why a neuron cannot take part in exact gradients; "" where it can.

    Args:
        dynamics: what the neuron is, None if it is no leaky integrator that delaykit knows.
        emits: whether its own spikes' times must have a gradient.
    """
    if dynamics is None:
        return "delaykit knows no rule for it: only for plain leaky neurons with a synaptic current"
    if dynamics.synapse_decay is None:
        return DELTA
    for name, value in (("synaptic", dynamics.synapse_decay), ("membrane", dynamics.decay)):
        if not bool((torch.as_tensor(value) > 0).all()):
            return DELTA if name == "synaptic" else "its membrane keeps nothing from step to step"
    if dynamics.reset_when == "both":
        return "it resets twice, at the end and at the beginning of a step; use reset_delay=True"
    if emits and not dynamics.spiking:
        return "it does not spike"
    if emits and dynamics.reset == "none":
        return "it is never reset: above the threshold it spikes at every step, at no time of its own"
    return ""


def constants_of(dynamics: LIFDynamics) -> NeuronConstants:
    """Read the time constants off a neuron, detached."""

    def plain(value: Any) -> Tensor:
        return torch.as_tensor(value).detach().double()

    numbers = dynamics.synapse_decay, dynamics.decay, dynamics.gain, dynamics.rest
    return NeuronConstants(*(plain(number) for number in numbers))


class Slopes:
    """What a neuron needs at each step: ``v' = current x_decayed - membrane (v - rest)`` and its least value."""

    def __init__(self, dynamics: LIFDynamics, dtype: torch.dtype, device: torch.device) -> None:
        constants = constants_of(dynamics)
        current, membrane = constants.slope()

        def number(value: Tensor) -> Number:
            return float(value) if value.numel() == 1 else value.to(device, dtype)

        self.current, self.membrane = number(current), number(membrane)
        self.alpha, self.rest = number(constants.alpha), number(torch.as_tensor(constants.rest))
        self.threshold = number(torch.as_tensor(dynamics.threshold).detach().double())
        self.least = number(constants.least(dynamics.threshold))

    def at(self, decayed: Tensor, membrane: Tensor | Number) -> Tensor:
        """Return v', given the current at the end of a step."""
        return self.current * decayed - self.membrane * (membrane - self.rest)

    def firing(self, slope: Tensor) -> Tensor:
        """Return the slope of a crossing from below, no less than a grazing one's."""
        least: Any = self.least
        return slope.clamp(min=least)


class ExactNeuron:
    """What a mixin keeps beside a neuron: the exact connections it takes part in, and its slopes.

    Args:
        adapter: who reads the neuron's dynamics.

    Attributes:
        restarted: for mixins, what is behind a reset within a step.
    """

    def __init__(self, adapter: ReadsNeurons) -> None:
        self.adapter = adapter
        self.restarted: Tensor | None = None
        self.attachments: list[Attachment] = []
        self._slopes: Slopes | None = None
        self._constants: tuple[Any, ...] = ()  # held, so that no other tensor gets their addresses
        self._made_for: tuple[Any, ...] = ()

    @property
    def active(self) -> bool:
        """Whether gradients are wanted, and any exact connection is switched on."""
        return torch.is_grad_enabled() and any(not a.off for a in self.attachments)

    def slopes(self, module: nn.Module, constants: tuple[Any, ...], like: Tensor) -> Slopes:
        """Return the slopes of a neuron whose equations rest on ``constants``; made anew when one of these changed."""
        state = (*map(_state_of, constants), like.dtype, like.device)
        same = len(constants) == len(self._constants) and all(map(operator.is_, constants, self._constants))
        if self._slopes is None or not same or state != self._made_for:
            dynamics = self.adapter.dynamics(module)
            assert dynamics is not None
            self._slopes = Slopes(dynamics, like.dtype, like.device)
            self._constants, self._made_for = constants, state
        return self._slopes

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_slopes": None, "_constants": (), "_made_for": (), "restarted": None}


def _state_of(value: Any) -> Any:
    """Return what changes when a tensor is written to, or moved; numbers stand for themselves."""
    if isinstance(value, Tensor):
        return value.data_ptr(), version_of(value)
    return value

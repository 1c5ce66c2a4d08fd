"""The fused recurrence: neuron and connection step by step, without a graph, and one hand-written adjoint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from delaykit.functional.derivatives import first_only
from delaykit.functional.dynamics import PARAMETERS, LIFDynamics
from delaykit.functional.recurrence.connection.base import (
    Connect,
    Fading,
    Inputs,
    Parts,
    RecurrentConnection,
    SparseTaps,
)
from delaykit.functional.recurrence.connection.decay import Lingering
from delaykit.functional.recurrence.connection.spreads import packed
from delaykit.functional.recurrence.connection.taps import connect
from delaykit.functional.recurrence.neuron.base import BackwardNeuron, ForwardNeuron, pack
from delaykit.functional.recurrence.state import Recurrence, RolloutState
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents, Tents


class Chip(NamedTuple):
    """What a backend brings along: the rest of the recurrence is the same on all of them.

    Args:
        forward: runs the neuron.
        backward: runs its adjoint; it reads what ``forward`` kept.
        connection: what connections are made from.
    """

    forward: Callable[..., ForwardNeuron]
    backward: Callable[..., BackwardNeuron]
    connection: Parts


def run(
    chip: Chip, currents: Tensor, given: Recurrence, dynamics: LIFDynamics, state: RolloutState, mask: Tensor | None
) -> tuple[Tensor, Tensor, RolloutState]:
    """Run :func:`delaykit.functional.recurrence.rollout`, whose arguments the others are, checked."""
    make, weight, index, value = _connect(chip, given, currents)
    start = state.tensors(dynamics, currents)
    parameters = dynamics.parameters(currents)
    synapse = start[1]
    if not dynamics.synapse_state_decayed:  # the adjoint is written for alpha i_t
        synapse = parameters["synapse_decay"] * synapse
    spikes, membrane, current = _Recurrence.apply(
        _Setup(chip, dynamics, make), currents, _fitted(weight, currents), _fitted(given.bias, currents), index, value,
        _fitted(mask, currents), start[0], synapse, start[2], *(parameters[name] for name in PARAMETERS),
    )  # fmt: skip
    last = None
    if dynamics.synapse_decay is not None:
        last = parameters["synapse_decay"] * current if dynamics.synapse_state_decayed else current
    return spikes, membrane, RolloutState(spikes[-1], last, membrane[-1])


def _connect(
    chip: Chip, given: Recurrence, currents: Tensor
) -> tuple[Connect | None, Tensor | None, Tensor | None, Tensor | None]:
    """Choose what makes the connection: that, the weight, and the tensors of its delays or decays."""
    weight, _, through = given
    if isinstance(through, RecurrentConnection):
        return functools.partial(_own, through), None, None, None
    if weight is None:
        return None, None, None, None
    if isinstance(through, Tents):
        make = chip.connection.tents(through, currents)
        if make is not None:
            scale = through.scale()
            return make, weight if scale is None else weight * scale.to(weight), None, through.delays
        through = through.taps()
    if isinstance(through, OwnTents):
        make = chip.connection.tents(through, currents)
        if make is not None:
            return make, weight, None, packed(through)
        through = through.taps()
    if isinstance(through, Fading):
        factors = torch.stack([through.decay, through.beyond]).to(currents)
        return functools.partial(_lingering, chip.connection), weight, None, factors
    if isinstance(through, Taps):
        index, value, order = SparseTaps.of(through, currents)
        return functools.partial(_tapped, chip.connection, order), weight, index, value
    return functools.partial(_bare, chip.connection), weight, None, None


def _own(connection: RecurrentConnection, *_: Any) -> RecurrentConnection:
    return connection


def _lingering(parts: Parts, weight: Tensor, _: None, factors: Tensor, steps: int) -> RecurrentConnection:
    return Lingering(parts, weight, factors)


def _tapped(parts: Parts, order: int, weight: Tensor, index: Tensor, value: Tensor, steps: int) -> RecurrentConnection:
    return connect(parts, weight, SparseTaps(index, value, order), steps)


def _bare(parts: Parts, weight: Tensor, _: None, value: None, steps: int) -> RecurrentConnection:
    return connect(parts, weight, None, steps)


class _Setup(NamedTuple):
    """What the adjoint needs besides tensors."""

    chip: Chip
    dynamics: LIFDynamics
    make: Connect | None

    def connection(
        self, weight: Tensor | None, index: Tensor | None, value: Tensor | None, steps: int
    ) -> RecurrentConnection | None:
        """Make the connection anew, for one pass over the steps."""
        if self.make is None:
            return None
        weight, value = (None if x is None else x.detach() for x in (weight, value))
        return self.make(weight, index, value, steps)


class _Recurrence(torch.autograd.Function):
    """Spikes, membrane and last synaptic current of a whole sequence, and their adjoint."""

    @staticmethod
    def forward(ctx: Any, setup: _Setup, drive: Tensor, weight: Tensor | None, bias: Tensor | None,
                index: Tensor | None, value: Tensor | None, mask: Tensor | None, spikes: Tensor, synapse: Tensor,
                membrane: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        p = pack(setup.dynamics, parameters)
        steps, _, neurons = drive.shape
        connection = setup.connection(weight, index, value, steps)
        needs = ctx.needs_input_grad
        neuron = setup.chip.forward(
            setup.dynamics, p, drive.detach().contiguous(), synapse.detach(), membrane.detach(),
            p.new_zeros(neurons) if bias is None else bias.detach(), None if mask is None else mask.contiguous(),
            any(needs[11:13]),
        )  # fmt: skip
        if connection is None:
            neuron.run()
        else:
            neuron.run_through(connection, spikes.detach())
        ctx.set_materialize_grads(False)  # the membrane's gradient is often absent, and large
        ctx.setup, ctx.posts = setup, setup.dynamics.immediate_reset
        ctx.save_for_backward(
            p, weight, index, value, mask, spikes, membrane, neuron.first_reset, neuron.spikes, neuron.membrane,
            neuron.u if ctx.posts else None, neuron.current if neuron.keep else None,
            None if connection is None else connection.delayed,
        )  # fmt: skip
        return neuron.spikes, neuron.membrane, neuron.current[-1].clone()

    @staticmethod
    @first_only("rollout")
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_membrane: Tensor | None, grad_current: Tensor | None
    ) -> tuple[Any, ...]:
        p, weight, index, value, mask, spikes0, membrane0, first, spikes, membrane, u, current, kept = ctx.saved_tensors
        setup, needs, steps = ctx.setup, ctx.needs_input_grad, len(spikes)
        neuron = setup.chip.backward(
            setup.dynamics, p, spikes, membrane, u if ctx.posts else membrane, membrane0.detach(), first,
            torch.zeros_like(spikes) if grad_spikes is None else grad_spikes,
            torch.zeros_like(first).unsqueeze(0) if grad_membrane is None else grad_membrane,
            None if mask is None else mask.contiguous(),
            2 if any(needs[14:]) else int(any(needs[10:14])),
        )  # fmt: skip
        connection = setup.connection(weight, index, value, steps)
        x = Inputs(spikes0.detach(), spikes)
        if connection is not None:
            connection.inputs = x if needs[2] or needs[5] else None
        grad_x = None
        if connection is None and grad_current is None:
            neuron.run(steps)
        else:
            grad_x = neuron.run_through(connection, steps, grad_current)
        neuron.finish()
        grad_weight = grad_bias = grad_value = None
        if connection is not None and any((needs[2], needs[3], needs[5])):
            grad = neuron.grad_drive if mask is None else neuron.grad_drive * mask
            grad_bias = grad.sum((0, 1)) if needs[3] else None
            if needs[2] or needs[5]:
                grad_weight, grad_value = connection.gradients(x, kept, grad, (needs[2], needs[5]))
        return (
            None, neuron.grad_drive, grad_weight, grad_bias, None, grad_value, None,
            None if grad_x is None else grad_x.clone(), neuron.grad_i, neuron.grad_v,
            *neuron.parameter_gradients(current, needs[10:]),
        )  # fmt: skip


def _fitted(tensor: Tensor | None, currents: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(currents)

"""What a rollout starts from and ends in, what it takes for a recurrent connection, and what it refuses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from delaykit.errors import ConfigError, HistoryError, ShapeError
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.inputs import check_operands
from delaykit.functional.recurrence.connection.base import Fading, RecurrentConnection
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents, Tents

HALF = (torch.float16, torch.bfloat16)  # computed in float32


class RolloutState(NamedTuple):
    """State between two sequences, each ``(batch, post)`` or None for its value at rest.

    Args:
        spikes: spikes of the last step.
        synapse: synaptic current as the neuron's library keeps it; None where the neuron has none.
        membrane: membrane after the last step.
    """

    spikes: Tensor | None = None
    synapse: Tensor | None = None
    membrane: Tensor | None = None

    def tensors(self, dynamics: LIFDynamics, currents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return all three, ``(batch, post)``, with the values at rest where there were none."""
        rest = (torch.zeros_like(currents[0]), *dynamics.start(currents[0]))
        given = [one if own is None else own for own, one in zip(self, rest, strict=True)]
        spikes, synapse, membrane = (_placed(tensor, currents) for tensor in given)
        return spikes, synapse, membrane


def _placed(tensor: Tensor, currents: Tensor) -> Tensor:
    try:
        return tensor.to(currents).expand(currents.shape[1:]).contiguous()
    except RuntimeError:
        expected, fix = f"{tuple(currents.shape[1:])}", "pass the state of a rollout of this width and batch, or None"
        raise ShapeError("rollout(state)", f"shape {tuple(tensor.shape)}", expected, fix) from None


class Recurrence(NamedTuple):
    """A recurrent connection as :func:`~delaykit.functional.recurrence.rollout` takes it.

    Args:
        weight: ``(post, post)``; None for no recurrence, or where ``through`` holds the weights.
        bias: ``(post,)``, part of the recurrent current, or None.
        through: delays or decays of the spikes on their way; None: they arrive a step later.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    through: Taps | Tents | OwnTents | Fading | RecurrentConnection | None = None


def check(currents: Tensor, weight: Tensor | None, bias: Tensor | None, taps: Taps | Tents | OwnTents | Fading | None,
          dynamics: LIFDynamics | None, mask: Tensor | None) -> None:  # fmt: skip
    """Raise for tensors that do not fit the currents, a surrogate that is none, and a recurrence without spikes."""
    optional = ("bias", "recurrent_mask", "weight")
    check_operands("rollout", optional=optional, currents=currents, weight=weight, bias=bias, recurrent_mask=mask)
    if currents.dim() != 3 or not currents.is_floating_point():
        found = f"{currents.dtype} of shape {tuple(currents.shape)}"
        fix = "stack the steps, and convert with .float()"
        raise ShapeError("rollout(currents)", found, "floating point (time, batch, post)", fix)
    _, batch, post = currents.shape
    expected = {"weight": (weight, (post, post)), "bias": (bias, (post,)), "recurrent_mask": (mask, (batch, post))}
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            found = f"shape {tuple(tensor.shape)} for currents {tuple(currents.shape)}"
            raise ShapeError(
                f"rollout({name})", found, f"{shape}", "one current for each neuron, behind time and batch"
            )
    if taps is not None and any(size not in (1, post) for size in taps.shape):
        fix = "make the taps from delays of the recurrent connection"
        raise ShapeError("rollout(taps)", f"delays of shape {taps.shape}", f"1 or {post} in both places", fix)
    if dynamics is not None:
        dynamics.check_surrogate(currents.float() if currents.dtype in HALF else currents)
    if weight is not None and dynamics is not None and not dynamics.spiking:
        raise ConfigError(
            "rollout", "a recurrent weight for a neuron without surrogate", "a spiking neuron", "pass weight=None"
        )


def check_state(state: RolloutState, weight: Tensor | None, taps: Taps | Tents | OwnTents | Fading | None) -> None:
    """Raise where a delayed connection is to continue from spikes that it does not remember."""
    if taps is not None and weight is not None and state.spikes is not None and taps.memory() > 1:
        raise HistoryError(
            "rollout",
            "a state with spikes for a connection with delays, which needs the spikes before them too",
            "state.spikes=None",
            "run the whole sequence at once, or start anew",
        )

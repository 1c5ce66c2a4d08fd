"""What recurrent synapses bring to a step: all past spikes through the dense response, as the equation stands."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.recurrence.connection.base import Fading
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents, Tents


def dense_response(weight: Tensor, through: Taps | Tents | OwnTents | Fading | None, currents: Tensor) -> Tensor:
    """Write out ``K (post, pre, tau)``, as many steps as the sequence has."""
    weight, depth = weight.to(currents), len(currents)
    if through is None:
        return weight.unsqueeze(-1)
    if isinstance(through, Fading):
        decay, beyond = through.decay.to(currents), through.beyond.to(currents)
        return torch.stack([weight, *(beyond * decay**tau for tau in range(depth - 1))], -1)
    taps = through.taps() if isinstance(through, (Tents, OwnTents)) else through
    depth = min(int(taps.index.max()) + 1, depth)
    return weight.unsqueeze(-1) * taps.response(depth).to(weight)


def driven(
    drive: Tensor, spikes: list[Tensor], response: Tensor | None, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    """Add to the drive what the spikes so far bring through the dense response; the last of them is tau = 0."""
    if response is None:
        return drive
    window = torch.stack(spikes[: -response.shape[-1] - 1 : -1])  # (tau, batch, pre)
    current = torch.einsum("tbj,ijt->bi", window, response[..., : len(window)])
    current = current if bias is None else current + bias.to(current)
    return drive + (current if mask is None else mask.to(current) * current)

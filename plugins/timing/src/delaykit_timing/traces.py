"""Potentials between the spikes, for pictures and analysis."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ShapeError
from delaykit_timing.dynamics import membrane_response
from delaykit_timing.events import Events
from delaykit_timing.layer import MultiSpikeLIF


@checks.annotated
@torch.no_grad()
def membrane_trace(
    layer: MultiSpikeLIF, events: Events, sample: int, neuron: int, when: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute one neuron's potential at any times, exactly, and its spikes.

    ``V(t) = sum_{t_k <= t} w_k kappa(t - t_k)``, less what each spike at t_s took away: its reset sets V to 0 and
    leaves I, which is as if ``V(t_s) exp(-(t - t_s) / tau_membrane)`` were subtracted.

    Args:
        layer: spiking layer or readout.
        events: its input.
        sample: row of the batch.
        neuron: number of the neuron.
        when: times to compute V at, ``(time,)``; at a spike's own time the value is that after the reset.

    Returns:
        Potential ``(time,)`` and spike times ``(spike,)``, ascending.

    Example:
        >>> layer = MultiSpikeLIF(1, 1, tau_synapse=0.8)
        >>> _ = layer.weight.data.fill_(8.0)
        >>> v, spikes = membrane_trace(layer, Events.of([[0.0]], [[0]], size=1), 0, 0, torch.linspace(0, 1, 5))
        >>> bool((v <= 1).all()), len(spikes)
        (True, 2)
    """
    for name, index, count in (("sample", sample, len(events)), ("neuron", neuron, layer.post)):
        if not 0 <= index < count:
            raise ShapeError("membrane_trace", f"{name} {index}", f"0..{count - 1}", f"correct {name}=")
    if when.ndim != 1:
        raise ShapeError("membrane_trace", f"times of shape {tuple(when.shape)}", "(time,)", "give them in one row")
    when = when.double()
    out = layer.spikes(Events(events.times[sample : sample + 1], events.neurons[sample : sample + 1], events.size))
    spikes = out.when[out.neuron == neuron].double().sort().values
    filled = events.mask[sample]
    times, sources = events.times[sample, filled].double(), events.neurons[sample, filled]
    delays = layer.delays()
    if delays is not None:
        times = times + delays.expand(layer.post, layer.pre)[neuron, sources].double()
    elapsed = when[:, None] - times
    response = membrane_response(elapsed.clamp(min=0), layer.dynamics) * (elapsed > 0)
    arrived = response @ layer.weight[neuron, sources].double()
    since = when[:, None] - spikes
    taken = torch.exp(-since.clamp(min=0) / layer.dynamics.tau_v) * (since >= 0)
    return (arrived - layer.dynamics.threshold * taken.sum(1) if len(spikes) else arrived), spikes

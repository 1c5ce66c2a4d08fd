"""What a network costs: numbers, spikes and synaptic operations a sample.

A synaptic operation is a spike that meets a weight that is not zero, as neurobench counts effective accumulates; an
input bin with several spikes counts once. A delay adds none: the spike arrives once, later; a motif has one a tap.
Recurrent connections do not hear the last step, whose spikes would arrive after the sample.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit_lab.methods import is_wrapped


@dataclasses.dataclass(frozen=True)
class Costs:
    """Means over samples.

    Args:
        parameters: weights, biases, delays and the like, trained or frozen; zeros of pruned weights are not counted.
        spikes: spikes of all layers but the input, a sample.
        synaptic_operations: a sample, readout included; None for convolutions, where they are not counted.
    """

    parameters: int
    spikes: float | None
    synaptic_operations: float | None


def costs(net: nn.Module, spikes: Tensor) -> Costs:
    """Measure on samples ``(time, batch, channel)``; the net is left in the mode it was in.

    Example:
        >>> from delaykit_lab.models.detectors import Detectors
        >>> costs(Detectors(4, 3), torch.ones(5, 2, 4)).synaptic_operations  # 5 steps, 4 inputs, 3 synapses each
        60.0
    """
    numbers = count_parameters(net)
    if not hasattr(net, "layers"):
        return Costs(numbers, None, None)
    was_training = net.training
    net.eval()
    with torch.no_grad():
        found: list[Tensor] = net.layers(spikes)  # type: ignore[operator]
    net.train(was_training)
    batch, total, fired = spikes.shape[1], 0.0, 0.0
    taps = _motif_taps(net)
    for index, layer in enumerate(found):
        active = (layer != 0).double().sum(1)  # (time, neuron)
        if index:
            fired += float(layer.double().sum())
        for name in _reads(net, index, len(found)):
            weight = _weight(net, name)
            fan_out = (weight != 0).double().sum(0)
            if name in taps:
                fan_out = fan_out + (taps[name] != 0).double().sum((0, 2))
            heard = active[:-1] if name.startswith(f"lif{index}.") else active  # it hears the step before
            total += float((heard.sum(0) * fan_out.to(heard)).sum())
    return Costs(numbers, fired / batch, total / batch)


def count_parameters(net: nn.Module) -> int:
    """Count the numbers that make a network; weights that pruning has set to zero are none."""
    pruned: dict[int, int] = {}
    if is_wrapped(net):
        for site in dk.wrapped_sites(net):
            if site.synapse.prunings and site.weight is not None:
                pruned[id(site.weight)] = int((site.weight == 0).sum())
    return sum(p.numel() - pruned.get(id(p), 0) for p in net.parameters())


def _reads(net: nn.Module, index: int, layers: int) -> list[str]:
    """Names of the connections that hear layer ``index``."""
    names = list(net.forward_sites)  # type: ignore[arg-type]
    recurrent = list(net.recurrent_sites)  # type: ignore[arg-type]
    heard = names[index : index + 1]
    heard += [name for name in recurrent if name.startswith(f"lif{index}.")] if index else []
    if index and not recurrent and _has(net, f"lif{index}.recurrent"):
        heard.append(f"lif{index}.recurrent")
    return heard + (["out"] if index == layers - 1 and hasattr(net, "out") else [])


def _motif_taps(net: nn.Module) -> dict[str, Tensor]:
    if not is_wrapped(net):
        return {}
    found = {site.name: getattr(site.synapse.delay, "taps", None) for site in dk.wrapped_sites(net)}
    return {name: taps.detach() for name, taps in found.items() if isinstance(taps, nn.Parameter)}


def _weight(net: nn.Module, name: str) -> Tensor:
    """Weight of a connection: of its module, or of the Norse cell that has it."""
    owner, _, slot = name.rpartition(".")
    cell = net.get_submodule(owner)
    its_own = hasattr(cell, f"{slot}_weights")
    found: Any = getattr(cell, f"{slot}_weights") if its_own else net.get_submodule(name).weight
    return found.detach()


def _has(net: nn.Module, name: str) -> bool:
    try:
        return net.get_submodule(name) is not None
    except AttributeError:
        return False

"""``compact_``: give pruned connections the size and the speed that their zeros allow, for inference."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import ConfigError, Delay, Wrapped, checks, wrapped_sites
from delaykit.interfaces import PointDelay
from delaykit_sparsify.compact_parts import CompactDelay, CompactLinear
from delaykit_sparsify.sparse import SparseSynapses, arrivals_of_response, arrivals_of_taps
from delaykit_sparsify.sparsifier import CELL_WEIGHTS


@dataclasses.dataclass(frozen=True)
class Compacted:
    """What :func:`compact_` did to one connection.

    Args:
        name: site or module name.
        synapses: synapses that there could be.
        kept: synapses that are not zero.
        dense_bytes: bytes of weights and delays before.
        compact_bytes: bytes now.
        reason: why it was left dense; empty where it was not.
    """

    name: str
    synapses: int
    kept: int
    dense_bytes: int
    compact_bytes: int
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class CompactReport:
    """What :func:`compact_` did; printing it shows a table."""

    connections: tuple[Compacted, ...]

    @property
    def memory(self) -> float:
        """Bytes now over bytes before, of the connections that are compact."""
        done = [c for c in self.connections if not c.reason]
        return sum(c.compact_bytes for c in done) / max(1, sum(c.dense_bytes for c in done))

    def __str__(self) -> str:
        lines = []
        for c in self.connections:
            size = f"{c.dense_bytes / 1024:.1f} -> {c.compact_bytes / 1024:.1f} KiB"
            lines.append(f"{c.name}: {c.kept} of {c.synapses} synapses, {c.reason or size}")
        return "\n".join(lines)


@checks.annotated
def compact_(net: nn.Module, density: float = 0.5) -> CompactReport:
    """Turn pruned connections into sparse ones, in place, for inference.

    Weights and delays of pruned synapses are let go. A connection with synaptic delays, on which a spike had to look at
    every postsynaptic neuron, becomes event-driven. Outputs are equal up to the order of floating point sums. Works on
    wrapped Linear and recurrent connections with any finite delay, and on plain ``nn.Linear`` layers, which become
    :class:`CompactLinear`; convolutions, time constants and connections with many synapses are left as they are.

    Args:
        net: a model, wrapped or plain. Save it before: a compact one can be neither trained, nor unwrapped, nor saved
            by :func:`delaykit.save`; ``torch.save(net, file)`` and pickle keep it whole.
        density: connections with a larger fraction of kept synapses are left dense, in (0, 1].

    Returns:
        What was done to each connection.

    Raises:
        ConfigError: ``density`` is out of range.

    Example:
        >>> net = nn.Sequential(nn.Linear(100, 100))
        >>> with torch.no_grad():
        ...     _ = net[0].weight.mul_(torch.rand(100, 100) < 0.1)
        >>> compact_(net).memory < 0.25
        True
    """
    checks.is_model("compact_", net)
    checks.number("compact_ density", density, above=0, most=1, fix="pass e.g. 0.5")
    sites = _sites(net)
    done = [_compact_site_(site, density) for site in sites]
    wrapped = {id(m) for site in sites for m in (site.holder, *site.synapse.modules())}
    for name, module in [(n, m) for n, m in net.named_modules() if id(m) not in wrapped]:
        if type(module) is nn.Linear:
            done.append(_compact_linear_(name, module, density))
        elif isinstance(module, nn.modules.conv._ConvNd):
            done.append(_left(name, module.weight, "not a matrix"))
        for own in [n for n in CELL_WEIGHTS if isinstance(module._parameters.get(n), nn.Parameter)]:
            done.append(_left(f"{name}.{own}", module._parameters[own], "inside a cell that is not wrapped"))
    return CompactReport(tuple(done))


def _sites(net: nn.Module) -> list[Wrapped]:
    try:
        return wrapped_sites(net)
    except ConfigError:  # a plain model
        return []


def _left(name: str, weight: Any, why: str) -> Compacted:
    size = weight.numel() * weight.element_size()
    return Compacted(name, weight.numel(), int(torch.count_nonzero(weight)), size, size, f"left dense: {why}")


@torch.no_grad()
def _compact_site_(site: Wrapped, density: float) -> Compacted:
    weight, synapse = site.weight, site.synapse
    synapses, kept = (0, 0) if weight is None else (weight.numel(), site.kept or 0)
    size = sum(p.numel() * p.element_size() for p in synapse.parameters())
    size += 0 if weight is None else weight.numel() * weight.element_size()
    reason = ""
    if weight is None or weight.ndim != 2 or not synapse.site.has_matrix:
        reason = "left dense: not a matrix"
    elif synapse.heterogeneity is not None:
        reason = "left dense: each synapse has a time constant, so its response has no end"
    elif site.kept is None:
        kept, reason = getattr(synapse.delay, "kept", 0), "compact already"
    elif kept > density * synapses:
        reason = f"left dense: {kept / synapses:.0%} of its synapses are kept"
    if reason or weight is None:
        return Compacted(site.name, synapses, kept, size, size, reason)
    synapse.check()
    compact = CompactDelay(_arrivals(synapse.delay, weight), kept)
    synapse.delay, synapse.prunings = compact, []
    site.attachment.history.clear()
    _let_go_(site.holder, site.parameter)
    return Compacted(site.name, synapses, kept, size, compact.arrivals().nbytes())


@torch.no_grad()
def _compact_linear_(name: str, module: nn.Linear, density: float) -> Compacted:
    weight = module.weight
    kept, size = int(torch.count_nonzero(weight)), weight.numel() * weight.element_size()
    if kept > density * weight.numel():
        reason = f"left dense: {kept / weight.numel():.0%} of its synapses are kept"
        return Compacted(name, weight.numel(), kept, size, size, reason)
    compact = CompactDelay(arrivals_of_response(weight.unsqueeze(-1)), kept)
    del module.weight
    module.add_module("compact", compact)
    module.__class__ = CompactLinear  # type: ignore[assignment]
    if module.bias is not None:
        module.bias.requires_grad_(False)
    return Compacted(name, weight.numel(), kept, size, compact.arrivals().nbytes())


def _arrivals(delay: Delay | None, weight: Tensor) -> SparseSynapses:
    weight = weight.detach()
    if isinstance(delay, PointDelay):
        return arrivals_of_taps(weight, delay.taps())
    return arrivals_of_response(weight.unsqueeze(-1) if delay is None else delay.impulse_response(weight))


def _let_go_(holder: nn.Module, name: str) -> None:
    """Put a placeholder of the same shape and no memory there; NaN, so that nobody computes with it unnoticed."""
    own: dict[str, Any] = holder._parameters if name in holder._parameters else holder.__dict__
    nothing = torch.full((1, 1), torch.nan, dtype=own[name].dtype, device=own[name].device)
    own[name] = nn.Parameter(nothing.expand(own[name].shape), requires_grad=False)
    if isinstance(bias := getattr(holder, "bias", None), nn.Parameter):
        bias.requires_grad_(False)

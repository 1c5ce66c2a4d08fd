"""``compact_``: give pruned connections the size and the speed that their zeros allow, for inference."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import ConfigError, Delay, TrainingError, Wrapped, wrapped_sites
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.rollout_connection import Connection
from delaykit.interfaces import PointDelay
from delaykit.synapse import Engine
from delaykit_sparsify.rollout import rollout
from delaykit_sparsify.sparse import (
    Arrivals,
    Ring,
    arrivals_of_response,
    arrivals_of_taps,
    check_inference,
    dense_response,
    sparse_filter,
)


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


class CompactDelay(Delay):
    """The kept synapses of one connection, weights and delays in one list; does not learn.

    Args:
        arrivals: the synapses.
        kept: their number (a fractional delay makes two arrivals of one synapse).
    """

    holds_weight = True
    first: Tensor
    place: Tensor
    value: Tensor

    def __init__(self, arrivals: Arrivals, kept: int) -> None:
        super().__init__()
        self.outputs, self.kept, self.depth = arrivals.outputs, kept, arrivals.depth()
        self.register_buffer("first", arrivals.first)
        self.register_buffer("place", arrivals.place)
        self.register_buffer("value", arrivals.value)

    def arrivals(self) -> Arrivals:
        """Return the synapses as the operators take them."""
        return Arrivals(self.first, self.place, self.value, self.outputs)

    def impulse_response(self, weight: Tensor) -> Tensor:
        """Write the response out densely; ``weight`` is a placeholder and is not read."""
        return dense_response(self.arrivals())

    def engine(self, weight: Tensor, bias: Tensor | None) -> Engine:
        """Run event by event."""
        return CompactEngine(self.arrivals(), bias)

    def rollout_connection(self) -> Connection:
        """Run event by event inside ``dk.rollout``, too."""
        return CompactRecurrence(self.arrivals())

    def longest(self) -> int:
        """Return the largest delay."""
        return self.depth

    def extra_repr(self) -> str:
        inputs = len(self.first) - 1
        return f"compact: {self.kept} of {self.outputs * inputs} synapses, delays up to {self.depth - 1} steps"


class CompactEngine(Engine):
    """Sparse synapses, ready to run."""

    def __init__(self, arrivals: Arrivals, bias: Tensor | None) -> None:
        self.arrivals, self.bias = arrivals, bias

    def sequence(self, spikes: Tensor) -> Tensor:
        return sparse_filter(spikes, self.arrivals, self.bias)

    def tape(self) -> CompactStepper:
        return CompactStepper(Ring(self.arrivals, self.bias))

    def rebind(self, tape: Any) -> None:
        """Do nothing: the synapses never change, and the ring holds no graph."""


class CompactRecurrence(Connection):
    """Sparse synapses inside a rollout; forward only."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.arrivals = arrivals

    def begin(self, steps: int, batch: int) -> None:
        """Start with no current on its way."""
        self.ring = Ring(self.arrivals)

    def current(self, t: int, x: Tensor) -> Tensor:
        """Deliver the newest spikes and return the current of this step."""
        return self.ring.push(x)

    def at_once(
        self, currents: Tensor, bias: Tensor | None, mask: Tensor | None, dynamics: LIFDynamics
    ) -> tuple[Tensor, Tensor] | None:
        """Run all steps in one compiled loop, where there is one."""
        return rollout(self.arrivals, currents, bias, mask, dynamics)

    def begin_backward(self, steps: int, batch: int) -> None:
        """Refuse: there is nothing that could learn."""
        raise _nothing_learns()

    def pull(self, t: int, g: Tensor) -> Tensor:
        """Refuse, as :meth:`begin_backward` does."""
        raise _nothing_learns()

    def gradients(self, x: Any, delayed: Any, g: Tensor, want: Any) -> tuple[Tensor | None, Tensor | None]:
        """Refuse, as :meth:`begin_backward` does."""
        raise _nothing_learns()


def _nothing_learns() -> TrainingError:
    fix = "run under torch.no_grad(); train a copy made before compact_"
    return TrainingError("rollout", "a backward pass through compact synapses", "inference", fix)


class CompactStepper:
    """One stream in step mode."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def step(self, x: Tensor) -> Tensor:
        """Run one step: (batch, pre) -> (batch, post)."""
        check_inference("compact connection", x)
        return self.ring.push(x)

    def detach(self) -> None:
        """Do nothing: there is no graph."""


class CompactLinear(nn.Linear):
    """A plain ``nn.Linear`` after :func:`compact_`: its kept weights are in ``compact``."""

    compact: CompactDelay

    def forward(self, input: Tensor) -> Tensor:
        """Run the sparse product: (..., pre) -> (..., post)."""
        rows = input.reshape(1, -1, input.shape[-1])
        out = sparse_filter(rows, self.compact.arrivals(), self.bias)
        return out.reshape(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return self.compact.extra_repr()


def compact_(net: nn.Module, density: float = 0.5) -> CompactReport:
    """Turn pruned connections into sparse ones, in place, for inference.

    Weights and delays of pruned synapses are let go. A connection with synaptic delays, on which a spike had to look at
    every postsynaptic neuron, becomes event-driven. Outputs are equal up to the order of floating point sums. Works on
    wrapped Linear and recurrent connections with any finite delay, and on plain ``nn.Linear`` layers; convolutions,
    time constants and connections with many synapses are left as they are.

    Args:
        net: a model, wrapped or plain. Save it before: a compact one can be neither trained, nor unwrapped, nor saved
            by :func:`delaykit.save`.
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
    if not 0 < density <= 1:
        raise ConfigError("compact_", f"density={density}", "a number in (0, 1]", "pass e.g. 0.5")
    done = [_compact_site_(site, density) for site in _sites(net)]
    for name, module in net.named_modules():
        if type(module) is nn.Linear and not any(name.startswith(f"{path}.dk.") for path in _wrapped_paths(net)):
            done.append(_compact_linear_(name, module, density))
    return CompactReport(tuple(done))


def _sites(net: nn.Module) -> list[Wrapped]:
    try:
        return wrapped_sites(net)
    except ConfigError:  # a plain model
        return []


def _wrapped_paths(net: nn.Module) -> list[str]:
    return [name.rpartition(".dk")[0] for name, _ in net.named_modules() if name.endswith(".dk")]


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
        reason = "compact already"
    elif kept > density * synapses:
        reason = f"left dense: {kept / synapses:.0%} of its synapses are kept"
    if reason or weight is None:
        return Compacted(site.name, synapses, kept, size, size, reason)
    synapse.check()
    compact = CompactDelay(_arrivals(synapse.delay, weight), kept)
    synapse.delay = compact
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
    module.compact = CompactDelay(arrivals_of_response(weight.unsqueeze(-1)), kept)
    module.__class__ = CompactLinear
    _let_go_(module, "weight")
    return Compacted(name, weight.numel(), kept, size, module.compact.arrivals().nbytes())


def _arrivals(delay: Delay | None, weight: Tensor) -> Arrivals:
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

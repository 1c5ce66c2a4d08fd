"""Who is where: populations and connections of a net, what they hold, and what is odd about them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from delaykit import ConfigError, ShapeError, checks, wrapped_sites
from delaykit_spatial.connection import SpatialConnection
from delaykit_spatial.delay import SpatialDelay


@dataclasses.dataclass(frozen=True)
class SpatialLink:
    """One spatial connection of a net.

    Args:
        name: site name.
        delay: its positions and delays.
        weight: ``(post, pre)``.
    """

    name: str
    delay: SpatialDelay
    weight: Tensor

    @property
    def synapses(self) -> Tensor:
        """Which synapses there can be, ``(post, pre)`` bool: all, or all but those of a neuron with itself."""
        there = torch.ones_like(self.weight, dtype=torch.bool)
        return there.fill_diagonal_(False) if self.delay.masked else there


@checks.annotated
def links(net: nn.Module) -> dict[str, SpatialLink]:
    """List the spatial connections of a wrapped net, or of one built from this plugin's neurons, by name.

    Args:
        net: the model.

    Raises:
        ConfigError: there are none.
    """
    checks.is_model("spatial connections", net)
    found: dict[str, SpatialLink] = {}
    if any(isinstance(module, SpatialDelay) for module in net.modules()):
        own = [m for m in net.modules() if isinstance(m, SpatialConnection)]
        found = {m.delay.site.name: SpatialLink(m.delay.site.name, m.delay, m.weight) for m in own}
        if len(own) < sum(isinstance(m, SpatialDelay) for m in net.modules()):
            for site in wrapped_sites(net):
                if isinstance(site.synapse.delay, SpatialDelay) and site.weight is not None:
                    found[site.name] = SpatialLink(site.name, site.synapse.delay, site.weight)
    if not found:
        fix = "wrap connections with Spatial(...), see dk.wrap_"
        raise ConfigError("model", "no spatial connection", "a net with Spatial delays", fix)
    return found


@checks.annotated
def populations(net: nn.Module) -> dict[str, Tensor]:
    """Return the positions of every population, ``(neuron, dims)`` in length units; the Parameters themselves.

    Args:
        net: as in :func:`links`.

    Example:
        >>> import delaykit as dk
        >>> from delaykit_spatial import Spatial
        >>> net = nn.Sequential(nn.Linear(3, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(Spatial(2, pre="input", post="out"), reset="manual")})
        >>> {name: tuple(positions.shape) for name, positions in populations(net).items()}
        {'input': (3, 2), 'out': (2, 2)}
    """
    return {name: values for link in links(net).values() for name, values in link.delay.positions().items()}


@dataclasses.dataclass(frozen=True)
class ParameterAccounting:
    """What the delays of a net cost in parameters; printing it shows a table.

    Args:
        positions: by population, D N each.
        paths: by connection, parameters of single synapses: E of tortuous paths, or free lengths.
        free: by connection, what free delays would take: one for each synapse there can be.
    """

    positions: dict[str, int]
    paths: dict[str, int]
    free: dict[str, int]

    @property
    def delays(self) -> int:
        """Parameters that all delays take together."""
        return sum(self.positions.values()) + sum(self.paths.values())

    @property
    def saved(self) -> float:
        """How many times fewer delay parameters than with free delays."""
        return sum(self.free.values()) / max(1, self.delays)

    def __str__(self) -> str:
        lines = [f"{'population':24} positions"]
        lines += [f"{name:24} {count:9}" for name, count in self.positions.items()]
        lines += [f"{'connection':24}     paths  free delays would be"]
        lines += [f"{name:24} {self.paths[name]:9} {free:22}" for name, free in self.free.items()]
        total = f"{self.delays} delay parameters instead of {sum(self.free.values())}"
        return "\n".join([*lines, f"{total}: {self.saved:.1f} times fewer"])


@checks.annotated
def parameter_accounting(net: nn.Module) -> ParameterAccounting:
    """Count delay parameters: D N a population, against one a synapse.

    Args:
        net: a net with spatial connections.

    Example:
        >>> import delaykit as dk
        >>> from delaykit_spatial import Spatial
        >>> net = nn.Sequential(nn.Linear(100, 50))
        >>> _ = dk.wrap_(net, {"0": dk.At(Spatial(2), reset="manual")})
        >>> count = parameter_accounting(net)
        >>> count.delays, sum(count.free.values())
        (300, 5000)
    """
    found = links(net)
    each = {name: (link.delay.bend, link.delay.path) for name, link in found.items()}
    return ParameterAccounting(
        {name: values.numel() for name, values in populations(net).items()},
        {name: sum(p.numel() for p in parts if p is not None) for name, parts in each.items()},
        {name: int(link.synapses.sum()) for name, link in found.items()},
    )


@dataclasses.dataclass(frozen=True)
class SpatialReport:
    """What to know before and after training; printing it shows all.

    Args:
        coincident: by population, neurons that sit where another one sits (allowed; a floor keeps them apart in time).
        latency_ms: by connection, smallest, mean and largest total latency.
        beyond: by connection, synapses whose every spike arrives after the end of a sequence; empty without a length.
        steps: length of a sequence.
    """

    coincident: dict[str, int]
    latency_ms: dict[str, tuple[float, float, float]]
    beyond: dict[str, int]
    steps: int | None = None

    def __str__(self) -> str:
        shared = {name: count for name, count in self.coincident.items() if count}
        lines = [f"population {name}: {count} neurons share a place with another" for name, count in shared.items()]
        for name, (low, mean, high) in self.latency_ms.items():
            line = f"{name}: total latency {low:.2f}..{high:.2f} ms, mean {mean:.2f}"
            late = f", {self.beyond[name]} synapses never arrive within {self.steps} steps" if self.beyond else ""
            lines.append(line + late)
        return "\n".join(lines)


@checks.annotated
@torch.no_grad()
def spatial_report(net: nn.Module, steps: int | None = None) -> SpatialReport:
    """Look at positions and latencies of a net.

    Args:
        net: a net with spatial connections.
        steps: length of a sequence, to count synapses that never arrive.
    """
    found = links(net)
    latency, beyond = {}, {}
    for name, link in found.items():
        ms = link.delay.delays_ms().expand(link.weight.shape)[link.synapses]
        latency[name] = (float(ms.min()), float(ms.mean()), float(ms.max())) if ms.numel() else (0.0, 0.0, 0.0)
        if steps is not None:
            beyond[name] = int((arrival_steps(link.delay).expand(link.weight.shape)[link.synapses] >= steps).sum())
    shared = {name: _crowded(places) for name, places in populations(net).items()}
    return SpatialReport(shared, latency, beyond, steps)


def _crowded(places: Tensor) -> int:
    """Count the neurons that sit where another one sits."""
    counts = torch.unique(places, dim=0, return_counts=True)[1]
    return int(counts[counts > 1].sum())


def arrival_steps(delay: SpatialDelay) -> Tensor:
    """Return after how many whole steps a spike arrives, counted from the step in which it was fired."""
    return delay.delays().detach().round().long() + int(delay.recurrent)


@dataclasses.dataclass(frozen=True)
class LateArrivals:
    """How many arrivals a sequence is too short for.

    Args:
        total: spikes times the synapses they go to.
        late: how many of these arrive after the last step, and are lost.
        synapses: synapses through which nothing can arrive at all.
    """

    total: int
    late: int
    synapses: int

    def __str__(self) -> str:
        share = 100 * self.late / max(1, self.total)
        return f"{self.late} of {self.total} arrivals ({share:.1f} %) after the end; {self.synapses} synapses too slow"


@checks.annotated
@torch.no_grad()
def late_arrivals(delay: SpatialDelay, spikes: Tensor) -> LateArrivals:
    """Count the arrivals that fall beyond the end of a sequence. They are allowed, and lost.

    Args:
        delay: of one connection.
        spikes: what its presynaptic neurons fired, ``(time, batch, pre)``.

    Example:
        >>> from delaykit import Site
        >>> from delaykit_spatial import Spatial
        >>> far = Spatial(1, floor=0.0, init=[[0.0]], pre_init=[[1.0], [3.0]]).build(Site("fc", 2, 1))
        >>> print(late_arrivals(far, torch.ones(3, 1, 2)))
        4 of 6 arrivals (66.7 %) after the end; 1 synapses too slow
    """
    if spikes.ndim != 3 or spikes.shape[-1] != delay.site.pre:
        found = f"spikes of shape {tuple(spikes.shape)}"
        fix = "give the spikes that this connection hears"
        raise ShapeError("late_arrivals", found, f"(time, batch, {delay.site.pre})", fix)
    steps, pre = len(spikes), spikes.shape[-1]
    shape = (delay.site.post, delay.site.pre)
    there = torch.ones(shape, dtype=torch.bool, device=spikes.device)
    if delay.masked:
        there.fill_diagonal_(False)
    latest = arrival_steps(delay).to(spikes.device).expand(shape).clamp(max=steps)
    fired = (spikes != 0).sum(1)
    last = torch.cat([fired.new_zeros(1, pre), fired.flip(0).cumsum(0)])  # (k, pre): spikes in the last k steps
    late = last.gather(0, latest) * there
    total = (fired.sum(0) * there).sum()
    return LateArrivals(int(total), int(late.sum()), int(((latest >= steps) & there).sum()))

"""Who is still connected to whom: degrees, isolated neurons, communities, and which delays are kept."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from delaykit import PointDelay, ShapeError, Wrapped, checks, wrapped_sites


@dataclasses.dataclass(frozen=True)
class Connectivity:
    """The graph of one connection's kept synapses.

    Args:
        name: site name.
        inputs: ``(post,)``: number of kept inputs of each postsynaptic neuron (in-degree).
        outputs: ``(pre,)``: number of kept outputs of each presynaptic neuron (out-degree).
        delays: ``(kept,)``: delay of each kept synapse in steps; empty without a point delay.
        all_delays: ``(synapse,)``: delay of every synapse there could be.
        communities: for a recurrent connection, groups of neurons (Louvain), the largest first.
    """

    name: str
    inputs: Tensor
    outputs: Tensor
    delays: Tensor
    all_delays: Tensor
    communities: tuple[tuple[int, ...], ...] = ()

    @property
    def without_input(self) -> list[int]:
        """Postsynaptic neurons that hear nobody."""
        return (self.inputs == 0).nonzero().flatten().tolist()

    @property
    def without_output(self) -> list[int]:
        """Presynaptic neurons that nobody hears."""
        return (self.outputs == 0).nonzero().flatten().tolist()

    def __str__(self) -> str:
        parts = [
            f"{self.name}: {int(self.inputs.sum())} synapses",
            f"{float(self.inputs.float().mean()):.1f} inputs a neuron",
            f"{len(self.without_input)} without input, {len(self.without_output)} without output",
        ]
        if self.communities:
            parts.append(f"{len(self.communities)} communities, the largest of {len(self.communities[0])}")
        return ", ".join(parts)


@checks.annotated
def connectivity(net: nn.Module, communities: bool = False, seed: int = 0) -> dict[str, Connectivity]:
    """Describe the kept synapses of every wrapped connection that has a matrix.

    Args:
        net: a wrapped model.
        communities: also find the communities of recurrent connections (needs networkx; seconds for large layers).
        seed: of the Louvain method, whose order of visits is random.

    Returns:
        By site name; printing one shows a line.

    Example:
        >>> import delaykit as dk
        >>> net = nn.Sequential(nn.Linear(4, 3))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal"), reset="manual")})
        >>> graph = connectivity(net)["0"]
        >>> graph.without_input, graph.without_output, graph.outputs.tolist()
        ([2], [2, 3], [2, 1, 0, 0])
    """
    sites = [s for s in wrapped_sites(net) if s.kept is not None and s.weight is not None and s.weight.ndim == 2]
    return {site.name: _describe(site, communities, seed) for site in sites}


@checks.annotated
def kept_by_delay(delays: Tensor, kept: Tensor, bins: int = 10, largest: float | None = None) -> tuple[Tensor, Tensor]:
    """Return the fraction of synapses kept in each bin of delays.

    Args:
        delays: delay (or distance) of every synapse, any shape that broadcasts to that of ``kept``.
        kept: which synapses are kept, bool.
        bins: number of bins.
        largest: right end of the last bin; None: the largest delay.

    Returns:
        Edges ``(bins + 1,)`` and fractions ``(bins,)``; NaN where no synapse has such a delay.

    Raises:
        ShapeError: the two do not fit each other.

    Example:
        >>> edges, fraction = kept_by_delay(torch.tensor([1.0, 1, 3, 3]), torch.tensor([True, False, True, True]), 2)
        >>> edges.tolist(), fraction.tolist()
        ([0.0, 1.5, 3.0], [0.5, 1.0])
    """
    checks.whole("kept_by_delay bins", bins, least=1)
    try:
        values = delays.detach().expand(kept.shape).flatten().double()
    except RuntimeError:
        found = f"delays {tuple(delays.shape)} and a mask {tuple(kept.shape)}"
        raise ShapeError("kept_by_delay", found, "shapes that broadcast", "pass (post, pre) delays") from None
    end = float(values.max()) if largest is None else largest
    edges = torch.linspace(0, max(end, 1e-9), bins + 1, dtype=torch.float64)
    place = torch.bucketize(values, edges[1:-1], right=True)
    total = torch.bincount(place, minlength=bins)
    return edges, torch.bincount(place, weights=kept.flatten().double(), minlength=bins) / total


def _describe(site: Wrapped, communities: bool, seed: int) -> Connectivity:
    assert site.weight is not None
    kept, delay = site.weight.detach() != 0, site.synapse.delay
    every = delay.delays().detach().expand(kept.shape) if isinstance(delay, PointDelay) else None
    return Connectivity(
        site.name,
        kept.sum(1),
        kept.sum(0),
        torch.empty(0) if every is None else every[kept],
        torch.empty(0) if every is None else every.flatten(),
        _louvain(site.weight.detach().abs(), seed) if communities and site.synapse.site.recurrent else (),
    )


def _louvain(strength: Tensor, seed: int) -> tuple[tuple[int, ...], ...]:
    import networkx  # type: ignore[import-untyped]  # comes with torch

    graph = networkx.DiGraph()
    graph.add_nodes_from(range(strength.shape[1]))
    post, pre = strength.nonzero(as_tuple=True)
    edges = zip(pre.tolist(), post.tolist(), strength[post, pre].tolist(), strict=True)
    graph.add_weighted_edges_from((i, j, w) for i, j, w in edges if i != j)
    found = networkx.community.louvain_communities(graph, seed=seed)
    return tuple(sorted((tuple(sorted(group)) for group in found), key=lambda group: (-len(group), group)))

"""What a trained geometry looks like: which delays were kept, who talks to whom, which channels matter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from delaykit import ConfigError, DelayRangeError, ShapeError, checks
from delaykit.functional.inputs import check_tensors
from delaykit_spatial.report import links

BIN_MS = 30.0


@checks.annotated
def kept_by_latency(delays_ms: Tensor, kept: Tensor, width_ms: float = BIN_MS) -> tuple[Tensor, Tensor]:
    """Return the fraction of synapses kept in each bin of delay: does pruning prefer short or long ways?

    Args:
        delays_ms: total latencies, any shape that broadcasts to ``kept``.
        kept: which synapses are left, bool.
        width_ms: width of a bin.

    Returns:
        Edges ``(bins + 1,)`` in ms from 0 on, and the fraction kept ``(bins,)``, NaN where there is no synapse.

    Example:
        >>> edges, share = kept_by_latency(torch.tensor([1.0, 2.0, 40.0]), torch.tensor([True, False, True]))
        >>> edges.tolist(), share.tolist()
        ([0.0, 30.0, 60.0], [0.5, 1.0])

    Reference: Landsmeer, Movahedin et al. 2025: the fraction is flat over bins of 30 ms.
    """
    checks.number("kept_by_latency width_ms", width_ms, above=0, fix="pass e.g. width_ms=1.0")
    if not kept.numel():
        raise ShapeError("kept_by_latency", "no synapse", "at least one", "give the delays of a connection")
    _check_kept(kept, "kept_by_latency")
    if not _broadcasts(delays_ms, kept):
        found, fix = f"delays {tuple(delays_ms.shape)}, kept {tuple(kept.shape)}", "give both of one connection"
        raise ShapeError("kept_by_latency", found, "delays that broadcast to kept", fix)
    if not bool(torch.isfinite(delays_ms).all()):
        raise DelayRangeError("kept_by_latency", "NaN or infinite delays", "finite ones", "reload the last checkpoint")
    where = (delays_ms.detach().expand(kept.shape) / width_ms).floor().long().flatten()
    bins = int(where.max()) + 1
    total = torch.bincount(where, minlength=bins)
    left = torch.bincount(where, weights=kept.flatten().double(), minlength=bins)
    return torch.arange(bins + 1) * float(width_ms), left / total


kept_by_delay = kept_by_latency  # its former name; delaykit_sparsify.kept_by_delay counts in steps


@checks.annotated
def degree_distribution(kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many neurons have 0, 1, 2, ... kept inputs, and how many have so many kept outputs.

    Args:
        kept: ``(post, pre)``, bool.

    Example:
        >>> inputs, outputs = degree_distribution(torch.tensor([[True, True], [False, True]]))
        >>> inputs.tolist(), outputs.tolist()
        ([0, 1, 1], [0, 1, 1])
    """
    _check_kept(kept, "degree_distribution", dims=2)
    return torch.bincount(kept.sum(1)), torch.bincount(kept.sum(0))


def _broadcasts(values: Tensor, to: Tensor) -> bool:
    pairs = zip(values.shape[::-1], to.shape[::-1], strict=False)
    return values.ndim <= to.ndim and all(one in (1, other) for one, other in pairs)


def _check_kept(kept: Tensor, where: str, dims: int | None = None) -> None:
    if kept.dtype != torch.bool:
        raise ShapeError(where, f"kept synapses as {kept.dtype}", "torch.bool", "pass weight != 0")
    if dims is not None and kept.ndim != dims:
        fix = "give the mask of one connection"
        raise ShapeError(where, f"kept synapses of shape {tuple(kept.shape)}", "(post, pre)", fix)


@checks.annotated
def communities(weight: Tensor, seed: int = 0, resolution: float = 1.0) -> list[list[int]]:
    """Group the neurons of a recurrent connection by who talks to whom most (Louvain), the largest group first.

    Args:
        weight: ``(neuron, neuron)``; absolute values count, both directions together.
        seed: of the method's own order.
        resolution: above 1 for smaller groups.

    Raises:
        ConfigError: networkx is not installed.

    Example:
        >>> pairs = torch.block_diag(torch.ones(2, 2), torch.ones(3, 3))
        >>> communities(pairs)
        [[2, 3, 4], [0, 1]]
    """
    if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
        fix = "give the weights of a recurrent connection"
        raise ShapeError("communities", f"weights of shape {tuple(weight.shape)}", "a square matrix", fix)
    try:
        import networkx  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        if error.name != "networkx":
            raise
        fix = "pip install 'delaykit-spatial[graphs]'"
        raise ConfigError("communities", "no networkx", "the graphs extra", fix) from None
    strength = weight.detach().abs().cpu()
    graph = networkx.from_numpy_array((strength + strength.T).fill_diagonal_(0).numpy())
    groups = networkx.community.louvain_communities(graph, seed=seed, resolution=resolution)
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))


@checks.annotated
def channel_order(weight: Tensor) -> Tensor:
    """Return an order of the receiving neurons: by the channel that they listen to most, on average.

    Args:
        weight: ``(post, channel)``, channels in their natural order, e.g. by frequency.

    Returns:
        Indices ``(post,)``.

    Example:
        >>> channel_order(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])).tolist()
        [1, 0]
    """
    if weight.ndim != 2:
        fix = "give the weights of one connection"
        raise ShapeError("channel_order", f"weights of shape {tuple(weight.shape)}", "(post, channel)", fix)
    check_tensors("channel_order", weight=weight)
    strength = weight.detach().abs()
    channel = torch.arange(weight.shape[1], device=weight.device).to(strength)
    center = (strength * channel).sum(1) / strength.sum(1).clamp(min=torch.finfo(strength.dtype).tiny)
    return center.argsort(stable=True)


@checks.annotated
@torch.no_grad()
def equal_weights_(net: nn.Module, value: float | None = None) -> None:
    """Set all weights of each spatial connection to one number, so that only places can tell synapses apart.

    Start with ``init="two_circles"``, and what is learned is learned by moving.

    Args:
        net: a net with spatial connections.
        value: the weight; None: the mean absolute weight of each connection.
    """
    for link in links(net).values():
        link.weight.fill_(float(link.weight.abs().mean()) if value is None else value)

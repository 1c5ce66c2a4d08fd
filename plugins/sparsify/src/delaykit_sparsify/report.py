"""Counting: parameters as the paper counts them, kept synapses, and how they change from epoch to epoch."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from delaykit import ConfigError, ShapeError, Wrapped, checks, wrapped_sites
from delaykit.tables import text_table
from delaykit_sparsify.pruning import DynamicPruning, no_autapses


@dataclasses.dataclass(frozen=True)
class SiteParameters:
    """What one connection holds.

    Args:
        name: site name.
        weights: synapses that there could be (a recurrent matrix without autapses has no diagonal); each tap of a
            motif is one.
        kept: synapses that are not zero.
        each: further parameters of each synapse, which one without weight does not need: its delay, its decay.
        shared: parameters that many synapses share: axonal delays, positions; each counted at its first site only.
    """

    name: str
    weights: int
    kept: int
    each: int
    shared: int

    @property
    def dense(self) -> int:
        """Parameters of the full connection."""
        return self.weights * (1 + self.each) + self.shared

    @property
    def sparse(self) -> int:
        """Parameters that are left: a pruned synapse needs no delay."""
        return self.kept * (1 + self.each) + self.shared


@dataclasses.dataclass(frozen=True)
class ParameterReport:
    """Parameters of a model, readout and biases not counted; printing it shows a table."""

    sites: tuple[SiteParameters, ...]

    @property
    def dense(self) -> int:
        """Parameters if nothing were pruned."""
        return sum(site.dense for site in self.sites)

    @property
    def sparse(self) -> int:
        """Parameters that are left."""
        return sum(site.sparse for site in self.sites)

    @property
    def kept_weights(self) -> int:
        """Synapses that are left."""
        return sum(site.kept for site in self.sites)

    @property
    def compression(self) -> float:
        """How many times fewer parameters than the full model."""
        return self.dense / self.sparse

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("site", "weights", "kept", "delays etc.", "kept", "shared", "dense", "sparse")]
        for s in self.sites:
            numbers = (s.weights, s.kept, s.weights * s.each, s.kept * s.each, s.shared, s.dense, s.sparse)
            rows.append((s.name, *(str(n) for n in numbers)))
        rows.append(("total", "", str(self.kept_weights), "", "", "", str(self.dense), str(self.sparse)))
        return "\n".join([text_table(rows, right=True), f"{self.compression:.2f} times fewer parameters"])


@checks.annotated
def parameter_report(net: nn.Module, exclude: Sequence[str] = ()) -> ParameterReport:
    """Count the parameters of the wrapped connections of a model.

    Args:
        net: a wrapped model.
        exclude: patterns of site names to leave out, e.g. a wrapped readout. Connections that are not wrapped, as
            readouts usually are, do not count.

    Returns:
        The report; :attr:`ParameterReport.dense` and :attr:`ParameterReport.sparse` are its sums.

    Raises:
        ConfigError: a connection is compact.

    Example:
        >>> import delaykit as dk
        >>> net = nn.Sequential(nn.Linear(20, 10))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("synaptic"), reset="manual")})
        >>> parameter_report(net).dense
        400

    Reference: the counting of Sp2SNN: readout and biases excluded, N (N - 1) recurrent synapses.
    """
    seen: set[int] = set()
    sites = [site for site in wrapped_sites(net) if not any(fnmatch.fnmatchcase(site.name, p) for p in exclude)]
    return ParameterReport(tuple(_count(site, seen) for site in sites if site.weight is not None))


@checks.annotated
def published_count(inputs: int, hidden: int, dimensions: int | None = None, kept: float = 1.0) -> int:
    """Count the parameters of the paper's network: inputs, one recurrent hidden layer, readout excluded.

    ``2 N (N - 1) + 2 I N`` with a free delay for each synapse; ``kept (I N + N (N - 1)) + D (I + N)`` in D dimensions

    Args:
        inputs: I.
        hidden: N.
        dimensions: D of space; None: a free delay for each synapse ("inf-D").
        kept: fraction of synapses that is left.

    Example:
        >>> published_count(700, 300), published_count(700, 300, dimensions=3, kept=0.1)
        (599400, 32970)
    """
    checks.whole("published_count inputs", inputs)
    checks.whole("published_count hidden", hidden)
    checks.number("published_count kept", kept, least=0, most=1)
    synapses = inputs * hidden + hidden * (hidden - 1)
    if dimensions is None:
        return round(2 * kept * synapses)
    return round(kept * synapses) + dimensions * (inputs + hidden)


@dataclasses.dataclass(frozen=True)
class Turnover:
    """Synapses of one matrix between two moments."""

    before: int
    after: int
    created: int
    removed: int


@checks.annotated
def masks(net: nn.Module) -> dict[str, Tensor]:
    """Return which synapses are not zero, by site name of a wrapped model.

    Args:
        net: a wrapped model.
    """
    sites = [s for s in wrapped_sites(net) if s.weight is not None and s.kept is not None]
    return {site.name: site.weight.detach() != 0 for site in sites if site.weight is not None}


@checks.annotated
def turnover(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Turnover]:
    """Count the connections that were created and removed between two moments, for each matrix.

    Args:
        before: what :func:`masks` (or :meth:`Sparsifier.masks`) returned then.
        after: what it returns now.

    Raises:
        ConfigError: the two are of different models.
        ShapeError: a matrix has changed its shape.

    Example:
        >>> then, now = torch.tensor([True, True, False]), torch.tensor([True, False, True])
        >>> turnover({"fc": then}, {"fc": now})["fc"]
        Turnover(before=2, after=2, created=1, removed=1)
    """
    for when, given in (("before", before), ("after", after)):
        if not isinstance(given, Mapping) or not all(isinstance(mask, Tensor) for mask in given.values()):
            fix = "pass what delaykit_sparsify.masks(net) returns"
            raise ConfigError(f"turnover {when}", f"a {type(given).__name__}", "masks by the name of the weight", fix)
    if before.keys() != after.keys():
        fix = "take both masks from one model"
        raise ConfigError("turnover", f"masks of {list(before)} and {list(after)}", "masks of the same weights", fix)
    out = {}
    for name, then in before.items():
        now = after[name]
        if then.shape != now.shape:
            fix = "take both masks from one model"
            raise ShapeError("turnover", f"{name} of {tuple(then.shape)} and {tuple(now.shape)}", "equal shapes", fix)
        out[name] = Turnover(int(then.sum()), int(now.sum()), int((now & ~then).sum()), int((then & ~now).sum()))
    return out


def _count(site: Wrapped, seen: set[int]) -> SiteParameters:
    weight = site.weight
    assert weight is not None
    if site.kept is None:
        fix = "count before compact_"
        raise ConfigError(site.name, "a compact connection, whose full size is gone", "weights of its own", fix)
    synapses, kept, each, shared = weight.numel(), int(torch.count_nonzero(weight)), 0, 0
    known = [p.autapses for p in site.synapse.prunings if isinstance(p, DynamicPruning) and p.autapses is not None]
    if site.synapse.site.recurrent and not (known[0] if known else not no_autapses(weight)):
        synapses -= weight.shape[0]
    for parameter in site.synapse.parameters():
        if parameter.shape == weight.shape and weight.ndim == 2:
            each += 1
        elif parameter.shape[:2] == weight.shape[:2] and weight.ndim == 2:  # further weights
            synapses, kept = synapses + parameter.numel(), kept + int(torch.count_nonzero(parameter))
        elif id(parameter) not in seen:
            shared += parameter.numel()
            seen.add(id(parameter))
    return SiteParameters(site.name, synapses, kept, each, shared)

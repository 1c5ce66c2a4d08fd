"""What users write: ``DynamicSparsity(0.9)``."""

from __future__ import annotations

import dataclasses
import math
import pkgutil
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from delaykit import ComponentConfig, ConfigError, Site, checks

if TYPE_CHECKING:
    import torch

CHOICES: dict[str, tuple[str, ...]] = {
    "scope": ("matrix", "global"),
    "schedule": ("constant", "linear", "cubic", "once"),
    "regrow": ("free", "none", "random", "gradient"),
    "moments": ("keep", "reset"),
    "loses": ("weight", "delay"),
}


@dataclasses.dataclass(frozen=True)
class DynamicSparsity(ComponentConfig):
    """Set the weakest synapses to zero after each epoch, and let them grow again in between.

    ``w[j, i] <- w[j, i] [rank of |w[j, i]| <= kept]``, ``kept = total - floor(sparsity(progress) total)``

    Gradients are never touched: with ``regrow="free"`` the optimizer moves a zero like any other weight, and it is kept
    at the end of the next epoch if it is strong by then. Ties are broken by position, so that the count is exact.

    Args:
        sparsity: fraction of synapses to remove, in [0, 1), of each connection whose rule names this config. Name the
            readout in no such rule: the published method spares it. On a motif it is tap 0 that is pruned; the later
            taps are parameters of their own (:class:`~delaykit_sparsify.Sparsifier`).
        scope: ``matrix`` (each weight alone) or ``global`` (one ranking over all weights pruned by an equal config).
        schedule: ``constant`` (from the first epoch), ``linear`` (sparsity * progress / ramp), ``cubic``
            (sparsity * (1 - (1 - progress / ramp)^3), Zhu & Gupta 2017, eq. 1) or ``once`` (at progress 1 only: static
            pruning of a trained network).
        ramp: progress at which ``linear`` and ``cubic`` reach ``sparsity``, in (0, 1]. ``10 * sparsity / epochs`` is
            the published density ``max(1 - sparsity, 1 - 0.1 epoch)``.
        regrow: ``free`` (zeros learn on, the published method), ``none`` (once gone, gone for good), ``random``
            (SET: each epoch the weakest ``drop`` of the kept are replaced by random others) or ``gradient`` (RigL: by
            those whose weight has the steepest gradient). All but ``free`` also write the zeros after each optimizer
            step, once :func:`delaykit.attach` was called. What ``random`` and ``gradient`` grow begins at zero.
            Processes that train one model (DDP) need equal seeds for ``random``: give ``dk.wrap_`` equal generators.
        drop: fraction replaced by ``random`` and ``gradient``, in (0, 1); RigL's falls to 0 as a cosine.
        moments: ``keep`` or ``reset`` the optimizer's running averages of a synapse that is pruned.
        loses: what a pruned synapse loses: its ``weight`` only, or its synaptic ``delay`` as well (set to zero).

    Raises:
        ConfigError: a value is of the wrong type or out of range.

    Example:
        >>> DynamicSparsity(0.9).to_json()["sparsity"]
        0.9

    Reference: Sp2SNN (dynamic sparsification); SET: Mocanu et al. 2018, arXiv 1707.04780; RigL: Evci et al. 2020,
    arXiv 1911.11134, algorithm 1. Unlike these two, the first step prunes by magnitude, also of random weights.
    """

    kind: ClassVar[Literal["pruning"]] = "pruning"
    name: ClassVar[str] = "dynamic_sparsity"

    sparsity: float = 0.9
    _: dataclasses.KW_ONLY
    scope: str = "matrix"
    schedule: str = "constant"
    ramp: float = 1.0
    regrow: str = "free"
    drop: float = 0.3
    moments: str = "keep"
    loses: str = "weight"

    def __post_init__(self) -> None:
        checks.number("DynamicSparsity.sparsity", self.sparsity, least=0, below=1)
        checks.number("DynamicSparsity.ramp", self.ramp, above=0, most=1)
        checks.number("DynamicSparsity.drop", self.drop, above=0, below=1)
        for field, choices in CHOICES.items():
            checks.choice(f"DynamicSparsity.{field}", getattr(self, field), choices)
        if self.scope == "global" and self.regrow in ("random", "gradient"):
            found = f"scope='global' with regrow={self.regrow!r}"
            fix = "use scope='matrix', or regrow='free'"
            raise ConfigError("DynamicSparsity.scope", found, "a fixed number of synapses for each matrix", fix)

    def at(self, progress: float) -> float:
        """Return the sparsity that the schedule asks for at ``progress`` in [0, 1].

        Example:
            >>> DynamicSparsity(0.8, schedule="linear", ramp=0.5).at(0.25)
            0.4
        """
        if self.schedule == "constant":
            return self.sparsity
        if self.schedule == "once":
            return self.sparsity if progress >= 1 else 0.0
        left = 1 - min(1.0, progress / self.ramp)
        return self.sparsity * (1 - left if self.schedule == "linear" else 1 - left**3)

    def keeps(self, total: int, progress: float) -> int:
        """Return how many of ``total`` synapses are left at ``progress``: never more pruned than asked for."""
        return total - math.floor(self.at(progress) * total + 1e-6)

    def build(self, site: Site, generator: torch.Generator | None = None) -> Any:
        """Make the pruning of one weight; random regrowth draws its seed from ``generator``."""
        # by its name: the part knows its config, not the other way round
        return pkgutil.resolve_name("delaykit_sparsify.pruning:DynamicPruning")(self, site, generator)

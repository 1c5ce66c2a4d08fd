"""What users write: ``HetSyn()``."""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import Any, ClassVar

import torch

from delaykit import ComponentConfig, ConfigError, Site, checks
from delaykit.interfaces import GRANULARITIES

FORMER = {"post": "dendritic", "pre": "axonal"}  # other words for these granularities


@dataclasses.dataclass(frozen=True)
class HetSyn(ComponentConfig):
    r"""Give each synapse of a connection a time constant of its own.

    ``V_j[t] = sum_i I_ji[t] - J_j[t]``,  ``I_ji[t] = r_ji I_ji[t-1] + w_ji z_i[t]``

    The neuron behind the connection stays as it is, with its class, its reset (any) and its own decay kappa, learned or
    not. It is fed ``sum_i I_ji[t] - kappa sum_i I_ji[t-1]``, and so its membrane (of a neuron with a synaptic current:
    that current) is the sum above, J being its own reset. At r = kappa this is the bare product: the neuron is the same
    as before, to the bit. The bias of the connection decays with kappa. A connection that no neuron hears is a
    readout: its output is ``sum_i I_ji``.

    Args:
        granularity: ``synaptic`` (one r a synapse), ``dendritic`` (one a postsynaptic neuron, also ``post``),
            ``axonal`` (one a presynaptic neuron, also ``pre``) or ``layer``.
        tau: where r begins: ``"neuron"``, at the driven neuron's own decay, which changes nothing (0 in a readout); a
            number of ms; or ``("normal", mean, sd)``, truncated at 1 ms, ``("uniform", low, high)``,
            ``("lognormal", median, sigma)``, in ms. ``r = exp(-dt / tau)``.
        dt_ms: length of a step in ms, > 0; needed with a ``tau`` in ms where the library does not know it (snnTorch).
        train: learn r. It is kept in [0, 1] by projection after each optimizer step (``dk.attach``).
        frozen: share of the r, drawn at random, that stay where they began, in [0, 1].
        groups: approximate every decay by two of this many shared ones, >= 3: exact one step after the spike, later a
            little too large (:mod:`delaykit_hetsyn.groups`). A product a group, for devices without the exact kernels;
            with no delay on the connection. None: exact.

    Raises:
        ConfigError: a value outside its range.

    Example:
        >>> import snntorch as snn, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True))
        >>> _ = dk.wrap_(net, {"0": HetSyn()}, example=torch.zeros(1, 3))
        >>> net[0].dk.heterogeneity.r.tolist()[0][0]
        0.8999999761581421

    Reference:
        Deng et al., "HetSyn"; Proposition 1 is the case r = kappa.
    """

    granularity: str = "synaptic"
    tau: Any = "neuron"
    dt_ms: float | None = None
    train: bool = True
    frozen: float = 0.0
    groups: int | None = None

    kind: ClassVar[Any] = "heterogeneity"
    name: ClassVar[str] = "hetsyn"
    initial: ClassVar[tuple[str, ...]] = ("tau",)

    def __post_init__(self) -> None:
        if isinstance(self.granularity, str):
            object.__setattr__(self, "granularity", FORMER.get(self.granularity, self.granularity))
        checks.choice("HetSyn.granularity", self.granularity, GRANULARITIES)
        if isinstance(self.tau, list):
            object.__setattr__(self, "tau", tuple(self.tau))
        if not isinstance(self.tau, str) or self.tau != "neuron":
            from delaykit_hetsyn.time_constants import check

            try:
                check(self.tau)
            except (ConfigError, TypeError, ValueError, OverflowError) as error:
                expected = "'neuron', a number of ms, or ('normal' | 'uniform' | 'lognormal', a, b) in ms"
                fix = 'pass e.g. tau=("uniform", 5.0, 50.0)'
                raise ConfigError("HetSyn.tau", checks.shown(self.tau), expected, fix) from error
        if self.dt_ms is not None:
            checks.number("HetSyn.dt_ms", self.dt_ms, above=0, what="number of ms", fix="in Norse leave dt_ms out")
        checks.flag("HetSyn.train", self.train)
        checks.number("HetSyn.frozen", self.frozen, least=0, most=1, what="share")
        if self.groups is not None:
            checks.whole("HetSyn.groups", self.groups, least=3, fix="leave groups out for exact decays")
        if self.groups is not None and self.granularity != "synaptic":
            found = f"groups with granularity {self.granularity!r}"
            raise ConfigError(
                "HetSyn.groups", found, "granularity 'synaptic'", "leave groups out: shared decays are fast"
            )

    def build(self, site: Site, generator: torch.Generator | None = None) -> Any:
        """Make the decays of one connection.

        Raises:
            ConfigError: ``tau`` in ms where nobody knows the length of a step.
        """
        # by its name: the part knows its config, not the other way round
        return pkgutil.resolve_name("delaykit_hetsyn.component:Decays")(self, site, generator)

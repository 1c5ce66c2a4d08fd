"""What users write for a recurrent connection: ``DelRec(max_delay=30)``."""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import Any, ClassVar, Literal

import torch

from delaykit import ComponentConfig, ConfigError, DelayRangeError, FreeDelay, Site, checks
from delaykit.delays import INITS
from delaykit.functional.inputs import initial_values
from delaykit.interfaces import ESTIMATORS
from delaykit.interfaces import GRANULARITIES as CORE

GRANULARITIES = (*CORE, "hybrid")
CONTROLS = ("learned", "frozen", "zero")
ROUNDINGS = ("none", "each-epoch", "straight-through", "stochastic")


@dataclasses.dataclass(frozen=True)
class DelRec(ComponentConfig):
    r"""Describe learned delays of a recurrent connection, seen through a triangle that narrows while they train.

    ``K[post, pre, tau] = w[post, pre] max(0, s - |tau - d|) / s^2``, ``s = 1 + sigma``

    ``tau`` counts from the connection's own input, the spikes of the step before: the total latency is 1 + d, and
    d = 0 is the bare recurrent connection. The paper counts the total. Nothing is renormalised: the sum of K is w for
    whole s and an arrival that is not cut off at tau = 0; for sigma 3 it is 0.8125 w at d = 1 and 0.625 w at d = 0.

    Args:
        granularity: ``layer`` (one d), ``axonal`` (one per presynaptic neuron), ``dendritic``, ``synaptic`` (one per
            synapse) or ``hybrid`` (an axonal delay plus a learned offset per synapse, which starts at 0).
        max_delay: largest delay in steps, > 0; kept by projection after each optimizer step.
        sigma: spread at the start, in steps, >= 0.
        rho: annealing, in (0, 1]: ``sigma_e = sigma rho^(100 e / E)`` after epoch e of E, by ``dk.advance_``.
        learn_spread: give every presynaptic neuron its own spread ``2 sigma_e sigmoid(p)``, p learned from 0.
        init: ``half-normal`` ``|N(0, scale^2)|`` cut at max_delay, ``uniform`` in [low, high], ``integers``, a number,
            or a nested list.
        low: smallest initial delay in steps (``uniform``, ``integers``).
        high: largest initial delay in steps; default ``max_delay``.
        scale: standard deviation of ``half-normal`` in steps.
        control: ``learned``; ``frozen``: random initial delays, rounded, never trained, no spread (what learning adds
            is measured against this one); ``zero``: all delays 0, no spread, the vanilla recurrent layer.
        rounding: ``none`` (evaluate inside ``dk.discretized``, which restores); ``each-epoch``: ``dk.advance_``
            rounds the delays in place and training goes on from there, as in the published loop;
            ``straight-through``: whole delays forward, the real delay's gradient backward; ``stochastic``: the same,
            rounded up with the probability of the fraction, drawn anew for each sequence of training.
        dropout: probability with which a neuron's recurrent current is dropped for a whole training sequence.
        normalize: divide the triangle by its sum over tau >= 0 instead of by s^2.
        estimator: ``interp``; ``exact``: every spike arrives whole at round(d), sigma plays no part, and gradients are
            those of events in continuous time (for neurons with a synaptic current only); ``none``: the values of
            ``interp`` without a gradient to the delays. See ``delaykit.PointDelay``.

    Raises:
        ConfigError: a value is of the wrong type or out of range.

    Example:
        >>> DelRec(max_delay=30, init="uniform", low=10.0).to_json()["granularity"]
        'axonal'

    Reference: Queant et al. 2025, arXiv 2509.24852, eq. 5-9. Different here: bounds, dendritic and hybrid delays, and
    rounding that restores by default.
    """

    kind: ClassVar[Literal["delay"]] = "delay"
    name: ClassVar[str] = "delrec"
    initial: ClassVar[tuple[str, ...]] = ("init", "low", "high", "scale")

    granularity: str = "axonal"
    _: dataclasses.KW_ONLY
    max_delay: float = 30.0
    sigma: float = 10.0
    rho: float = 0.95
    learn_spread: bool = False
    init: Any = "half-normal"
    low: float = 0.0
    high: float | None = None
    scale: float = 12.0
    control: str = "learned"
    rounding: str = "none"
    dropout: float = 0.0
    normalize: bool = False
    estimator: Any = "interp"

    def __post_init__(self) -> None:
        checks.choice("DelRec.granularity", self.granularity, GRANULARITIES)
        checks.choice("DelRec.estimator", self.estimator, ESTIMATORS)
        checks.choice("DelRec.control", self.control, CONTROLS)
        checks.choice("DelRec.rounding", self.rounding, ROUNDINGS)
        for field in ("learn_spread", "normalize"):
            checks.flag(f"DelRec.{field}", getattr(self, field))
        checks.number("DelRec.dropout", self.dropout, least=0, below=1, what="probability")
        object.__setattr__(self, "init", initial_values("DelRec.init", self.init, INITS))
        self.start()
        if self.learn_spread and self.estimator == "exact":
            found = "learn_spread with estimator='exact', where a spike arrives whole"
            raise ConfigError("DelRec.learn_spread", found, "False", "leave learn_spread out")
        if self.learn_spread and (self.granularity == "dendritic" or self.sigma == 0 or self.control != "learned"):
            found = f"learn_spread with {self.granularity} {self.control} delays and sigma={self.sigma:g}"
            expected = "learned delays, sigma > 0 and any granularity but dendritic"
            raise ConfigError("DelRec.learn_spread", found, expected, "leave learn_spread out")

    def start(self) -> FreeDelay:
        """Return the free delay whose initial values are this component's, with every shared field checked.

        Raises:
            ConfigError: a field is out of range, under this component's name.
        """
        base: Any = {"layer": "layer", "dendritic": "dendritic", "synaptic": "synaptic"}.get(self.granularity, "axonal")
        names = {"spread": "sigma", "spread_decay": "rho"}
        try:
            return FreeDelay(
                base, max_delay=self.max_delay, init=0.0 if self.control == "zero" else self.init, low=self.low,
                high=self.high, scale=self.scale, kernel="triangle", spread=self.sigma, spread_decay=self.rho,
            )  # fmt: skip
        except (ConfigError, DelayRangeError) as error:
            field = error.where.rpartition(".")[2]
            where = f"DelRec.{names.get(field, field)}"
            raise ConfigError(where, error.found, error.expected, error.fix) from None

    def build(self, site: Site, generator: torch.Generator | None = None) -> Any:
        """Make the delays of one connection; random initial values come from ``generator``."""
        # by its name: the part knows its config, not the other way round
        return pkgutil.resolve_name("delaykit_delrec.delay:DelRecDelay")(self, site, generator)

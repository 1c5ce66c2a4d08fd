"""The free delay: one learnable or fixed delay per layer, pre neuron, post neuron or synapse."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.arrivals import Gaussian, Hard, Kernel, Linear, Triangle
from delaykit.errors import PROJECT, ConfigError, DelayRangeError, ShapeError
from delaykit.functional.inputs import initial_values
from delaykit.interfaces import (
    ESTIMATORS,
    GRANULARITIES,
    ComponentConfig,
    Estimator,
    Granularity,
    PointDelay,
    Site,
)
from delaykit.precision import keep_single

KERNELS = ("linear", "triangle", "gaussian", "hard")
INITS = ("uniform", "half-normal", "integers")
ROUNDINGS = ("none", "straight-through")


@dataclasses.dataclass(frozen=True)
class FreeDelay(ComponentConfig):
    """Describe a free delay, ``K[post, pre, tau] = w[post, pre] h(tau - d)``.

    Args:
        granularity: ``layer`` (one d), ``axonal`` (d per pre neuron), ``dendritic`` (per post neuron) or
            ``synaptic`` (per synapse; of a convolution per output channel and input channel of its group).
        max_delay: largest delay in steps, > 0. Learned delays are projected into [0, max_delay] after each
            optimizer step once :func:`delaykit.attach` was called.
        init: ``uniform`` in [low, high], ``half-normal`` ``|N(0, scale^2)|``, ``integers`` in low..high, a number
            (every delay the same), or a nested list or tensor of shape (), (pre,), (post,) or (post, pre).
        low: smallest initial delay in steps (``uniform``, ``integers``).
        high: largest initial delay in steps; default ``max_delay``.
        scale: standard deviation of ``half-normal`` in steps; default ``max_delay / 2``.
        learn: whether the delays are trained. ``False`` is the frozen control.
        kernel: shape of an arrival: ``linear`` (two taps), ``triangle``, ``gaussian`` (both use ``spread``) or
            ``hard`` (rounds, has no gradient).
        spread: sigma of ``triangle`` or ``gaussian`` in steps, >= 0. A wide arrival lets gradients cross gaps.
        spread_decay: rho in (0, 1]; :func:`delaykit.advance_` sets ``spread * rho ** (100 * progress)``.
        normalize: divide the arrival by its sum; default False for linear and triangle, True for gaussian.
        rounding: ``none``, or ``straight-through``: integer delays forward, the real delay's gradient backward.
        estimator: how gradients see arrival times, see :class:`~delaykit.PointDelay`: ``interp`` (the kernel's),
            ``exact`` (whole arrivals, event gradients; the kernel's shape plays no part) or ``none`` (delays get none).

    Raises:
        ConfigError: a value is of the wrong type or out of range.

    Example:
        >>> FreeDelay("axonal", max_delay=25).to_json()["max_delay"]
        25

    Reference: granularities and initialisations after Hammouamri et al. 2024 (arXiv 2306.17670) and Queant et al.
    2025 (arXiv 2509.24852).
    """

    kind: ClassVar[Literal["delay"]] = "delay"
    name: ClassVar[str] = "free"
    initial: ClassVar[tuple[str, ...]] = ("init", "low", "high", "scale")

    granularity: Granularity = "axonal"
    _: dataclasses.KW_ONLY
    max_delay: float = 25
    init: Any = "uniform"
    low: float = 0.0
    high: float | None = None
    scale: float | None = None
    learn: bool = True
    kernel: str = "linear"
    spread: float = 0.0
    spread_decay: float = 1.0
    normalize: bool | None = None
    rounding: str = "none"
    estimator: Estimator = "interp"

    def __post_init__(self) -> None:
        checks.choice("FreeDelay.granularity", self.granularity, GRANULARITIES)
        checks.choice("FreeDelay.kernel", self.kernel, KERNELS)
        checks.choice("FreeDelay.rounding", self.rounding, ROUNDINGS)
        checks.choice("FreeDelay.estimator", self.estimator, ESTIMATORS)
        checks.flag("FreeDelay.learn", self.learn)
        if self.normalize is not None:
            checks.flag("FreeDelay.normalize", self.normalize)
        checks.number("FreeDelay.max_delay", self.max_delay, above=0.0)
        checks.number("FreeDelay.spread", self.spread, least=0.0)
        checks.number("FreeDelay.spread_decay", self.spread_decay, above=0.0, most=1.0)
        if self.spread > 0 and self.kernel in ("linear", "hard"):
            raise ConfigError(
                "FreeDelay.spread",
                f"{self.spread} with kernel {self.kernel!r}",
                "0",
                "use kernel='triangle' or 'gaussian'",
            )
        if self.spread > 0 and self.estimator == "exact":
            found = f"{self.spread} with estimator='exact', where a spike arrives whole"
            raise ConfigError("FreeDelay.spread", found, "0", "leave spread out, or use estimator='interp'")
        if self.kernel == "hard" and self.learn and self.estimator == "interp":
            raise ConfigError(
                "FreeDelay.kernel",
                "'hard' with learn=True",
                "a kernel with a gradient",
                "use estimator='exact', kernel='linear' with rounding='straight-through', or learn=False",
            )
        object.__setattr__(self, "init", initial_values("FreeDelay.init", self.init, INITS))
        self._check_init()

    def _check_init(self) -> None:
        if isinstance(self.init, str):
            checks.choice("FreeDelay.init", self.init, INITS)
            high = self.max_delay if self.high is None else self.high
            checks.number("FreeDelay.high", high, least=0.0, most=self.max_delay)
            checks.number("FreeDelay.low", self.low, least=0.0, most=high)
            if self.scale is not None:
                checks.number("FreeDelay.scale", self.scale, above=0.0)
            return
        values = torch.as_tensor(self.init, dtype=torch.float64)
        check_delays("FreeDelay.init", values, self.max_delay, fix="give delays in [0, max_delay]")

    def build(self, site: Site, generator: torch.Generator | None = None) -> FreeDelayModule:
        """Make the module for one site; random initial delays come from ``generator``."""
        return FreeDelayModule(self, site, generator)


class FreeDelayModule(PointDelay):
    """Hold the delays of one connection: ``delay`` in steps and the ``spread`` that goes with the checkpoint."""

    spread: Tensor

    def __init__(self, config: FreeDelay, site: Site, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.granularity, self.estimator = config.granularity, config.estimator
        self._where = f"{site.name} (free {config.granularity} delay)"
        self._shape = site.delay_shape(config.granularity)
        values = _initial(config, self._shape, generator, self._where)
        self.delay = nn.Parameter(values.reshape(_natural(self.granularity, self._shape)), requires_grad=config.learn)
        self._exact_spread = float(config.spread)  # which a float32 buffer rounds, until the model is cast to float64
        self.register_buffer("spread", torch.tensor(self._exact_spread))

    def delays(self) -> Tensor:
        """Delays in steps as (1, 1), (1, pre), (post, 1) or (post, pre)."""
        delay = self.delay.reshape(self._shape)
        if self.config.rounding == "straight-through":
            return delay + (self._whole(delay.detach()) - delay.detach())
        return delay

    def _whole(self, delay: Tensor) -> Tensor:
        """Round to whole delays; there may be none between the largest and ``max_delay``."""
        return delay.round().clamp(max=math.floor(self.config.max_delay))

    def kernel(self) -> Kernel:
        """Arrival shape at the present spread."""
        normalize = self.config.normalize
        if self.config.kernel == "triangle":
            return Triangle(self.spread, normalize=bool(normalize))
        if self.config.kernel == "gaussian":
            return Gaussian(self.spread, normalize=normalize is not False)
        if self.config.kernel == "hard":
            return Hard()
        return Linear(normalize=bool(normalize))

    def longest(self) -> int:
        """Return the largest delay the bounds allow, plus the width of an arrival."""
        return math.ceil(self.config.max_delay + 6.0 * self.config.spread) + 4

    def check(self) -> None:
        """Raise :class:`DelayRangeError` for a NaN, infinite, negative or too large delay."""
        check_delays(self._where, self.delay.detach(), self.config.max_delay)

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the delays into [0, max_delay]."""
        self.delay.clamp_(0.0, self.config.max_delay)

    @torch.no_grad()
    def advance_(self, progress: float) -> None:
        """Anneal the spread: sigma = sigma_0 rho^(100 progress) (Queant et al. 2025)."""
        self._exact_spread = self.config.spread * self.config.spread_decay ** (100.0 * progress)
        self.spread.fill_(self._exact_spread)

    @torch.no_grad()
    def discretize_(self) -> None:
        """Round the delays and set the spread to zero."""
        self.delay.copy_(self._whole(self.delay))
        self.spread.zero_()

    @torch.no_grad()
    def fit_(self, step: int, largest: int | None) -> None:
        """Bring the delays onto multiples of ``step`` up to ``largest`` and the configured maximum."""
        most = math.floor(self.config.max_delay / step) * step
        self.delay.div_(step).round_().mul_(step).clamp_(max=most if largest is None else min(most, largest))

    def _apply(self, fn: Any, recurse: bool = True) -> FreeDelayModule:
        keep_single(self, lambda: super(FreeDelayModule, self)._apply(fn, recurse), "spread")
        if self.spread.dtype == torch.float64 and not self.spread.is_meta:
            known = torch.tensor(self._exact_spread, dtype=torch.float32)
            if float(self.spread) == float(known):
                self.spread.fill_(self._exact_spread)
        return self

    def extra_repr(self) -> str:
        return describe_delays(self.delay, self.granularity, self.config.learn)


def describe_delays(delay: Tensor, granularity: str, learn: bool) -> str:
    """Return e.g. ``axonal delays 0.0..24.1 steps, mean 8.3, learned``.

    Args:
        delay: delays in steps, any shape.
        granularity: what has one each, e.g. ``axonal``.
        learn: whether they are learned.
    """
    d = delay.detach()
    kind = "learned" if learn else "fixed"
    if d.numel() == 1:
        return f"{granularity} delay {float(d):.1f} steps, {kind}"
    return f"{granularity} delays {float(d.min()):.1f}..{float(d.max()):.1f} steps, mean {float(d.mean()):.1f}, {kind}"


def check_delays(where: str, delay: Tensor, max_delay: float, fix: str = "") -> None:
    """Raise :class:`DelayRangeError` unless every delay is finite and in [0, max_delay].

    Args:
        where: name of the site, for the message.
        delay: delays in steps, any shape.
        max_delay: the longest that there may be, in steps.
        fix: how to go on; what mends most where it is empty.
    """
    if delay.numel() == 0:
        return
    low, high = float(delay.min()), float(delay.max())
    if math.isfinite(low) and math.isfinite(high) and low >= 0.0 and high <= max_delay * (1 + 1e-6) + 1e-6:
        return
    if not (math.isfinite(low) and math.isfinite(high)):
        found, fix = "NaN or infinite delays", fix or "lower delay_lr or clip gradients; reload the last checkpoint"
    elif low < 0.0:
        found = f"a delay of {low:g} steps"
    else:
        found = f"a delay of {high:g} steps"
    fix = fix or f"{PROJECT}, or raise max_delay"
    raise DelayRangeError(where, found, f"delays in [0, {max_delay:g}] steps", fix)


def _natural(granularity: Granularity, shape: tuple[int, int]) -> tuple[int, ...]:
    return {"layer": (), "axonal": (shape[1],), "dendritic": (shape[0],), "synaptic": shape}[granularity]


def _initial(config: FreeDelay, shape: tuple[int, int], generator: torch.Generator | None, where: str) -> Tensor:
    high = config.max_delay if config.high is None else config.high
    if not isinstance(config.init, str):
        values = torch.as_tensor(config.init, dtype=torch.get_default_dtype())
        wanted = _natural(config.granularity, shape)
        if values.ndim and values.shape != torch.Size(wanted):
            raise ShapeError(
                where, f"initial delays of shape {tuple(values.shape)}", f"a number or shape {wanted}", "fix init="
            )
        return values.reshape(shape if values.ndim else (1, 1)).expand(shape).clone()
    if config.init == "uniform":
        return config.low + (high - config.low) * torch.rand(shape, generator=generator)
    if config.init == "integers":
        values = torch.randint(math.ceil(config.low), math.floor(high) + 1, shape, generator=generator)
        return values.to(torch.get_default_dtype())
    scale = config.max_delay / 2 if config.scale is None else config.scale
    return (torch.randn(shape, generator=generator) * scale).abs().clamp(max=config.max_delay)

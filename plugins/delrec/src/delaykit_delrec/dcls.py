"""Feed-forward delays in a window of K steps, as DCLS learns them: ``DCLS(kernel_size=25)``."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from delaykit import ComponentConfig, ConfigError, DelayRangeError, FreeDelay, PointDelay, Site, checks
from delaykit.arrivals import Gaussian, Kernel
from delaykit.delays import check_delays, describe_delays
from delaykit.functional.inputs import initial_values
from delaykit.interfaces import ESTIMATORS
from delaykit.synapse import Engine
from delaykit_delrec.precision import keep_exact
from delaykit_delrec.spectral import spectral_engine
from delaykit_delrec.windowed import WindowedTriangle

VERSIONS = ("gauss", "max", "v1")
GRANULARITIES = ("axonal", "dendritic", "synaptic")


@dataclasses.dataclass(frozen=True)
class DCLS(ComponentConfig):
    """Describe learned delays of a feed-forward connection, seen through a kernel that narrows while they train.

    ``K[post, pre, tau] = w g(tau - d) / (sum_tau' g(tau' - d) + 1e-7)``, tau = 0 .. kernel_size - 1, where g(u) is
    ``exp(-u^2 / 2 (sigma + .27)^2)`` (``gauss``), ``max(0, 1 + sigma - |u|)`` (``max``), ``max(0, 1 - |u|)`` (``v1``)

    The published position P in [-K//2, K//2] is ``P = K//2 - d``. With whole delays and sigma 0, all three are one tap.

    Args:
        kernel_size: window K in steps, odd; delays are in [0, K - 1].
        version: the kernel in training.
        sigma: spread at the start; default K//2 for ``gauss`` and ``max``, 0 for ``v1``.
        sigma_end: spread from ``anneal`` of the epochs on; the way there is geometric. Ignored by ``v1``.
        anneal: share of the epochs over which the spread narrows, in (0, 1].
        init: ``uniform`` over the window, a number of steps, or a nested list.
        granularity: ``synaptic``, as published, ``axonal`` or ``dendritic``.
        control: ``learned``, or ``frozen``: random delays, rounded, never trained, no spread.
        normalize: as above; False divides by (1 + sigma)^2 (``max``, ``v1``) or not at all (``gauss``).
        estimator: ``interp``; ``exact``: whole arrivals at round(d), whatever the kernel, with event gradients (for
            neurons with a synaptic current only); ``none``: no gradient to the delays. See ``delaykit.PointDelay``.

    Raises:
        ConfigError: a value is of the wrong type or out of range.

    Example:
        >>> DCLS(25).start_sigma()
        12.0

    Reference: Hammouamri et al. 2024, arXiv 2306.17670. As there, evaluation with sigma 0 takes the triangle also
    where training took the gaussian, which is never narrower than 0.27.
    """

    kind: ClassVar[Literal["delay"]] = "delay"
    name: ClassVar[str] = "dcls"
    initial: ClassVar[tuple[str, ...]] = ("init",)

    kernel_size: int = 25
    _: dataclasses.KW_ONLY
    version: str = "gauss"
    sigma: float | None = None
    sigma_end: float = 0.23
    anneal: float = 0.25
    init: Any = "uniform"
    granularity: str = "synaptic"
    control: str = "learned"
    normalize: bool = True
    estimator: Any = "interp"

    def __post_init__(self) -> None:
        size = self.kernel_size
        if not isinstance(size, int) or isinstance(size, bool) or size < 3 or size % 2 == 0:
            raise ConfigError("DCLS.kernel_size", repr(size), "an odd whole number >= 3", "e.g. 25")
        choices: dict[str, tuple[str, ...]] = {"version": VERSIONS, "granularity": GRANULARITIES}
        choices |= {"control": ("learned", "frozen"), "estimator": ESTIMATORS}
        for field, allowed in choices.items():
            checks.choice(f"DCLS.{field}", getattr(self, field), allowed)
        spreads = (self.sigma_end,) if self.sigma is None else (self.sigma, self.sigma_end)
        if not all(isinstance(s, (int, float)) and 0 < s < checks.LARGEST for s in spreads):
            found = f"spreads {checks.shown(spreads)}"
            raise ConfigError("DCLS.sigma", found, "numbers of steps > 0", "version='v1' has no spread")
        checks.number("DCLS.anneal", self.anneal, above=0, most=1, what="share of the epochs")
        object.__setattr__(self, "init", initial_values("DCLS.init", self.init, ("uniform",)))
        if isinstance(self.init, str) and self.init != "uniform":
            fix = "pass e.g. init='uniform'"
            raise ConfigError("DCLS.init", repr(self.init), "'uniform', a number or a nested list", fix)
        self._free()

    def start_sigma(self) -> float:
        """Return the spread at the first epoch."""
        if self.version == "v1" or self.control == "frozen":
            return 0.0
        return float(self.kernel_size // 2 if self.sigma is None else self.sigma)

    def _free(self) -> FreeDelay:
        try:
            return FreeDelay(self.granularity, max_delay=self.kernel_size - 1, init=self.init)  # type: ignore[arg-type]
        except (ConfigError, DelayRangeError) as error:
            field = error.where.rpartition(".")[2]
            raise ConfigError(f"DCLS.{field}", error.found, error.expected, error.fix) from None

    def build(self, site: Site, generator: torch.Generator | None = None) -> DCLSDelay:
        """Make the delays of one connection; random initial values come from ``generator``."""
        start = self._free().build(site, generator)
        return DCLSDelay(self, start.delay.detach(), start.granularity, site)


class DCLSDelay(PointDelay):
    """Hold the delays of one connection, ``delay`` in steps, and the present spread ``sigma``."""

    sigma: Tensor

    def __init__(self, config: DCLS, delay: Tensor, granularity: Any, site: Site) -> None:
        super().__init__()
        self.config, self.granularity, self.estimator = config, granularity, config.estimator
        self._where = f"{site.name} (dcls {granularity} delay)"
        self._shape = site.delay_shape(granularity)
        learned = config.control == "learned"
        self.delay = nn.Parameter(delay if learned else delay.round(), requires_grad=learned)
        self.register_buffer("sigma", torch.tensor(config.start_sigma(), dtype=torch.float64))

    def delays(self) -> Tensor:
        """Return the delays in steps, (1, pre), (post, 1) or (post, pre)."""
        return self.delay.reshape(self._shape)

    def positions(self) -> Tensor:
        """Return the published positions, ``P = K//2 - d``, shaped like :meth:`delays`."""
        return self.config.kernel_size // 2 - self.delays()

    def kernel(self) -> Kernel:
        """Return the kernel at the present spread."""
        size, sigma, normalize = self.config.kernel_size, float(self.sigma), self.config.normalize
        if self.config.version == "gauss" and sigma > 0:
            return Gaussian(sigma, normalize=normalize, window=size)
        return WindowedTriangle(sigma, size, normalize)

    def engine(self, weight: Tensor, bias: Tensor | None) -> Engine | None:
        """Filter by Fourier transforms while the kernel is wide; leave narrow ones to the core's taps."""
        return spectral_engine(self, weight, bias) if self.estimator == "interp" else None

    def longest(self) -> int:
        """Return the window."""
        return self.config.kernel_size + 1

    def check(self) -> None:
        """Raise :class:`~delaykit.DelayRangeError` for a NaN, infinite or negative delay, or one out of the window."""
        check_delays(self._where, self.delay.detach(), self.config.kernel_size - 1)

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the delays into the window."""
        self.delay.clamp_(0.0, self.config.kernel_size - 1)

    @torch.no_grad()
    def advance_(self, progress: float) -> None:
        """Narrow the kernel: geometrically from the first spread to ``sigma_end`` over the first epochs."""
        start = self.config.start_sigma()
        if start > 0:
            done = min(progress / self.config.anneal, 1.0)
            self.sigma.fill_(start * (self.config.sigma_end / start) ** done)

    @torch.no_grad()
    def discretize_(self) -> None:
        """Round the delays and set the spread to zero."""
        self.delay.round_()
        self.sigma.zero_()

    def _apply(self, fn: Any, recurse: bool = True) -> DCLSDelay:
        keep_exact(self, lambda: super(DCLSDelay, self)._apply(fn, recurse))
        return self

    def extra_repr(self) -> str:
        kind = describe_delays(self.delay, self.granularity, self.config.control == "learned")
        return f"{kind}, {self.config.version}, spread {float(self.sigma):.2g}"

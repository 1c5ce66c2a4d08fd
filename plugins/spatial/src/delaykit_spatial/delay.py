"""The delays of one connection: positions of two populations, and how late they make a spike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import ConfigError, Delay, DelayRangeError, PointDelay, ShapeError, Site, checks
from delaykit.arrivals import Kernel, Linear
from delaykit.delays import describe_delays
from delaykit.functional.taps import Taps
from delaykit.functional.tents import Tents
from delaykit.precision import keep_single
from delaykit_spatial.config import NAME, Spatial
from delaykit_spatial.geometry import Metric, check_squared, clip_value, metric_named, safe_sqrt
from delaykit_spatial.starts import given, place

SCALE, SCALE_FREE = 20.0, 1.0  # length units: positions; one length for each synapse
LARGEST_BEND = 5.0  # |E|: tanh 5 = 0.9999, and there is still a gradient to come back by


@checks.annotated
class SpatialDelay(PointDelay):
    """Hold the positions of the two populations that one connection joins.

    ``pre_positions`` (pre, dims) and ``post_positions`` (post, dims), in length units; one Parameter where both are one
    population, or where another connection has it too. ``bend`` E (post, pre) of tortuous paths; ``path`` (post, pre)
    in length units with dims = inf.

    Attributes:
        pre, post: names of the populations.
        recurrent: whether latencies count the step that a recurrent spike takes anyhow.
        dt_ms: length of a step in ms.
        masked: whether self connections are cut.
    """

    base: Tensor
    rounded: Tensor

    def __init__(self, config: Spatial, site: Site, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config, self.site, self.estimator = config, site, config.estimator
        self.pre, self.post = _populations(config, site)
        self.recurrent = self.pre == self.post
        self.masked = self.recurrent and not config.self_connections
        self.granularity = "layer" if config.dims == 0 and not self.masked else "synaptic"
        self.dt_ms = _step(config, site)
        self.pre_positions: nn.Parameter | None = None
        self.post_positions: nn.Parameter | None = None
        self.bend: nn.Parameter | None = None
        self.path: nn.Parameter | None = None
        shape = (site.post, site.pre)
        if config.has_positions:
            self._place(generator)
            self._check_metric()
            if config.tortuosity > 0:
                self.bend = nn.Parameter(torch.zeros(shape), requires_grad=config.learn)
        elif config.dims == math.inf:
            self.path = nn.Parameter(_paths(config, site, generator), requires_grad=config.learn)
        self.register_buffer("base", torch.tensor(float(config.floor)).sqrt(), persistent=False)
        self.register_buffer("rounded", torch.tensor(False))  # in the state dict, so that dk.discretized restores it

    def _place(self, generator: torch.Generator | None) -> None:
        config, site = self.config, self.site
        scale = SCALE if config.scale is None else config.scale

        def positions(name: str, start: Any, neurons: int) -> nn.Parameter:
            where = f"{site.name}, population {name!r}"
            checks.affordable(where, int(config.dims), neurons, "dimensions", "lower dims=")
            values = place(start or "normal", neurons, int(config.dims), scale, generator, where)
            return nn.Parameter(values, requires_grad=config.learn)

        self.post_positions = positions(self.post, self.start(self.post), site.post)
        same = self.recurrent
        self.pre_positions = self.post_positions if same else positions(self.pre, config.pre_init, site.pre)

    def start(self, population: str) -> Any:
        """Return how the config says that a population starts, or None where it leaves that open."""
        if self.recurrent:
            return self.config.init if self.config.init is not None else self.config.pre_init
        return self.config.init if population == self.post else self.config.pre_init

    def positions(self) -> dict[str, nn.Parameter]:
        """Return positions by population, empty with dims 0 and inf."""
        if self.post_positions is None or self.pre_positions is None:
            return {}
        return {self.pre: self.pre_positions, self.post: self.post_positions}

    def meet_(self, earlier: Sequence[Delay]) -> None:
        """Take the positions of each population over from the first connection that has it.

        Raises:
            ConfigError: that connection places it in other dims, with another size, another start, or does not train
                it alike.
        """
        for name in self.positions():
            first = next((d for d in earlier if isinstance(d, SpatialDelay) and name in d.positions()), None)
            if first is None:
                continue
            self._agree(name, first)
            shared = first.positions()[name]
            if name == self.post:
                self.post_positions = shared
            if name == self.pre:
                self.pre_positions = shared

    def _agree(self, name: str, first: SpatialDelay) -> None:
        mine, theirs = self.positions()[name], first.positions()[name]
        where = f"{self.site.name}, population {name!r}"
        fix = f"give both the same, or name another population (pre=, post=) than {first.site.name!r} does"
        if mine.shape != theirs.shape:
            found, expected = (f"{n} neurons in {d} dims" for n, d in (mine.shape, theirs.shape))
            raise ConfigError(where, found, f"{expected}, as in {first.site.name!r}", fix)
        if mine.requires_grad != theirs.requires_grad:
            raise ConfigError(where, f"learn={self.config.learn}", f"learn={first.config.learn}", fix)
        start, known = self.start(name), first.start(name) or "normal"
        scales = [SCALE if c.scale is None else c.scale for c in (self.config, first.config)]
        if start is not None and (start != known or (isinstance(start, str) and scales[0] != scales[1])):
            found, expected = (f"start {s if isinstance(s, str) else 'given'!r}, scale {c:g}"
                               for s, c in zip((start, known), scales, strict=True))  # fmt: skip
            fix = f"state init= and scale= at {first.site.name!r} only, or alike at both"
            raise ConfigError(where, found, f"{expected}, as in {first.site.name!r}", fix)

    def distances(self) -> Tensor:
        """Return ``sqrt(floor + |r_post - r_pre|^2)`` in length units, (post, pre).

        Raises:
            ConfigError: with dims 0 and inf there are no positions.
        """
        if self.post_positions is None or self.pre_positions is None:
            raise ConfigError(self.site.name, f"dims={self.config.dims}", "0 < dims < inf", "wrap with Spatial(dims=2)")
        return safe_sqrt(self.config.floor + self._metric()(self.post_positions, self.pre_positions))

    def _metric(self) -> Metric:
        metric = self.config.metric
        return metric_named(metric) if isinstance(metric, str) else metric

    @torch.no_grad()
    def _check_metric(self) -> None:
        metric, shape = self._metric(), (self.site.post, self.site.pre)
        try:
            squared = metric(self.post_positions, self.pre_positions)  # type: ignore[arg-type]
        except Exception as error:  # whatever a function of somebody else raises
            found = f"a metric that raises {type(error).__name__}: {error!s:.200}"
            expected, fix = "a function (r_post, r_pre) -> squared distance", "correct it, or name a registered one"
            raise ConfigError(self.site.name, found, expected, fix) from error
        check_squared(metric, squared, shape, self.site.name)

    def lengths(self) -> Tensor:
        """Return the lengths of all paths in length units, (post, pre), or (1, 1) with dims = 0."""
        if self.path is not None:
            return clip_value(self.path, 0.0)
        if self.post_positions is None:
            return self.base.reshape(1, 1)
        length = self.distances()
        if self.bend is not None:
            length = length * (1.0 + 0.5 * self.config.tortuosity * (1.0 + self.bend.tanh()))
        return length

    def delays_ms(self) -> Tensor:
        """Return total latencies in ms, (post, pre), or (1, 1) with dims = 0."""
        latency = self.lengths() / self.config.velocity
        return latency if self.config.max_ms is None else clip_value(latency, 0.0, self.config.max_ms)

    def delays(self) -> Tensor:
        """Return delays in steps, (post, pre), or (1, 1) with dims = 0; whole ones once discretized."""
        steps = self.delays_ms() / self.dt_ms
        if self.recurrent:
            steps = clip_value(steps - 1.0, 0.0)
        now = steps.detach()
        return torch.where(self.rounded, now.round() + (steps - now), steps)

    def kernel(self) -> Kernel:
        """Return linear interpolation, without self connections where those are cut."""
        return WithoutSelf(Linear(), self.site.post) if self.masked else Linear()

    def longest(self) -> int | None:
        """Return the largest delay that ``max_ms`` allows, if there is one."""
        return None if self.config.max_ms is None else math.ceil(self.config.max_ms / self.dt_ms) + 4

    def check(self) -> None:
        """Raise :class:`~delaykit.DelayRangeError` for positions, paths or delays that are NaN or infinite."""
        tables = {f"population {name!r}": values for name, values in self.positions().items()}
        tables |= {"paths": self.path} if self.path is not None else {}
        for what, values in tables.items():
            if not bool(torch.isfinite(values.detach()).all()):
                fix = "lower the learning rate of the positions or clip gradients; reload the last checkpoint"
                raise DelayRangeError(f"{self.site.name}, {what}", "NaN or infinite places", "finite numbers", fix)
        if self.post_positions is not None and self.config.metric != "euclidean":
            self._check_metric()
        super().check()

    @torch.no_grad()
    def project_(self) -> None:
        """Keep E of tortuous paths in [-5, 5]; positions have no bounds."""
        if self.bend is not None:
            self.bend.clamp_(-LARGEST_BEND, LARGEST_BEND)

    @torch.no_grad()
    def discretize_(self) -> None:
        """Round all delays from here on; positions stay."""
        self.rounded.fill_(True)

    def _apply(self, fn: Any, recurse: bool = True) -> SpatialDelay:
        keep_single(self, lambda: super(SpatialDelay, self)._apply(fn, recurse), "base")
        if self.base.dtype == torch.float64 and not self.base.is_meta:
            self.base.fill_(math.sqrt(self.config.floor))  # not the square root in float32
        return self

    def extra_repr(self) -> str:
        dims = "free" if self.path is not None else f"{self.config.dims}-D"
        learns = self.estimator != "none" and any(p.requires_grad for p in self.parameters())
        return f"{self.pre} -> {self.post}, {describe_delays(self.delays(), dims, learns)}"


@dataclasses.dataclass(frozen=True)
class WithoutSelf(Kernel):
    """Any kernel on a square connection, with nothing from a neuron to itself.

    Example:
        >>> WithoutSelf(Linear(), 2).response(torch.zeros(1, 1))[..., 0].tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """

    kernel: Kernel
    neurons: int

    def response(self, delays: Tensor, depth: int | None = None) -> Tensor:
        """Write out the response; see :meth:`delaykit.arrivals.Kernel.response`."""
        return self.kernel.response(delays, depth) * self.mask(delays).unsqueeze(-1)

    def taps(self, delays: Tensor) -> Taps:
        """List the taps; those of a neuron to itself are 0 and pass no gradient."""
        return self._masked(self.kernel.taps(delays))

    def whole(self, delays: Tensor) -> Taps:
        """List one tap at ``round(d)``; see :meth:`delaykit.arrivals.Kernel.whole`."""
        return self._masked(self.kernel.whole(delays))

    def tents(self, delays: Tensor) -> Tents | None:
        """Describe it by the kernel's width and the mask; see :meth:`delaykit.arrivals.Kernel.tents`."""
        inner, mask = self.kernel.tents(delays), self.mask(delays)
        if inner is None:
            return None
        return inner._replace(delays=inner.delays.expand_as(mask).contiguous(), kernel=self, factor=mask)

    def depth(self, max_delay: float) -> int:
        """Count the steps needed; see :meth:`delaykit.arrivals.Kernel.depth`."""
        return self.kernel.depth(max_delay)

    def _masked(self, taps: Taps) -> Taps:
        value = taps.value * self.mask(taps.value)
        return Taps(taps.index.expand(value.shape), value, taps.order)

    def mask(self, like: Tensor) -> Tensor:
        """Return (neuron, neuron) of ones with a zero diagonal."""
        return 1.0 - torch.eye(self.neurons, dtype=like.dtype, device=like.device)


def _populations(config: Spatial, site: Site) -> tuple[str, str]:
    """Return the names of the sending and the receiving population."""
    neuron = "net" if site.neuron == "" else site.neuron
    post = config.post or _safe(neuron or f"{site.name}:post")
    if not site.recurrent:
        pre = config.pre or _safe(f"{site.name}:pre")
        if pre == post and site.pre != site.post:
            found = f"{site.pre} -> {site.post} neurons within population {pre!r}"
            raise ShapeError(site.name, found, "as many as they are", "name two populations")
        return pre, post
    pre, post = config.pre or post, config.post or config.pre or post
    if pre != post:
        found = f"populations {pre!r} and {post!r} of a recurrent connection"
        raise ConfigError(site.name, found, "one population", "name it once, as post")
    if None not in (config.init, config.pre_init) and config.init != config.pre_init:
        raise ConfigError(site.name, "different init and pre_init of one population", "one start", "leave pre_init out")
    return pre, post


def _safe(name: str) -> str:
    kept = "".join(letter if NAME.fullmatch(f"a{letter}") else "_" for letter in name)[:100]
    return kept if NAME.fullmatch(kept) else f"_{kept[:99]}"


def _step(config: Spatial, site: Site) -> float:
    known, asked = site.dt_ms, config.dt_ms
    if known is not None and asked is not None and not math.isclose(known, asked, rel_tol=1e-6):
        found = f"dt_ms={asked:g}"
        raise ConfigError(site.name, found, f"{known:g}, the step of its neuron", "leave dt_ms out of Spatial")
    return float(known or asked or 1.0)


def _paths(config: Spatial, site: Site, generator: torch.Generator | None) -> Tensor:
    shape = (site.post, site.pre)
    if config.init is not None and config.init != "normal":
        return given(config.init, shape, f"{site.name}, lengths")
    scale = SCALE_FREE if config.scale is None else config.scale
    return config.mean + scale * torch.randn(shape, generator=generator)

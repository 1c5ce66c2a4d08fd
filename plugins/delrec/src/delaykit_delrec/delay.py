"""The recurrent delays: parameters, their triangle, and the policies of rounding."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import PointDelay, Site
from delaykit.arrivals import Kernel, Triangle
from delaykit.delays import check_delays, describe_delays
from delaykit_delrec.config import DelRec
from delaykit_delrec.precision import keep_exact
from delaykit_delrec.rounding import stochastic, straight_through

LARGEST_LOGIT = 10.0  # a learned spread this near to 0 or to twice sigma still has a gradient to come back by


class DelRecDelay(PointDelay):
    """Hold the delays of one connection.

    ``delay`` in steps, shape (), (pre,), (post,) or (post, pre); ``offset`` (post, pre) of hybrid delays;
    ``spread_logit`` p, (pre,), where spreads are learned; ``sigma``, the present spread, which is in the state dict.
    """

    sigma: Tensor

    def __init__(self, config: DelRec, site: Site, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config, self.dropout, self.estimator = config, config.dropout, config.estimator
        self._where = f"{site.name} (delrec {config.granularity} delay)"
        start = config.start().build(site, generator)
        values = start.delay.detach()
        self.granularity = "synaptic" if config.granularity == "hybrid" else start.granularity
        self._shape = site.delay_shape(start.granularity)
        learned = config.control == "learned"
        self.delay = nn.Parameter(values if learned else values.round(), requires_grad=learned)
        shape = (site.post, site.pre) if config.granularity == "hybrid" else None
        self.offset = None if shape is None else nn.Parameter(torch.zeros(shape), requires_grad=learned)
        self.spread_logit = nn.Parameter(torch.zeros(site.pre)) if config.learn_spread else None
        sigma = config.sigma if learned else 0.0
        self.register_buffer("sigma", torch.tensor(sigma, dtype=torch.float64))

    def exact(self) -> Tensor:
        """Return the real-valued delays in steps before any rounding, (1, 1), (1, pre), (post, 1) or (post, pre)."""
        delay = self.delay.reshape(self._shape)
        return delay if self.offset is None else delay + self.offset

    def delays(self) -> Tensor:
        """Return the delays in steps that this segment runs with, broadcastable to (post, pre)."""
        delay = self.exact()
        if self.config.rounding == "stochastic" and self.training:
            return stochastic(delay, self.config.max_delay, self.draw(delay))
        if self.config.rounding in ("stochastic", "straight-through"):
            return straight_through(delay, self.config.max_delay)
        return delay

    def kernel(self) -> Kernel:
        """Return the triangle at the present spread: a number, or one spread per presynaptic neuron."""
        sigma = float(self.sigma)
        if self.spread_logit is None or sigma == 0.0:
            return Triangle(sigma, normalize=self.config.normalize)
        spread = 2.0 * self.sigma.to(self.spread_logit) * self.spread_logit.sigmoid()
        return Triangle(spread.unsqueeze(0), normalize=self.config.normalize)

    def longest(self) -> int:
        """Return the largest delay that the bounds allow, plus half the widest triangle."""
        return math.ceil(self.config.max_delay + (1 + self.config.learn_spread) * self.config.sigma) + 4

    def check(self) -> None:
        """Raise :class:`~delaykit.DelayRangeError` for a NaN, infinite, negative or too large delay."""
        check_delays(self._where, self.exact().detach(), self.config.max_delay)

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the delays into [0, max_delay] and logits into [-10, 10]; an offset gives way to its axonal part."""
        self.delay.clamp_(0.0, self.config.max_delay)
        if self.spread_logit is not None:
            self.spread_logit.clamp_(-LARGEST_LOGIT, LARGEST_LOGIT)
        if self.offset is not None:
            base = self.delay.reshape(self._shape).expand_as(self.offset)
            self.offset.clamp_(-base, self.config.max_delay - base)

    @torch.no_grad()
    def advance_(self, progress: float) -> None:
        """Anneal the spread, ``sigma rho^(100 progress)``, and round in place where the policy says so."""
        if self.config.control != "learned":
            return
        self.sigma.fill_(self.config.sigma * self.config.rho ** (100.0 * progress))
        if self.config.rounding == "each-epoch":
            self._round_()

    @torch.no_grad()
    def discretize_(self) -> None:
        """Round the delays and set the spread to zero."""
        self._round_()
        self.sigma.zero_()

    def _round_(self) -> None:
        whole = self.exact().round().clamp(max=math.floor(self.config.max_delay))
        if self.offset is None:
            self.delay.copy_(whole.reshape(self.delay.shape))
        else:
            self.delay.copy_(self.delay.round().clamp(max=math.floor(self.config.max_delay)))
            self.offset.copy_(whole - self.delay.reshape(self._shape))

    def _apply(self, fn: Any, recurse: bool = True) -> DelRecDelay:
        keep_exact(self, lambda: super(DelRecDelay, self)._apply(fn, recurse))
        return self

    def extra_repr(self) -> str:
        kind = describe_delays(self.exact(), self.config.granularity, self.config.control == "learned")
        return f"{kind}, spread {float(self.sigma):.2g}"

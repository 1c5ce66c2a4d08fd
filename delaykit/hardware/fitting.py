"""A network fitted to a target, and the report of what that changed and what the network costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import ConfigError, DelaykitError
from delaykit.hardware.targets import TARGETS, Target
from delaykit.interfaces import PointDelay
from delaykit.names import nearest
from delaykit.tables import text_table
from delaykit.wrapping.controls import Wrapped, reset, wrapped_sites
from delaykit.wrapping.discretizing import finalize_, grid, round_weights_


@dataclasses.dataclass(frozen=True)
class SiteFit:
    """What fitting did to one connection, and what it costs now.

    Args:
        name: site name.
        delays: how many delays are stored.
        moved: how many of them are others than before.
        clipped: how many were above the cap.
        shift: the largest change of a delay in steps.
        weight_error: the largest change of a weight.
        synapses: weights that are not zero.
        line: cells of the delay lines: of each presynaptic neuron (a dendritic delay: postsynaptic), as long as its
            longest delay.
        deliveries: synaptic operations a presynaptic spike, on average.
        arrivals: times at which the line of a presynaptic neuron is read a spike, on average; more than 1 for synaptic
            delays only.
    """

    name: str
    delays: int
    moved: int
    clipped: int
    shift: float
    weight_error: float
    synapses: int
    line: int
    deliveries: float
    arrivals: float


@dataclasses.dataclass(frozen=True)
class FitReport:
    """What fitting a network to hardware changed; printing it shows a table.

    Args:
        target: to what it was fitted.
        sites: one line for each wrapped connection.
        before: what ``score`` returned before; None without one.
        after: the same afterwards.
    """

    target: Target
    sites: tuple[SiteFit, ...]
    before: float | None = None
    after: float | None = None

    def __str__(self) -> str:
        rows = [("site", "delays", "moved", "clipped", "shift", "weight error", "synapses", "line", "operations",
                 "arrivals")]  # fmt: skip
        rows += [
            (s.name, f"{s.delays}", f"{s.moved}", f"{s.clipped}", f"{s.shift:.2f}", f"{s.weight_error:.2g}",
             f"{s.synapses}", f"{s.line}", f"{s.deliveries:.1f}", f"{s.arrivals:.1f}")
            for s in self.sites
        ]  # fmt: skip
        score = "" if self.before is None or self.after is None else f"\nscore {self.before:.4g} -> {self.after:.4g}"
        return f"{self.target.name}\n{text_table(rows)}{score}"


def fit_hardware_(net: nn.Module, target: str | Target, score: Callable[[nn.Module], float] | None = None) -> FitReport:
    """Bring delays and weights of the wrapped connections into what a target can hold, in place and for good.

    Delays become whole, multiples of the target's step, and at most its cap; spreads become 0. Weights of wrapped
    connections become multiples of ``max|w| / (2^(bits - 1) - 1)``, a scale a connection. All or nothing.

    Args:
        net: a wrapped model.
        target: a name in :data:`delaykit.hardware.TARGETS`, or a :class:`Target` of your own.
        score: measures the model before and after, e.g. its accuracy; None: the report has no score.

    Returns:
        What was clipped and rounded, and what lines and synaptic operations the network needs now.

    Raises:
        ConfigError: an unknown target, or delays that cannot be put on a grid; the model is as it was.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> rule = dk.At(dk.FreeDelay("axonal", max_delay=90, init=[2.3, 80.0]), reset="manual")
        >>> report = dk.fit_hardware_(dk.wrap_(net, {"0": rule}), "loihi")
        >>> dk.status(net).delays["0"].tolist(), report.sites[0].clipped
        ([[2.0, 62.0]], 1)
    """
    goal = _target(target)
    sites = wrapped_sites(net)
    before = _score(score, net)
    kept = [(v, v.detach().clone()) for s in sites for v in _held(s)]
    delays = [_delays(site) for site in sites]
    weights = [None if site.weight is None else site.weight.detach().clone() for site in sites]
    try:
        finalize_(net)
        spacing, largest = grid(goal.step, goal.max_delay, goal.delay_bits)
        with torch.no_grad():
            for site in sites:
                if site.synapse.delay is not None:
                    site.synapse.delay.fit_(spacing, largest)
                if goal.weight_bits is not None and site.weight is not None:
                    round_weights_(site.weight, goal.weight_bits)
    except DelaykitError:
        with torch.no_grad():
            for value, old in kept:
                value.copy_(old)
        raise
    finally:
        reset(net)
    after = _score(score, net)
    fits = [_fit(*found, largest) for found in zip(sites, delays, weights, strict=True)]
    return FitReport(goal, tuple(fits), before, after)


def _score(score: Any, net: nn.Module) -> float | None:
    """Measure a model; None where nobody asked for it."""
    if score is None:
        return None
    found = score(net) if callable(score) and not isinstance(score, (type, nn.Module)) else score
    try:
        if found is score:
            raise TypeError
        return float(found)
    except (TypeError, ValueError, RuntimeError):
        fix = "pass e.g. score=lambda net: accuracy(net, data)"
        raise ConfigError("fit_hardware_ score", checks.shown(found), "a function net -> number", fix) from None


def _target(target: str | Target) -> Target:
    if isinstance(target, Target):
        return target
    if not isinstance(target, str) or target not in TARGETS:
        found = f"{checks.shown(target)}{nearest(target, TARGETS) if isinstance(target, str) else ''}"
        fix = "name one of them, or describe yours: delaykit.hardware.Target(name, max_delay=...)"
        raise ConfigError("fit_hardware_ target", found, f"one of {', '.join(TARGETS)}", fix)
    return TARGETS[target]


def _held(site: Wrapped) -> list[Tensor]:
    held = list(site.synapse.state_dict(keep_vars=True).values())
    return held if site.weight is None else [*held, site.weight]


def _delays(site: Wrapped) -> Tensor | None:
    delay = site.synapse.delay
    return delay.delays().detach().clone() if isinstance(delay, PointDelay) else None


def _longest_a_source(delays: Tensor, pre: int) -> Tensor:
    """Return how long the line of each presynaptic channel is; the pairs of a convolution in groups are in groups."""
    post, fan_in = delays.shape
    if fan_in in (1, pre) and (post == 1 or fan_in == pre):
        return delays.max(0).values.expand(pre)
    groups = pre // fan_in
    return delays.unflatten(0, (groups, post // groups)).max(1).values.flatten()


def _fit(site: Wrapped, before: Tensor | None, weight: Tensor | None, largest: int | None) -> SiteFit:
    now, kept = _delays(site), site.weight
    error = 0.0 if weight is None or kept is None else float((kept.detach() - weight).abs().max())
    synapses = 0 if kept is None else int(torch.count_nonzero(kept))
    deliveries = synapses / site.synapse.site.pre
    if before is None or now is None:
        return SiteFit(site.name, 0, 0, 0, 0.0, error, synapses, 0, deliveries, 1.0)
    shift = (now - before).abs()
    clipped = 0 if largest is None else int((before > largest).sum())
    dendritic = now.shape[1] == 1 and now.shape[0] > 1
    lines = now[:, 0] if dendritic else _longest_a_source(now, site.synapse.site.pre)
    used = torch.ones_like(now, dtype=torch.bool)
    if kept is not None and kept.shape == now.shape:
        used = kept != 0
    distinct = [len(now[:, i][used[:, i]].unique()) for i in range(now.shape[1])]
    arrivals = 1.0 if dendritic else sum(distinct) / len(distinct)
    return SiteFit(site.name, now.numel(), int((shift > 0).sum()), clipped, float(shift.max()), error, synapses,
                   int(lines.sum()), deliveries, arrivals)  # fmt: skip

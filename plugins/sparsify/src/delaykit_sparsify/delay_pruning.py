"""Pruning of delays while the synapses stay: delays of weak use fall to 0, and stay there."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from delaykit import (
    CheckpointError,
    ComponentConfig,
    ConfigError,
    Delay,
    Heterogeneity,
    PointDelay,
    Pruning,
    PruningReport,
    Site,
    checks,
)

TOGETHER = {"delay": None, "pre": 0, "post": 1}  # the dimension of (post, pre) that falls together


@dataclasses.dataclass(frozen=True)
class DelayPruning(ComponentConfig):
    """Set delays to 0 and keep them there, so that hardware stores a fraction of them; weights are left alone.

    A delay's use is ``sum |w[j, i]| d`` over the synapses that share it: what moves how far. The kept fraction falls as
    ``kept + (1 - kept) (1 - progress / ramp)^3``; what is 0 once stays 0.

    Args:
        kept: fraction of the delays that stay, in [0, 1).
        by: ``use``, or ``random``: the control.
        ramp: progress at which ``kept`` is reached, in (0, 1].
        per: what falls together: each ``delay``, or of synaptic delays all those of a ``pre`` or a ``post`` neuron,
            which then needs no line at all.

    Raises:
        ConfigError: a value is of the wrong type or out of range.

    Example:
        >>> [round(DelayPruning(0.2).at(progress), 2) for progress in (0.0, 0.25, 0.5, 1.0)]
        [1.0, 0.3, 0.2, 0.2]
    """

    kind: ClassVar[Literal["pruning"]] = "pruning"
    name: ClassVar[str] = "delay_pruning"

    kept: float = 0.2
    _: dataclasses.KW_ONLY
    by: str = "use"
    ramp: float = 0.5
    per: str = "delay"

    def __post_init__(self) -> None:
        checks.number("DelayPruning.kept", self.kept, least=0, below=1)
        checks.choice("DelayPruning.by", self.by, ("use", "random"))
        checks.number("DelayPruning.ramp", self.ramp, above=0, most=1)
        checks.choice("DelayPruning.per", self.per, tuple(TOGETHER))

    def at(self, progress: float) -> float:
        """Return the fraction of the delays that is left at ``progress`` in [0, 1]."""
        left = 1 - min(1.0, progress / self.ramp)
        return self.kept + (1 - self.kept) * left**3

    def build(self, site: Site, generator: torch.Generator | None = None) -> PrunedDelays:
        """Make the pruning of one connection's delays; the order of ``random`` is drawn from ``generator``."""
        return PrunedDelays(self, site, generator)


@checks.annotated
class PrunedDelays(Pruning):
    """Hold which delays of one connection are left.

    Args:
        config: how many, and by what.
        site: the connection.
        generator: source of the random order.
    """

    def __init__(self, config: DelayPruning, site: Site, generator: torch.Generator | None = None) -> None:
        self.config, self.site = config, site
        self.active: Tensor | None = None  # delays that are left, in the shape of delays()
        self._seed = int(torch.randint(2**31, (1,), generator=generator)) if config.by == "random" else 0
        self._delay: PointDelay | None = None

    def bind_(self, delay: Delay | None, heterogeneity: Heterogeneity | None) -> None:
        """Remember the delay; refuse one whose numbers are not its delays."""
        where, fix = self.site.name, "use FreeDelay('axonal'), FreeDelay('dendritic') or FreeDelay('synaptic')"
        if not isinstance(delay, PointDelay) or delay.delays().numel() < 2:
            raise ConfigError(where, "DelayPruning without several delays", "a delay a neuron or synapse", fix)
        shape, dim = delay.delays().shape, TOGETHER[self.config.per]
        if dim is not None and (min(shape) < 2 or (dim == 0 and shape[1] != self.site.pre)):
            found = f"per={self.config.per!r} with delays of shape {tuple(shape)}"
            raise ConfigError(where, found, f"a delay a synapse, ({self.site.post}, {self.site.pre})", "per='delay'")
        self._delay = delay
        if _numbers(delay) is None:
            self._delay = None
            raise ConfigError(where, f"{type(delay).__name__}", "a delay whose numbers can be set one by one", fix)

    def step_(self, weight: Tensor, progress: float) -> PruningReport:
        """Set the delays of the weakest use to 0; ``weight`` is read only. The report counts delays."""
        delays = self._held().delays().detach()
        before = torch.ones_like(delays, dtype=torch.bool) if self.active is None else self.active.to(delays.device)
        score, left, dim = self._score(weight.detach(), delays), before, TOGETHER[self.config.per]
        if dim is not None:
            score, left = (score * before).sum(dim, keepdim=True), before.any(dim, keepdim=True)
        keep = math.ceil(self.config.at(progress) * left.numel() - 1e-9)
        order = torch.argsort(score.masked_fill(~left, -1.0).flatten(), descending=True, stable=True)
        active = torch.zeros_like(left).flatten()
        active[order[: min(keep, int(left.sum()))]] = True
        self.active = active.reshape(left.shape) & before
        self.project_(weight)
        return PruningReport(delays.numel(), int(self.active.sum()), int((before & ~self.active).sum()), 0)

    def _score(self, weight: Tensor, delays: Tensor) -> Tensor:
        if self.config.by == "random":
            generator = torch.Generator().manual_seed(self._seed)
            return torch.rand(delays.shape, generator=generator).to(delays)
        use = weight.reshape(weight.shape[0], weight.shape[1], -1).abs().sum(-1)
        if use.shape == delays.shape:
            return use.to(delays) * delays
        if use.shape != (self.site.post, self.site.pre):  # a convolution in groups: the channels of one weigh the same
            use = use.mean(1, keepdim=True).expand(self.site.post, self.site.pre)
        for dim, size in enumerate(delays.shape):
            if size == 1:
                use = use.sum(dim, keepdim=True)
        return use.to(delays) * delays

    @torch.no_grad()
    def project_(self, weight: Tensor) -> None:
        """Keep pruned delays at 0 after an optimizer step."""
        numbers = None if self.active is None else _numbers(self._held())
        if numbers is not None and self.active is not None:
            numbers.masked_fill_(~self.active.reshape(numbers.shape).to(numbers.device), 0.0)

    def state(self) -> dict[str, Tensor]:
        """Return which delays are left."""
        return {} if self.active is None else {"active": self.active}

    def load_state_(self, state: dict[str, Tensor]) -> None:
        """Take back which delays are left, or start anew.

        Raises:
            CheckpointError: another number of delays.
        """
        active, shape = state.get("active"), self._held().delays().shape
        if active is not None and (active.shape != shape or active.dtype != torch.bool):
            found = f"a mask of {tuple(active.shape)}, {active.dtype}"
            fix = "load into the model it was saved from"
            raise CheckpointError(f"{self.site.name} (DelayPruning)", found, f"{tuple(shape)}, torch.bool", fix)
        self.active = None if active is None else active.clone()

    def _held(self) -> PointDelay:
        if self._delay is None:
            fix = "wrap a connection with it, by dk.wrap_"
            raise ConfigError(self.site.name, "DelayPruning before it was bound", "bind_(delay, heterogeneity)", fix)
        return self._delay


def _numbers(delay: PointDelay) -> Any:
    """Return the parameter that is the delays, in whatever shape; None where they are computed from others."""
    now = delay.delays().detach().flatten()
    for parameter in delay.parameters():
        flat = parameter.detach().flatten()
        if flat.shape == now.shape and bool(((flat == now) | (flat.round() == now)).all()):
            return parameter
    return None

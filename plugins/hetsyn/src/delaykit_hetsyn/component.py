"""The decays of one connection's synapses, as :class:`~delaykit_hetsyn.HetSyn` describes them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import ConfigError
from delaykit.interfaces import Delay, Heterogeneity, LeakyNeuron, Site
from delaykit.precision import keep_single
from delaykit.synapse import Engine
from delaykit_hetsyn.config import HetSyn
from delaykit_hetsyn.groups import GroupEngine, grid, shares
from delaykit_hetsyn.time_constants import decay_of, draw, tau_of


class Decays(Heterogeneity):
    """Hold ``r``, (post, pre), (post, 1), (1, pre) or (1, 1), in [0, 1], and read the driven neuron's own decay.

    Args:
        config: what is asked for.
        site: the connection.
        generator: source of initial values and of the frozen ones.

    Raises:
        ConfigError: time constants in ms where nobody knows the length of a step.
    """

    needs_neuron: ClassVar[bool] = True
    frozen: Tensor | None
    held: Tensor | None
    shared: Tensor | None

    def __init__(self, config: HetSyn, site: Site, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.where = f"{site.name} (HetSyn)"
        self.dt_ms = site.dt_ms if config.dt_ms is None else config.dt_ms
        shape = site.delay_shape(config.granularity)  # type: ignore[arg-type]
        self.r = nn.Parameter(self._first(shape, generator), requires_grad=config.train)
        frozen = None
        if config.frozen > 0:
            frozen = torch.zeros(self.r.numel(), dtype=torch.bool)
            order = torch.randperm(self.r.numel(), generator=generator)
            frozen[order[: round(config.frozen * self.r.numel())]] = True
        self.register_buffer("frozen", None if frozen is None else frozen.reshape(shape))
        self.register_buffer("held", None if frozen is None else self.r.detach().clone())
        if config.groups is not None:
            checks.affordable(self.where, config.groups, self.r.numel(), "groups", "lower groups=")
        self.register_buffer("shared", None if config.groups is None else grid(config.groups).float())

    def _first(self, shape: tuple[int, int], generator: torch.Generator | None) -> Tensor:
        if self.config.tau == "neuron":
            return torch.zeros(shape)  # until the neuron is known, and for good where there is none
        if self.dt_ms is None:
            found = f"tau={self.config.tau!r} in ms, and a library that counts steps"
            raise ConfigError(self.where, found, "the length of a step", "pass HetSyn(dt_ms=...)")
        return decay_of(draw(self.config.tau, shape, generator), self.dt_ms)

    @torch.no_grad()
    def bind_neuron_(self, neuron: LeakyNeuron | None) -> None:
        """Read the leak of this neuron from now on, and begin at it where ``tau`` says so."""
        super().bind_neuron_(neuron)
        if neuron is not None and self.config.groups is not None and self.shared is not None:
            leak = neuron.leak().detach()
            self.shared.copy_(grid(self.config.groups, float(leak[0]) if bool((leak == leak[0]).all()) else None))
        if neuron is None or self.config.tau != "neuron":
            return
        leak = neuron.leak().to(self.r)
        if bool((leak < 0).any()):
            found = f"a neuron whose state decays by {float(leak.min()):g} a step, and tau='neuron'"
            fix = "give a tau= in ms to begin at, or a shorter dt to the neuron"
            raise ConfigError(self.where, found, "a decay in [0, 1]", fix)
        if len(self.r) == 1 and bool((leak != leak[0]).any()):
            found = f"neurons that leak differently behind granularity {self.config.granularity!r}"
            fix = "use granularity 'synaptic' or 'dendritic', or give a tau to begin at"
            raise ConfigError(self.where, found, "decays that can begin at the neurons' own", fix)
        self.r.copy_((leak[:1] if len(self.r) == 1 else leak).expand_as(self.r))
        if self.held is not None:
            self.held.copy_(self.r)

    def meet_delay_(self, delay: Delay | None) -> None:
        """Refuse a delay beside ``groups``."""
        if delay is not None and self.shared is not None:
            fix = "leave groups out: exact decays go with every delay"
            raise ConfigError(self.where, "groups and a delay on one connection", "one of them", fix)

    def decay(self) -> Tensor:
        """Return r, and in place of what is frozen what it began with: no gradient, and no drift by weight decay."""
        if self.frozen is None or self.held is None:
            return self.r
        return torch.where(self.frozen, self.held, self.r)

    def leak(self) -> Tensor | None:
        """Return the driven neuron's own decay as it is now, (1, 1) or (post, 1); None for a readout."""
        return None if self.neuron is None else self.neuron.leak().to(self.r)

    def linger(self, response: Tensor) -> Tensor:
        """Let a response linger, by the shared decays where ``groups`` asks for them."""
        if self.shared is None:
            return super().linger(response)
        leak = self.leak()
        beyond = self.shared.reshape(-1, 1, 1) if leak is None else self.shared.reshape(-1, 1, 1) - leak
        split, past, out = shares(self.decay(), self.shared), response.new_zeros(1, 1, 1), []
        for k in range(response.shape[-1]):
            out.append(response[..., k] + (split * beyond * past).sum(0))
            past = self.shared.reshape(-1, 1, 1) * past + response[..., k]
        return torch.stack(out, -1)

    def engine(self, weight: Tensor, bias: Tensor | None, delay: Delay | None) -> Engine | None:
        """Return the products of ``groups``; None without, for the core's exact operators."""
        if self.shared is None:
            return None
        leak, shared = self.leak(), self.shared.to(weight.dtype)
        split = shares(self.decay().to(weight.dtype), shared)
        return GroupEngine(weight, bias, split, shared, None if leak is None else leak.to(weight.dtype))

    @torch.no_grad()
    def project_(self) -> None:
        """Keep r in [0, 1], and what is frozen where it began, whatever momentum and weight decay did."""
        self.r.clamp_(0.0, 1.0)
        if self.frozen is not None and self.held is not None:
            self.r.copy_(torch.where(self.frozen, self.held, self.r))

    def tau_ms(self) -> Tensor:
        """Return the time constants in ms, ``-dt / ln r``, as they are now.

        Raises:
            ConfigError: nobody knows the length of a step.
        """
        if self.dt_ms is None:
            raise ConfigError(self.where, "time constants asked for in ms", "dt_ms", "pass HetSyn(dt_ms=...)")
        return tau_of(self.decay().detach(), self.dt_ms)

    def _apply(self, fn: Any, recurse: bool = True) -> Decays:
        keep_single(self, lambda: super(Decays, self)._apply(fn, recurse), "held", "shared")
        return self

    def extra_repr(self) -> str:
        r, learn = self.decay().detach(), "learned" if self.config.train else "fixed"
        if self.frozen is not None:
            learn += f", {float(self.frozen.float().mean()):.0%} frozen"
        if self.shared is not None:
            learn += f", by {len(self.shared)} shared ones"
        low, high, mean = float(r.min()), float(r.max()), float(r.mean())
        return f"{self.config.granularity} decays {low:.2f}..{high:.2f}, mean {mean:.2f}, {learn}"

"""Layers of exact spike times: neurons that fire as often as they like, and a readout that never does."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.arrivals import Hard
from delaykit.errors import ConfigError, DelayRangeError, ShapeError
from delaykit.interfaces import ComponentConfig, PointDelay, Site
from delaykit.sizes import check_sizes, remember_sizes_
from delaykit_timing.dynamics import TimingDynamics
from delaykit_timing.events import Events
from delaykit_timing.operator import SpikeTimes, spike_times


@checks.annotated
class MultiSpikeLIF(nn.Module):
    """Neurons with exact spike times: events in, events out, gradients to weights, times and delays.

    ``I_j' = -I_j / tau_synapse + sum_k w_{j, i(k)} delta(t - t_k - d_{j, i(k)})``,
    ``V_j' = -V_j / tau_membrane + I_j``; at the threshold neuron j fires and ``V_j <- 0``.

    Args:
        pre: number of presynaptic neurons.
        post: number of neurons.
        tau_synapse: time constant of the current, > 0; all times are in one unit of your choice.
        tau_membrane: time constant of the membrane; None: half of ``tau_synapse``, solved in closed form.
        threshold: potential at which a neuron fires, > 0.
        end: end of the window, which begins at 0.
        single_spike: let every neuron fire at most once.
        max_spikes: largest number of spikes of a neuron; None: no limit.
        delay: a delay component, e.g. ``FreeDelay("axonal", max_delay=20)``, or a built ``PointDelay``; None: none.
        dt: length of a step of the delay, in the unit of the times; needed with ``delay``: a component counts steps.
        weight_mean: mean of the initial weights.
        weight_std: standard deviation of the initial weights.
        slope_floor: see :class:`TimingDynamics`.
        generator: source of random initial values.

    Raises:
        ConfigError: a number is out of range, or the delay has no exact arrival or is that of a recurrent connection.

    Example:
        >>> layer = MultiSpikeLIF(2, 1, tau_synapse=0.8)
        >>> _ = layer.weight.data.fill_(4.0)
        >>> [f"{t:.4f}" for t in layer(Events.of([[0.1, 0.2]], [[0, 1]], size=2)).times[0].tolist()]
        ['0.3280', '0.5744']

    Reference:
        Yamamoto, Sakemi, Aihara; initial weights N(0.03, 0.3) as they print it (standard deviation or variance is not
        said; we take the standard deviation).
    """

    def __init__(
        self,
        pre: int,
        post: int,
        *,
        tau_synapse: float = 0.8,
        tau_membrane: float | None = None,
        threshold: float = 1.0,
        end: float = 1.0,
        single_spike: bool = False,
        max_spikes: int | None = None,
        delay: ComponentConfig | PointDelay | None = None,
        dt: float | None = None,
        weight_mean: float = 0.03,
        weight_std: float = 0.3,
        slope_floor: float = 1e-6,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        for name, size in (("pre", pre), ("post", post)):
            checks.whole(f"{where}.{name}", size, least=1, what="number of neurons")
        checks.flag(f"{where}.single_spike", single_spike)
        checks.number(f"{where}.weight_mean", weight_mean)
        checks.number(f"{where}.weight_std", weight_std, least=0)
        limit = 1 if single_spike else max_spikes
        self.dynamics = TimingDynamics(tau_synapse, tau_membrane, threshold, end, limit, slope_floor)
        self.pre, self.post = pre, post
        self.weight = nn.Parameter(weight_mean + weight_std * torch.randn(post, pre, generator=generator))
        self.dt = dt
        self.delay = _built(delay, dt, Site(type(self).__name__, pre, post), generator)

    def forward(self, events: Events) -> Events:
        """Run one window: events of ``pre`` neurons -> events of ``post`` neurons, with their potentials at the end."""
        out = self.spikes(events)
        return Events.gather(out.when, out.sample, out.neuron, len(events), self.post, out.potential)

    def spikes(self, events: Events) -> SpikeTimes:
        """Run one window and return loose spikes."""
        if not isinstance(events, Events):
            found, fix = checks.shown(events), "make them by Events.of, an encoder or from_raster"
            raise ShapeError(type(self).__name__, found, "Events", fix)
        if events.size != self.pre:
            fix = "give the layer pre= that many, or other events"
            raise ShapeError(type(self).__name__, f"events of {events.size} neurons", f"{self.pre} neurons", fix)
        return spike_times(events.times, events.neurons, self.weight, self.dynamics, self.delays())

    def delays(self) -> Tensor | None:
        """Delays in the unit of the times, ``dt`` times the component's steps; None without a delay."""
        if self.delay is None or self.dt is None:
            return None
        check_sizes(type(self).__name__, self.delay)
        self.delay.check()
        kernel, delays = self.delay.kernel(), self.delay.delays()
        delays = delays.detach() if self.delay.estimator == "none" else delays
        spread = float(torch.as_tensor(getattr(kernel, "spread", 0.0)).detach().abs().max())
        if spread > 0:
            raise DelayRangeError(
                type(self).__name__,
                f"an arrival spread over {spread:g} steps",
                "a spread of 0: arrivals are exact here",
                "use kernel='linear', or anneal the spread first",
            )
        return self.dt * (delays.round() if isinstance(kernel, Hard) else delays)

    def extra_repr(self) -> str:
        d = self.dynamics
        limit = "any number of spikes" if d.max_spikes is None else f"at most {d.max_spikes} spike(s)"
        return f"{self.pre} -> {self.post}, tau {d.tau_synapse:g} and {d.tau_v:g}, window {d.end:g}, {limit}"


@checks.annotated
class PotentialReadout(MultiSpikeLIF):
    """Output neurons that never fire; what they say is their potential at the end of the window.

    ``v_j = sum_k w_{j, i(k)} kappa(end - t_k - d_{j, i(k)})`` over the arrivals before ``end``

    Args:
        pre: number of presynaptic neurons.
        post: number of output neurons.
        **options: as for :class:`MultiSpikeLIF`, without those that are about spikes.

    Example:
        >>> readout = PotentialReadout(1, 2, tau_synapse=0.8)
        >>> readout(Events.of([[0.5]], [[0]], size=1)).shape
        torch.Size([1, 2])
    """

    def __init__(self, pre: int, post: int, **options: Any) -> None:
        wrong = sorted({"threshold", "single_spike", "max_spikes"} & set(options))
        if wrong:
            raise ConfigError("PotentialReadout", f"{wrong}", "no such option: a readout does not fire", "leave it out")
        super().__init__(pre, post, **options)
        self.dynamics = dataclasses.replace(self.dynamics, threshold=math.inf)

    def forward(self, events: Events) -> Tensor:  # type: ignore[override]
        """Run one window: events of ``pre`` neurons -> potentials ``(sample, post)``."""
        return self.spikes(events).potential


def _built(
    delay: ComponentConfig | PointDelay | None, dt: float | None, site: Site, generator: torch.Generator | None
) -> PointDelay | None:
    if delay is None:
        return None
    if dt is None or not (dt > 0 and math.isfinite(dt)):
        raise ConfigError(
            site.name, f"a delay and dt={dt}", "the length of a step in the unit of the times, > 0", "pass dt="
        )
    module = delay.build(site, generator) if isinstance(delay, ComponentConfig) else delay
    if not isinstance(module, PointDelay):
        found = f"{type(module).__name__}"
        raise ConfigError(site.name, found, "a delay with one arrival a spike (PointDelay)", "use FreeDelay")
    _refuse_loops(module, site)
    remember_sizes_(module)
    return module


def _refuse_loops(delay: PointDelay, site: Site) -> None:
    """Raise for a delay that counts a step of recurrence, or cuts synapses out: this layer does neither."""
    arrivals = delay.kernel().whole(delay.delays().detach()).value
    if getattr(delay, "recurrent", False) or not bool((arrivals == 1).all()):
        found = "a delay within one population: its neurons do not hear themselves, and spikes need a step to come back"
        fix = "name two populations, e.g. Spatial(pre='input', post='hidden')"
        raise ConfigError(site.name, found, "a feed-forward connection", fix)

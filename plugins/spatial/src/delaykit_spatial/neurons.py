"""LIF and AdEx layers in space: delayed input, delayed recurrence, exact integration, and a choice of gradients.

| estimator | a spike arrives | gradient |
|---|---|---|
| ``exact`` | within a step, at its own time | of the continuous network: spike times, delays, weights |
| ``interp`` | shared between the two steps around d | of the surrogate and the interpolation |
| ``none`` | as with ``exact`` | weights only |

``interp`` resets at the end of a step and spikes come at its end; as steps get short all three compute the same spikes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from delaykit import ConfigError, ShapeError, Site, checks
from delaykit.arrivals import Linear
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout, rollout_generic
from delaykit.interfaces import ESTIMATORS, Estimator
from delaykit.sizes import check_sizes
from delaykit_spatial.config import Spatial
from delaykit_spatial.connection import RECURRENT, SpatialConnection, input_factor
from delaykit_spatial.exact import ExactRun, SuperSpike, exact_arrivals, exact_rollout
from delaykit_spatial.exact.neuron import ExactAdEx, ExactLIF, Neuron


class SpatialLayer(nn.Module):
    """Run one population in space; see :class:`LIF` and :class:`AdEx`, which say which neuron it is."""

    def __init__(
        self, neuron: Neuron, pre: int, neurons: int, spatial: Spatial, recurrent: Spatial | bool, *,
        name: str, estimator: Estimator, surrogate: Callable[[Tensor], Tensor] | None, once: bool, rescale_every: int,
        min_slope: float, factors: tuple[float | None, float], generator: torch.Generator | None,
    ) -> None:  # fmt: skip
        super().__init__()
        checks.choice(f"{name} estimator", estimator, ESTIMATORS)
        for field, size in (("pre", pre), ("neurons", neurons)):
            checks.whole(f"{name} {field}", size, least=1, what="number of neurons")
        for field, config in (("spatial", spatial), ("recurrent", recurrent)):
            if not isinstance(config, Spatial) and (field == "spatial" or not isinstance(config, bool)):
                fix = "pass e.g. Spatial(2)"
                raise ConfigError(f"{name} {field}", checks.shown(config), "a Spatial", fix)
        if estimator == "interp" and once:
            raise ConfigError(name, "once=True with 'interp'", "estimator='exact' or 'none'", "leave once out")
        self.neuron, self.estimator, self.once, self.rescale_every = neuron, estimator, once, rescale_every
        self.surrogate, self.min_slope = surrogate, min_slope
        site = Site(f"{name}.input", pre, neurons, neuron=name, dt_ms=neuron.dt)
        factor = input_factor(neurons) if factors[0] is None else factors[0]
        self.input = SpatialConnection(site, spatial, factor, generator)
        self.recurrent: SpatialConnection | None = None
        if recurrent is not False:
            loop = dataclasses.replace(spatial, pre=None, pre_init=None) if recurrent is True else recurrent
            site = Site(f"{name}.recurrent", neurons, neurons, recurrent=True, neuron=name, dt_ms=neuron.dt)
            self.recurrent = SpatialConnection(site, loop, factors[1], generator)
            self.recurrent.delay.meet_((self.input.delay,))

    def forward(self, spikes: Tensor, clock: Tensor | None = None) -> ExactRun:
        """Run a whole sequence from rest.

        Args:
            spikes: ``(time, batch, pre)``.
            clock: of the layer that fired them; None for data, and for ``interp``.

        Returns:
            ``spikes``, ``clock`` and ``membrane`` of this population, each ``(time, batch, neuron)``.

        Raises:
            ShapeError: other channels.
            DelayRangeError: NaN positions.
        """
        if spikes.ndim != 3 or spikes.shape[-1] != self.input.delay.site.pre:
            expected = f"(time, batch, {self.input.delay.site.pre})"
            fix = "give the whole sequence, time first"
            raise ShapeError(self.input.delay.site.name, f"spikes of shape {tuple(spikes.shape)}", expected, fix)
        for connection in (self.input, self.recurrent):
            if connection is not None:
                check_sizes(connection.delay.site.name, connection.delay)
                connection.delay.check()
        if self.estimator == "interp":
            return self._interpolated(spikes)
        neuron, way, loop = self.neuron, self.input, self.recurrent
        jumps = exact_arrivals(
            spikes, clock, way.masked_weight, way.delay.delays(), neuron.tau_syn, neuron.dt, self.estimator
        )
        return exact_rollout(
            *jumps, neuron,
            recurrent_weight=None if loop is None else loop.masked_weight,
            recurrent_delay=None if loop is None else loop.delay.delays(),
            surrogate=self.surrogate, once=self.once, rescale_every=self.rescale_every, min_slope=self.min_slope,
            estimator=self.estimator,
        )  # fmt: skip

    def _interpolated(self, spikes: Tensor) -> ExactRun:
        # An arrival moves the membrane in the step after, as it does in exact_rollout: hence the one step more.
        late = Linear().taps(self.input.delay.delays() + 1.0)
        drive = delayed_linear(spikes, self.input.masked_weight, late, None)
        weight = taps = None
        if self.recurrent is not None:  # its weight is masked: the kernel need not be
            weight, taps = self.recurrent.masked_weight, Linear().tents(self.recurrent.delay.delays() + 1.0)
        if isinstance(self.neuron, ExactLIF):
            fired, membrane, _ = rollout(drive, weight, None, taps, self._dynamics())
        else:
            step = _Stepped(self.neuron, self._smooth(), drive[0])
            fired = rollout_generic(step, drive, weight, None, taps)
            membrane = torch.stack(step.membranes)
        return ExactRun(fired, torch.zeros_like(fired), membrane)

    def _dynamics(self) -> LIFDynamics:
        keep_v, keep_i, gain = self.neuron.constants()[:3]
        return LIFDynamics(
            decay=keep_v, synapse_decay=keep_i, gain=gain, threshold=self.neuron.threshold, surrogate=self._smooth(),
            reset="zero", reset_when="same",
        )  # fmt: skip

    def _smooth(self) -> Callable[[Tensor], Tensor]:
        return SuperSpike() if self.surrogate is None else self.surrogate

    def extra_repr(self) -> str:
        return f"{self.neuron}, estimator={self.estimator}"


@checks.annotated
class LIF(SpatialLayer):
    """Leaky integrate-and-fire neurons with a synaptic current, in space.

    ``i' = -i / tau_syn + sum w delta(t - arrival)``, ``v' = -v / tau_mem + i``, ``v <- 0`` at the threshold.

    Args:
        pre: number of input channels.
        neurons: size of the population.
        spatial: geometry of the input connection; its ``estimator`` is not used here.
        recurrent: geometry of the recurrent connection; True: as the input's; False: none.
        name: of the population; ``spatial.pre`` names the one that sends.
        tau_mem: in ms.
        tau_syn: in ms.
        dt_ms: length of a step.
        threshold: membrane at which it fires; infinite for a readout, whose membrane is the result.
        estimator: see the module.
        surrogate: for readouts that count spikes, and for ``interp``; None: SuperSpike ``1 / (1 + |x|)^2`` with
            ``interp``, no such gradient otherwise.
        once: every neuron fires at most once (time to first spike).
        rescale_every: see :func:`delaykit_spatial.exact.operator.exact_rollout`; not with ``interp``.
        min_slope: see there, in membrane per ms; where steps are coarse, more than the default trains better
            (see the plugin's README). Not with ``interp``.
        factors: of input and recurrent weights, see :class:`SpatialConnection`; None: the paper's for this size.
        generator: source of weights and positions.

    Example:
        >>> layer = LIF(4, 8, Spatial(2, pre="input", scale=3.0), name="hidden", dt_ms=0.5)
        >>> run = layer(torch.ones(20, 2, 4))
        >>> run.spikes.shape, layer.input.delay.post_positions is layer.recurrent.delay.post_positions
        (torch.Size([20, 2, 8]), True)

    Reference: Landsmeer, Movahedin et al. 2025, eq. 1-2; defaults are those for SHD.
    """

    def __init__(
        self, pre: int, neurons: int, spatial: Spatial, recurrent: Spatial | bool = True, *, name: str = "hidden",
        tau_mem: float = 10.0, tau_syn: float = 2.0, dt_ms: float = 0.5, threshold: float = 1.0,
        estimator: Estimator = "exact", surrogate: Callable[[Tensor], Tensor] | None = None, once: bool = False,
        rescale_every: int = 0, min_slope: float = 1e-3, factors: tuple[float | None, float] = (None, RECURRENT),
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            ExactLIF(tau_mem, tau_syn, threshold, dt_ms), pre, neurons, spatial, recurrent, name=name,
            estimator=estimator, surrogate=surrogate, once=once, rescale_every=rescale_every, min_slope=min_slope,
            factors=factors, generator=generator,
        )  # fmt: skip


@checks.annotated
class AdEx(SpatialLayer):
    """Adaptive exponential integrate-and-fire neurons, in space; arguments as for :class:`LIF`.

    ``v' = -v / tau_mem + Delta exp((v - 1/2) / Delta) + i - a``, ``a' = (-a + coupling v) / tau_adapt``;
    at the threshold ``v <- 0``, ``a <- a + jump``. With ``interp`` it runs by plain autograd, which is slow.

    Args:
        pre: number of input channels.
        neurons: size of the population.
        spatial: geometry of the input connection.
        recurrent: geometry of the recurrent connection.
        name: of the population.
        neuron: time constants in ms and the other numbers; its ``dt`` is the length of a step.
        estimator: as for :class:`LIF`.
        surrogate: as for :class:`LIF`.
        once: as for :class:`LIF`.
        rescale_every: as for :class:`LIF`.
        min_slope: as for :class:`LIF`.
        factors: as for :class:`LIF`.
        generator: as for :class:`LIF`.

    Example:
        >>> AdEx(4, 8, Spatial(2, scale=3.0))(torch.ones(20, 2, 4)).membrane.shape
        torch.Size([20, 2, 8])

    Reference: Landsmeer, Movahedin et al. 2025, eq. 3, with sign and scale of the leak as in a membrane equation.
    """

    def __init__(
        self, pre: int, neurons: int, spatial: Spatial, recurrent: Spatial | bool = True, *, name: str = "hidden",
        neuron: ExactAdEx | None = None, estimator: Estimator = "exact",
        surrogate: Callable[[Tensor], Tensor] | None = None, once: bool = False, rescale_every: int = 0,
        min_slope: float = 1e-3, factors: tuple[float | None, float] = (None, RECURRENT),
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            neuron or ExactAdEx(10.0, 2.0, dt=0.5), pre, neurons, spatial, recurrent, name=name, estimator=estimator,
            surrogate=surrogate, once=once, rescale_every=rescale_every, min_slope=min_slope, factors=factors,
            generator=generator,
        )  # fmt: skip


class _Stepped:
    """A neuron stepped by plain autograd: flow with the current so far, spike by the surrogate, reset."""

    def __init__(self, neuron: Neuron, surrogate: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self.neuron, self.surrogate = neuron, surrogate
        self.state = neuron.start(like)
        self.membranes: list[Tensor] = []

    def __call__(self, drive: Tensor, last: Tensor) -> Tensor:
        state = self.state._replace(synapse=self.state.synapse + drive)
        v, i, a = self.neuron.flow(state)
        fired = self.surrogate(v - self.neuron.threshold)
        hard = fired.detach()
        v, a = v * (1.0 - hard), a + getattr(self.neuron, "jump", 0.0) * hard
        self.state = type(state)(v, i, a)
        self.membranes.append(v)
        return fired

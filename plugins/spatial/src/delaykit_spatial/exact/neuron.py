r"""Neurons whose spike times have an exact gradient: LIF and AdEx, integrated exactly from step to step.

Both have a synaptic current, so that the membrane is continuous where a spike arrives and has a slope where it crosses
the threshold. With h the length of a step, K = (e^{-h/tau_syn} - e^{-h/tau_mem}) / (1/tau_mem - 1/tau_syn) and
M = tau_mem (1 - e^{-h/tau_mem}), a step without spikes is::

    LIF    v <- e^{-h/tau_mem} v + K i,        i <- e^{-h/tau_syn} i
    AdEx   u <- E(v),  v <- E(e^{-h/tau_mem} u + K i - M a),  i as above,
           a <- e^{-h/tau_a} a + alpha (1 - e^{-h/tau_a}) u,

where E solves v' = Delta e^{(v - middle)/Delta} over half a step in closed form, with x = e^{(v - middle)/Delta}:
E(v) = v - Delta ln(1 - h x / 2). The upstroke, which no explicit step of this length could follow, has no error of its
own. From the threshold, which it passes 1/x - e^{-(threshold - middle)/Delta} after it began, it goes straight on.

A neuron that is past its threshold at the end of a step crossed it a time ``lead`` before, and went on from 0 since.
For LIF, with q = 1/tau_syn - 1/tau_mem, v and i at the end of the step, both are closed forms::

    e^{lead/tau_mem} (v - m i) = threshold,  v_after = m i,  m = (e^{q lead} - 1) / q
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ConfigError


class ExactState(NamedTuple):
    """Membrane, synaptic current and adaptation, each ``(batch, post)``."""

    membrane: Tensor
    synapse: Tensor
    adaptation: Tensor


@dataclasses.dataclass(frozen=True)
class ExactLIF:
    r"""Describe a leaky integrate-and-fire neuron with a synaptic current.

    ``v' = -v / tau_mem + i``, ``i' = -i / tau_syn + arrivals``; ``v <- 0`` where v reaches the threshold.

    Args:
        tau_mem: time constant of the membrane, > 0, in the unit of ``dt``.
        tau_syn: time constant of the synaptic current, > 0, in the unit of ``dt``.
        threshold: membrane at which it fires, > 0; infinite for a readout that never does.
        dt: length of a step. With 1, all is in steps; with milliseconds, weights and slopes are per millisecond.

    Raises:
        ConfigError: a number out of its range.

    Example:
        >>> ExactLIF(tau_mem=10.0, tau_syn=2.0, dt=0.5).slope_change      # v' jumps by threshold / tau_mem at the reset
        0.1

    Reference:
        Landsmeer et al. 2025 (SpSNN), eq. 1-2; with ``v - v_threshold`` over tau_mem in eq. 9, which prints a product.
    """

    tau_mem: float
    tau_syn: float
    threshold: float = 1.0
    dt: float = 1.0

    def __post_init__(self) -> None:
        _check(self, "tau_mem", "tau_syn", "threshold", "dt")

    @property
    def slope_change(self) -> float:
        """``v'`` after the reset minus ``v'`` before it, at an unchanged current."""
        return 0.0 if math.isinf(self.threshold) else self.threshold / self.tau_mem

    @property
    def adaptation_rate(self) -> float:
        """``a'`` before the reset minus ``a'`` after it: there is no adaptation."""
        return 0.0

    def start(self, like: Tensor) -> ExactState:
        """Make the state before the first step, ``(batch, post)`` as ``like``."""
        return ExactState(torch.zeros_like(like), torch.zeros_like(like), torch.zeros_like(like))

    def flow(self, state: ExactState, jump: Tensor | float = 0.0) -> ExactState:
        """Advance by a step without spikes, with a jump of the membrane by its arrivals, differentiable."""
        keep_v, keep_i, gain = _linear(self)
        return ExactState(
            keep_v * state.membrane + gain * state.synapse + jump, keep_i * state.synapse, state.adaptation
        )

    def lead(self, state: ExactState, min_slope: float) -> Tensor:
        """Return how long before the end of its step a membrane past the threshold crossed it, by Newton's rule."""
        v, i, _ = state
        steep = (i - v / self.tau_mem).clamp(min=min_slope)
        lead = _within((v - self.threshold) / steep, self.dt)
        for _ in range(ROUNDS):
            keep, gain = self.back(lead)
            steep = self.slope(state, lead).clamp(min=min_slope)
            lead = _within(lead + (keep * (v - gain * i) - self.threshold) / steep, self.dt)
        return lead

    def back(self, lead: Tensor) -> tuple[Tensor, Tensor]:
        """Return (keep, gain): at the crossing the membrane was ``keep (v - gain i)``, since then it gained that i."""
        rate = 1 / self.tau_syn - 1 / self.tau_mem
        return torch.exp(lead / self.tau_mem), torch.expm1(rate * lead) / rate if rate else lead

    def slope(self, state: ExactState, lead: Tensor) -> Tensor:
        """``v'`` at the crossing."""
        return state.synapse * torch.exp(lead / self.tau_syn) - self.slope_change

    def restart(self, state: ExactState, lead: Tensor) -> Tensor:
        """Return the membrane at the end of the step in which it was reset."""
        return self.back(lead)[1] * state.synapse

    def constants(self) -> list[float]:
        """List what a step needs; the kernels read it by position."""
        return [
            *_linear(self), self.threshold, self.dt, self.tau_syn, self.slope_change, *[0.0] * 5, self.slope_change,
            0.0, 1.0, 0.0, 1 / self.tau_mem, 0.0,
        ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ExactAdEx:
    r"""Describe an adaptive exponential integrate-and-fire neuron with a synaptic current.

    ``v' = -v / tau_mem + Delta exp((v - middle) / Delta) + i - a``, ``a' = (-a + coupling v) / tau_adapt``;
    where v reaches the threshold ``v <- 0`` and ``a <- a + jump``.

    Args:
        tau_mem: time constant of the membrane, > 0, in the unit of ``dt``.
        tau_syn: time constant of the synaptic current, > 0.
        tau_adapt: time constant of the adaptation, > 0.
        coupling: what the membrane adds to the adaptation (a in the paper).
        jump: what a spike adds to the adaptation (b in the paper).
        sharpness: Delta, > 0, in units of the membrane.
        middle: membrane at which the exponential term is Delta.
        adaptation_start: adaptation before the first step.
        threshold: as for :class:`ExactLIF`, finite.
        dt: as for :class:`ExactLIF`.

    Raises:
        ConfigError: a number out of its range.

    Example:
        >>> neuron = ExactAdEx(tau_mem=10.0, tau_syn=2.0, dt=0.5)
        >>> neuron.flow(neuron.start(torch.zeros(1, 1))).adaptation.item() < neuron.adaptation_start
        True

    Reference:
        Landsmeer et al. 2025 (SpSNN), eq. 3, with sign and scale of the leak as in a membrane equation; printed is
        ``-(v + Delta exp)/tau_mem``.
    """

    tau_mem: float
    tau_syn: float
    tau_adapt: float = 200.0
    coupling: float = 0.01
    jump: float = 0.02
    sharpness: float = 0.1
    middle: float = 0.5
    adaptation_start: float = 0.1
    threshold: float = 1.0
    dt: float = 1.0

    def __post_init__(self) -> None:
        _check(self, "tau_mem", "tau_syn", "tau_adapt", "sharpness", "threshold", "dt")
        if math.isinf(self.threshold):
            raise ConfigError("ExactAdEx(threshold)", "inf", "a finite threshold", "use ExactLIF for a readout")

    @property
    def slope_change(self) -> float:
        """``v'`` after the reset minus ``v'`` before it, at an unchanged current."""
        return self.threshold / self.tau_mem - self.jump + self._upstroke(0.0) - self._upstroke(self.threshold)

    @property
    def adaptation_rate(self) -> float:
        """``a'`` before the reset minus ``a'`` after it, ``(jump + coupling threshold) / tau_adapt``."""
        return (self.jump + self.coupling * self.threshold) / self.tau_adapt

    def start(self, like: Tensor) -> ExactState:
        """Make the state before the first step, ``(batch, post)`` as ``like``."""
        zero = torch.zeros_like(like)
        return ExactState(zero, zero, torch.full_like(like, self.adaptation_start))

    def flow(self, state: ExactState, jump: Tensor | float = 0.0) -> ExactState:
        """Advance by a step without spikes, with a jump of the membrane by its arrivals, differentiable."""
        v, i, a = state
        keep_v, keep_i, gain = _linear(self)
        keep_a = math.exp(-self.dt / self.tau_adapt)
        v = self._rise(v)
        after = self._rise(keep_v * v + gain * i - self.tau_mem * (1 - keep_v) * a + jump)
        return ExactState(after, keep_i * i, keep_a * a + self.coupling * (1 - keep_a) * v)

    def _rise(self, v: Tensor) -> Tensor:
        """Go up the exponential for half a step, and straight on from the threshold."""
        half, least = self.dt / 2, math.exp(-(self.threshold - self.middle) / self.sharpness)
        below = v < self.threshold
        x = torch.exp((torch.where(below, v, 0.0) - self.middle) / self.sharpness)
        crossing = x * (least + half) >= 1
        risen = v - self.sharpness * torch.log1p(-half * torch.where(crossing, 0.0, x))
        past = self.threshold + self.sharpness / least * (half + least - 1 / x)
        return torch.where(below, torch.where(crossing, past, risen), v + self.sharpness / least * half)

    def lead(self, state: ExactState, min_slope: float) -> Tensor:
        """Return how long before the end of its step a membrane past the threshold crossed it."""
        steep = self.slope(state, torch.zeros_like(state.membrane)).clamp(min=min_slope)
        return _within((state.membrane - self.threshold) / steep, self.dt)

    def back(self, lead: Tensor) -> tuple[Tensor, Tensor]:
        """Return (keep, gain) as for LIF, of first order."""
        return torch.ones_like(lead), lead

    def slope(self, state: ExactState, lead: Tensor) -> Tensor:
        """``v'`` at the crossing, of first order."""
        rest = self._upstroke(self.threshold) - self.threshold / self.tau_mem
        return state.synapse - state.adaptation + rest

    def restart(self, state: ExactState, lead: Tensor) -> Tensor:
        """Return the membrane at the end of the step in which it was reset."""
        return lead * (state.synapse - state.adaptation - self.jump + self._upstroke(0.0))

    def constants(self) -> list[float]:
        """List what a step needs; the kernels read it by position."""
        keep_v, _, _ = linear = _linear(self)
        keep_a = math.exp(-self.dt / self.tau_adapt)
        rest = self.threshold / self.tau_mem - self._upstroke(self.threshold)
        return [
            *linear, self.threshold, self.dt, self.tau_syn, self.slope_change,
            keep_a, self.coupling * (1 - keep_a), self.tau_mem * (1 - keep_v), self.jump, self.adaptation_rate,
            rest, self.adaptation_start, self.sharpness, self.middle, 1 / self.tau_mem, self._upstroke(0.0) - self.jump,
        ]  # fmt: skip

    def _upstroke(self, v: float) -> float:
        return self.sharpness * math.exp((v - self.middle) / self.sharpness)


Neuron = ExactLIF | ExactAdEx
ROUNDS = 3  # of Newton's rule: the first guess is off by a square of the step
FULL = 1 - 2**-16  # of a step: a spike comes after its step began, and so does its first arrival


def _within(lead: Tensor, dt: float) -> Tensor:
    return lead.clamp(0.0, FULL * dt)


def _linear(neuron: Neuron) -> tuple[float, float, float]:
    """What membrane and current keep in a step, and what a current of 1 adds to the membrane."""
    rate_v, rate_i, dt = 1 / neuron.tau_mem, 1 / neuron.tau_syn, neuron.dt
    keep_v, keep_i = math.exp(-dt * rate_v), math.exp(-dt * rate_i)
    difference = (rate_v - rate_i) * dt
    gain = dt * keep_v * (math.expm1(difference) / difference if difference else 1.0)
    return keep_v, keep_i, gain


def _check(neuron: Neuron, *positive: str) -> None:
    for name in positive:
        value = getattr(neuron, name)
        if name != "threshold" or not (isinstance(value, float) and value == math.inf):
            checks.number(f"{type(neuron).__name__}({name})", value, above=0)

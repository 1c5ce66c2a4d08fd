"""The neuron of this plugin: a leaky membrane driven by a leaky current, with a threshold.

``I' = -I / tau_synapse + sum_k w_k delta(t - t_k)``, ``V' = -V / tau_membrane + I``; at ``V = threshold`` the neuron
fires, ``V <- 0``, and ``I`` goes on.

Between two events the pair (I, V) moves by ``I <- I e_I``, ``V <- V e_V + I kappa`` with
``e_I = exp(-s / tau_synapse)``, ``e_V = exp(-s / tau_membrane)`` and the membrane's response to one unit of current,

``kappa(s) = (e_I - e_V) / (1 / tau_membrane - 1 / tau_synapse)``.

Time is always counted from the latest event, so nothing grows like ``exp(t / tau)``: a small time constant or a long
window cannot overflow, and the ratio ``p = tau_synapse / tau_membrane`` may be any number, 1 included.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from delaykit import checks
from delaykit.functional.inputs import check_tensors


@checks.annotated
@dataclasses.dataclass(frozen=True)
class TimingDynamics:
    """Constants of a layer of spiking neurons; all times in one unit of your choice.

    Args:
        tau_synapse: time constant of the synaptic current, > 0.
        tau_membrane: time constant of the membrane, > 0; None: half of ``tau_synapse`` (p = 2, solved in closed form).
        threshold: potential at which a neuron fires, > 0; infinity for neurons that never do.
        end: end of the window, which begins at 0, > 0. Arrivals at ``end`` or later have no effect.
        max_spikes: a neuron stops firing after so many spikes (it goes on integrating); None: no limit.
        slope_floor: smallest slope of V at a spike that a gradient is divided by, as a fraction of
            ``threshold / tau_membrane``, > 0. It bounds the gradient where V only grazes the threshold.

    Raises:
        ConfigError: a number is out of range.

    Example:
        >>> TimingDynamics(tau_synapse=0.8).ratio
        2.0

    Reference:
        Yamamoto, Sakemi, Aihara, exact spike times without the single-spike restriction, eqs. 1-4.
    """

    tau_synapse: float = 0.8
    tau_membrane: float | None = None
    threshold: float = 1.0
    end: float = 1.0
    max_spikes: int | None = None
    slope_floor: float = 1e-6

    def __post_init__(self) -> None:
        checks.number("TimingDynamics.tau_synapse", self.tau_synapse, above=0, fix="give times in one unit")
        if self.tau_membrane is None:
            object.__setattr__(self, "tau_membrane", self.tau_synapse / 2)
        for name in ("tau_membrane", "end", "slope_floor", "threshold"):
            if name != "threshold" or not (isinstance(self.threshold, float) and self.threshold == math.inf):
                checks.number(f"TimingDynamics.{name}", getattr(self, name), above=0, fix="give times in one unit")
        if self.max_spikes is not None:
            checks.whole("TimingDynamics.max_spikes", self.max_spikes, least=1, fix="use None for no limit")

    @property
    def tau_v(self) -> float:
        """Time constant of the membrane."""
        assert self.tau_membrane is not None  # filled in by __post_init__
        return self.tau_membrane

    @property
    def ratio(self) -> float:
        """``p = tau_synapse / tau_membrane``."""
        return self.tau_synapse / self.tau_v

    def silent(self) -> TimingDynamics:
        """The same neuron without a threshold, as a readout has it."""
        return dataclasses.replace(self, threshold=math.inf)


Dynamics = TimingDynamics  # its former name


@checks.annotated
def membrane_response(elapsed: Tensor, dynamics: TimingDynamics) -> Tensor:
    """Return ``kappa(s)``, the potential that one unit of current has caused after a time ``s``.

    ``kappa(s) = (exp(-s / tau_synapse) - exp(-s / tau_membrane)) / (1 / tau_membrane - 1 / tau_synapse)``; where both
    constants are equal, its limit ``s exp(-s / tau)``.

    Args:
        elapsed: any shape, >= 0, in the unit of the time constants.
        dynamics: the neuron.

    Returns:
        Potential of the same shape, differentiable.

    Example:
        >>> f"{membrane_response(torch.tensor(1.0), TimingDynamics(1.0, 1.0)):.4f}"
        '0.3679'
    """
    check_tensors("membrane_response", elapsed=elapsed)
    difference = 1 / dynamics.tau_v - 1 / dynamics.tau_synapse
    slower = torch.exp(-elapsed / max(dynamics.tau_synapse, dynamics.tau_v))
    if difference == 0:
        return elapsed * slower
    return slower * -torch.expm1(-abs(difference) * elapsed) / abs(difference)

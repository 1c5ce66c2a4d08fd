"""Norse's LIF cells and sequence modules with exact gradients of spike times and resets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from delaykit.attaching.exact_gradients.neurons import ExactNeuron, Slopes
from delaykit.functional.eager import eager
from delaykit.functional.event_gradients.rule import Continued, Emission

Step = Callable[..., Any]


class ExactNorseLIF:
    """Mixin for ``LIFCell``, ``LIF``, ``LIFRecurrentCell`` and ``LIFRecurrent``: another ``activation``, equal values.

    Norse resets in the step that fires, ``v = (1 - z) v + z v_reset``; z is detached or not, the gradient is exact.
    """

    keeps_signature = True

    @property
    def activation(self) -> Step:
        """Return Norse's step, or while gradients are exact, the same one with other gradients."""
        own = self.__dict__["activation"]
        exact: ExactNeuron = self.__dict__["_dk"].exact
        if not exact.active:
            return own
        recurrent = "recurrent_weights" in self._parameters or "recurrent_weights" in self.__dict__  # type: ignore[attr-defined]
        return self._dk_recurrent if recurrent else self._dk_feed_forward

    @activation.setter
    def activation(self, value: Step) -> None:
        self.__dict__["activation"] = value

    def _dk_feed_forward(self, drive: Tensor, state: Any, p: Any, dt: float) -> Any:
        spikes, after = self._dk_advance(state.i + drive, state, p, dt)
        return spikes, type(state)(**after)

    def _dk_recurrent(
        self, inputs: Tensor, state: Any, input_weights: Any, recurrent_weights: Any, p: Any, dt: float
    ) -> Any:
        jump = state.i + linear(inputs, input_weights) + linear(state.z, recurrent_weights)
        spikes, after = self._dk_advance(jump, state, p, dt)
        return spikes, type(state)(z=spikes, **after)

    @eager
    def _dk_advance(self, jump: Tensor, state: Any, p: Any, dt: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Go on by one step of Norse's equations, in Norse's order: the values are its own to the last bit."""
        from norse.torch.functional.threshold import threshold

        v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + jump)
        i = jump + -dt * p.tau_syn_inv * jump
        spikes = threshold(v - p.v_th, p.method, p.alpha)
        with torch.no_grad():
            value = (1 - spikes) * v + spikes * p.v_reset
        if not v.requires_grad:
            return spikes, {"v": value, "i": i}
        slopes = self._dk_slopes(p, dt, v)
        with torch.no_grad():
            before = slopes.firing(slopes.at(i, v))
            ratio = torch.where(spikes > 0, slopes.at(i, p.v_reset) / before, 1.0)
        return Emission.apply(spikes, v, before), {"v": Continued.apply(v, ratio, value), "i": i}

    def _dk_slopes(self, p: Any, dt: float, like: Tensor) -> Slopes:
        exact: ExactNeuron = self.__dict__["_dk"].exact
        constants = (p.tau_mem_inv, p.tau_syn_inv, p.v_th, p.v_leak, p.v_reset, dt)
        return exact.slopes(self, constants, like)  # type: ignore[arg-type]

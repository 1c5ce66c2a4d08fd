r"""One time step of a leaky neuron whose reset comes a step later, in one kernel: for loops of the user's own.

    r_t = [v_{t-1} > threshold]
    v_t = decay (1 - z r_t) v_{t-1} + drive_t - y r_t threshold       y: reset by subtraction, z: to zero, neither: none
    s_t = [v_t > threshold]

A library's neuron takes a dozen small operations for it, each of which costs more to launch than to run. The sums are
made in the same order, and rounded as often, so that numbers are equal to the bit. :meth:`LIFDynamics.step
<delaykit.functional.dynamics.LIFDynamics.step>` judges it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from delaykit.errors import HistoryError
from delaykit.functional.compiled import compiled, compiled_for
from delaykit.functional.dispatch import chosen, works
from delaykit.functional.surrogates import ARCTAN, Slope

Reset = Literal["subtract", "zero", "none"]
_ONE, _NONE = np.float32(1), np.float32(0)
_SWITCHES = {"subtract": (_ONE, _NONE), "zero": (_NONE, _ONE), "none": (_NONE, _NONE)}


class Leak(NamedTuple):
    """A leaky neuron in numbers, each of float32, as it computes with them.

    Args:
        decay: what the membrane keeps each step, 0 to 1.
        threshold: membrane above which it spikes, finite.
        reset: what a spike does to the next step.
        slope: the surrogate's derivative.
    """

    decay: np.float32
    threshold: np.float32
    reset: Reset
    slope: Slope


class LeakyStep(NamedTuple):
    """What a step gives, each in the shape of its drive.

    Args:
        spikes: s_t.
        membrane: v_t.
        resets: r_t, without a graph.
    """

    spikes: Tensor
    membrane: Tensor
    resets: Tensor


def runs_at_once(drive: Tensor, membrane: Tensor) -> bool:
    """Tell whether :func:`leaky_step` can run on these: plain float32 numbers of one shape, which Numba can look at.

    Nothing may be under way that would see the single operations: ``torch.func``, forward-mode differentiation, a
    tracer, a mode of torch, or a backend asked for by name.

    Example:
        >>> runs_at_once(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64))
        False
    """
    alike = _plain(drive) and _plain(membrane) and drive.shape == membrane.shape
    if not alike or torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return False
    seen = torch._C._get_tracing_state() is not None or torch._C._len_torch_dispatch_stack()
    return not seen and chosen() in (None, "cpu") and works("cpu")


def _plain(x: Tensor) -> bool:
    own = (type(x) is Tensor or type(x) is torch.nn.Parameter) and x.dtype is torch.float32
    return own and x.layout is torch.strided and x.device.type == "cpu" and not x.is_nested and x.is_contiguous()


def leaky_step(drive: Tensor, membrane: Tensor, leak: Leak) -> LeakyStep:
    """Advance a leaky neuron by one step; see the head of this file for the equation.

    Args:
        drive: input of this step, any shape; :func:`runs_at_once` has been asked.
        membrane: v of the step before, the same shape.
        leak: the neuron.

    Returns:
        Spikes, membrane and resets; gradients reach drive and membrane, and none passes through a reset.

    Raises:
        HistoryError: in a backward pass with ``create_graph=True``.

    Example:
        >>> leak = Leak(np.float32(0.5), np.float32(1.0), "subtract", Slope(2, 1.0, 25.0))
        >>> first = leaky_step(torch.tensor([1.5]), torch.zeros(1), leak)
        >>> second = leaky_step(torch.tensor([0.5]), first.membrane, leak)
        >>> first.spikes.item(), second.membrane.item()
        (1.0, 0.25)
    """
    empty = torch.empty_like
    made = empty(drive), empty(drive), empty(drive), empty(drive)  # spikes, membrane, resets, above the threshold
    flat = [x.numpy().reshape(-1) for x in (drive.detach(), membrane.detach(), *made)]
    _advance(*flat, leak.decay, leak.threshold, *_SWITCHES[leak.reset], _ONE, _NONE)
    if torch.is_grad_enabled() and (drive.requires_grad or membrane.requires_grad):
        spikes, after = _Step.apply(drive, membrane, leak, made)
        return LeakyStep(spikes, after, made[2])
    return LeakyStep(*made[:3])


class _Step(torch.autograd.Function):
    """The node of a step; the numbers are made before it."""

    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, membrane: Tensor, leak: Leak, made: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        spikes, after, resets, shifted = made  # not arguments of their own: one that is returned would be copied
        ctx.set_materialize_grads(False)
        ctx.leak = leak
        if leak.reset == "zero":
            ctx.save_for_backward(shifted, resets)
        else:
            ctx.save_for_backward(shifted)
        return spikes, after

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_after: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise HistoryError(
                "leaky_step backward",
                "create_graph=True",
                "first derivatives only",
                "run the loop under dk.backend('torch'), where the library's own neuron takes its steps",
            )
        shifted, *resets = ctx.saved_tensors
        leak, slope = ctx.leak, ctx.leak.slope
        if grad_spikes is None and grad_after is None:
            return (None,) * 4
        grads = [torch.zeros_like(shifted) if g is None else g for g in (grad_spikes, grad_after)]
        grad_drive, grad_membrane = torch.empty_like(shifted), torch.empty_like(shifted)
        now, reset, from_spikes, from_after, *found = [
            _flat(x) for x in (shifted, resets[0] if resets else shifted, *grads, grad_drive, grad_membrane)
        ]
        numbers = np.float32(slope.height), np.float32(slope.width), leak.decay, _ONE
        _retreat(slope.form, leak.reset == "zero")(now, reset, from_spikes, from_after, *numbers, *found)
        return grad_drive, grad_membrane if ctx.needs_input_grad[1] else None, None, None


def _flat(x: Tensor) -> np.ndarray:
    return x.contiguous().numpy().reshape(-1)


@compiled(())
def _advance(drive, membrane, spikes, after, resets, shifted, decay, threshold, subtracts, wipes, one, none):
    """Run one step of every neuron; ``subtracts`` and ``wipes`` are 1 or 0, which changes no bit of the others."""
    for n in range(len(drive)):
        old = membrane[n]
        reset = one if old - threshold > none else none
        new = decay * ((one - wipes * reset) * old) + drive[n] - subtracts * reset * threshold
        above = new - threshold
        resets[n] = reset
        after[n] = new
        shifted[n] = above
        spikes[n] = one if above > none else none


@compiled_for(())
def _retreat(form, wipes):
    """Write the adjoint of a step: what comes through its spikes and what comes from later steps, together."""

    def retreat(shifted, resets, grad_spikes, grad_after, height, width, decay, one, grad_drive, grad_membrane):
        for n in range(len(shifted)):
            x = width * shifted[n]
            if form == ARCTAN:
                total = one / (one + x * x) * height * grad_spikes[n] + grad_after[n]
            else:
                x = abs(x) + one
                total = height * grad_spikes[n] / (x * x) + grad_after[n]
            grad_drive[n] = total
            if wipes:
                grad_membrane[n] = (one - resets[n]) * (decay * total)
            else:
                grad_membrane[n] = decay * total

    return retreat

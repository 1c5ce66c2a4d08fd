r"""The membrane of a leaky neuron whose reset comes a step later, in one kernel: for loops of the user's own.

    r_t = [v_{t-1} > threshold]
    v_t = decay (1 - z r_t) v_{t-1} + drive_t - y r_t threshold       y: reset by subtraction, z: to zero, neither: none

A library's neuron takes ten small operations for it, each of which costs more to launch than to run. A chip's kernel
makes the sums in the same order, and rounds as often, so that numbers are equal to the bit. Spikes are made of the
membrane by who asks, so that a gradient with respect to the membrane knows of them. :meth:`LIFDynamics.step
<delaykit.functional.dynamics.LIFDynamics.step>` describes the same neuron.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from delaykit.functional.dispatch import implementation_of, kernel_of, wants_reference
from delaykit.functional.leaky_step import reference

Reset = Literal["subtract", "zero", "none"]
Kernel = Callable[..., tuple[Tensor, Tensor]]


class Leak(NamedTuple):
    """A leaky neuron in numbers, each of float32, as it computes with them.

    Args:
        decay: what the membrane keeps each step, 0 to 1.
        threshold: membrane above which it spikes, finite.
        reset: what a spike does to the next step.
    """

    decay: np.float32
    threshold: np.float32
    reset: Reset


def kernel_for(drive: Tensor, membrane: Tensor) -> Kernel | None:
    """Find the kernel that takes a step of these: plain float32 numbers of one shape, on a chip that has one; or None.

    Nothing may be under way that would see the single operations: ``torch.func``, forward-mode differentiation, a
    tracer, a mode of torch, or a backend asked for by name that has no kernel of its own.

    Example:
        >>> kernel_for(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)) is None
        True
    """
    device = drive.device
    alike = _plain(drive) and _plain(membrane) and drive.shape == membrane.shape and device == membrane.device
    if not alike or torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return None
    if torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack():
        return None
    return kernel_of("leaky_step", device) if torch._C._get_tracing_state() is None else None


def _plain(x: Tensor) -> bool:
    own = (type(x) is Tensor or type(x) is torch.nn.Parameter) and x.dtype is torch.float32
    return own and x.layout is torch.strided and not x.is_nested and x.is_contiguous()


def leaky_step(drive: Tensor, membrane: Tensor, leak: Leak, kernel: Kernel | None = None) -> tuple[Tensor, Tensor]:
    """Advance a leaky neuron by one step; see the head of this file for the equation.

    Args:
        drive: input of this step, any shape, contiguous, float32 or float64; without a mode or transform of torch
            that would see its operations.
        membrane: v of the step before, the same in all of this.
        leak: the neuron.
        kernel: what :func:`kernel_for` found for them; None: the dispatcher is asked.

    Returns:
        v_t and r_t, in the shape of the drive. Gradients of any order reach drive and membrane; none passes through a
        reset.

    Example:
        >>> leak = Leak(np.float32(0.5), np.float32(1.0), "subtract")
        >>> membrane, _ = leaky_step(torch.tensor([1.5]), torch.zeros(1), leak)
        >>> membrane, reset = leaky_step(torch.tensor([0.5]), membrane, leak)
        >>> membrane.item(), reset.item()
        (0.25, 1.0)
    """
    if kernel is None and wants_reference():
        return reference.leaky_step(drive, membrane, leak.decay, leak.threshold, leak.reset)
    kernel = kernel or implementation_of("leaky_step", drive.device)
    after, resets = kernel(drive, membrane, *leak)
    if torch.is_grad_enabled() and (drive.requires_grad or membrane.requires_grad):
        kept = float(leak.decay) * (1 - resets) if leak.reset == "zero" else None
        return _Membrane.apply(drive, membrane, float(leak.decay), kept, (after,)), resets
    return after, resets


class _Membrane(torch.autograd.Function):
    """The node of a membrane; its numbers are made before it."""

    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, membrane: Tensor, decay: float, kept: Tensor | None, made: tuple[Tensor]
    ) -> Tensor:
        ctx.decay = decay
        ctx.save_for_backward(*() if kept is None else (kept,))
        return made[0]  # in a tuple: an argument of its own would be copied

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (kept,) = ctx.saved_tensors or (ctx.decay,)
        return grad, grad * kept if ctx.needs_input_grad[1] else None, None, None, None

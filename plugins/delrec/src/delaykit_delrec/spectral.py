"""Wide arrivals by Fourier transforms: cost independent of the width of the kernel.

A gaussian as wide as the window touches every step of it, so taps are no longer few. Time is padded to
T + depth - 1, so that nothing wraps around; the result equals the convolution to rounding (about 1e-7 of the largest
current in float32), and is causal to rounding too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from delaykit.arrivals import GAUSSIAN_FLOOR, NORMALIZE_EPSILON, Gaussian, Kernel
from delaykit.engines.cells import bells_of
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.derivatives import first_only
from delaykit.functional.step_tape import LinearTape
from delaykit.functional.step_tape.cells.basis import Bells
from delaykit.functional.taps import Taps
from delaykit.interfaces import PointDelay
from delaykit.synapse import Engine, Stepper

TAPS_A_TRANSFORM = 6  # a transform of as many steps costs about as much as this many taps a synapse (measured)


def spectral_convolution(spikes: Tensor, response: Tensor) -> Tensor:
    """Filter spikes by every synapse's impulse response.

    ``current[t, b, j] = sum_i sum_{tau <= t} response[j, i, tau] spikes[t - tau, b, i]``

    Args:
        spikes: ``(time, batch, pre)``.
        response: ``(post, pre, depth)``.

    Returns:
        Current ``(time, batch, post)``.

    Example:
        >>> spikes = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
        >>> [round(x, 6) for x in spectral_convolution(spikes, torch.tensor([[[0.0, 2.0]]])).flatten().tolist()]
        [0.0, 2.0, 0.0]
    """
    return _Spectral.apply(spikes, response[..., : spikes.shape[0]])


class _Spectral(torch.autograd.Function):
    """The product of two spectra; its adjoint is two products, with one factor conjugated."""

    @staticmethod
    def forward(ctx: Any, spikes: Tensor, response: Tensor) -> Tensor:
        time, depth = spikes.shape[0], response.shape[-1]
        size = _fast_size(time + depth - 1)
        spectrum = torch.fft.rfft(spikes, size, dim=0)  # (frequency, batch, pre)
        kernel = torch.fft.rfft(response, size, dim=-1).permute(2, 0, 1).contiguous()  # (frequency, post, pre)
        out = torch.fft.irfft(spectrum @ kernel.transpose(1, 2), size, dim=0)[:time]
        ctx.save_for_backward(spectrum, kernel, spikes, response)  # the latter two are where second derivatives go
        ctx.sizes = time, depth, size
        return out

    @staticmethod
    @first_only("spectral_convolution")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        spectrum, kernel, *_ = ctx.saved_tensors
        time, depth, size = ctx.sizes
        arrived = torch.fft.rfft(gradient, size, dim=0)  # (frequency, batch, post)
        grad_spikes = grad_response = None
        if ctx.needs_input_grad[0]:
            grad_spikes = torch.fft.irfft(arrived @ kernel.conj(), size, dim=0)[:time]
        if ctx.needs_input_grad[1]:
            grad_kernel = (arrived.transpose(1, 2) @ spectrum.conj()).permute(1, 2, 0)
            grad_response = torch.fft.irfft(grad_kernel, size, dim=-1)[..., :depth]
        return grad_spikes, grad_response


def _fast_size(least: int) -> int:
    """Return the smallest 2^a 3^b 5^c that is at least this, even."""
    size = least + least % 2
    while _rest(size) != 1:
        size += 2
    return size


def _rest(size: int) -> int:
    for prime in (2, 3, 5):
        while size % prime == 0:
            size //= prime
    return size


def spectral_engine(delay: PointDelay, weight: Tensor, bias: Tensor | None) -> Engine | None:
    """Return an engine for a delay with many taps for each synapse; None where taps are few or shared."""
    if delay.granularity != "synaptic" or not delay.delays().numel():
        return None
    taps = len(delay.kernel().taps(delay.delays().detach()[:1, :1]).index)  # as many for every delay
    return None if taps <= TAPS_A_TRANSFORM else SpectralEngine(delay, taps, weight, bias)


class SpectralEngine(Engine):
    """Whole sequences by Fourier transforms where these are cheaper than taps, single steps by taps."""

    def __init__(self, delay: PointDelay, count: int, weight: Tensor, bias: Tensor | None) -> None:
        self.delay, self.count, self.weight, self.bias = delay, count, weight, bias
        self._taps: Taps | None = None
        self._bells: Bells | None = None

    def sequence(self, spikes: Tensor) -> Tensor:
        time, dtype = spikes.shape[0], torch.result_type(spikes, self.weight)
        window = self.delay.kernel().depth(0.0)
        padded = _fast_size(time + min(window, time) - 1)
        dear = self.count * time <= TAPS_A_TRANSFORM * padded
        if dear or dtype in (torch.float16, torch.bfloat16):  # transforms are for float32 and float64
            return delayed_linear(spikes, self.weight, self.taps(), self.bias)
        with torch.autocast(spikes.device.type, enabled=False):
            response = early_response(self.delay.kernel(), self.delay.delays(), min(window, time))
            current = spectral_convolution(spikes.to(dtype), (self.weight.unsqueeze(-1) * response).to(dtype))
        return current if self.bias is None else current + self.bias

    def taps(self) -> Taps:
        """List the taps, once a segment, with their gradient even if the segment begins without."""
        if self._taps is None:
            with torch.enable_grad():
                self._taps = self.delay.kernel().taps(self.delay.delays())
        return self._taps

    def steps(self) -> Taps | Bells:
        """Describe what steps read, once a segment: a few numbers of a wide gaussian, else its taps."""
        if self._bells is None:
            with torch.enable_grad():
                self._bells = bells_of(self.delay.kernel(), self.delay.delays(), self.weight)
        return self._bells or self.taps()

    def tape(self) -> Stepper:
        return LinearTape(self.steps(), self.weight, self.bias, behind=False, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(self.steps(), self.weight, self.bias)


def early_response(kernel: Kernel, delays: Tensor, depth: int) -> Tensor:
    """Write out the first steps of a windowed response; what is left out costs only its share of the sum.

    Args:
        kernel: with a window.
        delays: (post, pre), steps.
        depth: steps to return, at most the window.

    Returns:
        ``(post, pre, depth)``, equal to the first steps of ``kernel.response(delays)`` in value and gradient.
    """
    window = kernel.depth(0.0)
    if not (isinstance(kernel, Gaussian) and kernel.normalize and window > 2 * depth):
        return kernel.response(delays)[..., :depth]
    bare = dataclasses.replace(kernel, normalize=False, window=depth)
    return bare.response(delays) / (_gaussian_sum(kernel, delays, window) + NORMALIZE_EPSILON).unsqueeze(-1)


def _gaussian_sum(kernel: Gaussian, delays: Tensor, window: int) -> Tensor:
    """Sum exp(-u^2 / 2 std^2) over the window, row by row; the slope is known, so autograd keeps none of the terms."""
    std = float(kernel.spread) + GAUSSIAN_FLOOR
    exact = delays.detach()
    total, slope = torch.empty_like(exact), torch.empty_like(exact)
    tau = torch.arange(window, device=exact.device, dtype=exact.dtype)
    for row, values in enumerate(exact):
        u = tau - values.unsqueeze(-1)
        height = torch.exp(u * u * (-0.5 / std**2))
        total[row] = height.sum(-1)
        slope[row] = (height * u).sum(-1) / std**2
    return total + slope * (delays - exact)

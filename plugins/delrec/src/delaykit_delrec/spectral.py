"""Wide arrivals by Fourier transforms: cost independent of the width of the kernel.

A gaussian as wide as the window touches every step of it, so taps are no longer few. Time is padded to
T + depth - 1, so that nothing wraps around; the result equals the convolution to rounding (about 1e-7 of the largest
current in float32), and is causal to rounding too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.tape import LinearTape
from delaykit.functional.taps import Taps
from delaykit.interfaces import PointDelay
from delaykit.synapse import Engine, Stepper

WIDEST_TAPS = 9  # more taps than these cost more than a transform


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
    time = spikes.shape[0]
    response = response[..., :time]
    size = _fast_size(time + response.shape[-1] - 1)
    spectrum = torch.fft.rfft(spikes, size, dim=0)  # (frequency, batch, pre)
    kernel = torch.fft.rfft(response, size, dim=-1).permute(2, 1, 0)  # (frequency, pre, post)
    return torch.fft.irfft(spectrum @ kernel, size, dim=0)[:time]


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
    if delay.granularity != "synaptic":
        return None
    taps = delay.kernel().taps(delay.delays())
    return None if len(taps.index) <= WIDEST_TAPS else SpectralEngine(delay, taps, weight, bias)


class SpectralEngine(Engine):
    """Whole sequences by Fourier transforms, single steps by taps."""

    def __init__(self, delay: PointDelay, taps: Taps, weight: Tensor, bias: Tensor | None) -> None:
        self.delay, self.taps, self.weight, self.bias = delay, taps, weight, bias

    def sequence(self, spikes: Tensor) -> Tensor:
        dtype = torch.result_type(spikes, self.weight)
        if dtype in (torch.float16, torch.bfloat16):  # transforms are for float32 and float64
            return delayed_linear(spikes, self.weight, self.taps, self.bias)
        with torch.autocast(spikes.device.type, enabled=False):
            response = self.delay.impulse_response(self.weight.to(dtype))
            current = spectral_convolution(spikes.to(dtype), response.to(dtype))
        return current if self.bias is None else current + self.bias

    def tape(self) -> Stepper:
        return LinearTape(self.taps, self.weight, self.bias, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(self.taps, self.weight, self.bias)

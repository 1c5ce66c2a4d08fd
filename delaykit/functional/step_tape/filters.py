"""The three filters a tape can run, one time step at a call, over recordings ``(channel, time, chunk)``.

Each reads backward in time for the output, ``y[t] = sum_tau K[tau] x[t - tau]``, forward in time for the input
gradient, ``grad_x[t] = sum_tau K[tau]^T grad_y[t + tau]``, and correlates both streams once for its own parameters,
``grad_K[tau] = sum_t grad_y[t] x[t - tau]^T``. None of them costs more for a longer delay, :class:`ResponseFilter`
excepted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from delaykit.functional.dispatch import implementation_of
from delaykit.functional.taps import Taps

WIDE = 8  # steps of the past from which on a dense product can pay off


class Filter(ABC):
    """A causal filter from ``inputs`` to ``outputs`` channels whose taps reach back less than ``reach`` steps."""

    inputs: int
    outputs: int
    reach: int
    order: int = 0
    by_time: ClassVar[bool] = False  # whether the steps of what it reads come first in memory
    parameters: tuple[Tensor, ...]

    @abstractmethod
    def read(self, rows: Tensor, row: int, out: Tensor) -> None:
        """Filter ``(inputs, time, chunk)`` at ``row`` into ``out (outputs, batch, space)``."""

    @abstractmethod
    def read_back(self, rows: Tensor, row: int, out: Tensor) -> None:
        """Apply the anti-causal twin to gradients ``(outputs, time, chunk)``, into ``out (inputs, batch, space)``."""

    def read_all(self, rows: Tensor, start: int, out: Tensor) -> None:
        """Filter all steps from ``start`` on into ``out (outputs, time, chunk)``."""
        for step in range(out.shape[1]):
            self.read(rows, start + step, out[:, step].unsqueeze(-1))

    @abstractmethod
    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        """Gradient of each parameter from output gradients ``start..stop`` and the rows they read.

        Gradients of up to ``reach - 1`` rows before ``start`` are overwritten by zeros.
        """


class ChannelFilter(Filter):
    """Delay each channel by its own taps.

    Args:
        taps: of a layer ``(m, 1, 1)`` or of every channel, ``(m, 1, channel)`` or ``(m, channel, 1)``.
        channels: number of channels.
        dtype: of the rows; taps of order 2 keep their float64.
    """

    by_time = True

    def __init__(self, taps: Taps, channels: int, dtype: torch.dtype) -> None:
        self.inputs = self.outputs = channels
        self.order = taps.order
        self.parameters = (taps.value,)
        count, device = taps.index.shape[0], taps.index.device
        self.index = taps.index.reshape(count, -1).expand(count, channels).contiguous()
        self.reach = int(self.index.max()) + 1
        value = taps.value.detach().reshape(count, -1).expand(count, channels)
        self.value = (value if self.order == 2 else value.to(dtype)).contiguous()
        self._behind = -self.index
        self._kept: tuple[dict[str, Any], dict[str, Any]] = {"reused": True}, {}
        self._lines = implementation_of("tape_lines", device)

    def read(self, rows: Tensor, row: int, out: Tensor) -> None:
        self._lines(rows, row, self._behind, self.value, out, self._kept[0])

    def read_all(self, rows: Tensor, start: int, out: Tensor) -> None:
        implementation_of("tape_series", rows.device)(rows, start, self._behind, self.value, out)

    def read_back(self, rows: Tensor, row: int, out: Tensor) -> None:
        self._lines(rows, row, self.index, self.value, out, self._kept[1])

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        (value,) = self.parameters
        seen, series = aligned(gradients, rows, start, stop, self.reach)
        out = implementation_of("tape_correlation", rows.device)(series, seen, self.index)
        layer = value[0].numel() == 1
        return ((out.sum(1) if layer else out).reshape(value.shape).to(value.dtype),)


def aligned(gradients: Tensor, rows: Tensor, start: int, stop: int, reach: int) -> tuple[Tensor, Tensor]:
    """Cut both streams to the same steps, the oldest that a tap reads included; no gradient belongs to these."""
    low = max(start - reach + 1, 0)
    gradients[:, low:start].zero_()
    return gradients[:, low:stop], rows[:, low:stop].to(gradients.dtype)


class SynapseFilter(Filter):
    """Delay and weigh every synapse by its own taps: ``K[j, i] = w[j, i] sum_m v[m, j, i] [tau == index[m, j, i]]``.

    Args:
        taps: ``(m, post, pre)``.
        weight: ``(post, pre)``.
    """

    def __init__(self, taps: Taps, weight: Tensor) -> None:
        self.outputs, self.inputs = weight.shape
        self.order = taps.order
        self.parameters = (taps.value, weight)
        self.index = taps.index
        self.reach = int(taps.index.max()) + 1
        value = taps.value.detach() if self.order == 2 else taps.value.detach().to(weight.dtype)
        strength, index = compact(value * weight.detach(), taps.index)
        # (from, to, m): the kernels take one source channel after the other
        self._behind = -index.permute(2, 1, 0).contiguous(), strength.permute(2, 1, 0).contiguous()
        self._ahead = index.permute(1, 2, 0).contiguous(), strength.permute(1, 2, 0).contiguous()
        self._kept: tuple[dict[str, Any], dict[str, Any]] = {}, {}
        self._synapses = implementation_of("tape_synapses", weight.device)

    def read(self, rows: Tensor, row: int, out: Tensor) -> None:
        self._synapses(rows, row, *self._behind, out, self._kept[0])

    def read_back(self, rows: Tensor, row: int, out: Tensor) -> None:
        self._synapses(rows, row, *self._ahead, out, self._kept[1])

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        value, weight = self.parameters
        overlap = self._overlap(gradients, rows, start, stop)
        return (
            (overlap * weight.detach()).to(value.dtype) if value.requires_grad else None,
            (overlap * value.detach()).sum(0).to(weight.dtype) if weight.requires_grad else None,
        )

    def _overlap(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> Tensor:
        """Correlate both streams at every tap, ``(m, post, pre)``."""
        seen, series = aligned(gradients, rows, start, stop, self.reach)
        overlap: Tensor = implementation_of("synapse_correlation", rows.device)(
            series.permute(1, 2, 0), seen.permute(1, 2, 0), self.index
        )
        return overlap


def compact(strength: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """List as many taps as the busiest synapse uses, those in use first: three taps of linear arrivals become two.

    Taps of 0 that fill up the list stay where they are, at steps that their synapse uses.
    """
    used = strength != 0
    before = used.cumsum(0)
    most = max(int(before[-1].max()), 1)
    if most == len(strength):
        return strength, index
    number = torch.arange(len(strength), device=index.device).view(-1, 1, 1)
    place = torch.where(used, before - 1, before[-1] + number - before)
    return tuple(torch.empty_like(x).scatter_(0, place, x)[:most] for x in (strength, index))  # type: ignore[return-value]


class WideSynapseFilter(SynapseFilter):
    """The same where taps reach most steps of the past, as those of a wide gaussian: one dense product a step.

    Args:
        taps: of order 0, see :class:`SynapseFilter`.
        weight: ``(post, pre)``.
    """

    def __init__(self, taps: Taps, weight: Tensor) -> None:
        self.outputs, self.inputs = weight.shape
        self.parameters = (taps.value, weight)
        self.index, self.reach = taps.index, int(taps.index.max()) + 1
        kernel = weight.new_zeros(self.reach, *weight.shape)
        kernel.scatter_add_(0, taps.index, taps.value.detach().to(weight.dtype) * weight.detach())
        self._past = kernel.flip(0).permute(1, 2, 0).reshape(self.outputs, -1)
        self._future = kernel.permute(2, 1, 0).reshape(self.inputs, -1)

    def read(self, rows: Tensor, row: int, out: Tensor) -> None:
        out.copy_((self._past @ rows[:, row - self.reach + 1 : row + 1].flatten(0, 1)).view(out.shape))

    def read_back(self, rows: Tensor, row: int, out: Tensor) -> None:
        out.copy_((self._future @ rows[:, row : row + self.reach].flatten(0, 1)).view(out.shape))

    def _overlap(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> Tensor:
        seen = gradients[:, start:stop].flatten(1)
        shared = seen.new_empty(self.reach, self.outputs, self.inputs)
        for tau in range(self.reach):
            torch.mm(seen, rows[:, start - tau : stop - tau].flatten(1).to(seen.dtype).t(), out=shared[tau])
        return shared.gather(0, self.index)


def synapse_filter(taps: Taps, weight: Tensor) -> SynapseFilter:
    """Choose how synapses are read: a dense product takes half the time of as many taps."""
    wide = taps.order == 0 and 2 * taps.index.shape[0] > int(taps.index.max()) + 1 >= WIDE
    return WideSynapseFilter(taps, weight) if wide else SynapseFilter(taps, weight)


class ResponseFilter(Filter):
    """Convolve with any impulse response: one product of ``(batch, depth * pre)`` with ``(depth * pre, post)`` a step.

    Args:
        response: ``(post, pre, depth)``.
    """

    def __init__(self, response: Tensor) -> None:
        self.outputs, self.inputs, self.reach = response.shape
        self.parameters = (response,)
        kernel = response.detach()
        self._behind = kernel.flip(2).reshape(self.outputs, -1)
        self._ahead = kernel.transpose(0, 1).reshape(self.inputs, -1)

    def read(self, rows: Tensor, row: int, out: Tensor) -> None:
        out.copy_((self._behind @ rows[:, row - self.reach + 1 : row + 1].flatten(0, 1)).view(out.shape))

    def read_back(self, rows: Tensor, row: int, out: Tensor) -> None:
        out.copy_((self._ahead @ rows[:, row : row + self.reach].flatten(0, 1)).view(out.shape))

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        (response,) = self.parameters
        seen = gradients[:, start:stop].flatten(1)
        out = torch.empty_like(response, memory_format=torch.contiguous_format)
        for tau in range(self.reach):
            out[:, :, tau] = seen @ rows[:, start - tau : stop - tau].flatten(1).t()
        return (out,)

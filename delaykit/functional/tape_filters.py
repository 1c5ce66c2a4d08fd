"""The three filters a tape can run, one time step at a call, over rows ``(channel, chunk)`` (see ``tape_history``).

Each reads backward in time for the output, ``y[t] = sum_tau K[tau] x[t - tau]``, forward in time for the input
gradient, ``dx[t] = sum_tau K[tau]^T dy[t + tau]``, and correlates both streams once for its own parameters,
``dK[tau] = sum_t dy[t] x[t - tau]^T``. None of them costs more for a longer delay, :class:`ResponseFilter` excepted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from delaykit.functional.taps import Taps


class Filter(ABC):
    """A causal filter from ``inputs`` to ``outputs`` channels whose taps reach back less than ``reach`` steps."""

    inputs: int
    outputs: int
    reach: int
    order: int = 0
    parameters: tuple[Tensor, ...]

    @abstractmethod
    def read(self, rows: Tensor, row: int) -> Tensor:
        """Filter ``(rows, inputs, chunk)`` at ``row``: ``(outputs, chunk)``."""

    @abstractmethod
    def read_back(self, rows: Tensor, row: int) -> Tensor:
        """Apply the anti-causal twin to output gradients ``(rows, outputs, chunk)``: ``(inputs, chunk)``."""

    @abstractmethod
    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        """Gradient of each parameter from output gradients ``start..stop`` and the rows they read."""


def _flat(rows: Tensor) -> Tensor:
    """Rows ``(time, channel, chunk)`` as one contiguous series a channel, ``(channel, time * chunk)``."""
    return rows.transpose(0, 1).reshape(rows.shape[1], -1)


class ChannelFilter(Filter):
    """Delay each channel by its own taps.

    Args:
        taps: of a layer ``(m, 1, 1)`` or of every channel, ``(m, 1, channel)`` or ``(m, channel, 1)``.
        channels: number of channels.
        dtype: of the rows; taps of order 2 keep their float64.
    """

    def __init__(self, taps: Taps, channels: int, dtype: torch.dtype) -> None:
        self.inputs = self.outputs = channels
        self.order = taps.order
        self.parameters = (taps.value,)
        count = taps.index.shape[0]
        self.index = taps.index.reshape(count, -1).expand(count, channels)
        self.reach = int(self.index.max()) + 1
        value = taps.value.detach().reshape(count, -1, 1).expand(count, channels, 1)
        self.value = value.contiguous() if self.order == 2 else value.to(dtype).contiguous()
        channel = torch.arange(channels, device=self.index.device)
        self._behind = (channel - self.index * channels).flatten()
        self._ahead = (channel + self.index * channels).flatten()

    def _gather(self, rows: Tensor, row: int, relative: Tensor) -> Tensor:
        found = rows.view(-1, rows.shape[2]).index_select(0, relative + row * self.inputs)
        return (found.view(-1, self.inputs, rows.shape[2]) * self.value).sum(0)

    def read(self, rows: Tensor, row: int) -> Tensor:
        return self._gather(rows, row, self._behind)

    def read_back(self, rows: Tensor, row: int) -> Tensor:
        return self._gather(rows, row, self._ahead)

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        channel = torch.arange(self.inputs, device=rows.device)
        time = torch.arange(start, stop, device=rows.device).unsqueeze(1)
        flat, seen = rows.view(-1, rows.shape[2]), gradients[start:stop]
        out = torch.empty(self.index.shape, dtype=self.value.dtype, device=rows.device)
        for m, index in enumerate(self.index):
            read = flat.index_select(0, ((time - index) * self.inputs + channel).flatten()).view(seen.shape)
            torch.sum((seen * read).to(out.dtype), (0, 2), out=out[m])
        (value,) = self.parameters
        layer = value[0].numel() == 1
        return ((out.sum(1) if layer else out).reshape(value.shape).to(value.dtype),)


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
        self.strength = taps.value.detach() * weight.detach()

    @staticmethod
    def _sweep(rows: Tensor, row: int, relative: Tensor, strength: Tensor) -> Tensor:
        """``out[a] = sum_{m, b} strength[m, a, b] rows[row + relative[m, a, b], b]``, one output channel at a time."""
        channels, chunk = rows.shape[1:]
        flat, channel = rows.view(-1, chunk), torch.arange(channels, device=rows.device)
        out = torch.empty(strength.shape[1], chunk, dtype=strength.dtype, device=rows.device)
        for a in range(strength.shape[1]):
            found = flat.index_select(0, ((relative[:, a] + row) * channels + channel).flatten()).to(strength.dtype)
            torch.mv(found.t(), strength[:, a].flatten(), out=out[a])
        return out

    def read(self, rows: Tensor, row: int) -> Tensor:
        return self._sweep(rows, row, -self.index, self.strength)

    def read_back(self, rows: Tensor, row: int) -> Tensor:
        return self._sweep(rows, row, self.index.transpose(1, 2), self.strength.transpose(1, 2))

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        value, weight = self.parameters
        chunk = rows.shape[2]
        low = start - self.reach + 1
        seen = _flat(gradients[start:stop])
        # window[i, s] is the series of channel i that began s steps after ``low``: a view, nothing is copied
        window = _flat(rows[low:stop]).to(seen.dtype).unfold(1, seen.shape[1], chunk)
        channel = torch.arange(self.inputs, device=rows.device)
        overlap = torch.empty(self.strength.shape, dtype=seen.dtype, device=rows.device)
        for j in range(self.outputs):
            for m, index in enumerate(self.index[:, j]):
                torch.mv(window[channel, self.reach - 1 - index], seen[j], out=overlap[m, j])
        return (
            (overlap * weight.detach()).to(value.dtype) if value.requires_grad else None,
            (overlap * value.detach()).sum(0).to(weight.dtype) if weight.requires_grad else None,
        )


class ResponseFilter(Filter):
    """Convolve with any impulse response: one product of ``(batch, depth * pre)`` with ``(depth * pre, post)`` a step.

    Args:
        response: ``(post, pre, depth)``.
    """

    def __init__(self, response: Tensor) -> None:
        self.outputs, self.inputs, self.reach = response.shape
        self.parameters = (response,)
        kernel = response.detach()
        self._behind = kernel.flip(2).transpose(1, 2).reshape(self.outputs, -1)
        self._ahead = kernel.permute(1, 2, 0).reshape(self.inputs, -1)

    def read(self, rows: Tensor, row: int) -> Tensor:
        return self._behind @ rows[row - self.reach + 1 : row + 1].flatten(0, 1)

    def read_back(self, rows: Tensor, row: int) -> Tensor:
        return self._ahead @ rows[row : row + self.reach].flatten(0, 1)

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        (response,) = self.parameters
        seen = _flat(gradients[start:stop])
        low = start - self.reach + 1
        series, chunk = _flat(rows[low:stop]), rows.shape[2]
        out = torch.empty_like(response, memory_format=torch.contiguous_format)
        for tau in range(self.reach):
            begin = (start - tau - low) * chunk
            out[:, :, tau] = seen @ series[:, begin : begin + seen.shape[1]].t()
        return (out,)

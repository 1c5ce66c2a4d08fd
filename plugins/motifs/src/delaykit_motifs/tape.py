"""Step mode: a tape whose filter adds the rows of the few spikes that the last ``depth`` steps hold."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.dispatch import implementation_of
from delaykit.functional.step_tape import Filter, FilterOperator, SegmentOperator, Tape
from delaykit_motifs.operators import bank_of, is_bare, tapped_correlation


class TappedFilter(Filter):
    """Convolve with taps, event by event: ``y[t] = sum_{i, tau} taps[j, i, tau] x[t - tau, b, i]``.

    Args:
        taps: ``(post, pre, depth)``.
    """

    def __init__(self, taps: Tensor) -> None:
        self.outputs, self.inputs, self.reach = taps.shape
        self.parameters = (taps,)
        self._bank = bank_of(taps.detach())
        self._ahead: Tensor | None = None
        self._read = implementation_of("motifs_window_read", taps.device)

    def read(self, rows: Tensor, row: int, out: Tensor) -> None:
        """Filter ``(inputs, time, chunk)`` at ``row`` into ``out (outputs, batch, space)``."""
        out.copy_(self._read(rows, row, self._bank).t().view(out.shape))

    def read_back(self, rows: Tensor, row: int, out: Tensor) -> None:
        """Give the gradient of every input, spike or not: one product."""
        if self._ahead is None:  # a copy of the bank, (pre, post * depth), that only training needs
            self._ahead = self._bank.transpose(1, 2).flatten(1)
        window = rows[:, row : row + self.reach].flatten(0, 1)
        out.copy_((self._ahead @ window).view(out.shape))

    def correlate(self, gradients: Tensor, rows: Tensor, start: int, stop: int) -> tuple[Tensor | None, ...]:
        """Give the gradient of the taps, event by event over the recorded spikes."""
        (taps,) = self.parameters
        low = max(start - self.reach + 1, 0)
        gradients[:, low:start].zero_()  # remembered spikes count, the currents they caused earlier do not
        into = tapped_correlation(
            rows[:, low:stop].permute(1, 2, 0), gradients[:, low:stop].permute(1, 2, 0), self.reach
        )
        return (into.to(taps.dtype),)


class TappedTape(Tape):
    """Run ``y[t] = sum_{i, tau} taps[j, i, tau] x[t - tau, b, i] + bias[j]`` one step at a time.

    Args:
        taps: ``(post, pre, depth)``.
        bias: ``(post,)`` or None.
        bare: weight ``(post, pre)`` that gives the very bits of ``F.linear`` while all later taps are zero.
        remember: how many steps survive a detach.

    Example:
        >>> tape = TappedTape(torch.tensor([[[3.0, 2.0, 1.0]]]))
        >>> [tape.step(torch.tensor([[x]])).item() for x in (1.0, 0.0, 0.0, 1.0)]
        [3.0, 2.0, 1.0, 3.0]
    """

    def __init__(
        self, taps: Tensor, bias: Tensor | None = None, *, bare: Tensor | None = None, remember: int | None = None
    ) -> None:
        super().__init__(remember)
        self._parameters = (taps, bias, bare)

    def rebind(self, taps: Tensor, bias: Tensor | None = None, *, bare: Tensor | None = None) -> None:
        """Start a new segment with these parameters."""
        self._rebind()
        self._parameters = (taps, bias, bare)

    def _operator(self, x: Tensor) -> SegmentOperator:
        taps, bias, bare = self._parameters
        if x.dim() != 2 or x.shape[1] != taps.shape[1]:
            expected = f"(batch, {taps.shape[1]})"
            raise ShapeError("TappedTape", f"an input {tuple(x.shape)}", expected, "pass one time step, batch first")
        if x.dtype != taps.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ShapeError("TappedTape", f"an input of {x.dtype}", f"{taps.dtype}, that of the taps", "convert one")
        identity = bare is not None and is_bare(bank_of(taps.detach()))
        return FilterOperator(TappedFilter(taps), identity, x.shape, taps.dtype, x.device, weight=bare, bias=bias)

"""The triangle of DCLS: cut off at both ends of a window of K steps, then normalised."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from delaykit.arrivals import NORMALIZE_EPSILON, Kernel
from delaykit.functional.taps import Taps, check_causal


@dataclasses.dataclass(frozen=True)
class WindowedTriangle(Kernel):
    """Spread a spike over the steps of a triangle that lie in tau = 0 .. window - 1.

    ``h(u) = max(0, 1 + spread - |u|)``, divided by its sum over the window plus 1e-7

    Args:
        spread: in steps, >= 0; 0 is linear interpolation (DCLS ``v1``), else DCLS ``max``.
        window: number of steps.
        normalize: divide by the sum; False divides by (1 + spread)^2.

    Example:
        >>> WindowedTriangle(0.0, 3, normalize=False).response(torch.tensor([1.25])).tolist()
        [[0.0, 0.75, 0.25]]

    Reference: Hammouamri et al. 2024, arXiv 2306.17670, ``v1`` and ``max``.
    """

    spread: float
    window: int
    normalize: bool = True

    def response(self, delays: Tensor, depth: int | None = None) -> Tensor:
        """Write out the response; see :meth:`Kernel.response`."""
        check_causal(type(self).__name__, delays)
        tau = torch.arange(self.window, device=delays.device, dtype=delays.dtype)
        response = self._scaled((1 + self.spread - (tau - delays.unsqueeze(-1)).abs()).clamp(min=0), -1)
        return response if depth is None else torch.nn.functional.pad(response, (0, depth - self.window))

    def taps(self, delays: Tensor) -> Taps:
        """List the steps under the triangle, or those of the window where these are fewer."""
        check_causal(type(self).__name__, delays)
        center = delays.detach().round().clamp(0, self.window - 1)
        radius = math.floor(self.spread + 1.5)
        if 2 * radius + 1 < self.window:
            tau = center + torch.arange(-radius, radius + 1, device=center.device).to(center).view(-1, 1, 1)
        else:
            tau = torch.arange(self.window, device=center.device).to(center).view(-1, 1, 1)
            tau = tau.expand(-1, *center.shape)
        rise = 1 + self.spread - (tau - delays).abs()
        keep = (rise >= 0) & (tau >= 0) & (tau < self.window)
        value = self._scaled(torch.where(keep, rise, torch.zeros_like(rise)), 0)
        return Taps(torch.where(keep, tau, center).to(torch.int64), torch.where(keep, value, torch.zeros_like(value)))

    def depth(self, max_delay: float) -> int:
        """Return the window."""
        return self.window

    def _scaled(self, height: Tensor, dim: int) -> Tensor:
        if self.normalize:
            return height / (height.sum(dim, keepdim=True) + NORMALIZE_EPSILON)
        return height / (1 + self.spread) ** 2

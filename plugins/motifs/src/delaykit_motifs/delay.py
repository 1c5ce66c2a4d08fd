"""The component: the taps of one connection, and the engine that runs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import DelayRangeError, ShapeError
from delaykit.functional.dispatch import wants_reference
from delaykit.functional.step_tape import ResponseTape
from delaykit.interfaces import Delay, Site
from delaykit.synapse import Engine
from delaykit_motifs.config import Motif
from delaykit_motifs.operators import tapped_linear
from delaykit_motifs.tape import TappedTape


@checks.annotated
class MotifDelay(Delay):
    """Hold the taps at tau = 1 .. depth - 1 of one connection; tap 0 is the connection's weight.

    Args:
        config: depth and initial scale.
        site: the connection.
        generator: source of random initial taps.

    Attributes:
        taps: ``(post, pre, depth - 1)``, contiguous, as ``fully_shard`` wants it.
    """

    def __init__(self, config: Motif, site: Site, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config, self._where = config, f"{site.name} (motif)"
        checks.affordable(self._where, config.depth, site.pre * site.post, "delays", "lower depth=")
        taps = torch.zeros(site.pre, config.depth - 1, site.post)
        if config.scale:
            taps.normal_(0.0, config.scale, generator=generator)
        self.taps = nn.Parameter(taps.permute(2, 0, 1).contiguous(), requires_grad=config.learn)

    def impulse_response(self, weight: Tensor) -> Tensor:
        """Return all taps: weight ``(post, pre)`` -> ``(post, pre, depth)``."""
        if weight.shape != self.taps.shape[:2]:
            found, expected = f"a weight {tuple(weight.shape)}", f"{tuple(self.taps.shape[:2])}"
            raise ShapeError(self._where, found, expected, "wrap the connection anew after changing its size")
        rows = (weight.t().unsqueeze(1), self.taps.permute(1, 2, 0).to(weight.dtype))
        return torch.cat(rows, 1).permute(2, 0, 1)

    def engine(self, weight: Tensor, bias: Tensor | None) -> Engine:
        """Return the event-driven operator with this segment's taps."""
        return MotifEngine(self.impulse_response(weight), weight, bias)

    def longest(self) -> int:
        """Return the number of delays."""
        return self.config.depth

    @torch.no_grad()
    def assign_(self, weight: Tensor, taps: Tensor) -> None:
        """Write a whole motif tensor: tap 0 into the connection's ``weight``, the others into this component.

        Args:
            weight: the connection's ``(post, pre)``.
            taps: ``(post, pre, n)``, n <= depth; missing taps become zero.

        Raises:
            ShapeError: the tensor has other neurons, or more taps than this motif.
        """
        late = taps.shape[-1] - 1 if taps.dim() == 3 else -1
        if taps.shape[:2] != self.taps.shape[:2] or not 0 <= late <= self.taps.shape[2]:
            expected = f"(post, pre, up to depth) = {(*self.taps.shape[:2], self.config.depth)}"
            raise ShapeError(self._where, f"taps {tuple(taps.shape)}", expected, "wrap with that Motif(depth=...)")
        weight.copy_(taps[:, :, 0])
        self.taps.zero_()
        self.taps[:, :, :late] = taps[:, :, 1:]

    def check(self) -> None:
        """Raise :class:`DelayRangeError` for taps that are NaN or infinite."""
        if not bool(torch.isfinite(self.taps.detach()).all()):
            fix = "lower delay_lr or clip gradients"
            raise DelayRangeError(self._where, "NaN or infinite taps", "finite taps", fix)

    def extra_repr(self) -> str:
        used = int(torch.count_nonzero(self.taps.detach()))
        kind = "learned" if self.config.learn else "fixed"
        return f"{self.config.depth} delays, {used} of {self.taps.numel()} taps in use, {kind}"


class MotifEngine(Engine):
    """One segment's taps, ready for sequences and for steps."""

    def __init__(self, taps: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.parameters = (taps, weight, bias)

    def sequence(self, spikes: Tensor) -> Tensor:
        """Run (time, batch, pre) -> (time, batch, post)."""
        taps, _, bias = self.parameters
        return tapped_linear(spikes, taps, bias)

    def tape(self) -> TappedTape | ResponseTape:
        """Start an empty history for step mode."""
        taps, weight, bias = self.parameters
        if wants_reference():
            return ResponseTape(taps, bias, remember=self.remember)
        return TappedTape(taps, bias, bare=weight, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        """Start a new segment on a tape that keeps its remembered spikes."""
        taps, weight, bias = self.parameters
        if isinstance(tape, TappedTape):
            tape.rebind(taps, bias, bare=weight)
        else:
            tape.rebind(taps, bias)

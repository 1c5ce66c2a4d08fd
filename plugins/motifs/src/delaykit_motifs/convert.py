"""From many taps to few, and between motif tensors and delays: one tap in each row *is* a synaptic delay."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit import FreeDelay, checks
from delaykit.errors import ConfigError, ShapeError
from delaykit.interfaces import Delay


@checks.annotated
def strongest_taps(taps: Tensor, count: int) -> Tensor:
    """Keep the ``count`` strongest taps of each synapse and set the others to zero.

    Args:
        taps: ``(post, pre, depth)``.
        count: taps to keep in each row, >= 1; of equal ones the earliest.

    Returns:
        A new tensor of the same shape.

    Raises:
        ConfigError: a count below 1.
        ShapeError: not three dimensions.

    Example:
        >>> strongest_taps(torch.tensor([[[1.0, -3.0, 2.0]]]), 2).flatten().tolist()
        [0.0, -3.0, 2.0]
    """
    _check("strongest_taps", taps)
    if count < 1:
        raise ConfigError("strongest_taps.count", repr(count), "at least one tap", "pass 1 for one delay a synapse")
    kept = taps.detach().abs().sort(dim=2, descending=True, stable=True).indices[:, :, :count]
    return torch.zeros_like(taps).scatter(2, kept, taps.detach().gather(2, kept))


@checks.annotated
def to_delays(taps: Tensor) -> tuple[Tensor, Tensor]:
    """Read a motif tensor with at most one tap a synapse as weights and synaptic delays.

    Args:
        taps: ``(post, pre, depth)``.

    Returns:
        weight ``(post, pre)`` and delays in steps, int64 ``(post, pre)``; both 0 where a synapse has no tap.

    Raises:
        ShapeError: a synapse with several taps.

    Example:
        >>> weight, delay = to_delays(torch.tensor([[[0.0, 0.0, 0.5]]]))
        >>> weight.item(), delay.item()
        (0.5, 2)
    """
    _check("to_delays", taps)
    most = int(torch.count_nonzero(taps, 2).max()) if taps.numel() else 0
    if most > 1:
        fix = "reduce it first: to_delays(strongest_taps(taps, 1))"
        raise ShapeError("to_delays", f"a synapse with {most} taps", "at most one tap a synapse", fix)
    return taps.detach().sum(2), (taps != 0).int().argmax(2)


@checks.annotated
def to_free_delay(taps: Tensor, learn: bool = True) -> tuple[Tensor, FreeDelay]:
    """Turn a motif tensor with at most one tap a synapse into a weight and a synaptic :class:`delaykit.FreeDelay`.

    Args:
        taps: ``(post, pre, depth)``.
        learn: whether the delays are trained further.

    Returns:
        weight ``(post, pre)`` and the config; wrapped with both, a connection has the same impulse response.

    Raises:
        ShapeError: a synapse with several taps.
    """
    weight, delays = to_delays(taps)
    longest = max(1, taps.shape[2] - 1)
    return weight, FreeDelay("synaptic", max_delay=longest, init=delays.tolist(), learn=learn)


@checks.annotated
def from_delay(delay: Delay, weight: Tensor, depth: int | None = None) -> Tensor:
    """Write any delay component as a motif tensor: its impulse response.

    Args:
        delay: e.g. what :meth:`delaykit.FreeDelay.build` made. A fractional delay gives several taps.
        weight: ``(post, pre)``.
        depth: number of taps; None: as many as the response has.

    Returns:
        ``(post, pre, depth)``, detached.

    Raises:
        ShapeError: a response with taps beyond ``depth``.
    """
    sizes = {tuple(value.shape) for value in delay.parameters() if value.dim() == 2 and min(value.shape) > 1}
    if weight.dim() != 2 or any(size != tuple(weight.shape) for size in sizes):
        expected = " and ".join(map(str, sizes)) or "(post, pre)"
        raise ShapeError("from_delay", f"a weight {tuple(weight.shape)}", expected, "pass the connection's own weight")
    taps = delay.impulse_response(weight).detach()
    if depth is None:
        return taps
    if bool(taps[:, :, depth:].any()):
        found = f"a response of {taps.shape[2]} steps"
        raise ShapeError("from_delay", found, f"at most {depth}", "give more depth, or None")
    return torch.nn.functional.pad(taps[:, :, :depth], (0, max(0, depth - taps.shape[2])))


def _check(where: str, taps: Tensor) -> None:
    if taps.dim() != 3:
        raise ShapeError(where, f"taps {tuple(taps.shape)}", "(post, pre, depth)", "pass the whole motif tensor")

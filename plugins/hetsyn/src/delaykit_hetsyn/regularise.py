"""Keep neurons talking, neither silent nor shouting."""

from __future__ import annotations

from torch import Tensor

from delaykit import ShapeError, checks
from delaykit.functional.inputs import check_tensors


@checks.annotated
def rate_penalty(spikes: Tensor, dt_ms: float, target_hz: float = 10.0) -> Tensor:
    """Penalise firing rates that differ from a target.

    ``mean_j ((f_j / f0 - 1)^2)`` with f_j the rate of neuron j over the batch and the sequence, in Hz.

    Args:
        spikes: ``(time, batch, neuron)``.
        dt_ms: length of a step in ms.
        target_hz: f0, in Hz, > 0.

    Returns:
        A scalar, to be weighted (the paper: 0.01) and added to the loss.

    Example:
        >>> import torch
        >>> float(rate_penalty(torch.tensor([1.0, 0.0]).reshape(2, 1, 1), dt_ms=50.0))
        0.0

    Reference:
        Deng et al., "HetSyn": the rate term of pattern generation and of delayed match to sample.
    """
    checks.number("rate_penalty dt_ms", dt_ms, above=0, what="number of ms")
    checks.number("rate_penalty target_hz", target_hz, above=0, what="rate in Hz")
    check_tensors("rate_penalty", spikes=spikes)
    if spikes.ndim != 3:
        fix = "give the whole sequence, time first"
        raise ShapeError("rate_penalty", f"spikes of shape {tuple(spikes.shape)}", "(time, batch, neuron)", fix)
    rate = spikes.mean((0, 1)) * (1000.0 / dt_ms)
    return (rate / target_hz - 1.0).pow(2).mean()

"""Numbers to spike times: one spike a number."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ShapeError
from delaykit.functional.inputs import check_tensors
from delaykit_timing.events import Events


@checks.annotated
def latency_encode(values: Tensor, end: float = 1.0) -> Events:
    """Let large values fire early, ``t = (1 - x) end``; zeros do not fire.

    A value of 0 would arrive at ``end``, where nothing counts any more, so it is left out.

    Args:
        values: ``(sample, neuron)``, in [0, 1].
        end: end of the window, > 0.

    Returns:
        At most one event a value, float64 times in [0, end).

    Raises:
        ShapeError: a value outside [0, 1], or not two dimensions.

    Example:
        >>> latency_encode(torch.tensor([[0.25, 0.0, 1.0]])).times
        tensor([[0.0000, 0.7500]], dtype=torch.float64)

    Reference:
        Yamamoto, Sakemi, Aihara, the coding of MNIST pixels.
    """
    _check("latency_encode", values, end)
    return _encode((1 - values.double()) * end, values > 0)


@checks.annotated
def first_spike_encode(values: Tensor, start: float = 0.1, span: float = 4.0) -> Events:
    """Let small values fire early, ``t = start + span x``; every value fires once.

    Args:
        values: ``(sample, neuron)``, in [0, 1].
        start: time of a value of 0, >= 0.
        span: time from a value of 0 to one of 1, > 0.

    Returns:
        One event a value, float64 times in [start, start + span].

    Raises:
        ShapeError: a value outside [0, 1], or not two dimensions.

    Example:
        >>> first_spike_encode(torch.tensor([[0.5, 0.0]])).times
        tensor([[0.1000, 2.1000]], dtype=torch.float64)

    Reference:
        Yin-Yang as in Landsmeer, Movahedin et al. 2025: ``t = 0.1 + 4 x`` in ms.
    """
    _check("first_spike_encode", values, span)
    checks.number("first_spike_encode start", start, least=0, what="time")
    return _encode(start + span * values.double(), torch.ones_like(values, dtype=torch.bool))


def _encode(times: Tensor, fires: Tensor) -> Events:
    times, order = torch.where(fires, times, math.inf).sort(dim=1, stable=True)
    slots = int(fires.sum(1).max()) if len(fires) else 0
    times, order = times[:, :slots], order[:, :slots]
    return Events(times, torch.where(torch.isfinite(times), order, 0), fires.shape[1])


def _check(where: str, values: Tensor, length: float) -> None:
    check_tensors(where, values=values)
    if values.dim() != 2:
        raise ShapeError(where, f"shape {tuple(values.shape)}", "(sample, neuron)", "flatten images first")
    if values.numel() and not bool(((values >= 0) & (values <= 1)).all()):
        raise ShapeError(where, f"values {float(values.min()):g}..{float(values.max()):g}", "values in [0, 1]", "scale")
    checks.number(f"{where} window", length, above=0, what="length")

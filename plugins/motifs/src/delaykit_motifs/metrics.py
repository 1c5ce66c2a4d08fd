"""How well a pattern came back: precision and recall of single spikes, at the exact step and neuron."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ShapeError


@checks.annotated
def f1(recalled: Tensor, target: Tensor, start: int = 0) -> float:
    """Pool all patterns, neurons and steps from ``start`` on: ``F1 = 2 TP / (recalled + target)``.

    Args:
        recalled: spikes ``(time, pattern, neuron)``.
        target: the same shape.
        start: first step that counts; the depth of the memory, as earlier steps are the cue.

    Returns:
        In [0, 1]; 1 also where both are silent.

    Raises:
        ShapeError: different shapes.

    Example:
        >>> f1(torch.tensor([1, 1, 0]).reshape(3, 1, 1), torch.tensor([1, 0, 0]).reshape(3, 1, 1))
        0.6666666666666666
    """
    return float(_score(*(counts.sum() for counts in _counts(recalled, target, start))))


@checks.annotated
def f1_per_pattern(recalled: Tensor, target: Tensor, start: int = 0) -> Tensor:
    """Return F1 of each pattern, float64 ``(pattern,)``; see :func:`f1`.

    Args:
        recalled: as in :func:`f1`.
        target: as in :func:`f1`.
        start: as in :func:`f1`.
    """
    return _score(*(counts.sum(0) for counts in _counts(recalled, target, start)))


@checks.annotated
def f1_over_time(recalled: Tensor, target: Tensor, start: int = 0, width: int = 50) -> tuple[Tensor, Tensor]:
    """Return F1 in bins of ``width`` steps: recall emerges near the cue and moves forward.

    Args:
        recalled: spikes ``(time, pattern, neuron)``.
        target: the same shape.
        start: first step that counts.
        width: of a bin, in steps; the last one may be shorter.

    Returns:
        First step of each bin, and float64 F1 of each bin, NaN where neither has a spike.
    """
    checks.whole("f1_over_time width", width, least=1, what="number of steps")
    counts = _counts(recalled, target, start)
    edges = torch.arange(start, recalled.shape[0], width)
    hit, found, wanted = (torch.stack([part.sum() for part in c.sum(1).split(width)]) for c in counts)
    return edges, torch.where(found + wanted > 0, _score(hit, found, wanted), torch.nan)


def _counts(recalled: Tensor, target: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Count hits, recalled and wanted spikes, each ``(time, pattern)``."""
    if recalled.shape != target.shape or target.dim() != 3:
        found = f"{tuple(recalled.shape)} and {tuple(target.shape)}"
        raise ShapeError("f1", found, "two equal shapes (time, pattern, neuron)", "compare the same steps")
    p, q = recalled[start:] != 0, target[start:] != 0
    return (p & q).sum(-1), p.sum(-1), q.sum(-1)


def _score(hit: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
    total = (found + wanted).double()
    return torch.where(total > 0, 2 * hit / total.clamp(min=1), 1.0)

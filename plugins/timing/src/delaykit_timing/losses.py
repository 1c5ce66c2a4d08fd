"""Losses on exact spike times and on potentials at the end of the window."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from delaykit import checks
from delaykit.errors import ShapeError
from delaykit.functional.inputs import check_tensors
from delaykit_timing.events import Events


@checks.annotated
def potential_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a softmax over readout potentials, mean over the batch.

    ``-log(exp(v_label) / sum_o exp(v_o))``

    Args:
        scores: potentials ``(sample, class)``.
        labels: ``(sample,)``, int64.

    Returns:
        A scalar, in nats.

    Example:
        >>> f"{potential_cross_entropy(torch.zeros(1, 10), torch.tensor([3])):.4f}"
        '2.3026'
    """
    _check_labels("potential_cross_entropy", scores, labels)
    return F.cross_entropy(scores, labels)


@checks.annotated
def output_norm(scores: Tensor, strength: float = 1e-4) -> Tensor:
    """Keep readout potentials small, ``strength |v|^2 / classes``, mean over the batch.

    Args:
        scores: potentials ``(sample, class)``.
        strength: sigma of the paper, >= 0.

    Returns:
        A scalar.

    Example:
        >>> f"{output_norm(torch.ones(4, 10), strength=0.5):.2f}"
        '0.50'
    """
    check_tensors("output_norm", scores=scores)
    if scores.ndim != 2:
        fix = "give what the readout returned"
        raise ShapeError("output_norm", f"scores of shape {tuple(scores.shape)}", "(sample, class)", fix)
    return strength * scores.square().mean(1).mean()


@checks.annotated
def first_spike_hinge(first: Tensor, labels: Tensor, sharpness: float = 10.0, margin: float = 0.2) -> Tensor:
    """Let the neuron of the label fire first, ``sum_{k != c} softplus(sharpness (t_c - t_k + margin))``, batch mean.

    Args:
        first: time of each neuron's first spike, ``(sample, class)``; finite, so give silent neurons a late time.
        labels: ``(sample,)``, int64.
        sharpness: beta, in one over the unit of the times, > 0.
        margin: m, in the unit of the times.

    Returns:
        A scalar.

    Raises:
        ShapeError: a time is infinite.

    Example:
        >>> f"{first_spike_hinge(torch.tensor([[1.0, 1.2]]), torch.tensor([0])):.4f}"
        '0.6931'

    Reference:
        Landsmeer, Movahedin et al. 2025 (loss); sharpness and margin are ours.
    """
    _check_labels("first_spike_hinge", first, labels)
    if not bool(torch.isfinite(first.detach()).all()):
        raise ShapeError("first_spike_hinge", "an infinite time", "finite times", "events.first_times(silent=end + dt)")
    right = first.gather(1, labels[:, None])
    terms = F.softplus(sharpness * (right - first + margin))
    others = torch.ones_like(terms, dtype=torch.bool).scatter(1, labels[:, None], False)
    return torch.where(others, terms, 0.0).sum(1).mean()


@checks.annotated
def wanted_direction(counts: Tensor, low: float | Tensor = 0.0, high: float | Tensor | None = None,
                     alive: float = 0.1) -> Tensor:  # fmt: skip
    """Say which neurons should fire more (+1), less (-1), or as they do (0): ``P_j = c(M_j)``.

    More where a neuron fires on less than ``alive`` of the samples, or less than ``low`` times a sample on average;
    otherwise less where it fires more than ``high`` times.

    Args:
        counts: spikes of each neuron, ``(sample, neuron)``.
        low: smallest wanted mean number of spikes.
        high: largest wanted mean number of spikes; None: no bound.
        alive: a neuron that fires on a smaller share of the batch is dead, in [0, 1].

    Returns:
        ``(neuron,)`` of -1, 0 and 1; no gradient.

    Example:
        >>> counts = torch.tensor([[0, 1, 9], [0, 1, 9]])
        >>> wanted_direction(counts, high=4.0)
        tensor([ 1,  0, -1])

    Reference:
        Yamamoto, Sakemi, Aihara have the dead-neuron case (+1, alive 0.1); the rest is ours.
    """
    if counts.ndim != 2:
        fix = "give events.spike_counts()"
        raise ShapeError("wanted_direction", f"counts of shape {tuple(counts.shape)}", "(sample, neuron)", fix)
    for name, bound in (("low", low), ("high", high)):
        if isinstance(bound, Tensor) and bound.shape not in (torch.Size(()), counts.shape[1:]):
            found = f"{name} of shape {tuple(bound.shape)}"
            raise ShapeError("wanted_direction", found, f"a number or {tuple(counts.shape[1:])}", "one for each neuron")
    mean = counts.double().mean(0)
    more = ((counts > 0).double().mean(0) < alive) | (mean < low)
    less = torch.zeros_like(more) if high is None else mean > high
    return torch.where(more, 1, torch.where(less, -1, 0))


@checks.annotated
def spike_count_penalty(
    events: Events, direction: Tensor | None = None, strength: float = 0.01, threshold: float = 1.0
) -> Tensor:
    """Push potentials towards the threshold, or away, to get more spikes or fewer.

    ``strength (1 / J) sum_j P_j (threshold - v_j(end))``, mean over the batch; no gradient through P.

    Args:
        events: a hidden layer's output, with its potentials.
        direction: P, ``(neuron,)`` or ``(sample, neuron)``; None: +1 for dead neurons (:func:`wanted_direction`).
        strength: lambda of the paper, >= 0.
        threshold: the layer's threshold.

    Returns:
        A scalar.

    Raises:
        ShapeError: the events carry no potentials.

    Example:
        >>> events = Events.of([[]], [[]], size=2)
        >>> dead = Events(events.times, events.neurons, 2, potential=torch.tensor([[0.5, 0.0]]))
        >>> f"{spike_count_penalty(dead, strength=1.0):.2f}"
        '0.75'
    """
    if events.potential is None:
        fix = "pass what the layer returned"
        raise ShapeError("spike_count_penalty", "events without potentials", "the output of a MultiSpikeLIF", fix)
    if direction is None:
        direction = wanted_direction(events.spike_counts())
    if direction.shape not in (events.potential.shape[1:], events.potential.shape):
        found, size = f"direction of shape {tuple(direction.shape)}", tuple(events.potential.shape)
        raise ShapeError("spike_count_penalty", found, f"{size[1:]} or {size}", "use wanted_direction")
    wanted = direction.detach().to(events.potential.dtype)
    return strength * (wanted * (threshold - events.potential)).mean(1).mean()


def _check_labels(where: str, scores: Tensor, labels: Tensor) -> None:
    check_tensors(where, scores=scores)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        found = f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)}"
        raise ShapeError(where, found, "(sample, class) and (sample,)", "give each sample its label")
    if labels.dtype != torch.int64:
        raise ShapeError(where, f"labels of {labels.dtype}", "torch.int64", "labels.long()")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
        found = f"labels {int(labels.min())}..{int(labels.max())}"
        raise ShapeError(where, found, f"0..{scores.shape[1] - 1}", "number the classes from 0")

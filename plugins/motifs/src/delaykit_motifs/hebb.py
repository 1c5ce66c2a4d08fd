"""Memories written down at once: Hebb's rule for delays, its least-squares refinement, and the view as averaged STDP.

With the context ``c_k`` the spikes of the last D steps before ``k = (mu, t)``, all of it is the linear map
``I[k] = sum W c_k``, whose adjoint is :func:`~delaykit_motifs.operators.tapped_correlation`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ConfigError
from delaykit.functional.inputs import check_tensors
from delaykit_motifs.dynamics import MotifDynamics
from delaykit_motifs.operators import tapped_correlation, tapped_linear
from delaykit_motifs.patterns import check_patterns

Normalise = Literal["context", "mean", "published"] | None
NORMALISERS = ("context", "mean", "published", None)
AT_ONCE = 1 << 26  # numbers of a block of patterns


@checks.annotated
def hebbian(
    patterns: Tensor,
    depth: int,
    dynamics: MotifDynamics | None = None,
    normalise: Normalise = "context",
    deconvolve: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Write patterns into a motif tensor, without any training.

    ``W[j, i, d] = sum_mu sum_{t >= D} I*_j[mu, t] s_i[mu, t - d] / |c_{mu, t}|^2``, d = 1 .. D

    The current wanted is ``I*[t] = s*[t]``; deconvolved, ``s*[t] - beta s*[t-1]``, what the membrane still holds is
    taken off. Each context is divided by its own number of spikes ``|c|^2 = max(1, sum_{i, d} s_i[t - d])``, so that
    its own current comes out as exactly 1 plus what other contexts with common spikes add.

    Args:
        patterns: spikes ``(time, pattern, neuron)``.
        depth: number of delays D.
        dynamics: gives ``beta`` and ``reset``; default :class:`MotifDynamics`.
        normalise: ``context`` (above), or one number for all contexts: ``mean`` (``N D p_A``, the mean of ``|c|^2``),
            ``published`` (``N D p_A M``), or None.
        deconvolve: default True for a subtractive reset and False for a hard one, which forgets by itself.
        dtype: of the result.

    Returns:
        ``(post, pre, depth)``, tap ``tau = d - 1``, post neurons next to each other in memory.

    Raises:
        ConfigError: an unknown normaliser.

    Example:
        >>> spikes = torch.zeros(6, 1, 2, dtype=torch.bool)
        >>> spikes[1, 0, 0] = spikes[3, 0, 1] = True
        >>> hebbian(spikes, 3)[1, 0].tolist()  # neuron 1 fires two steps after neuron 0
        [0.0, 1.0, 0.0]

    Reference: arXiv 2604.14096; its normaliser is ``published``, which gives silence or overdrive depending on M.
    """
    check_patterns("hebbian patterns", patterns)
    check_tensors("hebbian", floating=False, patterns=patterns)
    checks.whole("hebbian depth", depth, least=1, what="number of delays")
    if not (dynamics is None or isinstance(dynamics, MotifDynamics)) or not isinstance(dtype, torch.dtype):
        found, fix = f"dynamics={dynamics!r:.80}, dtype={dtype!r:.80}", "pass e.g. MotifDynamics(0.95, 0.7)"
        raise ConfigError("hebbian", found, "a MotifDynamics or None, and a torch.dtype", fix)
    if deconvolve is not None:
        checks.flag("hebbian deconvolve", deconvolve)
    wanted = _currents(patterns, depth, dynamics or MotifDynamics(), deconvolve, dtype)
    if not (normalise is None or isinstance(normalise, str)) or normalise not in NORMALISERS:
        raise ConfigError("hebbian.normalise", repr(normalise), f"one of {NORMALISERS}", "spell one of these")
    if normalise == "context":
        wanted /= context_sizes(patterns, depth).clamp(min=1).unsqueeze(-1).to(dtype)
    taps = _correlate(patterns, wanted, depth)
    if normalise in ("mean", "published"):
        bits = patterns.shape[2] * depth * float((patterns != 0).double().mean())
        taps /= max(bits, 1e-12) * (patterns.shape[1] if normalise == "published" else 1)
    return taps


def context_sizes(patterns: Tensor, depth: int) -> Tensor:
    """Count the spikes of the last ``depth`` steps before each step: int64 ``(time, pattern)``."""
    check_patterns("context_sizes patterns", patterns)
    counts = (patterns != 0).sum(2)
    until = torch.cat([counts.new_zeros(depth + 1, patterns.shape[1]), counts.cumsum(0)])
    time = patterns.shape[0]
    return until[depth : depth + time] - until[:time]


@checks.annotated
def ridge(
    patterns: Tensor,
    depth: int,
    dynamics: MotifDynamics | None = None,
    penalty: float = 1e-3,
    deconvolve: bool | None = None,
    steps: int = 30,
    tolerance: float = 1e-4,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Solve for the currents wanted by least squares: the (ridge) pseudo-inverse of all contexts.

    ``W = I* (C C^T + penalty)^-1 C``, by conjugate gradients over contexts, all neurons side by side. A step costs one
    pass through :func:`tapped_linear` and one through its adjoint; no Gram matrix is ever made.

    Args:
        patterns: spikes ``(time, pattern, neuron)``.
        depth: number of delays D.
        dynamics: gives ``beta`` and ``reset``.
        penalty: of large taps, >= 0.
        deconvolve: see :func:`hebbian`.
        steps: at most so many.
        tolerance: stop where each neuron's residual is below this share of its start.
        dtype: of the result.

    Returns:
        ``(post, pre, depth)`` as from :func:`hebbian`.

    Raises:
        ConfigError: a negative penalty.
    """
    check_patterns("ridge patterns", patterns)
    if not penalty >= 0:
        raise ConfigError("ridge.penalty", repr(penalty), "a number >= 0", "pass e.g. 1e-3")
    spikes = patterns.to(dtype)
    residual = _currents(patterns, depth, dynamics or MotifDynamics(), deconvolve, dtype)
    answer, direction = torch.zeros_like(residual), residual.clone()
    size = residual.square().sum((0, 1))
    enough = tolerance**2 * size
    for _ in range(steps):
        if bool((size <= enough).all()):
            break
        image = penalty * direction
        image[depth:] += tapped_linear(spikes[:-1], _correlate(spikes, direction, depth))[depth - 1 :]
        rate = size / (direction * image).sum((0, 1)).clamp(min=1e-30)
        answer += rate * direction
        residual -= rate * image
        before, size = size, residual.square().sum((0, 1))
        direction = residual + size / before.clamp(min=1e-30) * direction
    return _correlate(spikes, answer, depth)


@checks.annotated
def cross_correlogram(patterns: Tensor, depth: int) -> Tensor:
    """Count pairs of spikes by their lag: what spike-timing-dependent plasticity sees on average.

    ``C[j, i, depth + lag] = sum_{mu, t} s_j[mu, t] s_i[mu, t - lag]``, lag = -depth .. depth

    The half with ``lag >= 1`` (pre before post) is what Hebb's rule with ``normalise=None`` potentiates, up to the cue.

    Args:
        patterns: spikes ``(time, pattern, neuron)``.
        depth: largest lag.

    Returns:
        ``(post, pre, 2 * depth + 1)``, float32.

    Example:
        >>> spikes = torch.zeros(6, 1, 2)
        >>> spikes[1, 0, 0] = spikes[3, 0, 1] = 1
        >>> cross_correlogram(spikes, 2)[1, 0].tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0]
    """
    check_patterns("cross_correlogram patterns", patterns)
    spikes = (patterns != 0).float()
    later = tapped_correlation(spikes, spikes, depth + 1)
    return torch.cat([later[:, :, 1:].flip(2).transpose(0, 1), later], 2)


def _currents(
    patterns: Tensor, depth: int, dynamics: MotifDynamics, deconvolve: bool | None, dtype: torch.dtype
) -> Tensor:
    """Say which current each step after the cue should have."""
    wanted = patterns.to(dtype, copy=True)
    if dynamics.reset == "subtractive" if deconvolve is None else deconvolve:
        wanted[1:] -= dynamics.beta * patterns[:-1].to(dtype)
    wanted[:depth] = 0
    return wanted


def _correlate(patterns: Tensor, wanted: Tensor, depth: int) -> Tensor:
    """Correlate with one step between, so that tap tau is the latency tau + 1; a block of patterns at a time."""
    share = max(1, AT_ONCE // max(1, patterns[:, 0].numel())) if patterns.shape[1] else 1
    blocks = zip(patterns[:-1].split(share, 1), wanted[1:].split(share, 1), strict=True)
    first, *rest = (tapped_correlation(p.to(w.dtype), w, depth) for p, w in blocks)
    for more in rest:
        first += more
    return first

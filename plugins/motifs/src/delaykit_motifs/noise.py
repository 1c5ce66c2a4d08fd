"""What a memory has to bear: cues that are wrong or short, neurons that fire by themselves or not at all."""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ConfigError, ShapeError
from delaykit_motifs.patterns import check_patterns


@checks.annotated
def flip_cue(cue: Tensor, fraction: float, generator: torch.Generator | None = None) -> Tensor:
    """Take each spike away with probability ``fraction`` and put as many elsewhere, so that the rate stays.

    Args:
        cue: bool ``(time, pattern, neuron)``.
        fraction: in [0, 1].
        generator: source of randomness.

    Returns:
        Bool, of the same shape and number of spikes in each pattern, up to coincidences.

    Example:
        >>> cue = torch.eye(10, dtype=torch.bool).unsqueeze(1)
        >>> int((flip_cue(cue, 0.0) ^ cue).sum())
        0
    """
    _check("flip_cue", fraction)
    check_patterns("flip_cue cue", cue)
    flipped = cue.clone()
    for m in range(cue.shape[1]):
        where = cue[:, m].nonzero()
        lost = where[torch.rand(len(where), generator=generator) < fraction]
        flipped[lost[:, 0], m, lost[:, 1]] = False
        step = torch.randint(cue.shape[0], (len(lost),), generator=generator)
        neuron = torch.randint(cue.shape[2], (len(lost),), generator=generator)
        flipped[step, m, neuron] = True
    return flipped


@checks.annotated
def truncate_cue(cue: Tensor, keep: float) -> Tensor:
    """Silence the oldest part of a cue and keep the newest ``round(keep * time)`` steps.

    Args:
        cue: ``(time, pattern, neuron)``.
        keep: fraction in [0, 1].

    Returns:
        A cue of the same shape.

    Example:
        >>> truncate_cue(torch.ones(4, 1, 1), 0.75).flatten().tolist()
        [0.0, 1.0, 1.0, 1.0]
    """
    _check("truncate_cue", keep)
    check_patterns("truncate_cue cue", cue)
    short = cue.clone()
    short[: len(cue) - round(keep * len(cue))] = 0
    return short


@checks.annotated
def silence(neurons: int, fraction: float, generator: torch.Generator | None = None) -> Tensor:
    """Choose ``round(fraction * neurons)`` neurons that never fire; bool ``(neuron,)``, True where silent.

    Args:
        neurons: how many there are.
        fraction: of them that is silent, in [0, 1].
        generator: source of the choice; default torch's global one.

    Example:
        >>> int(silence(100, 0.25).sum())
        25
    """
    _check("silence", fraction)
    checks.whole("silence neurons", neurons)
    mute = torch.zeros(neurons, dtype=torch.bool)
    mute[torch.randperm(neurons, generator=generator)[: round(fraction * neurons)]] = True
    return mute


def _check(where: str, fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ConfigError(where, repr(fraction), "a fraction in [0, 1]", "pass e.g. 0.25")


def check_mute(where: str, mute: Tensor | None, neurons: int) -> None:
    """Refuse a mask of neurons that has another size than the network.

    Raises:
        ShapeError: not ``(neuron,)``.
    """
    if mute is not None and mute.shape != (neurons,):
        raise ShapeError(where, f"a mask {tuple(mute.shape)}", f"({neurons},), one truth value a neuron", "see silence")

"""What spikes of patterns look like, asked once for all that take them."""

from __future__ import annotations

from torch import Tensor

from delaykit.errors import ShapeError


def check_patterns(where: str, patterns: Tensor, neurons: int | None = None) -> None:
    """Refuse spikes that are not ``(time, pattern, neuron)``.

    Args:
        where: the call and its argument.
        patterns: what was given.
        neurons: of the network they belong to; None: any number.

    Raises:
        ShapeError: another shape, or other neurons.
    """
    if patterns.dim() != 3 or neurons not in (None, patterns.shape[2]):
        expected = f"(time, pattern, {'neuron' if neurons is None else neurons})"
        fix = "give one pattern a dimension of its own: spikes.unsqueeze(1)"
        raise ShapeError(where, f"spikes {tuple(patterns.shape)}", expected, fix)


def check_mute(where: str, mute: Tensor | None, neurons: int) -> None:
    """Refuse a mask of neurons that has another size than the network.

    Raises:
        ShapeError: not ``(neuron,)``.
    """
    if mute is not None and mute.shape != (neurons,):
        raise ShapeError(where, f"a mask {tuple(mute.shape)}", f"({neurons},), one truth value a neuron", "see silence")

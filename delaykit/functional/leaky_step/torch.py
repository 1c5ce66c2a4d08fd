"""A leaky neuron's step in plain torch, for every device: backend ``torch``."""

from __future__ import annotations

from torch import Tensor


def leaky_step(drive: Tensor, membrane: Tensor, decay: float, threshold: float, reset: str) -> tuple[Tensor, Tensor]:
    """Advance by one step, without a graph.

    Args:
        drive: input of this step, any shape.
        membrane: v of the step before, the same shape.
        decay: what the membrane keeps, 0 to 1; a number of the drive's dtype, as the next.
        threshold: membrane above which it has spiked.
        reset: ``"subtract"``, ``"zero"`` or ``"none"``.

    Returns:
        v_t, and r_t: 1 where the membrane of the step before was above the threshold, else 0.
    """
    drive, membrane = drive.detach(), membrane.detach()
    resets = (membrane - threshold > 0).to(drive.dtype)
    kept = (1 - resets) * membrane if reset == "zero" else membrane
    after = kept * decay + drive
    return (after - resets * threshold if reset == "subtract" else after), resets

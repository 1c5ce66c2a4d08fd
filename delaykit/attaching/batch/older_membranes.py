"""Membranes of sequences that another one took the place of: where one comes back, its spikes under way are gone."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from delaykit.functional.eager import eager

KNOWN = 64  # sequences


class OlderMembranes:
    """Knows by their values the membranes that a neuron left when a new sequence began.

    Example:
        >>> older, one = OlderMembranes(), torch.tensor([[0.5, 0.25]])
        >>> older.note(one)
        >>> one.clone() in older, 2 * one in older
        (True, False)
    """

    def __init__(self) -> None:
        self._known: deque[tuple[torch.Size, int]] = deque(maxlen=KNOWN)

    @eager
    def note(self, *membranes: Tensor | None) -> None:
        """Remember membranes that are left behind; one at rest may be any other one, too, and is not."""
        for membrane in membranes:
            if membrane is None or membrane.layout is not torch.strided:
                continue
            with torch._C.DisableTorchFunction():  # it is none of the model's operations, whoever watches those
                if bool(membrane.any()):
                    self._known.append(_print_of(membrane))

    @eager
    def __contains__(self, membrane: Tensor | None) -> bool:
        if membrane is None or not self._known:
            return False
        with torch._C.DisableTorchFunction():
            return _print_of(membrane) in self._known


def _print_of(membrane: Tensor) -> tuple[torch.Size, int]:
    numbers = membrane.detach().cpu().reshape(-1).contiguous().view(torch.uint8)
    return membrane.shape, hash(numbers.numpy().tobytes())

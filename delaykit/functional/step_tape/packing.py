"""How the compiled loops of a tape want to find the taps of synapses: in the order in which they are read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def by_age(offset: Tensor, reach: int) -> Tensor:
    """Order taps by the input they read, and then by the step: the way in which its rows lie in memory."""
    channel = torch.arange(offset.shape[0]).view(-1, 1, 1)
    return (channel * 2 * reach + offset).flatten().argsort()


def packed(each: Tensor, block: int) -> np.ndarray:
    """Turn ``(from, to, m)`` into ``(block, to, block * m)``, what a block of inputs gives an output in a row.

    Rows are filled up to a multiple of 8. What is filled in reads any place, with a weight of 0.
    """
    inputs, outputs, count = each.shape
    whole = torch.nn.functional.pad(each, (0, 0, 0, 0, 0, -inputs % block))
    turned = whole.view(-1, block, outputs, count).transpose(1, 2).reshape(-1, outputs, block * count)
    return torch.nn.functional.pad(turned, (0, -block * count % 8)).contiguous().numpy()


def places_in(offset: Tensor, rows: Tensor) -> Tensor:
    """Find the number in flat ``rows`` where each tap reads at row 0.

    Half as many bytes where they do: places and weights are read from memory anew at each step.
    """
    channel = torch.arange(rows.shape[0]).view(-1, 1, 1)
    places = (channel * rows.shape[1] + offset) * rows.shape[2]
    return places.int() if rows.numel() < 2**31 else places

"""The spread of DCLS narrows to the value that was asked for, geometrically, over the first part of the training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit_delrec import DCLS


@pytest.mark.parametrize("end", [0.1, 0.5])
def test_the_spread_ends_where_asked(end: float) -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    config = DCLS(11, sigma=4.0, sigma_end=end)
    dk.wrap_(net, {"0": dk.At(config, reset="manual")}, generator=torch.Generator().manual_seed(0))
    sigma = net[0].dk.delay.sigma
    dk.advance_(net, 0.5 * config.anneal)
    assert float(sigma) == pytest.approx((4.0 * end) ** 0.5)
    for progress in (config.anneal, 1.0):
        dk.advance_(net, progress)
        assert float(sigma) == pytest.approx(end)

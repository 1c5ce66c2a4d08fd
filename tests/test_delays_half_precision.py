"""A model in half precision keeps its delays: a float16 cannot count to 2049."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.interfaces import Site


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_to_half_precision_leaves_delays_and_spread_as_they_were(dtype: torch.dtype) -> None:
    config = dk.FreeDelay("axonal", max_delay=3000, init=2049.0, kernel="triangle", spread=0.0592)
    delay = config.build(Site("fc", 3, 2))
    spread = delay.spread.clone()
    delay.to(dtype)
    assert delay.delay.dtype == torch.float32 and delay.delay.tolist() == [2049.0] * 3
    assert torch.equal(delay.spread, spread)

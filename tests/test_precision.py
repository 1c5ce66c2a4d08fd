"""Numbers that half precision would round keep their values in a model that is cast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from delaykit.precision import keep_single


class Late(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.delay = nn.Parameter(torch.tensor([2049.0]))
        self.register_buffer("spread", torch.tensor(0.9996))
        self.register_buffer("other", torch.tensor(0.9996))

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        keep_single(self, lambda: super(Late, self)._apply(fn, recurse), "spread")
        return self


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_to_half_leaves_parameters_and_named_buffers(dtype: torch.dtype) -> None:
    late = Late().to(dtype)
    assert late.delay.dtype == late.spread.dtype == torch.float32 and late.delay.item() == 2049
    assert torch.equal(late.spread, torch.tensor(0.9996)) and late.other.dtype == dtype


def test_other_casts_are_as_always() -> None:
    late = Late().double()
    assert late.delay.dtype == late.spread.dtype == torch.float64
    assert late.float().delay.dtype == torch.float32

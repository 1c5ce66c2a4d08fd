"""Products at every lag against the sums that they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delaykit.functional.step_tape.cells import lagged_products as module
from delaykit.functional.step_tape.cells.lagged_products import lagged_products
from tests.functional.judging import TOLERANCE


@settings(deadline=None)
@given(
    pre=st.integers(1, 4), post=st.integers(1, 5), time=st.integers(1, 40), chunk=st.integers(1, 3),
    lags=st.integers(1, 30), frame=st.sampled_from([1, 7, 128]), block=st.sampled_from([1, 40, 1 << 18]),
    lead=st.integers(0, 40),
)  # fmt: skip
def test_equal_the_sums(
    pre: int, post: int, time: int, chunk: int, lags: int, frame: int, block: int, lead: int
) -> None:
    g = torch.Generator().manual_seed(time)
    x = torch.randn(pre, lead + time, chunk, generator=g, dtype=torch.float64)
    y = torch.randn(post, time, chunk, generator=g, dtype=torch.float64)
    wanted = torch.zeros(lags, post, pre, dtype=torch.float64)
    for tau in range(min(lags, lead + time)):
        late = max(tau - lead, 0)  # steps of y that would read before the first of x
        wanted[tau] = torch.einsum("jtb,itb->ji", y[:, late:], x[:, lead + late - tau : lead + time - tau])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FRAME", frame)
        patch.setattr(module, "BLOCK", block)
        found = torch.cat([products for _, products in lagged_products(x, y, lags)], 1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_no_more_than_a_block_of_rows_is_held_at_a_time() -> None:
    x = y = torch.ones(600, 50, 1)
    parts = list(lagged_products(x, y, 40))
    assert len(parts) > 10 and max(products.numel() for _, products in parts) < module.BLOCK
    torch.testing.assert_close(parts[-1][1][3], torch.full_like(parts[-1][1][3], 47.0), rtol=0, atol=TOLERANCE[x.dtype])

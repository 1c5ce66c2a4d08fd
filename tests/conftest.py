"""One thread per test process, so that xdist workers do not fight for cores and sums keep one order."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)

"""Every test starts from the same random state, on one thread: a red test is red again when it runs alone."""

from __future__ import annotations

import random

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep xdist workers from fighting for cores, and sums in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed every generator a test may draw from."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)

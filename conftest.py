"""Every test starts from the same random state, on one thread: a red test is red again when it runs alone."""

from __future__ import annotations

import random

import pytest

# Laws that take ten seconds a net: one component shows them in the fast set, all others with `make slow`.
LONG_LAWS = ("test_compiled_equals_eager", "test_two_processes_equal_one")
SHOWN_BY = "TestAxonalLinear"


@pytest.hookimpl(tryfirst=True)  # before pytest takes out what `-m` leaves out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark long laws of all components but one as slow."""
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in LONG_LAWS:
            if item.cls is not None and item.cls.__name__ != SHOWN_BY:
                item.add_marker(pytest.mark.slow)


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

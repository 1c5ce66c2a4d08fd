"""What the tests of a tape's laws share."""

from __future__ import annotations

import pytest
import torch

from tests.functional.step_tape.test_step_tape import KINDS

ALL = [*KINDS, "line", "response"]
BOTH_ORDERS = pytest.mark.parametrize("spread", [0.0, 9.3])
EVERY_KIND = pytest.mark.parametrize("kind", ALL)


def grads(loss, wanted, **options):
    return torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True, **options)


def segment_of(tape):
    return tape._segment

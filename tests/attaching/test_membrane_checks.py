"""What can be the membrane behind a step: of its kind and shape, and touched by the step."""

from __future__ import annotations

import pytest
import torch

from delaykit.attaching.neuron.membrane_checks import is_untouched, odd_membrane
from delaykit.functional.engine_base import version_of

HELD, FIRED = torch.rand(2, 8), torch.zeros(2, 8)


@pytest.mark.parametrize("passed", [None, HELD, torch.rand(8), torch.rand(1, 8), torch.zeros(()), torch.zeros(0)])
def test_what_spreads_over_the_neurons_may_be_passed(passed: torch.Tensor | None) -> None:
    assert odd_membrane(HELD, passed, FIRED) == "" == odd_membrane(None, passed, FIRED)


def test_what_can_be_no_membrane_is_said() -> None:
    assert odd_membrane(HELD + 1j, None, FIRED) == "a complex tensor behind a step"
    assert odd_membrane(HELD.to_sparse(), None, FIRED) == "a sparse tensor behind a step"
    assert odd_membrane(HELD.to("meta"), None, FIRED) == "a meta tensor behind a step"
    assert odd_membrane(HELD.to("meta"), None, FIRED.to("meta")) == ""
    assert odd_membrane(HELD, torch.rand(3, 8), FIRED) == "a membrane of shape (3, 8), not (2, 8), in a call"


def test_a_step_touches_a_membrane_by_writing_to_it_or_past_its_version() -> None:
    held = torch.rand(2, 8)
    before = version_of(held), held.clone()
    assert is_untouched(held, before, (torch.ones(2, 8),)) and not is_untouched(held, before, (FIRED,))
    held.data.mul_(0.5)
    assert not is_untouched(held, before, (torch.ones(2, 8),))
    same = version_of(held), held.clone()
    held.mul_(1.0)
    assert not is_untouched(held, same, (torch.ones(2, 8),))

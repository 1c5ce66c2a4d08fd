"""What describes a neuron is looked at: kinds of fields when it is made, its surrogate before it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from delaykit.errors import ConfigError
from delaykit.functional.dynamics import FLAGS, NUMBERS, LIFDynamics
from delaykit.functional.recurrence import rollout
from delaykit.functional.surrogates import FAST_SIGMOID, Slope


def fire(x: Tensor) -> Tensor:
    soft = torch.sigmoid(4 * x)
    return (x > 0).to(x) + soft - soft.detach()


def lif(**fields: Any) -> LIFDynamics:
    return LIFDynamics(**({"decay": 0.5, "surrogate": fire} | fields))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_none_is_refused(name: str) -> None:
    for value in (1, 0.5, np.float32(0.5), torch.tensor([0.5, 0.6]), torch.tensor(1)):
        assert getattr(lif(**{name: value}), name) is value
    wrong = ["a", True, [0.5], {}, float("nan"), torch.tensor(1j), torch.tensor(True)]
    for value in (*wrong, *([] if name == "synapse_decay" else [None])):
        with pytest.raises(ConfigError, match=rf"^LIFDynamics\.{name}: found .*; expected a number or a tensor"):
            lif(**{name: value})


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_is_true_or_false(name: str) -> None:
    for value in (1, 0, "no", None):
        with pytest.raises(ConfigError, match=rf"LIFDynamics\.{name}: found .*; expected True or False"):
            lif(**{name: value})


def test_a_surrogate_is_a_function_and_a_slope_a_slope() -> None:
    lif(surrogate=None)
    lif(slope=Slope(FAST_SIGMOID, 1.0, 1.0))
    for wrong in (3, "atan", torch.zeros(1)):
        with pytest.raises(ConfigError, match=r"LIFDynamics\.surrogate: found .*; expected an elementwise function"):
            lif(surrogate=wrong)
        with pytest.raises(ConfigError, match=r"LIFDynamics\.slope: found .*; expected a Slope, or None"):
            lif(slope=wrong)


WRONG = {
    "none": lambda x: None, "sum": lambda x: x.sum(), "mean": lambda x: x.mean(0), "softmax": lambda x: x.softmax(1),
    "running": lambda x: x.cumsum(1), "chance": torch.rand_like, "complex": lambda x: x + 1j, "number": lambda x: 1.0,
    "slip": lambda x: x.no_such, "more": lambda x, slope: x,
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_surrogate_that_is_not_elementwise_is_refused_before_it_runs(kind: str) -> None:
    for _ in range(2):  # what was refused once is not taken for known
        with pytest.raises(ConfigError, match=r"^LIFDynamics\.surrogate: found a function .*; expected an elementwise"):
            rollout(torch.rand(4, 2, 3), None, None, None, lif(surrogate=WRONG[kind]))


def test_a_surrogate_is_looked_at_once() -> None:
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return fire(x)

    neuron, drive = lif(surrogate=counted), torch.rand(4, 5, 7)
    for _ in range(3):
        rollout(drive, None, None, None, neuron)
    assert calls.count((2, 3)) == calls.count((1, 2)) == 1


class NoHash:
    __hash__ = None  # type: ignore[assignment]
    __slots__ = ()

    def __call__(self, x: Tensor) -> Tensor:
        return fire(x)


def test_a_surrogate_that_cannot_be_remembered_is_asked_again() -> None:
    drive = torch.rand(4, 2, 3)
    wanted = rollout(drive, None, None, None, lif())
    for _ in range(2):
        assert torch.equal(rollout(drive, None, None, None, lif(surrogate=NoHash()))[0], wanted[0])

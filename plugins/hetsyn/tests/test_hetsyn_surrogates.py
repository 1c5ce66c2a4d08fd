"""Surrogates against their formulas, alone and as functions with a gradient."""

from __future__ import annotations

import math

import pytest
import torch

from delaykit import ConfigError
from delaykit_hetsyn import MultiGaussian, Surrogate, TriangularSurrogate

X = torch.linspace(-12.0, 12.0, 4001, dtype=torch.float64)


def test_the_triangle_is_one_at_the_threshold_and_zero_a_width_away() -> None:
    assert TriangularSurrogate(0.5).slope(torch.tensor([-0.5, -0.25, 0.0, 0.25, 0.6])).tolist() == [
        0.0,
        0.5,
        1.0,
        0.5,
        0.0,
    ]
    assert float(torch.trapezoid(TriangularSurrogate(2.0).slope(X), X)) == pytest.approx(2.0, abs=1e-4)


def test_the_multi_gaussian_is_the_papers() -> None:
    def density(x: float, mean: float, sd: float) -> float:
        return math.exp(-((x - mean) ** 2) / (2 * sd**2)) / math.sqrt(2 * math.pi * sd**2)

    for x in (-2.0, -0.4, 0.0, 0.7, 5.0):
        wanted = 0.5 * (1.15 * density(x, 0, 0.5) - 0.15 * density(x, 0.5, 3) - 0.15 * density(x, -0.5, 3))
        assert float(MultiGaussian().slope(torch.tensor(x, dtype=torch.float64))) == pytest.approx(wanted, rel=1e-12)
    # three densities: (1.15 - 0.15 - 0.15) / 2 in all, and below zero on both sides
    assert float(torch.trapezoid(MultiGaussian().slope(X), X)) == pytest.approx(0.425, abs=1e-3)
    assert float(MultiGaussian().slope(torch.tensor(2.0))) < 0


@pytest.mark.parametrize("surrogate", [TriangularSurrogate(0.7), MultiGaussian()])
def test_a_surrogate_spikes_above_zero_and_passes_its_slope_back(surrogate: Surrogate) -> None:
    x = torch.tensor([-0.3, 0.0, 0.3], dtype=torch.float64, requires_grad=True)
    spikes = surrogate(x)
    assert spikes.tolist() == [0.0, 0.0, 1.0]
    (grad,) = torch.autograd.grad(spikes, x, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert torch.equal(grad, surrogate.slope(x.detach()) * torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("width", [0.0, -1.0, math.inf, math.nan])
def test_widths_must_be_positive(width: float) -> None:
    with pytest.raises(ConfigError):
        TriangularSurrogate(width)
    with pytest.raises(ConfigError):
        MultiGaussian(sd=width)

"""Distributions of time constants: their moments, their truncation, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from delaykit import ConfigError
from delaykit_hetsyn.time_constants import decay_of, draw, mean, tau_of


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("taus", "middle", "sd"),
    [
        (("normal", 20.0, 5.0), 20.0, 5.0),
        (("uniform", 5.0, 20.0), 12.5, 15.0 / math.sqrt(12.0)),
        (("lognormal", 20.0, 0.3), 20.0 * math.exp(0.045), 20.0 * math.exp(0.045) * math.sqrt(math.exp(0.09) - 1)),
        (7.0, 7.0, 0.0),
    ],
)
def test_a_draw_has_the_moments_of_its_distribution(taus: object, middle: float, sd: float) -> None:
    drawn = draw(taus, (200, 200), seeded())  # type: ignore[arg-type]
    assert float(drawn.mean()) == pytest.approx(middle, rel=0.01)
    assert float(drawn.std()) == pytest.approx(sd, rel=0.02, abs=1e-6)
    assert torch.equal(drawn, draw(taus, (200, 200), seeded()))  # type: ignore[arg-type]


def test_a_normal_draw_is_repeated_below_a_millisecond_not_clamped() -> None:
    drawn = draw(("normal", 2.0, 4.0), (100, 100), seeded())
    assert float(drawn.min()) >= 1.0 and int((drawn == 1.0).sum()) == 0


def test_homogeneous_networks_get_the_middle() -> None:
    assert mean(("normal", 40.0, 4.0)) == 40.0 and mean(("uniform", 5.0, 20.0)) == 12.5 and mean(9.0) == 9.0


def test_decays_and_time_constants_are_inverse() -> None:
    tau = torch.tensor([1.0, 20.0, 800.0], dtype=torch.float64)
    torch.testing.assert_close(tau_of(decay_of(tau, 5.0), 5.0), tau)
    assert tau_of(torch.tensor([0.0, 1.0]), 1.0).tolist() == [0.0, math.inf]


@pytest.mark.parametrize(
    "taus",
    [0.0, -3.0, True, math.inf, ("normal", 20.0), ("cauchy", 1.0, 2.0), ("uniform", 5.0, 4.0), ("normal", 0.5, 1.0),
     ("normal", 20.0, -1.0), ("lognormal", 20.0, math.nan)],
)  # fmt: skip
def test_distributions_that_make_no_sense_are_errors(taus: object) -> None:
    with pytest.raises(ConfigError):
        draw(taus, (2,))  # type: ignore[arg-type]

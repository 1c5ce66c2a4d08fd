"""Options of layers, surrogates and penalties do what their names say, by number."""

from __future__ import annotations

import pytest
import torch

from delaykit_hetsyn.layer import HetSynLIF, param_groups
from delaykit_hetsyn.models import HetSynNet, Neurons
from delaykit_hetsyn.regularise import rate_penalty
from delaykit_hetsyn.surrogates import MultiGaussian


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_recurrent_connection_may_have_coarser_decays() -> None:
    layer = HetSynLIF(3, 4, recurrent=True, recurrent_granularity="layer", generator=seeded())
    assert layer.recurrent is not None
    assert layer.input.decay.shape == (4, 3) and layer.recurrent.decay.numel() == 1
    both = HetSynLIF(3, 4, recurrent=True, granularity="layer", generator=seeded())
    assert both.recurrent is not None and both.input.decay.numel() == both.recurrent.decay.numel() == 1


def test_decays_may_have_a_rate_of_their_own_and_no_weight_decay() -> None:
    layer = HetSynLIF(3, 4, generator=seeded())
    rates = {group["name"]: group["lr"] for group in param_groups(layer, 1e-3, decay_lr=2e-2)}
    assert rates == {"weights": 1e-3, "decays": 2e-2}
    same = torch.optim.AdamW(param_groups(layer, 1e-3), weight_decay=0.5).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in same] == [(1e-3, 0.5), (1e-3, 0.0)]


def test_the_readout_has_a_gain_of_its_own() -> None:
    quiet, loud = (
        HetSynNet("HetSynLIF", (5, 6, 2), False, Neurons(readout_gain=g), generator=seeded()) for g in (1, 3)
    )
    torch.testing.assert_close(loud.readout.weight, 3 * quiet.readout.weight)
    torch.testing.assert_close(loud.layers[0].input.weight, quiet.layers[0].input.weight, rtol=0, atol=0)


@pytest.mark.parametrize("widening", [2.0, 6.0])
def test_the_dips_are_as_wide_as_widening_says(widening: float) -> None:
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    bump, left, right = (
        torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), sd).log_prob(x).exp()
        for mean, sd in ((0.0, 0.5), (-0.5, 0.5 * widening), (0.5, 0.5 * widening))
    )
    wanted = 0.5 * (1.15 * bump - 0.15 * (left + right))
    torch.testing.assert_close(MultiGaussian(widening=widening).slope(x), wanted)


def test_the_penalty_is_zero_at_the_target_and_one_in_silence() -> None:
    spikes = torch.zeros(100, 2, 3)
    assert float(rate_penalty(spikes, dt_ms=1.0, target_hz=40.0)) == 1.0
    spikes[::25] = 1.0  # 40 Hz
    assert float(rate_penalty(spikes, dt_ms=1.0, target_hz=40.0)) == pytest.approx(0.0, abs=1e-12)
    assert float(rate_penalty(spikes, dt_ms=1.0, target_hz=20.0)) == pytest.approx(1.0)

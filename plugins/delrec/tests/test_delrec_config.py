"""Configs refuse what cannot run, and build what they say."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.arrivals import Triangle
from delaykit.interfaces import Site
from delaykit_delrec import DCLS, DelRec

SITE = Site("rlif.recurrent", 200, 200, recurrent=True)


def build(config: DelRec | DCLS, seed: int = 0, site: Site = SITE):
    return config.build(site, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"granularity": "neuronal"}, "DelRec.granularity"),
        ({"max_delay": 0}, "DelRec.max_delay"),
        ({"sigma": -1.0}, "DelRec.sigma"),
        ({"sigma": float("nan")}, "DelRec.sigma"),
        ({"rho": 1.5}, "DelRec.rho"),
        ({"control": "random"}, "DelRec.control"),
        ({"rounding": "up"}, "DelRec.rounding"),
        ({"dropout": 1.0}, "DelRec.dropout"),
        ({"normalize": 1}, "DelRec.normalize"),
        ({"init": "normal"}, "DelRec.init"),
        ({"init": [1.0, 99.0]}, "DelRec.init"),
        ({"init": "uniform", "low": 31.0}, "DelRec.low"),
        ({"learn_spread": True, "granularity": "dendritic"}, "DelRec.learn_spread"),
        ({"learn_spread": True, "control": "frozen"}, "DelRec.learn_spread"),
    ],
)
def test_delrec_names_the_field_that_is_wrong(options: dict, where: str) -> None:
    with pytest.raises(dk.ConfigError) as caught:
        DelRec(**options)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"kernel_size": 24}, "DCLS.kernel_size"),
        ({"version": "linear"}, "DCLS.version"),
        ({"granularity": "layer"}, "DCLS.granularity"),
        ({"sigma": 0.0}, "DCLS.sigma"),
        ({"anneal": 0.0}, "DCLS.anneal"),
        ({"init": "half-normal"}, "DCLS.init"),
        ({"init": 25.0}, "DCLS.init"),
    ],
)
def test_dcls_names_the_field_that_is_wrong(options: dict, where: str) -> None:
    with pytest.raises(dk.ConfigError) as caught:
        DCLS(**options)
    assert caught.value.where == where


def test_initial_delays_follow_their_distributions() -> None:
    half = build(DelRec("synaptic", max_delay=100)).delays().detach()
    assert abs(float(half.pow(2).mean().sqrt()) - 12.0) < 0.3 and float(half.min()) >= 0
    uniform = build(DelRec("synaptic", init="uniform", low=10.0)).delays().detach()
    assert float(uniform.min()) >= 10 and float(uniform.max()) <= 30 and abs(float(uniform.mean()) - 20) < 0.2
    window = build(DCLS(25)).delays().detach()
    assert 0 <= float(window.min()) < 0.1 and 23.9 < float(window.max()) <= 24


def test_granularities_have_their_parameter_counts() -> None:
    counts = {g: sum(p.numel() for p in build(DelRec(g)).parameters()) for g in ("layer", "axonal", "synaptic")}
    assert counts == {"layer": 1, "axonal": 200, "synaptic": 200 * 200}
    assert sum(p.numel() for p in build(DelRec("hybrid")).parameters()) == 200 * 200 + 200
    assert sum(p.numel() for p in build(DelRec(learn_spread=True)).parameters()) == 400


def test_the_frozen_control_has_the_learned_delays_rounded_and_trains_nothing() -> None:
    learned, frozen = build(DelRec()), build(DelRec(control="frozen"))
    assert torch.equal(frozen.delays(), learned.delays().round()) and float(frozen.sigma) == 0
    assert not any(p.requires_grad for p in frozen.parameters())
    frozen.advance_(0.5)
    assert float(frozen.sigma) == 0
    zero = build(DelRec(control="zero"))
    assert not zero.delays().any() and zero.kernel().taps(zero.delays()).is_identity()


def test_a_hybrid_starts_as_its_axonal_part_and_keeps_every_sum_within_bounds() -> None:
    axonal, hybrid = build(DelRec(), seed=3), build(DelRec("hybrid"), seed=3)
    assert torch.equal(hybrid.delays(), axonal.delays().expand(200, 200))
    with torch.no_grad():
        hybrid.offset.normal_(0.0, 30.0)
    hybrid.project_()
    total = hybrid.delays().detach()
    assert float(total.min()) >= 0 and float(total.max()) <= 30 + 1e-5 and torch.equal(hybrid.delay, axonal.delay)
    nearest = hybrid.delays().detach().round()
    hybrid.discretize_()
    assert torch.equal(hybrid.delays(), nearest) and torch.equal(hybrid.delay, hybrid.delay.round())


def test_spreads_anneal_by_the_papers_formula_and_are_in_the_state_dict() -> None:
    delay = build(DelRec())
    delay.advance_(1.0)
    assert float(delay.sigma) == pytest.approx(10 * 0.95**100, rel=1e-12) and float(delay.sigma) == pytest.approx(
        0.0592, abs=1e-4
    )
    other = build(DelRec(), seed=1)
    other.load_state_dict(delay.state_dict())
    assert float(other.sigma) == float(delay.sigma)
    window = build(DCLS(25))
    for progress, wanted in ((0.0, 12.0), (0.125, (12 * 0.23) ** 0.5), (0.25, 0.23), (1.0, 0.23)):
        window.advance_(progress)
        assert float(window.sigma) == pytest.approx(wanted, rel=1e-9)


def test_learned_spreads_start_at_sigma_and_reach_up_to_twice() -> None:
    delay = build(DelRec(learn_spread=True, sigma=3.0))
    spread = delay.kernel().spread
    assert spread.shape == (1, 200) and bool(torch.isclose(spread, torch.tensor(3.0)).all())
    delay.spread_logit.data[:2] = torch.tensor([-1e4, 1e4])
    assert delay.kernel().spread[0, :2].tolist() == [0.0, 6.0]


def test_sigma_stays_exact_and_delays_keep_counting_in_half_precision() -> None:
    delay = build(DelRec(max_delay=3000, init=2049.0, sigma=0.0592))
    delay.half()
    assert float(delay.sigma) == 0.0592 and delay.delay.dtype == torch.float32 and float(delay.delay[0]) == 2049


def test_the_kernel_is_the_papers_triangle() -> None:
    tau = torch.arange(40.0)
    for sigma, d, total in ((0.0, 4.0, 1.0), (0.0592, 5.0, 1.0496), (3.0, 0.0, 0.8125 - 0.1875), (10.0, 20.0, 1.0)):
        s = 1 + sigma
        wanted = (s - (tau - d).abs()).clamp(min=0) / s**2
        response = Triangle(sigma).response(torch.tensor([d]), 40)[0]
        torch.testing.assert_close(response, wanted)
        assert float(response.sum()) == pytest.approx(total, abs=1e-3)

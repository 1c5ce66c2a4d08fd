"""HetSyn: what it refuses, what it builds, what is frozen, and how it registers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import delaykit as dk
from delaykit.interfaces import Site
from delaykit.synapse import Synapse
from delaykit_hetsyn import HetSyn
from delaykit_hetsyn.component import Decays

SITE = Site("fc", 60, 40, dt_ms=1.0)


def build(config: HetSyn, seed: int = 0, site: Site = SITE) -> Decays:
    return config.build(site, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"granularity": "neuron"}, "HetSyn.granularity"),
        ({"tau": "fast"}, "HetSyn.tau"),
        ({"tau": -3.0}, "HetSyn.tau"),
        ({"tau": float("nan")}, "HetSyn.tau"),
        ({"tau": ("normal", 20.0)}, "HetSyn.tau"),
        ({"tau": ("normal", "a", "b")}, "HetSyn.tau"),
        ({"tau": None}, "HetSyn.tau"),
        ({"tau": True}, "HetSyn.tau"),
        ({"dt_ms": 0.0}, "HetSyn.dt_ms"),
        ({"dt_ms": True}, "HetSyn.dt_ms"),
        ({"train": 1}, "HetSyn.train"),
        ({"frozen": 1.5}, "HetSyn.frozen"),
        ({"groups": 2}, "HetSyn.groups"),
        ({"groups": 4.0}, "HetSyn.groups"),
        ({"groups": 4, "granularity": "post"}, "HetSyn.groups"),
    ],
)
def test_it_names_the_field_that_is_wrong(options: dict[str, Any], where: str) -> None:
    with pytest.raises(dk.ConfigError) as caught:
        HetSyn(**options)
    assert caught.value.where == where


def test_json_keeps_a_distribution() -> None:
    config = HetSyn("dendritic", tau=("lognormal", 12.0, 0.5), dt_ms=4.0, frozen=0.25)
    assert HetSyn.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(("former", "word"), [("post", "dendritic"), ("pre", "axonal")])
def test_the_former_words_mean_the_same_also_in_files(former: str, word: str) -> None:
    assert HetSyn(former) == HetSyn(word) == HetSyn.from_json({**HetSyn().to_json(), "granularity": former})
    assert HetSyn(former).to_json()["granularity"] == word


@pytest.mark.parametrize(
    ("granularity", "shape"), [("synaptic", (40, 60)), ("dendritic", (40, 1)), ("axonal", (1, 60)), ("layer", (1, 1))]
)
def test_shapes(granularity: str, shape: tuple[int, int]) -> None:
    assert build(HetSyn(granularity)).decay().shape == shape


def test_draws_follow_their_distributions() -> None:
    normal = build(HetSyn(tau=("normal", 3.0, 2.0))).tau_ms()
    assert float(normal.min()) >= 1 - 1e-5 and 3.2 < float(normal.mean()) < 3.6  # truncated at 1 ms
    uniform = build(HetSyn(tau=("uniform", 5.0, 20.0))).tau_ms()
    assert 5 - 1e-3 <= float(uniform.min()) and float(uniform.max()) <= 20 + 1e-3
    assert abs(float(uniform.mean()) - 12.5) < 0.4
    wide = build(HetSyn(tau=("lognormal", 10.0, 0.7))).tau_ms().log()
    assert abs(float(wide.mean()) - torch.tensor(10.0).log()) < 0.06 and abs(float(wide.std()) - 0.7) < 0.04
    fine = build(HetSyn(tau=20.0, dt_ms=4.0)).decay()  # an own length of a step, not the library's
    torch.testing.assert_close(fine, torch.full_like(fine, torch.exp(torch.tensor(-0.2))))


def test_the_frozen_share_never_moves_with_weight_decay_and_momentum() -> None:
    part = build(HetSyn(tau=("uniform", 5.0, 20.0), frozen=0.8))
    assert part.frozen is not None and int(part.frozen.sum()) == round(0.8 * part.r.numel())
    before = part.decay().detach().clone()
    optimizer = torch.optim.AdamW(part.parameters(), lr=1e-2, weight_decay=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        part.decay().pow(2).sum().backward()
        assert part.r.grad is not None
        assert not part.r.grad[part.frozen].any() and bool(part.r.grad[~part.frozen].all())
        optimizer.step()
        assert torch.equal(part.decay()[part.frozen], before[part.frozen])
        part.project_()
        assert torch.equal(part.r[part.frozen], before[part.frozen])
    assert bool((part.decay() != before)[~part.frozen].all())


def test_not_trained_means_no_gradient() -> None:
    assert not any(p.requires_grad for p in build(HetSyn(train=False)).parameters())


def test_half_precision_leaves_decays_alone() -> None:
    part = build(HetSyn(tau=5000.0, frozen=0.5))
    before = part.decay().detach().clone()
    part.half()
    assert part.r.dtype == torch.float32 and torch.equal(part.decay(), before)


def test_it_is_found_by_its_name_and_says_what_it_is() -> None:
    from delaykit.plugins import registry

    assert registry.resolve("heterogeneity", "hetsyn") is HetSyn
    text = str(Synapse(SITE, [HetSyn(tau=("uniform", 5.0, 20.0), frozen=0.5)], torch.Generator().manual_seed(0)))
    assert "synaptic decays 0.8" in text and "50% frozen" in text


def test_time_constants_in_ms_need_the_length_of_a_step() -> None:
    with pytest.raises(dk.ConfigError, match="dt_ms"):
        build(HetSyn(tau=20.0), site=Site("fc", 3, 2))
    with pytest.raises(dk.ConfigError, match="dt_ms"):
        build(HetSyn(), site=Site("fc", 3, 2)).tau_ms()

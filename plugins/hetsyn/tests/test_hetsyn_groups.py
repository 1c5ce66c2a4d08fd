"""Shared decays: where the approximation is exact, on which side it errs, and by how much."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.interfaces import Site
from delaykit.synapse import Synapse
from delaykit_hetsyn import HetSyn
from delaykit_hetsyn.groups import grid, shares

TIME, PRE, POST = 60, 30, 20


def synapse(groups: int | None) -> Synapse:
    built = Synapse(Site("fc", PRE, POST), (HetSyn(groups=groups),), torch.Generator().manual_seed(0)).double()
    r = torch.exp(-1 / (2 + 40 * torch.rand(POST, PRE, generator=torch.Generator().manual_seed(1)))).double()
    built.heterogeneity.r.data = r  # type: ignore[union-attr]
    return built


def test_shares_add_up_to_one_and_to_the_decay() -> None:
    shared = grid(7).double()
    decay = torch.rand(POST, PRE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    decay[0, 0], decay[0, 1], decay[0, 2] = 0.0, 1.0, shared[3]
    split = shares(decay, shared)
    assert bool((split >= 0).all()) and int((split > 0).sum(0).max()) <= 2
    torch.testing.assert_close(split.sum(0), torch.ones_like(decay), rtol=0, atol=1e-12)
    torch.testing.assert_close((split * shared.reshape(-1, 1, 1)).sum(0), decay, rtol=0, atol=1e-12)


def test_it_is_exact_for_two_steps_never_too_small_and_better_with_more_groups() -> None:
    weight = torch.ones(POST, PRE, dtype=torch.float64)
    exact = synapse(None).impulse_response(weight, TIME)
    errors = []
    for groups in (6, 12, 24):
        found = synapse(groups).impulse_response(weight, TIME)
        torch.testing.assert_close(found[..., :2], exact[..., :2], rtol=0, atol=1e-12)
        assert bool((found >= exact - 1e-12).all())
        errors.append(float((found - exact).detach().abs().max()))
    assert errors[0] < 0.3 and errors[1] < 0.06 and errors[2] < 0.02


def test_r_on_the_grid_is_exact_and_gradients_reach_r_and_weight() -> None:
    part = synapse(8)
    shared = part.heterogeneity.shared  # type: ignore[union-attr]
    part.heterogeneity.r.data = shared[torch.randint(1, 7, (POST, PRE))]  # type: ignore[union-attr, index]
    exact = synapse(None)
    exact.heterogeneity.r.data = part.heterogeneity.r.data.clone()  # type: ignore[union-attr]
    weight = torch.randn(POST, PRE, dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(
        part.impulse_response(weight, TIME), exact.impulse_response(weight, TIME), rtol=0, atol=1e-12
    )
    part.impulse_response(weight, TIME).sum().backward()
    assert bool(weight.grad.all()) and bool(part.heterogeneity.r.grad.all())  # type: ignore[union-attr]


def test_a_delay_beside_groups_is_refused_and_the_model_left_alone() -> None:
    net = nn.Sequential(nn.Linear(PRE, POST))
    parts = (dk.FreeDelay("axonal", max_delay=4), HetSyn(groups=6))
    with pytest.raises(dk.WrapError, match="groups and a delay"):
        dk.wrap_(net, {"0": dk.At(*parts, reset="manual")}, example=torch.zeros(2, PRE))
    assert type(net[0]) is nn.Linear

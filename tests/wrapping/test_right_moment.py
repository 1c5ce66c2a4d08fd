"""A word at the right moment: one learning rate for all, delays that collapse, a reset that was forgotten."""

from __future__ import annotations

import warnings

import pytest
import snntorch as snn
import torch
from snntorch import utils

import delaykit as dk


def wrapped(**options):
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), snn.Leaky(beta=0.9, init_hidden=True))
    return dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=8, **options)}, example=torch.zeros(2, 6))


def test_one_rate_for_delays_and_weights_draws_one_warning():
    net = wrapped()
    with pytest.warns(UserWarning, match="delays and weights in one group with lr=0.001.*dk.param_groups") as caught:
        dk.attach(torch.optim.Adam(net.parameters(), lr=1e-3), net)
    assert len(caught) == 1


@pytest.mark.parametrize("options", [{}, {"learn": False}])
def test_a_rate_of_their_own_or_none_draws_no_warning(options):
    net = wrapped(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = [p for p in net.parameters() if p.requires_grad]
        dk.attach(torch.optim.Adam(own if options else dk.param_groups(net, lr=1e-3, delay_lr=1e-3), lr=1e-3), net)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "are at 0"), (8.0, "the maximum, 8 steps"), (0.05, "are at 0"), (7.95, "the maximum, 8 steps")],
)
def test_status_tells_delays_that_sit_at_a_bound(value, words):
    net = wrapped()
    with torch.no_grad():
        net[0].dk.delay.delay.copy_(torch.tensor([value] * 6))
    assert "note: 0: 100 % of its delays are at " in str(dk.status(net))
    assert words in dk.status(net).sites[0].note
    with torch.no_grad():
        net[0].dk.delay.delay[:2] = 4.0
    assert dk.status(net).sites[0].note == "" and "note" not in str(dk.status(net))


@pytest.mark.parametrize("granularity", ["dendritic", "layer"])
@pytest.mark.parametrize("init", [5.0, 4.99])
def test_a_connection_of_few_delays_is_told_of_too(granularity, init):
    net = torch.nn.Sequential(torch.nn.Linear(4, 3))
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay(granularity, max_delay=5, init=init), reset="manual")})
    assert "100 % of its delays are at the maximum, 5 steps" in dk.status(net).sites[0].note


def test_frozen_delays_may_sit_where_they_were_put():
    assert dk.status(wrapped(init=0.0, learn=False)).sites[0].note == ""


def test_a_forgotten_reset_is_named():
    """Without a neuron whose own graph torch would find freed first, the tape's error is the one that is read."""
    net = torch.nn.Sequential(torch.nn.Linear(6, 4))
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", max_delay=8, init=3.0), reset="manual")})
    x = torch.rand(5, 2, 6)
    torch.stack([net(step) for step in x]).sum().backward()
    with pytest.raises(dk.HistoryError, match=r"utils\.reset\(net\).*dk\.reset\(net\)"):
        torch.stack([net(step) for step in x]).sum().backward()
    dk.reset(net)
    torch.stack([net(step) for step in x]).sum().backward()


@pytest.mark.parametrize("site", ["0", "2"])
@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "Alpha", "RLeaky"])
def test_a_forgotten_reset_is_named_where_neurons_keep_their_graphs_too(kind, granularity, site):
    """Torch would find a neuron's own graph freed, and say nothing of a reset."""
    options = {"Synaptic": {"alpha": 0.8}, "Alpha": {"alpha": 0.95}, "RLeaky": {"linear_features": 5}}.get(kind, {})
    neurons = getattr(snn, kind)(beta=0.9, init_hidden=True, **options), snn.Leaky(beta=0.5, init_hidden=True)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), neurons[0], torch.nn.Linear(5, 4), neurons[1])
    x = torch.rand(5, 2, 6)
    dk.wrap_(net, {site: dk.FreeDelay(granularity, max_delay=8, init=1.0)}, example=x[0])
    torch.stack([net(step) for step in x]).sum().backward()
    with pytest.raises(dk.HistoryError, match=r"utils\.reset\(net\)"):
        torch.stack([net(step) for step in x]).sum().backward()
    utils.reset(net)
    torch.stack([net(step) for step in x]).sum().backward(retain_graph=True)
    torch.stack([net(step) for step in x]).sum().backward()  # one graph over both sequences, which nobody freed

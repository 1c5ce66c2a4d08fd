"""Counting as the paper counts, connectivity, turnover and pictures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit_sparsify import (
    DynamicSparsity,
    Sparsifier,
    connectivity,
    kept_by_delay,
    masks,
    parameter_report,
    published_count,
    turnover,
)

INPUTS, HIDDEN = 70, 30


def paper_net(*components):
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    torch.manual_seed(0)
    net = nn.ModuleDict({"fc": nn.Linear(INPUTS, HIDDEN), "lif": snn.RLeaky(beta=0.5, linear_features=HIDDEN)})
    with torch.no_grad():
        net["lif"].recurrent.weight.fill_diagonal_(0)  # the paper counts no autapses
    rule = dk.At(*components, reset="manual")
    return dk.wrap_(net, {"fc": rule, "lif.recurrent": rule})


def test_the_papers_ratio():
    full, sparse = published_count(700, 300), published_count(700, 300, dimensions=3, kept=0.1)
    assert (full, sparse) == (599_400, 32_970)
    assert full / sparse == pytest.approx(18.18, abs=0.005)


def test_report_of_a_real_net_agrees_with_the_papers_formula():
    free = paper_net(dk.FreeDelay("synaptic"), DynamicSparsity(0.9))
    assert parameter_report(free).dense == published_count(INPUTS, HIDDEN)
    dk.advance_(free, 1.0)
    report = parameter_report(free)
    assert report.sparse == published_count(INPUTS, HIDDEN, kept=0.1)
    assert report.kept_weights == 210 + 87 and "10.00 times fewer" in str(report)
    axonal = paper_net(dk.FreeDelay("axonal"), DynamicSparsity(0.9))
    dk.advance_(axonal, 1.0)
    assert parameter_report(axonal).sparse == published_count(INPUTS, HIDDEN, dimensions=1, kept=0.1)
    assert parameter_report(axonal, exclude=["lif*"]).sparse == 210 + INPUTS


def test_shared_positions_count_once():
    net = paper_net(dk.FreeDelay("axonal"))
    net["lif"].recurrent.dk.delay.position = net["fc"].dk.delay.position = nn.Parameter(torch.zeros(HIDDEN * 3))
    report = parameter_report(net)
    assert sum(site.shared for site in report.sites) == INPUTS + HIDDEN + HIDDEN * 3


def test_each_tap_of_a_motif_is_a_weight_of_its_own():
    motifs = pytest.importorskip("delaykit_motifs", reason="needs the plugin delaykit-motifs")
    net = nn.Sequential(nn.Linear(10, 8))
    dk.wrap_(net, {"0": dk.At(motifs.Motif(depth=5, scale=0.5), DynamicSparsity(0.5), reset="root", time_dim=0)})
    dk.advance_(net, 1.0)
    report = parameter_report(net)
    assert (report.dense, report.sparse) == (400, 40 + 320)  # the rule prunes the taps at 0 only
    taps = ["0.weight", "0.dk.delay.taps"]
    Sparsifier(net, DynamicSparsity(0.9, scope="global"), include=taps).step_(1.0)
    response = net[0].dk.impulse_response(net[0].weight)
    assert parameter_report(net).sparse == 40 == int(response.count_nonzero())


def test_autapses_that_pruning_took_still_count():
    net = paper_net(DynamicSparsity(0.9))
    with torch.no_grad():
        net["lif"].recurrent.weight.uniform_(1, 2).fill_diagonal_(0.01)
    dk.advance_(net, 1.0)
    assert not net["lif"].recurrent.weight.diagonal().any()
    assert [site.weights for site in parameter_report(net).sites] == [INPUTS * HIDDEN, HIDDEN**2]


def test_turnover_wants_masks_of_one_model():
    one = {"fc": torch.ones(3, 3, dtype=torch.bool)}
    with pytest.raises(dk.ConfigError):
        turnover(one, {})
    with pytest.raises(dk.ShapeError):
        turnover(one, {"fc": torch.ones(2, 3, dtype=torch.bool)})


def test_communities_of_two_separate_cliques_are_these():
    net = paper_net(dk.FreeDelay("synaptic"))
    with torch.no_grad():
        weight = net["lif"].recurrent.weight
        weight.zero_()
        weight[:10, :10] = weight[10:30, 10:30] = 1.0
    graphs = connectivity(net, communities=True)
    assert graphs["lif.recurrent"].communities == (tuple(range(10, 30)), tuple(range(10)))
    assert graphs["fc"].communities == ()
    assert graphs["lif.recurrent"].inputs.tolist() == [10] * 10 + [20] * 20
    assert "2 communities" in str(graphs["lif.recurrent"])


def test_delays_of_kept_synapses():
    net = nn.Sequential(nn.Linear(4, 3))
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=[0.0, 1.0, 2.0, 3.0]), reset="manual")})
    with torch.no_grad():
        net[0].weight[:, 1] = 0
    graph = connectivity(net)["0"]
    assert sorted(graph.delays.tolist()) == [0.0] * 3 + [2.0] * 3 + [3.0] * 3 and len(graph.all_delays) == 12
    edges, fraction = kept_by_delay(net[0].dk.delay.delays(), masks(net)["0"], bins=4, largest=4.0)
    assert edges.tolist() == [0, 1, 2, 3, 4] and fraction.tolist() == [1.0, 0.0, 1.0, 1.0]
    with pytest.raises(dk.ShapeError, match="broadcast"):
        kept_by_delay(torch.zeros(5), masks(net)["0"])


def test_pictures_are_labelled():
    pytest.importorskip("matplotlib", reason="needs matplotlib, the extra `plot`").use("Agg")
    from delaykit_sparsify import plotting

    net = paper_net(dk.FreeDelay("synaptic"), DynamicSparsity(0.9))
    dk.advance_(net, 1.0)
    graph, kept = connectivity(net)["fc"], masks(net)["fc"]
    delays = net["fc"].dk.delay.delays()
    for ax in (
        plotting.degree_histogram(graph),
        plotting.kept_fraction(delays, kept),
        plotting.delay_against_distance(torch.rand(HIDDEN, INPUTS), delays, kept),
        plotting.accuracy_against_kept({"dynamic": {0.1: [0.5, 0.6], 1.0: [0.7]}}, chance=0.05),
    ):
        assert ax.get_xlabel() and ax.get_ylabel() and (ax.patches or ax.collections or ax.lines)

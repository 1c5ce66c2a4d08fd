"""Pictures that tell the truth when data are lopsided: outliers, ties, many bins, one dimension."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit_spatial import PositionHistory, Spatial, equal_weights_, kept_fraction, populations, position_map

matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot", reason="needs matplotlib, the extra `plot`")


@pytest.fixture(autouse=True)
def close():
    yield
    pyplot.close("all")


def chain(dims=2):
    net = nn.Sequential(nn.Linear(10, 12), nn.Linear(12, 4))
    rules = {"0": Spatial(dims, pre="input", post="hidden"), "1": Spatial(dims, pre="hidden", post="out")}
    generator = torch.Generator().manual_seed(0)
    return dk.wrap_(net, {k: dk.At(v, reset="manual") for k, v in rules.items()}, generator=generator)


def ends(net, **options):
    """Ends of the drawn connections, as sets of the neurons' places."""
    lines = position_map(net, **options).collections[0].get_segments()
    return [{tuple(np.round(line[k].astype(np.float32), 3)) for line in lines} for k in (0, -1)]


def test_one_strong_synapse_does_not_hide_all_others_of_its_connection() -> None:
    net = chain()
    net[0].weight.data[0, 0] = 100.0
    starts, _ = ends(net, connections=20)
    inputs = {tuple(np.round(place, 3)) for place in populations(net)["input"].detach().numpy()}
    assert len(starts & inputs) > 3


def test_of_equal_weights_not_only_the_first_neurons_are_drawn() -> None:
    net = chain()
    equal_weights_(net)
    starts, stops = ends(net, connections=30)
    assert len(starts) > 8 and len(stops) > 6


def test_many_bins_have_few_labels() -> None:
    ax = kept_fraction(torch.rand(20, 20) * 2000, torch.rand(20, 20) < 0.5)
    assert 4 < len(ax.get_xticks()) <= 11 and ax.get_xticks()[0] == 0


def test_trails_on_a_line_climb_to_their_row() -> None:
    net, history = chain(1), PositionHistory()
    for _ in range(3):
        history.record(net)
        for places in populations(net).values():
            places.data += 1.0
    trails = [line.get_ydata() for line in position_map(net, history=history, connections=0).lines]
    assert len(trails) == 26 and all(np.all(np.diff(trail) > 0.1) and trail[-1] in (0, 1, 2) for trail in trails)

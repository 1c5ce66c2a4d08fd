"""What a user may get wrong: metrics, tables, names and folders that do not fit, and what is said about it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import delaykit as dk
from delaykit import Site
from delaykit_spatial import (
    PositionHistory,
    Spatial,
    channel_order,
    degree_distribution,
    export_positions,
    kept_by_latency,
    late_arrivals,
    spatial_report,
)

SITE = Site("fc", 3, 4, neuron="hidden")


def chain(config=None):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4))
    return dk.wrap_(net, {"0": dk.At(config or Spatial(2, pre="input", post="out"), reset="manual")})


def one_number(post, pre):
    return (post.sum() - pre.sum()) ** 2


def swapped(post, pre):
    return (pre.unsqueeze(1) - post.unsqueeze(0)).square().sum(-1)


def broken(post, pre):
    return (post.unsqueeze(1) - pre.unsqueeze(0)).square().sum(-1) * math.nan


def signed(post, pre):
    return (post.unsqueeze(1) - pre.unsqueeze(0)).sum(-1) - 100.0


@pytest.mark.parametrize(
    ("metric", "found"),
    [
        (one_number, r"shape \(\)"),
        (swapped, r"shape \(3, 4\)"),
        (broken, "NaN"),
        (signed, "negative"),
    ],
)
def test_a_metric_that_measures_no_distance_is_refused(metric, found) -> None:
    with pytest.raises(dk.DelaykitError, match=found) as caught:
        Spatial(2, metric=metric).build(SITE, torch.Generator().manual_seed(0))
    assert metric.__name__ in str(caught.value) and "fc" in str(caught.value)


def test_a_metric_that_breaks_down_in_training_is_noticed() -> None:
    delay = Spatial(2, metric=lambda post, pre: (post.unsqueeze(1) + pre.unsqueeze(0)).sum(-1) + 1e4).build(SITE)
    delay.check()
    delay.post_positions.data -= 1e5
    with pytest.raises(dk.ConfigError, match="negative"):
        delay.check()


def test_places_may_come_as_an_array() -> None:
    places = np.arange(8.0).reshape(4, 2)
    config = Spatial(2, init=places)
    assert config == Spatial(2, init=places.tolist())
    assert Spatial.from_json(config.to_json()) == config
    with pytest.raises(dk.ConfigError, match=r"shape \(4,\)"):
        Spatial(2, init=places[:, 0])


@pytest.mark.parametrize("number", [np.int64(2), np.float32(2.0)])
def test_numbers_may_come_from_numpy(number) -> None:
    config = Spatial(number, velocity=number, max_ms=number)
    assert config == Spatial(2, velocity=2.0, max_ms=2.0) and {type(config.dims), type(config.velocity)} <= {int, float}


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: late_arrivals(Spatial(2).build(SITE), torch.tensor(1.0)), r"shape \(\)"),
        (lambda: kept_by_latency(torch.tensor([math.nan]), torch.tensor([True])), "NaN"),
        (lambda: kept_by_latency(torch.tensor([1.0, math.inf]), torch.tensor([True, False])), "infinite"),
        (lambda: kept_by_latency(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0])), "torch.float32"),
        (lambda: degree_distribution(torch.tensor([[0.5, 0.0]])), "torch.float32"),
        (lambda: degree_distribution(torch.tensor([True])), r"shape \(1,\)"),
        (lambda: channel_order(torch.rand(3)), r"shape \(3,\)"),
        (lambda: PositionHistory().trajectories("nobody"), "nobody"),
        (lambda: PositionHistory().movement("nobody"), "nobody"),
    ],
)
def test_tables_of_another_form_are_refused_by_name(call, found) -> None:
    with pytest.raises(dk.DelaykitError, match=found):
        call()


def test_positions_are_not_written_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(dk.DataError, match="no-such-folder"):
        export_positions(chain(), tmp_path / "no-such-folder" / "places.csv")
    (tmp_path / "taken.csv").mkdir()
    with pytest.raises(dk.DataError, match=r"taken\.csv"):
        export_positions(chain(), tmp_path / "taken.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.csv"]


def test_a_report_counts_all_neurons_of_a_place_and_says_nothing_of_none() -> None:
    net = chain(Spatial(2, pre="input", post="out", init=[[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    report = spatial_report(net)
    assert report.coincident == {"input": 0, "out": 3}
    assert "population out: 3 neurons" in str(report) and "population input" not in str(report)


@pytest.mark.parametrize(
    "config", [Spatial(0), Spatial(math.inf, learn=False), Spatial(2, learn=False), Spatial(2, estimator="none")]
)
def test_delays_that_do_not_learn_are_not_said_to(config) -> None:
    delay = config.build(Site("fc", 3, 3, recurrent=True))
    assert "learned" not in repr(delay) and "fixed" in repr(delay)

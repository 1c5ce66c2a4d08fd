"""Counting, export and analyses: against slow counts by hand, round trips, and files that are refused."""

from __future__ import annotations

import builtins
import csv
import json
import math
from pathlib import Path

import matplotlib
import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.interfaces import Site
from delaykit.testing.faults import how_many
from delaykit.testing.faults.damage import check_changed_bytes
from delaykit_spatial import (
    LIF,
    PositionHistory,
    Spatial,
    channel_matrix,
    channel_order,
    communities,
    degree_distribution,
    delay_against_distance,
    equal_weights_,
    export_positions,
    kept_by_latency,
    kept_fraction,
    late_arrivals,
    links,
    parameter_accounting,
    populations,
    position_map,
    read_positions,
    spatial_param_groups,
    spatial_report,
)
from delaykit_spatial import plugin as entry

matplotlib.use("Agg")


def make(dims=2, **options) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    rules = {
        "0": Spatial(dims, pre="input", post="hidden", scale=3.0, **options),
        "1": Spatial(dims, pre="hidden", post="out", scale=3.0),
    }
    rules = {name: dk.At(rule, reset="manual") for name, rule in rules.items()}
    return dk.wrap_(net, rules, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("recurrent", [False, True])
def test_late_arrivals_are_those_that_a_count_by_hand_finds(recurrent: bool) -> None:
    site = Site("loop", 5, 5, recurrent=True) if recurrent else Site("fc", 4, 5)
    delay = Spatial(2, scale=6.0).build(site, torch.Generator().manual_seed(1))
    spikes = (torch.rand(12, 3, site.pre, generator=torch.Generator().manual_seed(2)) < 0.4).float()
    found = late_arrivals(delay, spikes)
    total = late = 0
    whole = delay.delays().detach().round()
    pairs = [(j, i) for j in range(5) for i in range(site.pre) if not (recurrent and i == j)]
    for t, _, i in spikes.nonzero().tolist():
        for j in (j for j, k in pairs if k == i):
            total += 1
            late += t + int(whole[j, i]) + recurrent >= 12
    never = sum(int(whole[j, i]) + recurrent >= 12 for j, i in pairs)
    assert (found.total, found.late, found.synapses) == (total, late, never)
    assert 0 < late < total and never > 0 and "after the end" in str(found)
    with pytest.raises(dk.ShapeError, match=r"\(time, batch, "):
        late_arrivals(delay, spikes[0])


@pytest.mark.parametrize(("dims", "options", "positions", "paths"), [
    (3, {}, 3 * 12, 0), (2, {"tortuosity": 0.5}, 2 * 12, 20), (0, {}, 0, 0), (math.inf, {}, 0, 20 + 15),
])  # fmt: skip
def test_accounting(dims: float, options: dict, positions: int, paths: int) -> None:
    net = make(dims, **options)
    count = parameter_accounting(net)
    assert sum(count.positions.values()) == positions and sum(count.paths.values()) == paths
    assert count.delays == sum(p.numel() for p in dk.param_groups(net, lr=1.0)[1]["params"])
    assert sum(count.free.values()) == 35 and "instead of 35" in str(count)


def test_the_report_counts_neurons_at_one_place_and_synapses_too_slow() -> None:
    net = make(init=[[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [50.0, 0.0], [1.0, 1.0]])
    report = spatial_report(net, steps=20)
    assert report.coincident == {"input": 0, "hidden": 3, "out": 0} and report.beyond == {"0": 4, "1": 3}
    assert report.latency_ms["0"][0] < report.latency_ms["0"][1] < report.latency_ms["0"][2]
    assert "3 neurons share a place" in str(report) and "4 synapses never arrive within 20 steps" in str(report)


@pytest.mark.parametrize("dims", [1, 3, 5])
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_positions_survive_a_file(tmp_path: Path, dims: int, suffix: str) -> None:
    net, path = make(dims), tmp_path / f"placement.{suffix}"
    export_positions(net, path, unit="um")
    read = read_positions(path)
    assert read.unit == "um" and read.velocity == dict.fromkeys(("input", "hidden", "out"), 1.0)
    for name, values in populations(net).items():
        assert torch.equal(read.positions[name], values.detach().double())
    again = Spatial(dims, pre_init=read.positions["input"]).build(Site("fc", 4, 2))
    assert torch.equal(again.pre_positions, populations(net)["input"])
    if suffix == "json":
        assert read.connections["0"] | {"dt_ms": 1.0} == read.connections["0"]
        assert read.connections["0"]["pre"] == "input" and read.connections["1"]["metric"] == "euclidean"
    assert list(tmp_path.iterdir()) == [path], "no half-written file is left"


def test_a_table_says_units_velocity_population_and_neuron(tmp_path: Path) -> None:
    export_positions(make(2), tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert list(rows[0]) == ["population", "neuron", "x", "y", "unit", "velocity", "velocity_unit"]
    assert len(rows) == 12 and rows[5]["population"] == "hidden" and rows[5]["neuron"] == "1"
    assert rows[0]["unit"] == "ms" and rows[0]["velocity_unit"] == "ms/ms"


def test_what_cannot_be_written_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    net = make(2, velocity=2.0)
    with pytest.raises(dk.ConfigError, match=r"\[1.0, 2.0\].*json"):
        export_positions(net, tmp_path / "p.csv")
    export_positions(net, tmp_path / "p.json")
    (tmp_path / "p.json").unlink()
    for bad, path, unit in ((net, "p.txt", "ms"), (net, "p.json", "=ms"), (make(0), "p.json", "ms")):
        with pytest.raises(dk.ConfigError):
            export_positions(bad, tmp_path / path, unit)
    populations(net)["out"].data[0, 0] = math.nan
    with pytest.raises(dk.ConfigError, match="population 'out'"):
        export_positions(net, tmp_path / "p.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flips", [100, pytest.param(how_many(400, 2000), marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_changed_byte_is_refused_or_gives_sound_places(tmp_path: Path, suffix: str, flips: int) -> None:
    path = tmp_path / f"p.{suffix}"
    export_positions(make(2), path)

    def read(content: bytes):
        path.write_bytes(content)
        return read_positions(path)

    def judge(found) -> None:
        assert all(table.ndim == 2 and bool(table.isfinite().all()) for table in found.positions.values())
        assert all(0 < speed < math.inf for speed in found.velocity.values())

    assert 0 < check_changed_bytes(path.read_bytes(), read, judge, flips) < flips


@pytest.mark.parametrize("speed", ["nan", "inf", "0.0", "-1.0", "fast"])
def test_a_velocity_that_is_none_is_refused(tmp_path: Path, speed: str) -> None:
    export_positions(make(2), tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text((tmp_path / "p.csv").read_text().replace(",1.0,", f",{speed},"))
    with pytest.raises(dk.DataError, match="line 2"):
        read_positions(tmp_path / "p.csv")


def test_a_cell_that_never_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('population,neuron,x,unit,velocity\n"' + "a" * 200_000)
    with pytest.raises(dk.DataError, match=r"cannot be read"):
        read_positions(tmp_path / "p.csv")


def test_damaged_files_are_refused_by_line(tmp_path: Path) -> None:
    table, tree = tmp_path / "p.csv", tmp_path / "p.json"
    export_positions(make(2), table)
    export_positions(make(2), tree)
    lines, content = table.read_text().splitlines(), json.loads(tree.read_text())
    x = lines[1].split(",")[2]
    tables = {
        "line 2": [lines[0], lines[1].replace(x, "far"), *lines[2:]],
        "NaN": [lines[0], lines[1].replace(x, "nan"), *lines[2:]],
        "line 3": [lines[0], lines[1], *lines[3:]],
        "in 'um'": [*lines[:2], lines[2].replace(",ms,", ",um,")],
        "no table": ["a,b", "1,2"],
    }
    for text, rows in tables.items():
        table.write_text("\n".join(rows))
        with pytest.raises(dk.DataError, match=text):
            read_positions(table)
    places = content["populations"]["out"]["positions"]
    trees = ["", "[1]", "{}", json.dumps(content | {"format": "other 2"}), "[" * 5000]
    trees += [json.dumps(content).replace(str(places[0][0]), bad) for bad in ("NaN", "null", '"x"', "[1]")]
    for text in trees:
        tree.write_text(text)
        with pytest.raises(dk.DataError, match="p.json"):
            read_positions(tree)
    with pytest.raises(dk.DataError, match="no readable file"):
        read_positions(tmp_path / "missing.csv")


def test_kept_by_latency_and_degrees_are_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    late, kept = torch.rand(6, 7, generator=generator) * 100, torch.rand(6, 7, generator=generator) < 0.5
    edges, share = kept_by_latency(late, kept)
    for low, part in zip(edges[:-1].tolist(), share.tolist(), strict=True):
        inside = (late >= low) & (late < low + 30)
        assert part == pytest.approx(float(kept[inside].float().mean()))
    inputs, outputs = degree_distribution(kept)
    assert inputs.sum() == 6 and outputs.sum() == 7
    assert int((inputs * torch.arange(len(inputs))).sum()) == int(kept.sum())
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(dk.ConfigError):
            kept_by_latency(late, kept, bad)
    with pytest.raises(dk.ShapeError):
        kept_by_latency(late[:0], kept[:0])


def test_communities_find_blocks_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    weight = torch.block_diag(torch.ones(7, 7), -torch.ones(5, 5)) + 0.01
    groups = communities(weight[order][:, order])
    assert [{int(order[k]) for k in group} for group in groups] == [set(range(7)), set(range(7, 12))]
    with pytest.raises(dk.ShapeError):
        communities(torch.ones(2, 3))
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "networkx":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(dk.ConfigError, match="graphs"):
        communities(weight)


def test_channels_order_neurons_and_silent_neurons_come_along() -> None:
    weight = torch.eye(6)[torch.tensor([3, 1, 5, 0])]
    weight[1] = 0.0
    assert channel_order(weight).tolist() == [1, 3, 0, 2]


def test_equal_weights_leave_only_places_to_tell_synapses_apart() -> None:
    net = make(2)
    mean = float(net[0].weight.detach().abs().mean())
    equal_weights_(net)
    assert net[0].weight.unique().tolist() == [pytest.approx(mean)]
    equal_weights_(net, 0.5)
    assert links(net)["1"].weight.unique().item() == 0.5


def test_histories_know_trajectories() -> None:
    net, history = make(2), PositionHistory()
    history.record(net)
    populations(net)["hidden"].data += torch.tensor([3.0, 4.0])
    history.record(net)
    assert history.trajectories("hidden").shape == (2, 5, 2) and history.movement("hidden") == [5.0]
    with pytest.raises(dk.ConfigError):
        history.record(make(0))
    with pytest.raises(dk.ConfigError):
        history.record(nn.Linear(2, 2))


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_maps_show_every_neuron_trail_and_line(dims: int) -> None:
    net, history = make(dims), PositionHistory()
    history.record(net)
    populations(net)["hidden"].data += 1.0
    history.record(net)
    with dk.plotting.style():
        ax = position_map(net, history=history, connections=10)
    names = [ax.get_xlabel(), ax.get_ylabel(), ax.get_zlabel() if dims > 2 else ""]
    assert names[0] == "x (ms)" and names[1] == ("" if dims == 1 else "y (ms)") and names[2] in ("", "z (ms)")
    assert len(ax.lines) == 12, "one trail for each neuron"
    assert any(len(c.get_array()) == 10 for c in ax.collections if c.get_array() is not None)
    matplotlib.pyplot.close(ax.figure)


def test_other_pictures_are_labelled_with_units() -> None:
    net = make(2, tortuosity=0.5)
    axes = [delay_against_distance(net, "0"), channel_matrix(net[0].weight)]
    axes.append(kept_fraction(torch.rand(5, 5) * 90, torch.rand(5, 5) < 0.5))
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes]
    assert labels == [
        ("distance (ms)", "total latency (ms)"), ("input channel", "neuron, by preferred channel"),
        ("total latency (ms)", "synapses kept (%)"),
    ]  # fmt: skip
    for ax in axes:
        matplotlib.pyplot.close(ax.figure)
    with pytest.raises(dk.ConfigError, match="'2'"):
        delay_against_distance(net, "2")
    for bad in (make(0), make(math.inf)):
        with pytest.raises(dk.ConfigError):
            position_map(bad)


def test_tools_see_layers_of_this_plugin_too() -> None:
    layer = LIF(3, 4, Spatial(2, pre="input", scale=2.0), name="hidden")
    assert list(links(layer)) == ["hidden.input", "hidden.recurrent"]
    assert parameter_accounting(layer).delays == 2 * 7 and sum(parameter_accounting(layer).free.values()) == 12 + 12
    assert [len(group["params"]) for group in spatial_param_groups(layer, 1e-3)] == [2, 2]
    for bad in ({"lr": 0.0}, {"lr": 1e-3, "factor": -1.0}, {"lr": math.nan}):
        with pytest.raises(dk.ConfigError):
            spatial_param_groups(layer, **bad)


def test_the_component_is_registered_with_its_paper() -> None:
    (record,) = entry.delaykit_components()
    assert record.name == "spatial" and "Landsmeer" in dk.citation(Spatial())

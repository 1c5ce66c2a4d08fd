"""The demo end to end, small: equal nets, honest bookkeeping, readable files, clear errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import delaykit as dk
from delaykit_lab import JapaneseVowels, MovingWave
from delaykit_lab.commands.compare import compare
from delaykit_lab.commands.demo import demo
from delaykit_lab.commands.train import train
from delaykit_lab.demo import DemoConfig, WaveConfig, run_demo
from delaykit_lab.demo.cost import measure
from delaykit_lab.demo.detectors import learn_arrivals
from delaykit_lab.demo.pictures import draw, draw_arrivals
from delaykit_lab.demo.runs import count_epochs
from delaykit_lab.demo.variants import (
    VARIANTS,
    add_delays_,
    builder,
    count_numbers,
    delays_of,
    equal_size,
    make_optimizer,
)
from delaykit_lab.training.runner import Epoch

BARE, FROZEN, LEARNED, WHOLE = VARIANTS
LIBRARIES = ["snntorch", "norse"]


@pytest.fixture(autouse=True)
def _installed(request):
    library = request.node.callspec.params.get("library") if hasattr(request.node, "callspec") else None
    if library:
        pytest.importorskip(library, reason=f"{library} is not installed")


@pytest.fixture(scope="module")
def batch():
    return JapaneseVowels().splits(seed=0).train.batch(torch.arange(4))


def delayed(library, variant, batch, seed=0, hidden=10):
    net = builder(library, JapaneseVowels(), seed)(hidden)
    return add_delays_(net, library, variant, 25, batch[0], seed)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_nets_fire_at_first(library, batch):
    net = builder(library, JapaneseVowels(), 0)(48)
    layer = net.lif if library == "snntorch" else net.cell
    rates = []
    layer.register_forward_hook(lambda module, args, out: rates.append(out[0].mean().item()))
    net(batch[0])
    assert len(rates) == 58
    assert 0.02 < sum(rates) / len(rates) < 0.3


@pytest.mark.parametrize("library", LIBRARIES)
def test_frozen_and_learned_start_equal_and_differ_from_bare(library, batch):
    with torch.no_grad():
        bare, frozen, learned, whole = (delayed(library, variant, batch)(batch[0]) for variant in VARIANTS)
    assert torch.equal(frozen, learned) and torch.equal(frozen, whole)
    assert not torch.equal(bare, frozen)


@pytest.mark.parametrize("library", LIBRARIES)
def test_one_step_moves_learned_delays_and_only_those(library, batch):
    for variant in (FROZEN, LEARNED):
        net = delayed(library, variant, batch)
        before = delays_of(net)
        optimizer = make_optimizer(net, variant, lr=1e-2, delay_lr=0.2)
        torch.nn.functional.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()
        after = delays_of(net)
        assert {site: len(values) for site, values in before.items()} in (
            {"fc_in": 24, "lif.recurrent": 10},
            {"cell.input": 24, "cell.recurrent": 10},
        )
        for site in before:
            moved = (after[site] != before[site]).any()
            assert moved == variant.learn, (variant.name, site)
            assert 0 <= after[site].min() and after[site].max() <= 25


def test_whole_delays_are_whole_while_they_move(batch):
    net = delayed("snntorch", WHOLE, batch)
    parameters = {name: value.detach().clone() for name, value in net.named_parameters() if ".dk." in name}
    optimizer = make_optimizer(net, WHOLE, lr=1e-2, delay_lr=0.2)
    torch.nn.functional.cross_entropy(net(batch[0]), batch[1]).backward()
    optimizer.step()
    assert all((net.get_parameter(name) != value).any() for name, value in parameters.items()) and parameters
    assert all((values == values.round()).all() for values in delays_of(net).values())


@pytest.mark.parametrize("library", LIBRARIES)
def test_parameter_counts_are_equal_in_favour_of_the_bare_net(library, batch):
    counts = {count_numbers(delayed(library, variant, batch, hidden=48)) for variant in (FROZEN, LEARNED, WHOLE)}
    build = builder(library, JapaneseVowels(), 0)
    hidden = equal_size(build, max(counts), 48)
    assert len(counts) == 1
    assert count_numbers(build(hidden - 1)) < max(counts) <= count_numbers(build(hidden))


def test_building_a_net_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, second = (builder("snntorch", JapaneseVowels(), 7)(10) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.fc_in.weight, second.fc_in.weight)


SMALL = DemoConfig(seeds=2, epochs=2, hidden=8, rates=(1e-2,))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    seen = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    result = run_demo(SMALL, folder, watch=lambda variant, seed, epoch: seen.append((seed, variant.name, epoch.epoch)))
    threads = torch.get_num_threads()
    torch.set_num_threads(before)
    return result, folder, seen, threads


def test_every_variant_is_trained_on_every_seed(small):
    result, _, seen, _ = small
    names = [variant.name for variant in VARIANTS]
    # all seeds with all rates, of which the mean of validation chooses one
    assert seen == [(seed, name, epoch) for name in names for _ in SMALL.rates for seed in (0, 1) for epoch in (1, 2)]
    assert len(seen) == count_epochs(SMALL)
    assert [(run.seed, run.variant) for run in result.runs] == [(seed, name) for seed in range(2) for name in names]
    assert result.sizes == {"train": 216, "validation": 54, "test": 370}


def test_every_row_chooses_among_the_same_rates_by_the_mean_of_all_seeds(tmp_path, monkeypatch):
    """The first seed alone would have chosen otherwise."""
    reached = {(0, 1e-2): 0.9, (1, 1e-2): 0.5, (0, 3e-2): 0.8, (1, 3e-2): 0.8, (0, 1e-1): 0.7, (1, 1e-1): 0.85}

    def fit(net, splits, optimizer, config, *, identity, **_):
        assert optimizer.param_groups[0]["lr"] == identity["rates"]
        return [Epoch(1, 0.5, 0.9, 0.4, reached[config.seed, identity["rates"]])]

    monkeypatch.setattr("delaykit_lab.demo.runs.fit", fit)
    result = run_demo(WaveConfig(seeds=2, epochs=1, rates=(1e-2, 3e-2, 1e-1)), tmp_path)
    assert result.searched and len(result.runs) == 2 * len(VARIANTS)
    for run in result.runs:
        assert run.rate == 3e-2 and run.history[-1].validation_accuracy == 0.8
        assert run.tried == {f"{rate:g}": value for (seed, rate), value in reached.items() if seed == run.seed}


@dataclasses.dataclass(frozen=True)
class Quick(WaveConfig):
    """A wave whose search is on record."""

    found = {"bare": 3e-2, "frozen": 1e-3, "learned": 1e-3, "whole": 3e-2}
    _: dataclasses.KW_ONLY
    epochs: int = 1
    rates: tuple[float, ...] = (1e-3, 3e-2)
    hidden: int = 2


def test_rates_on_record_are_taken_and_told_where_nothing_differs_from_the_record(tmp_path):
    result = run_demo(Quick(seeds=1), tmp_path)
    assert {run.variant: run.rate for run in result.runs} == Quick.found
    assert not result.searched and "rates are not searched now" in result.text()
    assert "delaykit reproduce lab --only wave" in result.text()
    assert "of 0.001, 0.03 by the mean of 5 seeds" in result.text()
    assert count_epochs(Quick(seeds=1)) == 4 and count_epochs(Quick(seeds=3, device="auto")) == 12
    for other in ({"epochs": 2}, {"hidden": 3}, {"rates": (1e-3,)}, {"delay_lr": 0.1}, {"max_delay": 8}):
        assert not Quick(seeds=1, **other).known_rates(), other
    assert count_epochs(Quick(seeds=1, hidden=3)) == 8
    searched = run_demo(Quick(seeds=1), tmp_path, search=True)
    assert searched.searched and "the one best on validation samples" in searched.text()


ROOT = Path(__file__).parents[4]


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="no checkout")
@pytest.mark.parametrize("part", [WaveConfig, DemoConfig])
def test_the_rates_on_record_are_those_that_the_records_chose(part):
    """None of them is at an end of those tried, beyond which a better one might be."""
    records = [json.loads(path.read_text()) for path in (ROOT / "results" / "lab" / part.name).glob("*.json")]
    settings = json.loads(json.dumps(dataclasses.asdict(part())))
    del settings["seeds"]
    for variant in VARIANTS:
        mine = [one for one in records if one["settings"]["variant"] == variant.name]
        assert len(mine) == part().seeds and part().known_rates()
        assert all(one["settings"].items() >= settings.items() for one in mine)
        sums = {rate: sum(one["result"]["tried"][rate] for one in mine) for rate in mine[0]["result"]["tried"]}
        best = max(sums, key=lambda rate: (sums[rate], -float(rate)))
        assert sorted(map(float, sums)) == sorted(part().rates)
        assert {one["result"]["rate"] for one in mine} == {float(best)} == {part.found[variant.name]}
        assert min(part().rates) < float(best) < max(part().rates)


def test_results_on_disk_are_those_in_memory(small):
    result, folder, *_ = small
    stored = json.loads((folder / "results.json").read_text())
    assert stored == json.loads(json.dumps(result.to_json()))
    assert stored["part"] == "speech" and stored["runs"][2]["history"][1]["epoch"] == 2
    assert stored["chance"] == pytest.approx(1 / 9) and stored["most_frequent"] == pytest.approx(88 / 370)


def test_the_text_names_every_number(small):
    text = small[0].text()
    for part in (
        "no delays",
        "frozen random delays",
        "learned delays",
        "learned, whole steps",
        "rounded afterwards",
        "+-",
        "chance 11.1 %",
        "parameters",
        "snntorch",
    ):
        assert part in text


def test_a_resumed_demo_repeats_the_results_without_training(small):
    result, folder, *_ = small
    seen = []
    again = run_demo(SMALL, folder, resume=True, watch=lambda *event: seen.append(event))
    assert again.accuracies() == result.accuracies() and not seen
    # delays before training are drawn again, those after come from the state
    assert [run.delays_after for run in again.runs] == [run.delays_after for run in result.runs]


OTHERS = [{"epochs": 3}, {"delay_lr": 0.1}, {"hidden": 9}, {"max_delay": 20}, {"library": "norse"}]


@pytest.mark.parametrize("other", OTHERS)
def test_a_demo_of_other_settings_does_not_resume(small, other):
    with pytest.raises(dk.CheckpointError):
        run_demo(dataclasses.replace(SMALL, **other), small[1], resume=True)


def test_the_thread_count_is_restored(small):
    assert small[3] == 2


@pytest.mark.slow
def test_pictures_are_written(small, tmp_path):
    paths = draw(small[0], JapaneseVowels().splits(seed=0).train, 3.2, tmp_path)
    assert [path.name for path in paths] == ["input.png", "learning.png", "delays.png", "accuracy.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000 for path in paths)


@pytest.mark.slow
def test_the_command_runs_on_files_and_prints_the_table(tonic_folder):
    output = tonic_folder / "out"
    options = ["--data", str(tonic_folder), "--seeds", "1", "--epochs", "1", "--output", str(output)]
    got = CliRunner().invoke(demo, options)
    assert got.exit_code == 0, got.output
    assert "shd_train" in got.output and "supports nothing yet" in got.output and "whole steps" in got.output
    assert "cost of a training step" in got.output
    assert [path.name for path in output.iterdir()] == ["speech"]
    assert sorted(path.name for path in (output / "speech").iterdir()) == [
        "accuracy.png", "delays.png", "input.png", "learning.png", "results.json", "state",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_wave_runs_first_and_its_pictures_are_there(tmp_path):
    got = CliRunner().invoke(demo, ["--part", "wave", "--seeds", "1", "--epochs", "1", "--output", str(tmp_path)])
    assert got.exit_code == 0, got.output
    assert "a wave from 8 directions" in got.output and "delays alone" in got.output
    assert {"accuracy.png", "arrivals.png", "results.json"} <= {path.name for path in (tmp_path / "wave").iterdir()}


def test_the_rows_of_the_wave_have_equal_numbers_in_favour_of_the_bare_net():
    config, task = WaveConfig(), MovingWave(samples=8, held=8)
    example = task.splits(0).train.batch(torch.arange(2))[0]
    numbers = {v.name: count_numbers(config.network(task, v, example, 0)) for v in VARIANTS}
    assert numbers["bare"] >= numbers["frozen"] == numbers["learned"] == numbers["whole"]


def test_delays_alone_line_arrivals_up(tmp_path):
    found = learn_arrivals(MovingWave(samples=256, held=8), epochs=12)
    assert found.spread(found.after) < 0.25 * found.spread(found.before)
    assert draw_arrivals(found, 1.0, tmp_path / "arrivals.png").stat().st_size > 10_000


def test_the_cost_compares_the_same_network():
    cost = measure(DemoConfig(hidden=8), rounds=1)
    assert min(dataclasses.astuple(cost)) > 0


def test_bad_data_is_one_clear_line(tmp_path):
    got = CliRunner().invoke(demo, ["--data", str(tmp_path / "none")])
    assert got.exit_code == 1
    assert "Error:" in got.output and "nothing there" in got.output and "Traceback" not in got.output


@pytest.mark.parametrize("command", ["demo", "train", "compare"])
@pytest.mark.parametrize("kept", [False, True])
def test_an_early_error_of_data_leaves_no_new_folder(command, kept, tmp_path):
    """A folder that was there stays."""
    (tmp_path / "train.h5").write_text("no HDF5")
    (tmp_path / "test.h5").write_text("no HDF5")
    output = tmp_path / "runs" / "first"
    if kept:
        output.parent.mkdir()
    task = ["--task", "spike-files", "--set", f"path={tmp_path}", "--out", str(output)]
    words = {
        "demo": ["--data", str(tmp_path), "--output", str(output)],
        "train": [*task, "--model", "snn:4", "--device", "cpu"],
        "compare": [*task, "--methods", "none,frozen"],
    }[command]
    got = CliRunner().invoke({"demo": demo, "train": train, "compare": compare}[command], words)
    assert got.exit_code == 1 and "train.h5" in got.output
    assert not output.exists() and output.parent.exists() == kept


def test_a_folder_that_cannot_be_written_is_told_before_work_begins(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("delaykit_lab.demo.show.run_demo", lambda *_, **__: pytest.fail("work began"))
    got = CliRunner().invoke(demo, ["--output", str(tmp_path / "file" / "demo")])
    assert got.exit_code == 1 and "a place that cannot be written" in got.output and "Traceback" not in got.output


def test_an_interrupted_demo_names_resume(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("delaykit_lab.demo.show.run_demo", interrupted)
    got = CliRunner().invoke(demo, ["--output", str(tmp_path)])
    assert got.exit_code == 1 and "--resume" in got.output and "epoch/s" not in got.output.splitlines()[-1]


def test_an_unknown_library_is_refused():
    with pytest.raises(dk.ConfigError, match="snntorch, norse"):
        builder("brian", JapaneseVowels(), 0)

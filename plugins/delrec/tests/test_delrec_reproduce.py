"""The papers' configurations, constant for constant, and one tiny run of the comparison."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from delaykit_delrec import RECIPES

pytest.importorskip("delaykit_lab", reason="needs the plugin delaykit-lab")


@pytest.mark.parametrize("task", ["shd", "speech"])
def test_shd_is_the_papers(script, task) -> None:
    plan = script("common.plans").plan_of(task, full=True)
    shape, delrec = plan.shape, plan.delrec
    assert (shape.widths, shape.recurrent, shape.tau, shape.hard) == ((256, 256), (False, True), 1.05, True)
    assert (shape.alpha, shape.normalize, shape.dropout, shape.readout) == (5.0, True, 0.4, "leaky")
    assert (delrec.granularity, delrec.init, delrec.low, delrec.high) == ("axonal", "uniform", 10.0, 30.0)
    assert (delrec.sigma, delrec.rho, delrec.learn_spread, delrec.dropout) == (10.0, 0.95, False, 0.2)
    assert (plan.epochs, plan.batch_size, plan.tripled, plan.recipe) == (150, 256, True, RECIPES["shd"])


@pytest.mark.parametrize(
    ("task", "widths", "dropout", "epochs", "batch"),
    [("ssc", (256, 256, 256), 0.3, 100, 128), ("psmnist", (64, 212, 212), 0.2, 200, 256)],
)
def test_ssc_and_psmnist_are_the_papers(script, task, widths, dropout, epochs, batch) -> None:
    plan = script("common.plans").plan_of(task, full=True)
    shape, delrec = plan.shape, plan.delrec
    assert (shape.widths, shape.recurrent) == (widths, (True,) * 3)
    assert (shape.tau, shape.hard, shape.alpha, shape.normalize) == (2.0, False, None, False)
    assert (shape.dropout, shape.readout) == (0.1, "linear")
    assert (delrec.init, delrec.scale, delrec.learn_spread, delrec.dropout) == ("half-normal", 12.0, True, dropout)
    assert (plan.epochs, plan.batch_size, plan.tripled) == (epochs, batch, False)


def test_only_the_published_files_are_shd_and_ssc(script, tmp_path, monkeypatch) -> None:
    """Which has a validation set of its own; where there is none a fifth is held out, as in the paper."""
    from delaykit_lab.tasks.tonic_task import TonicTask

    plans, calls = script("common.plans"), []
    monkeypatch.setattr(TonicTask, "splits", lambda self, seed: calls.append((self, seed)))
    plans.data_of("shd", tmp_path, True, 3)
    plans.data_of("ssc", tmp_path, True, 4)
    assert calls == [
        (plans.SHD(tmp_path, validation=0.2), 3),
        (plans.SSC(tmp_path, dt_ms=5.6, duration_ms=1400.0, validation=0.2), 4),
    ]
    assert not calls[0][0].subset and "valid" in plans.SSC.PUBLISHED and calls[1][0].steps == 250


def test_the_linear_readout_sums_over_time(script) -> None:
    networks = script("common.networks")
    net = networks.Net(3, 2, networks.Shape((4,), (False,)))
    spikes = torch.rand(7, 5, 3)
    with torch.no_grad():
        current = net.readout(net.hidden(spikes))
        torch.testing.assert_close(net(spikes), current.sum(0))


def test_the_training_set_is_tripled(script) -> None:
    from delaykit_lab.task import Frames

    augment = script("common.augment")
    frames = Frames((torch.rand(6, 4, 140) < 0.3).to(torch.uint8), torch.tensor([0, 0, 1, 1]))
    samples = augment.Tripled(frames, torch.Generator().manual_seed(0))
    assert len(samples) == 12
    spikes, labels = samples.batch(torch.arange(12))
    assert labels.tolist() == [0, 0, 1, 1] * 3
    torch.testing.assert_close(spikes[:, :4], frames.spikes.float())
    for k in range(4):
        rolled = [torch.equal(spikes[:, 4 + k], spikes[:, k].roll(shift, -1)) for shift in range(-20, 21)]
        assert any(rolled)
        classmates = frames.spikes[:, frames.labels == frames.labels[k]].float()
        for t in range(6):  # each step is one classmate's
            assert any(torch.equal(spikes[t, 8 + k], classmates[t, m]) for m in range(2))


@pytest.mark.slow
def test_every_variant_trains_and_leaves_a_record(script, tmp_path, monkeypatch, capsys) -> None:
    rows = script("equal_parameters")
    words = ["equal_parameters.py", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path)]
    chosen = ["--variants", "frozen random delays", "learned delays", "frozen feed-forward delays"]
    monkeypatch.setattr(sys, "argv", words + chosen)
    rows.main()
    assert "| learned delays | 2185 |" in capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert [one["settings"]["variant"] for one in records] == [
        "frozen feed-forward delays", "frozen random delays", "learned delays",
    ]  # fmt: skip
    for one in records:
        assert len(one["result"]["curve"]) == 1 and 0 <= one["result"]["test"] <= 1
        assert one["settings"]["plan"]["epochs"] == 1 and one["versions"]["torch"]
    assert not list(tmp_path.glob("*.safetensors"))


def test_without_data_speech_is_not_run(script, tmp_path, monkeypatch) -> None:
    rows = script("equal_parameters")
    monkeypatch.setattr(sys, "argv", ["x", "--task", "speech", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="not run: needs"):
        rows.main()


@pytest.mark.parametrize("hard", [False, True])
def test_adaptive_neurons_whose_threshold_never_rises_are_the_plain_ones(script, hard) -> None:
    networks = script("common.networks")
    shape = networks.Shape((6,), (True,), hard=hard, alpha=5.0)
    torch.manual_seed(0)
    plain = networks.Net(3, 2, shape)
    adaptive = networks.Net(3, 2, shape, adaptive=True)
    assert sum(p.numel() for p in adaptive.parameters()) == sum(p.numel() for p in plain.parameters()) + 6
    adaptive.load_state_dict(plain.state_dict(), strict=False)
    spikes = 3 * torch.rand(30, 4, 3)
    adaptive.layers[0].jump.data.zero_()
    found, wanted = adaptive.hidden(spikes), plain.hidden(spikes)
    assert 0.05 < float(wanted.detach().mean()) < 0.9
    torch.testing.assert_close(found, wanted)
    for fired in (found, wanted):
        fired.sum().backward()
    torch.testing.assert_close(adaptive.layers[0].fc.weight.grad, plain.layers[0].fc.weight.grad, rtol=1e-4, atol=1e-5)
    adaptive.layers[0].jump.data.fill_(0.5)
    assert float(adaptive.hidden(spikes).detach().sum()) < float(wanted.detach().sum())


@pytest.mark.slow
def test_the_map_compares_pairs_of_one_seed_and_never_reads_the_test_set(script, tmp_path, monkeypatch, capsys) -> None:
    regime = script("regime")
    monkeypatch.setattr(script("equal_parameters"), "judge", None)
    words = ["x", "--epochs", "1", "--seeds", "1", "--cases", "16 neurons", "feed-forward", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    regime.main()
    assert "| 16 neurons |" in capsys.readouterr().out and (tmp_path / "regime.png").exists()
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(records) == 4 and all("test" not in one["result"] for one in records)
    assert {one["settings"]["plan"]["shape"]["widths"][0] for one in records} == {16, 32}
    for where in ("recurrent", "feed-forward"):  # both of a pair start from the same weights and delays
        frozen, learned = (one["result"]["parameters"] for one in records if one["settings"]["where"] == where)
        assert frozen == learned


def test_cases_change_one_thing_of_the_plan(script) -> None:
    regime, plan = script("regime"), script("common.plans").plan_of("speech", full=False)
    cases = {case.name: regime.planned(case, plan) for case in regime.CASES}
    assert cases["as it is"] == plan and cases["16 neurons"].shape.widths == (16,)
    assert cases["no spread"].delrec.sigma == 0.0 and cases["four times the delays' rate"].recipe.delay_lr == 0.2
    unchanged = {name for name in cases if cases[name] == plan}  # samples, what is connected and where: no part of it
    few = {f"{share} % of the synapses" for share in (5, 20, 50)}
    assert unchanged == {"as it is", "a third of the samples", "feed-forward"} | few
    assert cases["256 neurons"].shape.widths == (256,) and cases["whole delays"].delrec.rounding == "straight-through"


@pytest.mark.slow
def test_what_is_cut_at_the_start_stays_cut_and_is_the_same_for_a_pair(script, tmp_path) -> None:
    """Few synapses, few delays: the others are 0 through training, in the frozen and in the learned network."""
    regime, rows, plans = script("regime"), script("equal_parameters"), script("common.plans")
    splits, plan = plans.data_of("vowels", None, False, 0), plans.plan_of("vowels", full=False)
    cases = {case.name: case for case in regime.CASES}
    case = regime.dataclasses.replace(cases["a delay at a tenth of the synapses"], synapses=0.2)
    plan = regime.dataclasses.replace(regime.planned(case, plan), epochs=1)
    zeros = []
    for variant in regime.PAIRS["recurrent"]:
        channels, classes = splits.train.spikes.shape[-1], int(splits.train.labels.max()) + 1
        net = regime.make(variant, channels, classes, plan.shape, plan.delrec, plan.dcls, 0)
        after = regime.cut(net, case.synapses, case.delays, 0)
        layer = net.layers[0]
        values = layer.fc.weight, layer.recurrent.weight, layer.recurrent.dk.delay.delay
        before = [one == 0 for one in values]
        assert [round(float((~one).double().mean()), 1) for one in before][:2] == [0.2, 0.2]
        assert 0.05 < float((~before[2]).double().mean()) <= 0.1  # a delay that is drawn as 0 is one, too
        rows.fit(net, splits, plan, 0, tmp_path / f"{variant.name}.safetensors", variant.name, after)
        assert all(bool((one[was] == 0).all()) for one, was in zip(values[:2], before[:2], strict=True))
        assert float((values[2] != 0).double().mean()) <= 0.1
        zeros.append(before[:2])
    assert all(torch.equal(one, two) for one, two in zip(*zeros, strict=True))


@pytest.mark.slow
def test_with_rates_every_row_gets_the_same_trials_on_validation(script, tmp_path, monkeypatch) -> None:
    rows = script("equal_parameters")
    words = ["x", "--epochs", "2", "--seeds", "1", "--rates", "0.5", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*words, "--variants", "frozen random delays", "learned delays"])
    rows.main()
    trials = [json.loads(path.read_text()) for path in (tmp_path / "tuning").glob("*.json")]
    rates = sorted((one["settings"]["variant"], one["settings"]["plan"]["recipe"]["lr"]) for one in trials)
    wanted = [(name, rate) for name in ("frozen random delays", "learned delays") for rate in (0.0025, 0.01)]
    assert rates == wanted and all("test" not in one["result"] for one in trials)
    assert all(one["settings"]["seed"] == 1000 and one["settings"]["plan"]["epochs"] == 1 for one in trials)
    for path in tmp_path.glob("*.json"):
        one = json.loads(path.read_text())
        recipe, mine = one["settings"]["plan"]["recipe"], [
            t for t in trials if t["settings"]["variant"] == one["settings"]["variant"]
        ]  # fmt: skip
        best = max(t["result"]["validation"] for t in mine)
        assert recipe["lr"] in [
            t["settings"]["plan"]["recipe"]["lr"] for t in mine if t["result"]["validation"] == best
        ]
        assert recipe["delay_lr"] == pytest.approx(10 * recipe["lr"])


@pytest.mark.slow
def test_a_run_that_was_killed_ends_in_the_same_record(script, tmp_path, monkeypatch) -> None:
    """Delays, their annealed spread, dropout's draws and the schedule go on where they were."""
    rows = script("equal_parameters")
    epochs = rows.Resumable.epochs

    def main(folder: str) -> dict:
        words = ["x", "--epochs", "3", "--seeds", "1", "--variants", "learned delays", "--out", str(tmp_path / folder)]
        monkeypatch.setattr(sys, "argv", words)
        rows.main()
        (path,) = (tmp_path / folder).glob("*.json")
        record = json.loads(path.read_text())
        del record["cpu_s"], record["result"]["cpu_s"], record["sha256"]
        return {path.name: record}

    def killed(self, count, title=None):
        for epoch in epochs(self, count, None):
            if epoch == 2:
                raise KeyboardInterrupt
            yield epoch

    whole = main("whole")
    with monkeypatch.context() as patch:
        patch.setattr(rows.Resumable, "epochs", killed)
        with pytest.raises(KeyboardInterrupt):
            main("killed")
    assert not list((tmp_path / "killed").glob("*.json"))
    assert main("killed") == whole

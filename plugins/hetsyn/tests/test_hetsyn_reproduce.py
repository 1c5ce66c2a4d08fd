"""The paper's recipes, constant for constant (appendices B to E), their schedules, and tiny runs."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import torch

from delaykit_hetsyn import MODELS, HetSynNet

pytest.importorskip("delaykit_lab", reason="needs the plugin delaykit-lab")


def test_appendix_b(script) -> None:
    pattern = script("pattern_generation")
    neurons = pattern.neurons_of(pattern.Run())
    assert (neurons.dt_ms, neurons.tau, neurons.tau_homogeneous) == (1.0, ("normal", 20.0, 5.0), 20.0)
    assert (neurons.tau_reset, neurons.tau_adaptation, neurons.adaptation) == (20.0, 500.0, 0.01)
    run = pattern.Run()
    assert (run.lr, run.iterations, run.noise_hz, pattern.RATES[True]) == (1e-3, 1000, 2.0, (1e-3,))


def test_appendix_c(script) -> None:
    match = script("match_to_sample")
    run = match.Run()
    assert (run.lr, run.iterations, match.RATES[True]) == (5e-3, 1000, (5e-3,))
    generator = torch.Generator().manual_seed(0)
    for model in MODELS:
        net = match.network(dataclasses.replace(run, model=model), generator)
        layer = net.layers[0]
        tau = layer.input.tau_ms()
        if model.startswith("Hom"):
            torch.testing.assert_close(tau, torch.full((1, 1), 40.0))
        else:
            assert abs(float(tau.mean()) - 40.0) < 2.0 and abs(float(tau.std()) - 4.0) < 1.0
        kappa = layer.jumps(layer.input.weight).decay
        torch.testing.assert_close(kappa[0], torch.full((100,), math.exp(-5.0 / 40.0)))
        if model == "HomNeuALIF":
            torch.testing.assert_close(kappa[1], torch.full((100,), math.exp(-5.0 / 800.0)))


def test_appendix_d(script) -> None:
    speech = script("speech")
    full, neurons = speech.FULL, speech.neurons_of(speech.FULL)
    assert (full.hidden, full.channels, full.bin_ms, full.epochs, full.lr) == ((128, 64), 700, 4.0, 100, 2e-3)
    assert (full.batch, full.last_cosine_epoch, full.train, full.test) == (32, 40, None, None)
    assert (neurons.dt_ms, neurons.tau, neurons.tau_homogeneous) == (1.0, ("uniform", 5.0, 20.0), 20.0)
    assert (neurons.tau_reset, neurons.tau_adaptation, neurons.adaptation) == (20.0, 100.0, 0.05)


def test_speech_warms_up_for_a_twentieth_and_is_constant_after_epoch_40(script) -> None:
    speech = script("speech")
    rate, steps = lambda step: speech.rate(step, speech.FULL, 10), 10  # noqa: E731
    assert rate(0) == pytest.approx(1 / 50) and rate(49) == 1.0 and rate(50) == 1.0
    assert rate(40 * steps) == rate(99 * steps) == pytest.approx(0.5 * (1 + math.cos(math.pi * 350 / 950)))
    shorter = dataclasses.replace(speech.FULL, last_cosine_epoch=None)
    assert speech.rate(100 * steps, shorter, steps) == pytest.approx(0.0)


def test_match_to_sample_runs_with_the_papers_one_rate(script, tmp_path, monkeypatch) -> None:
    match = script("match_to_sample")
    tiny = match.Run(iterations=3, hidden=5)
    budget = script("common.budget").Budget(tiny, match.train, match.RATES[True], lambda r: r["test"], 2, tmp_path)
    lr, found = budget.tuned(model="HetNeuLIF")
    assert lr == 5e-3 and len(found) == 2 and all(len(one["accuracy"]) == 3 for one in found)
    records = sorted(tmp_path.glob("*.json"))
    assert len(records) == 2 and json.loads(records[0].read_text())["settings"]["model"] == "HetNeuLIF"
    assert records[0].name.startswith("R-HetNeuLIF_5_800_ms")


def test_rates_fall_by_a_fifth_every_100_iterations(script, monkeypatch) -> None:
    made = []
    kind = torch.optim.lr_scheduler.StepLR
    monkeypatch.setattr(torch.optim.lr_scheduler, "StepLR", lambda *words: made.append(kind(*words)) or made[-1])
    match, pattern = script("match_to_sample"), script("pattern_generation")
    match.train(match.Run(iterations=2, hidden=3))
    pattern.train(pattern.Run(iterations=2, recurrent=False))
    assert [(one.step_size, one.gamma, one.last_epoch) for one in made] == [(100, 0.8, 2)] * 2


def test_pattern_generation_leaves_small_records(script) -> None:
    pattern = script("pattern_generation")
    found = pattern.train(pattern.Run(model="HetSynLIF", iterations=2))
    assert len(found["answer"][0]) == len(found["target"][0]) == 200
    assert [sum(counts) for counts in found["tau_before"]] == [100 * 100, 100 * 100, 100]
    assert len(json.dumps(found)) < 20_000


def test_curves_are_thinned_to_means(script) -> None:
    thinned = script("common.records").thinned
    assert len(thinned([0.5] * 1000)) == 100 and thinned([0.0, 1.0] * 500, 10) == [0.5] * 10


def test_every_model_has_its_readouts_decays(script) -> None:
    """Homogeneous readouts have the homogeneous time constant, too."""
    speech = script("speech")
    net = HetSynNet("HomNeuLIF", (4, 3, 2), True, speech.neurons_of(speech.FULL))
    torch.testing.assert_close(net.readout.tau_ms(), torch.full((1, 1), 20.0))


def test_an_interrupted_speech_training_goes_on(script, tmp_path) -> None:
    """Two epochs at once, and one, an interruption, and the other: the same losses and the same answers."""
    from delaykit_lab import EventSet

    speech = script("speech")
    random = np.random.default_rng(0)
    labels = np.arange(12) % 2
    times = [np.sort(random.random(80)).astype("float16") for _ in labels]
    units = [random.integers(350 * k, 350 * k + 350, 80).astype("uint16") for k in labels]
    data = object.__new__(speech.Data)
    data.parts = dict.fromkeys(("train", "held", "test"), EventSet(times, units, labels, 700))
    data.classes = 2
    run = dataclasses.replace(speech.Run(), hidden=(8,), epochs=2, batch=4)
    whole = speech.train(run, data, tmp_path / "whole.safetensors")

    class Interrupted(Exception):
        pass

    epochs = speech.Resumable.epochs

    def one_epoch(self, count, title=None):
        for epoch in epochs(self, count, None):
            if epoch == 1:
                raise Interrupted
            yield epoch

    speech.Resumable.epochs = one_epoch
    try:
        with pytest.raises(Interrupted):
            speech.train(run, data, tmp_path / "twice.safetensors")
    finally:
        speech.Resumable.epochs = epochs
    again = speech.train(run, data, tmp_path / "twice.safetensors")
    assert again["losses"] == whole["losses"] and again["test"] == whole["test"] and again["curve"] == whole["curve"]
    assert not list(tmp_path.glob("*.safetensors"))


def test_appendix_e_sequential_mnist(script) -> None:
    s_mnist = script("s_mnist")
    full, neurons = s_mnist.FULL, s_mnist.neurons_of(s_mnist.FULL)
    assert (full.hidden, full.lr, full.batch, full.epochs) == ((64, 64), 1e-3, 256, 150)
    assert (full.pool, full.images) == (1, None)
    assert (neurons.dt_ms, neurons.tau, neurons.tau_homogeneous, neurons.tau_reset) == (
        1.0, ("uniform", 5.0, 20.0), 20.0, 20.0,
    )  # fmt: skip
    assert s_mnist.rate(0, 1000) == pytest.approx(1 / 50) and s_mnist.rate(50, 1000) == 1.0
    assert s_mnist.rate(999, 1000) < 1e-5


def test_the_answer_is_a_count_of_spikes(script) -> None:
    s_mnist = script("s_mnist")
    net = s_mnist.CountNet(s_mnist.Run(), torch.Generator().manual_seed(0))
    assert [layer.recurrent is not None for layer in net.layers] == [True, True, False]
    grey = torch.rand(196, 5, 1, generator=torch.Generator().manual_seed(1))
    spikes = grey
    for layer in net.layers:
        spikes, _ = layer(spikes)
        assert 0.01 < float(spikes.detach().mean()) < 0.6  # every layer fires before training
    torch.testing.assert_close(net(grey), spikes.sum(0))


def test_an_image_is_read_row_by_row(script) -> None:
    images = script("delaykit_lab").Images(torch.arange(16.0).view(1, 16) / 16, torch.zeros(1, dtype=torch.long))
    scan = script("s_mnist").scan
    torch.testing.assert_close(scan(images, 1)[:, 0], torch.arange(16.0) / 16)
    torch.testing.assert_close(scan(images, 2)[:, 0], torch.tensor([2.5, 4.5, 10.5, 12.5]) / 16)


def test_digits_are_learned_from_and_leave_a_record(script, tmp_path, monkeypatch, capsys) -> None:
    s_mnist = script("s_mnist")
    monkeypatch.setattr(s_mnist, "Run", lambda **given: s_mnist.FULL.__class__(hidden=(8,), images=200, **given))
    words = ["x", "--data", "digits", "--epochs", "1", "--models", "HetSynLIF", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    s_mnist.main()
    assert "scikit-learn's handwritten digits" in capsys.readouterr().out
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert record["settings"]["data"].startswith("scikit-learn") and len(record["result"]["curve"]) == 1


@pytest.mark.slow
def test_speech_gives_every_model_the_same_trials_and_draws_the_figures(script, recordings, tmp_path, monkeypatch):
    """Rates are chosen on held-out samples, by runs that never see the test samples; figures 4 and A3, A4."""
    out = tmp_path / "out"
    words = ["x", "--models", "HomNeuLIF", "HetSynLIF", "--hidden", "6", "--epochs", "2", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--data", str(recordings), "--out", str(out)])
    script("speech").main()
    trials = [json.loads(path.read_text()) for path in (out / "tuning").glob("*.json")]
    rates = sorted((one["settings"]["model"], one["settings"]["lr"]) for one in trials)
    assert rates == [(model, lr) for model in ("HetSynLIF", "HomNeuLIF") for lr in (2e-3, 5e-3, 1e-2)]
    assert all("test" not in one["result"] and one["settings"]["seed"] == 1000 for one in trials)
    for path in out.glob("*.json"):
        record = json.loads(path.read_text())
        mine = [one for one in trials if one["settings"]["model"] == record["settings"]["model"]]
        best = max(one["result"]["validation"] for one in mine)
        assert record["settings"]["lr"] in [o["settings"]["lr"] for o in mine if o["result"]["validation"] == best]
        assert list(record["result"]["tau_after"]) == ["into layer 1", "within layer 1", "readout"]
        assert len(record["result"]["curve"]) == 2 and set(record["data"]) == {"tiny_train.h5", "tiny_test.h5"}
    wanted = {"robustness.png", "learning.png", "conditions.png", "time_constants.png"}
    assert {path.name for path in out.glob("*.png")} == wanted


def test_held_out_samples_are_not_trained_on(script, recordings) -> None:
    speech = script("speech")
    data = speech.Data(recordings, dataclasses.replace(speech.Run(), train=None, test=None))
    assert [len(data.parts[part]) for part in ("train", "held", "test")] == [18, 2, 8]
    everything = [tuple(times) for part in ("train", "held") for times in data.parts[part].times]
    assert len(set(everything)) == 20


def test_figure_2d_and_success_under_noise_are_drawn(script, tmp_path, monkeypatch) -> None:
    pattern, match = script("pattern_generation"), script("match_to_sample")
    small = {"gain": 1.0, "iterations": 2}
    run = lambda r: {"losses": [0.5, 0.1 + 0.1 * r.seed], "mse": 0.1}  # noqa: E731
    budget = script("common.budget").Budget(
        pattern.Run(**small), run, (1e-3,), lambda r: -r["mse"], 2, tmp_path / "pattern"
    )
    pattern.draw_losses(budget, tmp_path / "learning.png")
    run = lambda r: {"test": 0.95 if r.model == "HetSynLIF" and r.noise_hz == 0 else 0.5}  # noqa: E731
    budget = script("common.budget").Budget(match.Run(hidden=5), run, (5e-3,), lambda r: 0, 2, tmp_path / "match")
    lines = match.noises(budget, 5, (0.0, 20.0), tmp_path / "success.png")
    assert "| F-HetSynLIF | 2 of 2 | 0 of 2 |" in lines and "| R-HomNeuLIF | 0 of 2 | 0 of 2 |" in lines
    assert (tmp_path / "learning.png").exists() and (tmp_path / "success.png").exists()

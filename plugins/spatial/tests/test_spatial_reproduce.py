"""The paper's recipes, constant for constant (Tables 1 and 2), their schedule, and tiny runs."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("delaykit_lab", reason="needs the plugin delaykit-lab")
pytest.importorskip("numba", reason="needs Numba, the extra `fast`")


def test_table_1(script) -> None:
    yin_yang = script("yin_yang")
    setting = yin_yang.setting_of(full=True)
    assert (setting.epochs, setting.batch, setting.position_factor, setting.dt) == (300, 150, 1.0, 0.01)
    assert (setting.tau_syn, setting.tau_mem, setting.duration, setting.longest) == (2.0, 4.0, 12.0, 3.5)
    assert all(5e-5 <= rate <= 1e-3 for rate in yin_yang.RATES[True]) and 1.5e-4 in yin_yang.RATES[True]


@pytest.mark.parametrize("coarse", [True, False])
def test_table_2(script, coarse) -> None:
    setting = script("speech").setting_of(full=not coarse, coarse=coarse)
    assert (setting.epochs, setting.batch, setting.rate, setting.position_factor) == (30, 32, 1e-3, 10.0)
    assert (setting.limit, setting.target_rate, setting.clip, setting.rescale_every) == (None, 0.01, 2.0, 10)
    if not coarse:
        assert (setting.hidden, setting.channels, setting.dt) == (300, 700, 0.5)
        assert (setting.tau_syn, setting.tau_mem) == (2.0, 10.0)


def test_rates_rise_for_500_steps_and_end_at_a_tenth_at_10_000(script) -> None:
    course = script("common.records").Course()
    assert (course.warm_up, course.steps, course.least) == (500, 10_000, 0.1)
    assert course.factor(0) == 1 / 500 and course.factor(499) == 1.0 and course.factor(500) == 1.0
    assert course.factor(5250) == pytest.approx(0.55) and course.factor(10_000) == pytest.approx(0.1)
    assert course.factor(10_199) == pytest.approx(0.1)  # 300 epochs of 34 steps
    assert all(course.factor(step) >= course.factor(step + 1) for step in range(500, 10_000))


@pytest.mark.slow
def test_yin_yang_learned_and_frozen_leave_records(script, tmp_path, monkeypatch, capsys) -> None:
    yin_yang = script("yin_yang")
    monkeypatch.setattr(yin_yang, "YinYang", lambda: script("delaykit_lab").YinYang(samples=60, held=30))
    words = ["x", "--dims", "2", "--frozen", "--seeds", "1", "--epochs", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    yin_yang.main()
    assert "| 2-D, frozen | 284 | 74 |" in capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert sorted(one["settings"]["frozen"] for one in records) == [False, True]
    assert all(len(one["result"]["curve"]) == 2 and one["settings"]["epochs"] == 2 for one in records)
    assert len(list((tmp_path / "tuning").glob("*.json"))) == 6


@pytest.mark.slow
def test_frozen_places_stay(script, tmp_path) -> None:
    yin_yang = script("yin_yang")
    data = script("delaykit_lab").YinYang(samples=60, held=30).points(0)
    setting = yin_yang.setting_of(full=False, epochs=1, hidden=5)
    moved = {}
    for frozen in (False, True):
        one = yin_yang.dataclasses.replace(setting, frozen=frozen)
        before = yin_yang.Net(one).first.delays().detach().clone()
        net, _ = yin_yang.train(one, data, tmp_path / f"{frozen}.safetensors")
        moved[frozen] = not torch.equal(net.first.delays(), before)
    assert moved == {False: True, True: False}


def test_speech_without_data_is_not_run(script, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="not run: needs"):
        script("speech").main()


@pytest.mark.slow
def test_sp2snn_prunes_after_every_epoch(script, recordings, tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("delaykit_sparsify", reason="needs the plugin delaykit-sparsify")
    sp2snn = script("sp2snn")
    monkeypatch.setattr(sp2snn, "DIMS", (3.0,))
    monkeypatch.setattr(sp2snn, "COLUMNS", [("3-D", "dynamic"), ("3-D", "static")])
    words = ["x", "--seeds", "1", "--epochs", "2", "--kept", "0.1", "--data", str(recordings), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    sp2snn.main()
    assert "| kept | 3-D, dynamic | 3-D, static |" in capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {path.name for path in tmp_path.glob("*.png")} == {"kept.png", "structure.png"}
    sparse = next(one for one in records if one["settings"]["kept"] == 0.1)
    dense = next(one for one in records if one["settings"]["kept"] == 1.0)
    assert set(dense["result"]["static"]) == {f"{kept:g}" for kept in sp2snn.KEPT}
    assert np.mean(sparse["result"]["kept_by_channel"]) == pytest.approx(0.1, abs=1e-3)
    assert set(sparse["data"]) == {"tiny_train.h5", "tiny_test.h5"}
    found = sparse["result"]
    assert len(found["community"]) == len(found["degree"]) == len(found["positions"]) == 64
    assert sum(found["degree"]) == 2 * round(0.1 * 64 * 64)
    change = found["turnover"]
    assert sum(change["created"]) == sum(change["removed"]) and len(change["created_within"]) == 64


def test_what_pruning_left_in_the_first_epoch_comes_back(script) -> None:
    """Figure S2 compares with the first epoch, which an interrupted run reads from its history."""
    net = script("common.speech_net").Net(script("common.speech_net").Setting(hidden=9, channels=5))
    training, sp2snn = script("common.speech_training"), script("sp2snn")
    training.pruner(net, 0.2)(1.0)
    before = [weight.detach() != 0 for weight in net.matrices()]
    found = training.read(json.loads(json.dumps(training.written(net))), net)
    assert all(torch.equal(one, two) for one, two in zip(found, before, strict=True))
    after = [before[0].clone(), before[1].clone()]
    after[0][0, 0], after[1][2, 3] = not after[0][0, 0], not after[1][2, 3]
    change = sp2snn.turnover(before, after)
    assert sum(change["created"]) + sum(change["removed"]) == 1
    assert change["created_within"][3] + change["removed_within"][3] == 1


def test_parameters_are_counted_as_in_figure_4c(script) -> None:
    pytest.importorskip("delaykit_sparsify", reason="needs the plugin delaykit-sparsify")
    sp2snn, setting = script("sp2snn"), script("speech").setting_of(full=True, coarse=False)
    sizes = [sp2snn.dataclasses.replace(setting, dims=dims, kept=kept) for dims, kept in ((math.inf, 1.0), (3.0, 0.1))]
    assert [sp2snn.parameters(one) for one in sizes] == [599_400, 32_970]


def test_pruning_keeps_the_strongest_of_each_matrix(script) -> None:
    speech = script("common.speech_net")
    net = speech.Net(speech.Setting(hidden=20))
    strongest = net.into.abs().flatten().topk(round(0.05 * net.into.numel())).indices
    script("common.speech_training").pruner(net, 0.05)(1.0)
    assert net.into.flatten().nonzero()[:, 0].sort().values.tolist() == strongest.sort().values.tolist()
    assert int((net.readout == 0).sum()) == 0 and math.isclose((net.recurrent != 0).double().mean(), 0.05, abs_tol=0.01)


@pytest.mark.slow
def test_sizes_and_tortuous_paths_are_experiments(script, recordings, tmp_path, monkeypatch) -> None:
    yin_yang = script("yin_yang")
    monkeypatch.setattr(yin_yang, "YinYang", lambda: script("delaykit_lab").YinYang(samples=60, held=30))
    words = ["x", "--dims", "2", "--hidden", "4", "6", "--seeds", "1", "--epochs", "1", "--out", str(tmp_path / "yy")]
    monkeypatch.setattr(sys, "argv", words)
    yin_yang.main()
    assert (tmp_path / "yy" / "accuracy_against_size.png").exists()
    assert "| 2-D, 6 |" in (tmp_path / "yy" / "table.md").read_text()
    words = ["x", "--coarse", "--dims", "2", "--tortuosity", "0.5", "--adex", "--seeds", "1", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--data", str(recordings), "--out", str(tmp_path / "speech")])
    script("speech").main()
    records = [json.loads(path.read_text()) for path in (tmp_path / "speech").glob("*.json")]
    assert sorted(one["settings"].get("tortuosity", 0.0) for one in records) == [0.0, 0.0, 0.5]
    assert sorted(one["settings"].get("adex", False) for one in records) == [False, False, True]
    assert {"tortuous.png", "adex.png"} <= {path.name for path in (tmp_path / "speech").glob("*.png")}
    bent = next(one["result"] for one in records if one["settings"].get("tortuosity"))
    assert len(bent["used_of_extra"]) == 10 and sum(bent["used_of_extra"]) == pytest.approx(1.0, abs=1e-3)
    assert {len(rates) for rates in bent["stages"].values()} == {20}


def test_sizes_of_the_speech_network_are_figures_3d_and_3e(script, recordings, tmp_path, monkeypatch) -> None:
    words = ["x", "--coarse", "--dims", "0", "2", "--hidden", "4", "6", "--seeds", "1", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--data", str(recordings), "--out", str(tmp_path)])
    script("speech").main()
    assert (tmp_path / "accuracy_against_size.png").exists()
    assert "| 2-D, 6 |" in (tmp_path / "table.md").read_text()
    records = [json.loads(path.read_text())["settings"] for path in tmp_path.glob("*.json")]
    assert sorted((one["dims"], one["hidden"]) for one in records) == [("0", 4), ("0", 6), ("2", 4), ("2", 6)]


@pytest.mark.slow
def test_two_circles_leave_a_record_a_net(script, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--seeds", "1", "--epochs", "1", "--out", str(tmp_path)])
    script("two_circles").main()
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert [one["settings"]["moves"] for one in records] == [True, False]
    assert all(0 <= one["result"]["test"] <= 1 for one in records) and (tmp_path / "two_circles.png").exists()


@pytest.mark.slow
def test_the_map_of_positions_compares_pairs_of_one_seed_on_validation(script, tmp_path, monkeypatch, capsys) -> None:
    regime = script("regime")
    monkeypatch.setattr(regime, "YinYang", lambda: script("delaykit_lab").YinYang(samples=60, held=30))
    words = ["x", "--cases", "5 neurons", "free delays", "--seeds", "1", "--epochs", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    regime.main()
    assert "| 5 neurons |" in capsys.readouterr().out and (tmp_path / "regime.png").exists()
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert sorted((one["settings"]["case"], one["settings"]["variant"]) for one in records) == [
        ("5 neurons", "frozen"), ("5 neurons", "learned"), ("free delays", "frozen"), ("free delays", "learned"),
    ]  # fmt: skip
    assert all("test" not in one["result"] for one in records)
    rates = {(one["settings"]["rate"], one["settings"]["seed"]) for one in records}
    assert rates == {(regime.RATE, 0)} and not list(tmp_path.glob("*.safetensors"))


@pytest.mark.slow
def test_a_pruned_run_that_was_killed_ends_in_the_same_result(script, recordings, tmp_path) -> None:
    """Zeros, the first epoch's mask and the rates' course go on where they were."""
    pytest.importorskip("delaykit_sparsify", reason="needs the plugin delaykit-sparsify")
    training, sp2snn, net = script("common.speech_training"), script("sp2snn"), script("common.speech_net")
    task = script("delaykit_lab.tasks.spike_files").SpikeFiles(recordings, dt_ms=5.0, channels=70)
    setting = net.Setting(hidden=6, epochs=3, limit=None, kept=0.5)
    epochs = training.Resumable.epochs

    def result(folder: str) -> dict:
        found = training.run(setting, task, tmp_path / folder, judge=True, further=sp2snn.structure)
        return {key: value for key, value in found.items() if key != "cpu_s"}

    def killed(self, count, title=None):
        for epoch in epochs(self, count, None):
            if epoch == 2:
                raise KeyboardInterrupt
            yield epoch

    whole = result("whole")
    training.Resumable.epochs = killed
    try:
        with pytest.raises(KeyboardInterrupt):
            result("killed")
    finally:
        training.Resumable.epochs = epochs
    assert not list((tmp_path / "killed").glob("*.json")) and result("killed") == whole

"""The paper's recipe (section IV), constant for constant, and tiny runs that go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("delaykit_lab", reason="needs the plugin delaykit-lab")

SETTINGS = {"spikes": "many", "tau": 0.8, "delay": "none", "hidden": 400, "seed": 0}


@pytest.fixture
def mnist(script) -> ModuleType:
    return script("mnist")


def test_section_iv(mnist, monkeypatch) -> None:
    assert (mnist.RATE, mnist.BATCH, mnist.TAUS) == (1e-3, 100, (0.2, 0.4, 0.8, 1.6, 3.2, 6.4))
    net = mnist.build(SETTINGS, 784)
    for weight in (parameter for parameter in net.parameters()):
        assert float(weight.detach().mean()) == pytest.approx(0.03, abs=0.02)
        assert float(weight.detach().std()) == pytest.approx(0.3, abs=0.01)
    assert [tuple(parameter.shape) for parameter in net.parameters()] == [(400, 784), (10, 400)]
    monkeypatch.setattr(sys, "argv", ["x", "--full"])
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    assert (mnist.arguments().seeds, mnist.arguments().rate) == (10, 1e-3)


def test_the_rate_is_constant_and_a_run_goes_on_with_more_epochs(mnist, tmp_path) -> None:
    from delaykit_lab import MNIST

    train, test = (part.subset(torch.arange(200)) for part in MNIST().published())
    settings = {**SETTINGS, "hidden": 10, "rate": 1e-3}
    once = mnist.run(settings, 3, train, test, tmp_path / "once", [])
    first = mnist.run(settings, 1, train, test, tmp_path / "twice", [])
    more = mnist.run(settings, 3, train, test, tmp_path / "twice", [])
    assert first["loss"] == once["loss"][:1] and more["loss"] == once["loss"] and more["test"] == once["test"]
    assert first["parameters"] == 64 * 10 + 10 * 10
    optimizer = mnist.optimizer_of(mnist.build(settings, 64), settings["rate"])
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3]


def test_digits_leave_records_and_a_table(mnist, tmp_path, monkeypatch, capsys) -> None:
    words = ["x", "--epochs", "1", "--limit", "200", "--hidden", "10", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    mnist.main()
    assert "scikit-learn's handwritten digits" in capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert [one["settings"]["spikes"] for one in records] == ["many", "one"]
    assert all({"test", "spikes_a_neuron", "histogram", "loss"} <= set(one["result"]) for one in records)
    assert (tmp_path / "table.md").exists() and (tmp_path / "accuracy.png").exists()


def test_the_sweep_over_tau_marks_the_best(mnist, tmp_path) -> None:
    """Figures 3, 4 and 5: means over seeds decide, for each kind of network apart."""
    runs = []
    many, one = {0.4: (0.90, 0.92), 0.8: (0.95, 0.93)}, {0.4: (0.9, 0.9), 0.8: (0.8, 0.9)}
    for spikes, tests in (("many", many), ("one", one)):
        for tau, values in tests.items():
            for seed, test in enumerate(values):
                run = {"spikes": spikes, "tau": tau, "delay": "none", "seed": seed, "test": test}
                runs.append(run | {"spikes_a_neuron": 1 / tau, "histogram": [0.5, 0.5]})
    best = mnist.best_taus(runs)
    assert best == {"many spikes": (0.8, pytest.approx(0.94)), "one spike": (0.4, pytest.approx(0.9))}
    mnist.picture(runs, "a sweep", tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").exists()
    assert mnist.best_taus([one for one in runs if one["tau"] == 0.4]) == {}

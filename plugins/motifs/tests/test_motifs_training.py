"""Teacher forcing, free running, conversion to delays, sweeps and pictures."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import delaykit_motifs as motifs
from delaykit import ConfigError, FreeDelay, ShapeError, Site
from delaykit.functional.reference import causal_convolution
from delaykit_motifs import MotifDynamics, MotifMemory
from delaykit_motifs.operators import bank_of
from delaykit_motifs.training import free_running_spikes

DYNAMICS = MotifDynamics(0.7, 0.7)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(2))
def test_teacher_forcing_from_random_taps_recalls_exactly(seed: int) -> None:
    patterns = motifs.bernoulli_patterns(300, 4, 128, 0.005, seeded(seed))
    memory = MotifMemory(torch.randn(128, 128, 21, generator=seeded(1)) * 0.02, DYNAMICS)
    assert motifs.recall_score(memory, patterns) < 0.2
    report = motifs.train_teacher_forced(memory, patterns, steps=100)
    assert motifs.recall_score(memory, patterns) == 1.0
    assert report.steps <= 100 and report.losses[-1] < 1e-3 * report.losses[0]


def test_the_current_is_an_embedding_bag_over_active_pairs() -> None:
    """What teacher forcing feeds: a bag of rows (neuron, delay) for each context."""
    depth, patterns = 5, motifs.bernoulli_patterns(20, 2, 6, 0.1, seeded())
    taps = torch.randn(6, 6, depth, generator=seeded(1), dtype=torch.float64)
    index, offsets = [], []
    for t in range(depth, 20):
        for m in range(2):
            offsets.append(len(index))
            back, neuron = patterns[t - depth : t, m].nonzero(as_tuple=True)
            index += (neuron * depth + (depth - 1 - back)).tolist()
    rows = bank_of(taps).flatten(0, 1)
    bags = F.embedding_bag(torch.tensor(index), rows, torch.tensor(offsets), mode="sum").view(20 - depth, 2, 6)
    found = motifs.tapped_linear(patterns[:-1].double(), taps)[depth - 1 :]
    torch.testing.assert_close(found, bags, rtol=1e-12, atol=1e-12)


def test_hinge_loss_equals_its_formula() -> None:
    u = torch.randn(9, 2, 4, generator=seeded(), dtype=torch.float64)
    target = torch.rand(u.shape, generator=seeded(1)) < 0.3
    wanted = 0.0
    for x, s in zip(u.flatten().tolist(), target.flatten().tolist(), strict=True):
        wanted += max(0.0, 1.0 - x) ** 2 if s else max(0.0, x - 0.4) ** 2
    assert float(motifs.hinge_loss(u, target, 0.7, 0.3)) == pytest.approx(wanted / int(target.sum()))


@pytest.mark.parametrize("reset", ["hard", "subtractive"])
def test_free_running_spikes_are_those_of_recall_and_have_a_gradient(reset: str) -> None:
    patterns = motifs.bernoulli_patterns(200, 2, 96, 0.005, seeded())
    dynamics = MotifDynamics(0.8, 0.7, reset)  # type: ignore[arg-type]
    memory = MotifMemory(motifs.hebbian(patterns, 31, dynamics), dynamics)
    spikes = free_running_spikes(memory, patterns)
    assert torch.equal(spikes != 0, memory.recall(patterns[:31], 200, runaway=1.0).spikes[31:])
    assert 0.5 < motifs.f1(spikes, patterns[31:])
    assert torch.autograd.grad(spikes.sum(), memory.taps)[0].any()


def test_surrogate_gradient_equals_plain_autograd_through_a_dense_network() -> None:
    depth, patterns = 4, motifs.bernoulli_patterns(16, 2, 6, 0.3, seeded())
    memory = MotifMemory(torch.randn(6, 6, depth, generator=seeded(1), dtype=torch.float64) * 0.5, DYNAMICS)
    s, u, fired, out = list(patterns[:depth].double()), torch.zeros(2, 6), torch.zeros(2, 6), []
    for _ in range(12):
        current = causal_convolution(torch.stack(s[-depth:]), memory.taps)[-1]
        u = 0.7 * u * (1 - fired) + current
        soft = torch.sign(u - 0.7) * (u - 0.7).abs() / (1 + 15 * (u - 0.7).abs())  # its slope is the surrogate
        s.append((u >= 0.7).double() + soft - soft.detach())
        fired = s[-1].detach()
        out.append(s[-1])
    weight = torch.randn(12, 2, 6, generator=seeded(2), dtype=torch.float64)
    found = free_running_spikes(memory, patterns)
    assert 0.02 < found.mean() < 0.9
    one, two = (torch.autograd.grad((x * weight).sum(), memory.taps)[0] for x in (found, torch.stack(out)))
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_free_running_training_polishes_and_keeps_the_best() -> None:
    patterns = motifs.bernoulli_patterns(120, 2, 48, 0.01, seeded(3))
    memory = MotifMemory(motifs.hebbian(patterns, 15, DYNAMICS, "mean"), DYNAMICS)
    before = motifs.recall_score(memory, patterns)
    report = motifs.train_free_running(memory, patterns, steps=15)
    after = motifs.recall_score(memory, patterns)
    assert after > before and after == pytest.approx(1 - min(report.losses), abs=1e-6)


def test_strongest_taps_keep_the_largest_of_each_synapse() -> None:
    taps = torch.randn(5, 6, 9, generator=seeded())
    for count in (1, 3, 9, 20):
        kept = motifs.strongest_taps(taps, count)
        assert (torch.count_nonzero(kept, 2) == min(count, 9)).all()
        assert torch.equal(kept[kept != 0], taps[kept != 0])
        gone = torch.where(kept == 0, taps.abs(), 0.0).amax(2)
        assert (gone <= torch.where(kept != 0, kept.abs(), torch.inf).amin(2)).all()


def test_one_tap_a_synapse_is_a_synaptic_delay_and_back() -> None:
    taps = motifs.strongest_taps(torch.randn(5, 6, 9, generator=seeded()), 1)
    taps[2, 3] = 0
    weight, config = motifs.to_free_delay(taps)
    delay = config.build(Site("fc", 6, 5))
    assert isinstance(config, FreeDelay) and config.granularity == "synaptic"
    assert torch.equal(motifs.from_delay(delay, weight, depth=9), taps)
    with pytest.raises(ShapeError, match="several|taps"):
        motifs.to_delays(torch.ones(1, 1, 2))
    with pytest.raises(ShapeError, match="at most 3"):
        motifs.from_delay(delay, weight, depth=3)


def test_a_wrapped_motif_takes_a_whole_tensor() -> None:
    import delaykit as dk

    taps, linear = torch.randn(5, 6, 4, generator=seeded()), torch.nn.Linear(6, 5)
    net = torch.nn.Sequential(linear)
    dk.wrap_(net, {"0": dk.At(motifs.Motif(depth=6), reset="manual")}, example=torch.zeros(1, 6))
    linear.dk.delay.assign_(linear.weight, taps)
    found = linear.dk.impulse_response(linear.weight)
    assert torch.equal(found[:, :, :4], taps) and not found[:, :, 4:].any()
    assert "20 delays" not in repr(linear.dk.delay) and "6 delays, 90 of 150 taps in use" in repr(linear.dk.delay)
    with pytest.raises(ShapeError, match="Motif"):
        linear.dk.delay.assign_(linear.weight, torch.zeros(5, 6, 7))


def test_a_sweep_varies_one_field() -> None:
    base = motifs.Setting(neurons=64, time=150, patterns=4, depth=31, rate=0.005)
    points = list(motifs.sweep(base, "depth", (3, 31), seeds=(0, 1)))
    assert [(p.value, p.seed) for p in points] == [(3, 0), (3, 1), (31, 0), (31, 1)]
    assert points[0].f1 < 0.3 and points[2].f1 > 0.9 and points[2].worst <= points[2].f1
    assert points[0].to_json()["value"] == 3
    trained = list(
        motifs.sweep(base, "theta", (0.7,), prepare=lambda m, p: motifs.train_teacher_forced(m, p, steps=60) and None)
    )
    assert trained[0].f1 == 1.0
    with pytest.raises(ConfigError, match="neurons"):
        list(motifs.sweep(base, "neuron", (3,)))
    with pytest.raises(ConfigError, match="longer"):
        motifs.Setting(time=10, depth=41)


def test_settings_draw_refractory_patterns_and_write_ridge_memories() -> None:
    setting = motifs.Setting(neurons=64, time=150, patterns=2, depth=31, rate=0.005, refractory=20, rule="ridge")
    patterns = setting.draw(0)
    steps = patterns.permute(1, 2, 0).flatten(0, 1).nonzero()
    assert steps[:, 1].diff()[steps[:, 0].diff() == 0].min() >= 20
    assert motifs.recall_score(setting.write(patterns), patterns) > 0.9


@pytest.mark.parametrize("noise, mild, harsh", [("flip", 0.0, 1.0), ("truncate", 1.0, 0.0), ("silence", 0.0, 1.0)])
def test_noise_costs_recall(noise: str, mild: float, harsh: float) -> None:
    patterns = motifs.bernoulli_patterns(300, 4, 128, 0.003, seeded())
    memory = MotifMemory(motifs.hebbian(patterns, 41))
    assert motifs.robustness(memory, patterns, noise, mild, seeded()) == 1.0
    assert motifs.robustness(memory, patterns, noise, harsh, seeded()) < 0.5


def test_background_spikes_are_no_errors_themselves() -> None:
    patterns = motifs.bernoulli_patterns(300, 4, 128, 0.003, seeded())
    memory = MotifMemory(motifs.hebbian(patterns, 41))
    assert motifs.robustness(memory, patterns, "background", 1e-4, seeded()) > 0.95
    with pytest.raises(ConfigError, match="flip"):
        motifs.robustness(memory, patterns, "flips", 0.1)


def test_pictures_draw_on_the_given_axes() -> None:
    plt = pytest.importorskip("matplotlib.pyplot", reason="needs matplotlib, the extra `plot`")
    patterns = motifs.bernoulli_patterns(100, 2, 64, 0.01, seeded())
    memory = MotifMemory(motifs.hebbian(patterns, 15))
    run = memory.recall(patterns[:15], 100)
    figure, axes = plt.subplots(2, 2)
    points = list(motifs.sweep(motifs.Setting(neurons=32, time=80, patterns=2), "depth", (5, 41)))
    drawn = [
        motifs.plot_motif(memory.taps, 3, axes[0, 0]),
        motifs.plot_recall(run.spikes[:, 0], patterns[:, 0], 15, axes[0, 1]),
        motifs.plot_f1_over_time({"hebb": (run.spikes, patterns)}, 15, axes[1, 0]),
        motifs.plot_sweep({"hebb": points, "again": points}, axes[1, 1], label="delays D", log=True),
    ]
    assert drawn == axes.flatten().tolist() and all(ax.get_xlabel() and ax.get_ylabel() for ax in drawn)
    plt.close(figure)

"""The free run, the writing of memories and their scores, each against its plain definition."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import delaykit_motifs as motifs
from delaykit import CheckpointError, ConfigError, ShapeError, backend
from delaykit.sealed import seal
from delaykit.testing.faults import how_many
from delaykit.testing.faults.damage import check_changed_bytes
from delaykit.testing.messages import check_told
from delaykit_motifs import MotifDynamics, MotifMemory
from delaykit_motifs.hebb import context_sizes
from delaykit_motifs.network import free_run

RESETS = ("hard", "subtractive")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("name", ["cpu", "torch"])
@pytest.mark.parametrize("clamp", [0, 4, 5])
def test_free_run_equals_its_judge(reset: str, name: str, clamp: int) -> None:
    taps = torch.randn(6, 6, 5, generator=seeded(), dtype=torch.float64) * 0.5
    drive = torch.rand(25, 3, 6, generator=seeded(1)) < 0.2
    drive[: max(clamp, 3)] |= torch.rand(max(clamp, 3), 3, 6, generator=seeded(2)) < 0.3
    mute = torch.tensor([False, False, True, False, False, False])
    dynamics = MotifDynamics(0.8, 0.7, reset)  # type: ignore[arg-type]
    with backend(name):
        found = free_run(taps, drive, dynamics, clamp, mute, runaway=1.0)
    with backend("reference"):
        wanted, judged = free_run(taps, drive, dynamics, clamp, mute, runaway=1.0)
    own = wanted[clamp:] & ~drive[clamp:]
    assert 0.02 < own.float().mean() < 0.6, "the network must fire by itself"
    assert torch.equal(found.spikes, wanted)
    assert torch.equal(found.stopped, judged) and (judged == 25).all()


@pytest.mark.parametrize("name", ["cpu", "torch", "reference"])
def test_runaways_are_stopped_where_they_cross_the_limit(name: str) -> None:
    taps = torch.full((8, 8, 3), 1.0)
    drive = torch.zeros(40, 2, 8, dtype=torch.bool)
    drive[0, 1, 0] = True  # pattern 0 stays silent
    with backend(name):
        spikes, stopped = free_run(taps, drive, MotifDynamics(), 1, runaway=0.1)
    assert stopped.tolist() == [40, 5]  # 8 spikes a step from step 1 on; 0.1 * 40 * 8 = 32 are allowed
    assert not spikes[:, 0].any() and spikes[1:6, 1].all() and not spikes[6:].any()


def test_a_wrapped_linear_in_a_users_loop_is_the_same_network() -> None:
    import delaykit as dk

    patterns = motifs.bernoulli_patterns(120, 2, 64, 0.01, seeded())
    taps = motifs.hebbian(patterns, 11)
    linear = torch.nn.Linear(64, 64, bias=False)
    dk.wrap_(linear, {"": dk.At(motifs.Motif(depth=11), reset="manual")}, example=torch.zeros(1, 64))
    linear.dk.delay.assign_(linear.weight, taps)
    spikes, u = [torch.zeros(2, 64)], torch.zeros(2, 64)
    with torch.no_grad():
        for t in range(120):
            current = linear(spikes[-1])
            u = 0.7 * u * (1 - spikes[-1]) + current if t > 11 else current
            spikes.append((u >= 0.95).float() if t >= 11 else patterns[t].float())
    found = torch.stack(spikes[1:]) != 0
    assert torch.equal(found, MotifMemory(taps).recall(patterns[:11], 120).spikes)
    assert motifs.f1(found, patterns, 11) > 0.9


@pytest.mark.parametrize("normalise", ["context", "mean", "published", None])
@pytest.mark.parametrize("reset", RESETS)
def test_hebbian_equals_the_sum_over_contexts(normalise, reset: str) -> None:
    depth, patterns = 4, motifs.bernoulli_patterns(20, 3, 5, 0.15, seeded())
    dynamics = MotifDynamics(beta=0.6, reset=reset)  # type: ignore[arg-type]
    wanted, s = torch.zeros(5, 5, depth, dtype=torch.float64), patterns.double()
    for m in range(3):
        for t in range(depth, 20):
            context = torch.stack([s[t - d, m] for d in range(1, depth + 1)], -1)  # (pre, d)
            current = s[t, m] - (0.6 * s[t - 1, m] if reset == "subtractive" else 0)
            bits = {"context": max(1.0, float(context.sum())), None: 1.0}.get(normalise)
            if bits is None:
                bits = float(5 * depth * s.mean()) * (3 if normalise == "published" else 1)
            wanted += current[:, None, None] * context / bits
    found = motifs.hebbian(patterns, depth, dynamics, normalise, dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_blocks_of_patterns_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from delaykit_motifs import hebb

    patterns = motifs.bernoulli_patterns(30, 5, 6, 0.1, seeded())
    whole = motifs.hebbian(patterns, 4, dtype=torch.float64)
    monkeypatch.setattr(hebb, "AT_ONCE", 400)
    torch.testing.assert_close(motifs.hebbian(patterns, 4, dtype=torch.float64), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("penalty", [0.5, 1e-3])
def test_ridge_solves_the_normal_equations(penalty: float) -> None:
    depth, patterns = 5, motifs.bernoulli_patterns(25, 2, 6, 0.15, seeded())
    s = patterns.double()
    contexts = torch.stack(
        [
            torch.stack([s[t - d, m] for d in range(1, depth + 1)], -1).flatten()
            for m in range(2)
            for t in range(depth, 25)
        ]
    )
    wanted = s[depth:].transpose(0, 1).flatten(0, 1)  # (context, post)
    gram = contexts @ contexts.T + penalty * torch.eye(len(contexts))
    solution = (contexts.T @ torch.linalg.solve(gram, wanted)).T.view(6, 6, depth)
    found = motifs.ridge(patterns, depth, penalty=penalty, steps=200, tolerance=1e-12, dtype=torch.float64)
    torch.testing.assert_close(found, solution, rtol=1e-6, atol=1e-8)


def test_correlogram_is_what_hebb_potentiates() -> None:
    depth, patterns = 6, motifs.bernoulli_patterns(60, 3, 5, 0.1, seeded())
    patterns[:depth] = False  # without a cue, all pairs count
    pairs = motifs.cross_correlogram(patterns, depth)
    assert pairs.shape == (5, 5, 13)
    assert torch.equal(pairs[:, :, depth + 1 :], motifs.hebbian(patterns, depth, None, None))
    assert torch.equal(pairs, pairs.flip(2).transpose(0, 1)), "lag -d of (j, i) is lag d of (i, j)"
    assert torch.equal(pairs[:, :, depth].diagonal(), patterns.sum((0, 1)).float())


def test_context_sizes_count_the_last_steps() -> None:
    patterns = motifs.bernoulli_patterns(12, 2, 7, 0.3, seeded())
    found = context_sizes(patterns, 3)
    for t in range(12):
        assert torch.equal(found[t], patterns[max(0, t - 3) : t].sum((0, 2)))


@pytest.mark.parametrize("seed", range(3))
def test_memories_recall_exactly_without_training(seed: int) -> None:
    patterns = motifs.bernoulli_patterns(400, 8, 128, 0.003, seeded(seed))
    memory = MotifMemory(motifs.hebbian(patterns, 41))
    run = memory.recall(patterns[:41], 400)
    assert motifs.f1(run.spikes, patterns, 41) == 1.0
    other = motifs.bernoulli_patterns(41, 8, 128, 0.003, seeded(99))
    assert motifs.f1(memory.recall(other, 400).spikes, patterns, 41) < 0.5, "a foreign cue must not recall"


def test_joined_cue_lets_neurons_fire_by_themselves() -> None:
    taps = torch.zeros(2, 2, 1)
    taps[1, 0, 0] = 1.0
    cue = torch.zeros(2, 1, 2, dtype=torch.bool)
    cue[0, 0, 0] = True
    memory = MotifMemory(taps)
    assert not memory.recall(cue, 3).spikes[1, 0, 1]
    assert memory.recall(cue, 3, join=True, runaway=1.0).spikes[1, 0, 1]


def test_noise_and_background_before_the_cue() -> None:
    patterns = motifs.bernoulli_patterns(300, 4, 128, 0.003, seeded())
    memory = MotifMemory(motifs.hebbian(patterns, 41))
    background = motifs.bernoulli_patterns(50, 4, 128, 0.003, seeded(1))
    run = memory.recall(torch.cat([background, patterns[:41]]), 350)
    assert torch.equal(run.spikes[:50], background) and motifs.f1(run.spikes[50:], patterns, 41) == 1.0
    noise = motifs.bernoulli_patterns(300, 4, 128, 0.1, seeded(2))
    noise[:41] = False
    noisy = memory.recall(patterns[:41], 300, noise=noise, runaway=1.0)
    assert (noisy.spikes | ~noise).all() and motifs.f1(noisy.spikes, patterns, 41) < 0.9


@pytest.mark.parametrize("reset", RESETS)
def test_teacher_forced_membranes_equal_their_definition(reset: str) -> None:
    patterns = motifs.bernoulli_patterns(20, 2, 5, 0.2, seeded())
    memory = MotifMemory(torch.randn(5, 5, 4, dtype=torch.float64), MotifDynamics(0.8, 0.6, reset))  # type: ignore[arg-type]
    s, u, wanted = patterns.double(), torch.zeros(2, 5, dtype=torch.float64), []
    for t in range(4, 20):
        current = sum(s[t - d] @ memory.taps[:, :, d - 1].T for d in range(1, 5))
        fired = s[t - 1] if t > 4 else torch.zeros(2, 5)
        u = (0.6 * u * (1 - fired) if reset == "hard" else 0.6 * u - 0.8 * fired) + current
        wanted.append(u)
    found = memory.membrane(patterns)
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-12, atol=1e-12)
    one, two = (torch.autograd.grad(x.square().sum(), memory.taps)[0] for x in (found, torch.stack(wanted)))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("used", [0.05, 1.0])
def test_a_saved_memory_comes_back_to_the_bit(tmp_path: Path, used: float) -> None:
    taps = torch.randn(16, 16, 9, generator=seeded()) * (torch.rand(16, 16, 9, generator=seeded(1)) < used)
    memory = MotifMemory(taps, MotifDynamics(0.8, 0.6, "subtractive"))
    memory.save(tmp_path / "memory.safetensors")
    again = MotifMemory.load(tmp_path / "memory.safetensors")
    assert torch.equal(again.taps, taps) and again.dynamics == memory.dynamics
    assert again.taps.stride() == memory.taps.stride() and list(tmp_path.iterdir()) == [tmp_path / "memory.safetensors"]
    dense = 16 * 16 * 9 * 4
    assert ((tmp_path / "memory.safetensors").stat().st_size < 0.5 * dense) == (used < 0.4)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "memory"
    with pytest.raises(CheckpointError, match="no readable memory"):
        MotifMemory.load(path)
    MotifMemory(torch.randn(4, 4, 2)).save(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="damaged tensors"):
        MotifMemory.load(path)
    save_file({"bank": torch.zeros(1)}, path, {"about": json.dumps({"format": "other/2"})})
    with pytest.raises(CheckpointError, match="other/2"):
        MotifMemory.load(path)


DYNAMICS = {"theta": 1.0, "beta": 0.5, "reset": "hard"}
LISTED = {"index": torch.tensor([0]), "value": torch.ones(1)}


@pytest.mark.parametrize(("about", "tensors"), [
    ({}, {"bank": torch.zeros(2, 1, 2)}),
    ({"shape": [10**6, 10**6, 10**6]}, LISTED),
    ({"shape": [10**9, 1, 1]}, LISTED),
    ({"shape": [2, 1]}, LISTED),
    ({"shape": [2, 1, "2"]}, LISTED),
    ({"shape": [2, 1, 3]}, LISTED),
    ({"shape": [2, -1, 2]}, LISTED),
    ({"shape": 7}, LISTED),
    ({"shape": [2, 1, 2]}, LISTED | {"index": torch.tensor([4])}),
    ({"shape": [2, 1, 2]}, LISTED | {"index": torch.tensor([-1])}),
    ({"shape": [2, 1, 2]}, LISTED | {"index": torch.tensor([0.5])}),
    ({"shape": [2, 1, 2]}, LISTED | {"index": torch.tensor([0, 1])}),
    ({"shape": [2, 1, 2]}, {"value": torch.ones(1)}),
    ({"shape": [2, 1, 2]}, {"bank": torch.zeros(3)}),
    ({"shape": [2, 1, 2]}, {"bank": torch.zeros(2, 1, 2, dtype=torch.int64)}),
    ({"shape": [2, 1, 2]}, {"bank": torch.full((2, 1, 2), float("nan"))}),
    ({"shape": [2, 1, 2], "dynamics": None}, {"bank": torch.zeros(2, 1, 2)}),
    ({"shape": [2, 1, 2], "dynamics": {"theta": "1"}}, {"bank": torch.zeros(2, 1, 2)}),
    ({"shape": [2, 1, 2], "dynamics": {"alpha": 1.0}}, {"bank": torch.zeros(2, 1, 2)}),
    ({"shape": [2, 1, 2], "dynamics": DYNAMICS | {"beta": 7.0}}, {"bank": torch.zeros(2, 1, 2)}),
])  # fmt: skip
def test_hostile_memories_with_a_digest_that_fits_are_told_in_full(tmp_path: Path, about: dict, tensors: dict) -> None:
    words = json.dumps({"format": "delaykit-motifs/1", "dynamics": DYNAMICS} | about)
    (tmp_path / "m").write_bytes(seal(tensors, {"format": "delaykit-motifs/1", "about": words}))
    assert isinstance(check_told(lambda: MotifMemory.load(tmp_path / "m")), CheckpointError)


@pytest.mark.parametrize("flips", [100, pytest.param(how_many(400, 2000), marks=pytest.mark.slow)])
def test_a_changed_byte_of_a_memory_is_refused_or_changes_nothing(tmp_path: Path, flips: int) -> None:
    path, memory = tmp_path / "memory", MotifMemory(torch.randn(4, 4, 2))
    memory.save(path)

    def read(content: bytes) -> MotifMemory:
        path.write_bytes(content)
        return MotifMemory.load(path)

    def judge(again: MotifMemory) -> None:  # a space of the header
        assert torch.equal(again.taps, memory.taps) and again.dynamics == memory.dynamics

    assert check_changed_bytes(path.read_bytes(), read, judge, flips) > 0.9 * flips


def test_evidence_keeps_the_rate_and_the_refractory_period() -> None:
    evidence = torch.full((4000, 2, 20), motifs.evidence_of(0.05, 8))
    spikes = motifs.evidence_patterns(evidence, 8, seeded())
    assert abs(float(spikes.float().mean()) - 0.05) < 0.003
    steps, _, _ = (spikes.permute(1, 2, 0).flatten(0, 1)).nonzero().T[1], 0, 0
    neuron = spikes.permute(1, 2, 0).flatten(0, 1).nonzero().T[0]
    gaps = steps.diff()[neuron.diff() == 0]
    assert gaps.min() == 8
    with pytest.raises(ConfigError, match="rate"):
        motifs.evidence_of(0.2, 8)


def test_scores() -> None:
    target = torch.zeros(10, 2, 3)
    target[[2, 5, 9], 0, 1] = target[4, 1, 0] = 1
    found = target.clone()
    found[9, 0, 1] = 0
    found[8, 0, 2] = 1
    assert motifs.f1(target, target) == 1.0 == motifs.f1(torch.zeros(3, 1, 1), torch.zeros(3, 1, 1))
    assert motifs.f1(found, target) == pytest.approx(6 / 8)
    assert motifs.f1(found, target, start=3) == pytest.approx(4 / 6)
    assert motifs.f1_per_pattern(found, target).tolist() == pytest.approx([4 / 6, 1.0])
    edges, values = motifs.f1_over_time(found, target, start=2, width=4)
    assert edges.tolist() == [2, 6] and values.tolist() == pytest.approx([1.0, 0.0])


def test_noise_generators() -> None:
    cue = motifs.bernoulli_patterns(41, 4, 200, 0.01, seeded())
    flipped = motifs.flip_cue(cue, 0.25, seeded(1))
    assert abs(int(flipped.sum()) - int(cue.sum())) <= 5
    assert 0.15 < 1 - float((flipped & cue).sum() / cue.sum()) < 0.35
    assert torch.equal(motifs.truncate_cue(cue, 1.0), cue) and not motifs.truncate_cue(cue, 0.0).any()
    assert int(motifs.silence(40, 0.1, seeded()).sum()) == 4
    with pytest.raises(ConfigError, match="fraction"):
        motifs.flip_cue(cue, 1.5)


def test_shapes_and_values_that_do_not_fit_are_named() -> None:
    memory = MotifMemory(torch.zeros(4, 4, 3))
    with pytest.raises(ShapeError, match="cue"):
        memory.recall(torch.zeros(3, 1, 5), 9)
    with pytest.raises(ShapeError, match="square"):
        MotifMemory(torch.zeros(4, 3, 2))
    with pytest.raises(ConfigError, match="theta"):
        MotifDynamics(theta=0.0)
    with pytest.raises(ConfigError, match="normalise"):
        motifs.hebbian(torch.zeros(9, 1, 2), 3, normalise="sum")  # type: ignore[arg-type]

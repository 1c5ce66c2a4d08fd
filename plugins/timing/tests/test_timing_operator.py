"""The operator against a slow reference, a fine simulation, finite differences and the paper's closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from spike_problems import DELAYS, RATIOS, ordered, problem, solve
from torch import Tensor

from delaykit.plugins import registry
from delaykit_timing import TimingDynamics, spike_times
from delaykit_timing.spikes import InputSpikes

PAIRS = [  # every ratio and every delay is met at once; all pairs with the slow tests
    pytest.param(ratio, delay, marks=() if k in (n, (n + 2) % 5) else pytest.mark.slow)
    for k, ratio in enumerate(RATIOS)
    for n, delay in enumerate(DELAYS)
]


@pytest.mark.parametrize(("ratio", "delay"), PAIRS)
def test_backends_equal_the_reference(ratio: float, delay: str) -> None:
    given = problem(7, delay)
    for limit in (None, 2):
        dynamics = TimingDynamics(0.6, 0.6 / ratio, max_spikes=limit)
        right = solve(given, dynamics, "reference")
        assert len(right[0]) > 5
        assert all(float(theirs.abs().max()) > 0.01 for theirs in right[3])
        for name in ("torch", "cpu"):
            found = solve(given, dynamics, name)
            assert torch.equal(right[1], found[1]), name
            torch.testing.assert_close(found[0], right[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(found[2], right[2], rtol=0, atol=1e-11)
            for mine, theirs in zip(found[3], right[3], strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("delay", ["none", "synaptic"])
@pytest.mark.parametrize("limit", [None, 2, 0])
def test_each_operator_equals_its_own_judge(limit: int | None, delay: str, name: str) -> None:
    times, neurons, weight, delays = problem(7, delay)
    arrivals = InputSpikes(times, neurons, (times < 1).sum(1), delays)
    dynamics = TimingDynamics(0.6, 0.4, max_spikes=limit) if limit != 0 else TimingDynamics(0.6, 0.4).silent()
    g = torch.Generator().manual_seed(3)
    factor, into_end = (torch.randn(*n, generator=g, dtype=torch.float64) for n in ((99,), (3, 4)))
    results = []
    for one in ("reference", name):
        run, back = (registry.implementation(f"timing_{part}", one) for part in ("spikes", "gradients"))
        record, potential = run(arrivals, weight, dynamics)
        owner = record.sample * 1000 + record.neuron
        order = sorted(range(len(owner)), key=lambda k: (int(owner[k]), float(record.when[k])))
        into_when = torch.zeros_like(record.when)
        into_when[order] = factor[: len(order)]
        grads = back(arrivals, weight, dynamics, record, into_when, into_end)
        spikes = [x[order].double() for x in (owner, record.interval, record.when, record.strength)]
        results.append((spikes, potential, [one for one in grads if one is not None]))
    (spikes, potential, judged), (found, end, grads) = results
    assert (len(spikes[0]) > 5) == (limit != 0) and all(bool(one.any()) for one in (*judged, potential))
    assert len(judged) == (2 if delays is None else 3)
    torch.testing.assert_close((*found, end), (*spikes, potential), rtol=0, atol=1e-11)
    for mine, theirs in zip(grads, judged, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))


def simulate(times: np.ndarray, weight: np.ndarray, dynamics: TimingDynamics, steps: int) -> np.ndarray:
    """Step I and V through the window exactly between arrivals, and interpolate crossings to third order."""
    tau_i, tau_v, dt = dynamics.tau_synapse, dynamics.tau_v, dynamics.end / steps

    def move(current: float, potential: float, elapsed: float) -> tuple[float, float]:
        e_i, e_v = math.exp(-elapsed / tau_i), math.exp(-elapsed / tau_v)
        kappa = elapsed * e_i if tau_i == tau_v else (e_i - e_v) / (1 / tau_v - 1 / tau_i)
        return current * e_i, potential * e_v + current * kappa

    grid = np.arange(steps + 1) * dt
    marks = np.unique(np.concatenate([grid, times]))
    current = potential = 0.0
    spikes = []
    for here, after in zip(marks, marks[1:], strict=False):
        current += weight[times == here].sum()
        left = after - here
        while True:
            i, v = move(current, potential, left)
            if v < dynamics.threshold:
                break
            elapsed = left  # secant steps inside one tiny step
            low, f_low, high, f_high = 0.0, potential - dynamics.threshold, left, v - dynamics.threshold
            for _ in range(60):
                elapsed = low - f_low * (high - low) / (f_high - f_low)
                f = move(current, potential, elapsed)[1] - dynamics.threshold
                if abs(f) < 1e-15:
                    break
                low, f_low, high, f_high = (elapsed, f, high, f_high) if f < 0 else (low, f_low, elapsed, f)
            current, potential = move(current, potential, elapsed)[0], 0.0
            left -= elapsed
            spikes.append(after - left)
        current, potential = i, v
    return np.array(spikes)


@pytest.mark.parametrize("ratio", RATIOS)
def test_spike_times_equal_a_fine_simulation_to_1e_9(ratio: float) -> None:
    rng = np.random.default_rng(3)
    times, weight = np.sort(rng.uniform(0, 1, 40)), rng.normal(0.5, 0.9, 40)
    dynamics = TimingDynamics(0.6, 0.6 / ratio)
    right = simulate(times, weight, dynamics, 20000)
    arrivals = torch.from_numpy(times)[None], torch.arange(40)[None]
    out = spike_times(*arrivals, torch.from_numpy(weight)[None], dynamics)
    assert len(out.when) == len(right) >= 2
    assert np.abs(np.sort(out.when.numpy()) - right).max() < 1e-9


def test_the_paper_s_sums_give_the_same_times() -> None:
    # eqs. 12 and 17-19 for p = 2: A = c sum w z, B = c sum w z max(z_last, z), z_s = (A - sqrt(A^2 - 4 B)) / 2
    g = torch.Generator().manual_seed(1)
    t, tau = torch.rand(60, generator=g).double().sort().values, 0.7
    w = torch.randn(60, generator=g).double() * 0.9 + 0.45
    z, last, right = torch.exp(t / tau), torch.tensor(0.0).double(), []
    bounds = torch.cat([z[1:], torch.tensor([math.exp(1 / tau)])])
    while True:
        a, b = tau * torch.cumsum(w * z, 0), tau * torch.cumsum(w * z * torch.maximum(last, z), 0)
        inside = a * a - 4 * b
        root = torch.where(inside >= 0, (a - inside.clamp(min=0).sqrt()) / 2, math.inf)
        root = torch.where((root >= torch.maximum(z, last * (1 + 1e-12))) & (root < bounds), root, math.inf)
        last = root.min()
        if torch.isinf(last):
            break
        right.append(tau * float(last.log()))
    out = spike_times(t[None], torch.arange(60)[None], w[None], TimingDynamics(tau))
    assert len(right) > 3
    assert np.allclose(sorted(out.when.tolist()), right, rtol=0, atol=1e-12)


def test_the_readout_is_the_sum_of_the_paper() -> None:
    # v = A / z_out - B / z_out^2 with A = c sum w z and B = c sum w z^2 (Algorithm 1, lines 19-20, put right)
    times, neurons, weight, _ = problem(2)
    dynamics = TimingDynamics(0.8)
    out = spike_times(times[:1], neurons[:1], weight, dynamics.silent())
    z, z_out = torch.exp(times[0, :-4] / 0.8), math.exp(1 / 0.8)
    w = weight[:, neurons[0, :-4]]
    a, b = 0.8 * (w * z).sum(1), 0.8 * (w * z * z).sum(1)
    torch.testing.assert_close(out.potential[0], a / z_out - b / z_out**2, rtol=0, atol=1e-12)
    assert len(out.when) == 0


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("ratio", [0.5, 1.5, 2.0, 3.0])
def test_gradients_equal_finite_differences_to_1e_7(ratio: float, delay: str) -> None:
    times, neurons, weight, delays = problem(11, delay)
    times = times[:2].masked_fill(~torch.isfinite(times[:2]), 2.0)  # finite, yet after the window
    times = times + 1e-3 * torch.arange(times.shape[1])  # untie: on a tie the derivative has two sides
    dynamics = TimingDynamics(0.6, 0.6 / ratio)
    leaves = [x.clone().requires_grad_() for x in (times, weight, delays) if x is not None]
    g = torch.Generator().manual_seed(5)
    factor = torch.randn(200, generator=g, dtype=torch.float64)

    def loss(*inputs: Tensor) -> Tensor:
        out = spike_times(inputs[0], neurons[:2], inputs[1], dynamics, inputs[2] if len(inputs) > 2 else None)
        when, _ = ordered(out)
        return (factor[: len(when)] * when).sum() + out.potential.sin().sum()

    exact = torch.autograd.grad(loss(*leaves), leaves)
    step = 1e-5
    for k, leaf in enumerate(leaves):
        scale = float(exact[k].abs().max())
        for place in np.ndindex(*leaf.shape):
            values = []
            for shift in (-2, -1, 1, 2):
                moved = [x.detach().clone() for x in leaves]
                moved[k][place] += shift * step
                values.append(float(loss(*moved)))
            numeric = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
            assert abs(numeric - float(exact[k][place])) < 1e-7 * max(1.0, scale)

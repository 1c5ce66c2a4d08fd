"""The operator against a slow reference, a fine simulation, finite differences and the paper's closed form."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from delaykit import ConfigError, ShapeError, backend
from delaykit.plugins import registry
from delaykit_timing import TimingDynamics, spike_times
from delaykit_timing.spikes import InputSpikes

DELAYS = {"none": None, "layer": (1, 1), "axonal": (1, 6), "dendritic": (4, 1), "synaptic": (4, 6)}
RATIOS = (0.5, 1.0, 1.5, 2.0, 3.0)
PAIRS = [  # every ratio and every delay is met at once; all pairs with the slow tests
    pytest.param(ratio, delay, marks=() if k in (n, (n + 2) % 5) else pytest.mark.slow)
    for k, ratio in enumerate(RATIOS)
    for n, delay in enumerate(DELAYS)
]


def problem(seed: int, delay: str = "none", batch: int = 3, slots: int = 16, pre: int = 6, post: int = 4):
    """Random input with ties, an empty slot here and there, and one silent sample."""
    g = torch.Generator().manual_seed(seed)
    times = torch.rand(batch, slots, generator=g, dtype=torch.float64).sort(1).values
    times[0, -4:] = math.inf
    times[1, 5] = times[1, 4]
    times[1, 10:13] = times[1, 10]
    times[2:] = math.inf
    neurons = torch.randint(0, pre, (batch, slots), generator=g)
    weight = 2.0 * torch.randn(post, pre, generator=g, dtype=torch.float64) + 1.5
    shape = DELAYS[delay]
    delays = None if shape is None else torch.rand(shape, generator=g, dtype=torch.float64) * 0.3
    return times, neurons, weight, delays


def ordered(out) -> tuple[Tensor, Tensor]:
    """Spike times by sample, neuron and time; and whose they are."""
    owner = out.sample * 1000 + out.neuron
    order = torch.argsort(out.when.detach(), stable=True)
    order = order[torch.argsort(owner[order], stable=True)]
    return out.when[order], owner[order]


def solve(given, dynamics: TimingDynamics, name: str):
    """Spikes, owners, potentials and gradients of a fixed random loss in one backend."""
    times, neurons, weight, delays = given
    leaves = [x.clone().requires_grad_() for x in (times, weight, delays) if x is not None]
    with backend(name):
        out = spike_times(leaves[0], neurons, leaves[1], dynamics, leaves[2] if len(leaves) > 2 else None)
        when, owner = ordered(out)
        g = torch.Generator().manual_seed(99)
        loss = (torch.randn(len(when), generator=g, dtype=torch.float64) * when).sum()
        loss = loss + (torch.randn(out.potential.shape, generator=g, dtype=torch.float64) * out.potential).sum()
        return when.detach(), owner, out.potential.detach(), torch.autograd.grad(loss, leaves)


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


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(DELAYS)), st.sampled_from(RATIOS), st.sampled_from([0.05, 0.3, 2.0]))
def test_no_value_is_ever_nan(seed: int, delay: str, ratio: float, tau: float) -> None:
    given = problem(seed, delay)
    given = (given[0], given[1], given[2] / tau, given[3])
    when, _, potential, grads = solve(given, TimingDynamics(tau, tau / ratio), "cpu")
    for values in (when, potential, *grads):
        assert bool(torch.isfinite(values).all())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.5))
def test_later_input_makes_the_same_spikes_later(seed: int, shift: float) -> None:
    times, neurons, weight, _ = problem(seed)
    early, _ = ordered(spike_times(times, neurons, weight, TimingDynamics(0.4, end=5.0)))
    late, _ = ordered(spike_times(times + shift, neurons, weight, TimingDynamics(0.4, end=5.0 + shift)))
    torch.testing.assert_close(late, early + shift, rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 15))
def test_no_spike_before_its_cause(seed: int, cut: int) -> None:
    times, neurons, weight, _ = problem(seed)
    moment = min(1.0, float(times[0, cut]))
    changed = neurons.clone()
    changed[:, cut:] = (changed[:, cut:] + 1) % 6
    runs = [ordered(spike_times(times[:1], n[:1], weight, TimingDynamics(0.5)))[0] for n in (neurons, changed)]
    before = [run[run < moment].sort().values for run in runs]
    assert torch.equal(*before)


def test_rows_of_the_batch_are_independent() -> None:
    times, neurons, weight, _ = problem(3)
    whole, owner = ordered(spike_times(times, neurons, weight, TimingDynamics(0.5)))
    alone, _ = ordered(spike_times(times[1:2], neurons[1:2], weight, TimingDynamics(0.5)))
    assert torch.equal(whole[owner // 1000 == 1], alone)


@pytest.mark.parametrize("name", ["torch", "cpu", "reference"])
def test_of_tied_arrivals_only_their_sum_counts(name: str) -> None:
    # one alone would cross at once after it; both together never do
    times, neurons = torch.tensor([[0.2, 0.2]]).double(), torch.tensor([[0, 1]])
    with backend(name):
        out = spike_times(times, neurons, torch.tensor([[50.0, -49.0]]).double(), TimingDynamics(0.8))
    assert len(out.when) == 0


@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("ratio", [2.0, 3.0])
def test_a_grazing_spike_has_a_bounded_gradient(ratio: float, name: str) -> None:
    times, neurons = torch.tensor([[0.0]]).double(), torch.tensor([[0]])
    dynamics = TimingDynamics(0.8, 0.8 / ratio, end=5.0)
    rise = math.log(ratio) / (1 / dynamics.tau_v - 1 / 0.8)
    peak = (math.exp(-rise / 0.8) - math.exp(-rise / dynamics.tau_v)) / (1 / dynamics.tau_v - 1 / 0.8)
    for excess, spikes in ((1e-13, 1), (-1e-13, 0)):
        weight = torch.tensor([[(1 + excess) / peak]], dtype=torch.float64, requires_grad=True)
        with backend(name):
            out = spike_times(times, neurons, weight, dynamics)
            assert len(out.when) == spikes
            (out.when.sum() + out.potential.sum()).backward()
        assert math.isfinite(weight.grad.item()) and abs(weight.grad.item()) <= 1e7


@pytest.mark.parametrize("name", ["torch", "cpu", "reference"])
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_the_slope_that_a_gradient_is_divided_by_has_a_floor(delay: float, name: str) -> None:
    # dt/dw = -kappa(t) / S with S = I - threshold / tau_v, here 0.19 of threshold / tau_v
    times, neurons = torch.tensor([[0.0]]).double(), torch.tensor([[0]])
    given = torch.full((2, 1), delay, dtype=torch.float64) if delay else None  # either kernel
    for floor, expected in ((1e-6, None), (0.5, 0.5)):
        weight = torch.full((2, 1), 5.2, dtype=torch.float64, requires_grad=True)
        with backend(name):
            out = spike_times(times, neurons, weight, TimingDynamics(0.8, max_spikes=1, slope_floor=floor), given)
            out.when.sum().backward()
        t = float(out.when.detach()[0]) - delay
        kappa = 0.8 * (math.exp(-t / 0.8) - math.exp(-t / 0.4))
        share = 0.4 * 5.2 * math.exp(-t / 0.8) - 1
        assert 0.1 < share < 0.3
        assert weight.grad[0, 0].item() == pytest.approx(-kappa * 0.4 / (expected or share), rel=1e-9)


def test_a_small_time_constant_in_a_long_window_does_not_overflow() -> None:
    # exp(t / tau_synapse) would be exp(4000)
    g = torch.Generator().manual_seed(0)
    times = (torch.rand(2, 400, generator=g).double() * 200).sort(1).values
    weight = torch.rand(3, 4, generator=g).double() * 60 + 20
    given = times, torch.randint(0, 4, (2, 400), generator=g), weight, None
    dynamics = TimingDynamics(0.05, end=200.0)
    found, right = (solve(given, dynamics, name) for name in ("cpu", "torch"))
    assert len(found[0]) > 100 and torch.equal(found[1], right[1])
    torch.testing.assert_close(found[0], right[0], rtol=0, atol=1e-12)
    for mine, theirs in zip(found[3], right[3], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_a_strong_input_makes_thousands_of_spikes() -> None:
    times, neurons = torch.tensor([[0.0]]).double(), torch.tensor([[0]])
    weight = torch.tensor([[5000.0]], dtype=torch.float64, requires_grad=True)
    out = spike_times(times, neurons, weight, TimingDynamics(0.8))
    assert len(out.when) > 2000 and bool((out.when.diff() > 0).all())
    out.when.sum().backward()
    assert math.isfinite(weight.grad.item())


def test_silence_has_no_spikes_and_no_gradient() -> None:
    for slots in (0, 3):
        times = torch.full((2, slots), math.inf, dtype=torch.float64)
        weight = torch.ones(4, 5, dtype=torch.float64, requires_grad=True)
        for name in ("torch", "cpu", "reference"):
            with backend(name):
                out = spike_times(times, torch.zeros(2, slots, dtype=torch.int64), weight, TimingDynamics(0.5))
            assert len(out.when) == 0 and out.potential.shape == (2, 4) and not out.potential.any()
            if out.potential.requires_grad:
                assert not torch.autograd.grad(out.potential.sum(), weight)[0].any()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    times, neurons, weight, _ = problem(5, batch=40, slots=60, pre=200, post=150)
    times = torch.rand(40, 60, generator=torch.Generator().manual_seed(1)).double().sort(1).values
    neurons = torch.randint(0, 200, (40, 60), generator=torch.Generator().manual_seed(2))
    given, before, runs = (times, neurons, weight, None), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runs.append(solve(given, TimingDynamics(0.5), "cpu"))
    finally:
        torch.set_num_threads(before)
    assert len(runs[0][0]) > 1000
    assert torch.equal(runs[0][0], runs[1][0])
    assert all(torch.equal(a, b) for a, b in zip(runs[0][3], runs[1][3], strict=True))


def test_float32_input_is_computed_in_float64() -> None:
    times, neurons, weight, _ = problem(4)
    times, weight = times.float(), weight.float()
    exact = spike_times(times.double(), neurons, weight.double(), TimingDynamics(0.5))
    single = spike_times(times, neurons, weight, TimingDynamics(0.5))
    assert single.when.dtype == single.potential.dtype == torch.float32
    assert torch.equal(single.when, exact.when.float())


def test_what_does_not_fit_is_refused() -> None:
    times, neurons, weight, _ = problem(0)
    with pytest.raises(ShapeError, match="int64"):
        spike_times(times, neurons.int(), weight, TimingDynamics(0.5))
    with pytest.raises(ShapeError, match=r"0\.\.4"):
        spike_times(times, neurons, weight[:, :5], TimingDynamics(0.5))
    with pytest.raises(ShapeError, match="delays"):
        spike_times(times, neurons, weight, TimingDynamics(0.5), torch.zeros(6, 5))
    with pytest.raises(ShapeError, match="post, pre"):
        spike_times(times, neurons, weight[0], TimingDynamics(0.5))


def test_kept_memory_grows_with_spikes_not_with_synapses() -> None:
    times, neurons, weight, _ = problem(5, batch=20, slots=50, pre=200, post=300)
    times = torch.rand(20, 50, generator=torch.Generator().manual_seed(1)).double().sort(1).values
    neurons = torch.randint(0, 200, (20, 50), generator=torch.Generator().manual_seed(2))
    weight = (weight * 0.3).requires_grad_()
    out = spike_times(times, neurons, weight, TimingDynamics(0.5))
    record = out.when.grad_fn.record
    numbers = sum(getattr(record, name).numel() for name in ("sample", "interval", "neuron", "when", "strength"))
    assert numbers == 5 * len(out.when)


@pytest.mark.parametrize("name", ["cpu", "torch"])
def test_a_step_leaves_nothing_for_the_garbage_collector(name):
    """What a training step made is freed with it: nothing that it keeps for its gradient refers back to itself."""
    times, neurons, weight, delays = problem(0, "synaptic")
    with backend(name):
        for _ in range(2):  # the first one compiles
            gc.collect()
            gc.disable()
            try:
                leaves = [x.clone().requires_grad_() for x in (times.nan_to_num(posinf=9.0), weight, delays)]
                spike_times(leaves[0], neurons, leaves[1], TimingDynamics(0.6, 0.3), leaves[2]).when.sum().backward()
                del leaves
                alive = sum(type(one) is Tensor for one in gc.get_objects())
                gc.collect()
                left = alive - sum(type(one) is Tensor for one in gc.get_objects())
            finally:
                gc.enable()
    assert left == 0


def test_delays_in_the_place_of_dynamics_are_named():
    times, neurons, weight, delays = problem(0, "synaptic")
    with pytest.raises(ConfigError, match="a TimingDynamics"):
        spike_times(times, neurons, weight, delays, TimingDynamics(0.6))


@pytest.mark.parametrize("name", ["reference", "torch", "cpu"])
@pytest.mark.parametrize(("batch", "slots", "post"), [(0, 5, 4), (3, 0, 4), (3, 5, 0)])
@pytest.mark.parametrize("delay", ["none", "synaptic"])
def test_no_rows_input_or_neurons_give_no_spikes(batch: int, slots: int, post: int, delay: str, name: str) -> None:
    times = torch.rand(batch, slots, dtype=torch.float64).sort(1).values.requires_grad_()
    weight = torch.ones(post, 6, dtype=torch.float64, requires_grad=True)
    delays = torch.zeros(post, 6, dtype=torch.float64) if delay == "synaptic" else None
    neurons = torch.zeros(batch, slots, dtype=torch.int64)
    with backend(name):
        out = spike_times(times, neurons, weight, TimingDynamics(2.0), delays)
        (out.potential.sum() + out.when.sum() + 0 * weight.sum()).backward()
    assert out.potential.shape == (batch, post) and (out.when.numel() == 0) == (not batch * slots * post)
    assert weight.grad is not None and weight.grad.shape == weight.shape

"""The operator where it is hard: ties, grazing spikes, silence, long windows, sizes of nothing, and what it refuses."""

from __future__ import annotations

import gc
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spike_problems import DELAYS, RATIOS, ordered, problem, solve
from torch import Tensor

from delaykit import ConfigError, ShapeError, backend
from delaykit_timing import TimingDynamics, spike_times


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


@pytest.mark.usefixtures("young_heap")
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

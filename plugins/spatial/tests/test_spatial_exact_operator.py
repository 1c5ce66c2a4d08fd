"""Exact arrivals, neurons and readouts one by one: when things happen, what a gradient means, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from delaykit.errors import ConfigError, DelayRangeError, ShapeError
from delaykit.functional.dispatch import backend
from delaykit_spatial.exact import (
    ExactAdEx,
    ExactLIF,
    SuperSpike,
    arrivals_after_end,
    exact_arrivals,
    exact_rollout,
    first_spike_times,
)

BACKENDS = ["cpu", "torch", "reference"]
SLOW_BUT_ONE = ["cpu", *(pytest.param(name, marks=pytest.mark.slow) for name in BACKENDS[1:])]
LIF = ExactLIF(tau_mem=10.0, tau_syn=2.0)


def spikes_at(*steps: int, time: int = 20) -> Tensor:
    out = torch.zeros(time, 1, 1, dtype=torch.float64)
    out[list(steps)] = 1.0
    return out


def double(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_spike_arrives_after_its_delay_and_its_step_ends_with_what_is_left(name: str) -> None:
    clock = -0.5 * spikes_at(3)
    with backend(name):
        for told, at, rest in ((None, 8, 0.6), (clock, 7, 0.1)):
            current, membrane = exact_arrivals(spikes_at(3), told, double([0.5], [0.7]), double([0.0], [4.4]), 2.0)
            assert current[:, 0, 1].nonzero().flatten().tolist() == [at]
            assert current[at, 0, 1].item() == pytest.approx(0.7 * math.exp(-rest / 2))
            assert membrane[at, 0, 1].item() == pytest.approx(2 * 0.7 * (1 - math.exp(-rest / 2)))
            if told is None:  # at the end of its step
                assert current[:, 0, 0].nonzero().flatten().tolist() == [3]
                assert current[3, 0, 0] == 0.5 and not membrane[:, 0, 0].any()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_spike_knows_when_in_its_step_it_came(name: str) -> None:
    """Between arrivals LIF is exact: the same spikes at any step that is too short for two of them."""
    times = []
    for dt in (0.25, 0.05):
        drive = torch.zeros(round(12 / dt), 1, 1, dtype=torch.float64)
        drive[0] = 1.5
        with backend(name):
            run = exact_rollout(drive, None, ExactLIF(10.0, 2.0, threshold=0.4, dt=dt))
        at = run.spikes.flatten().nonzero().flatten()
        assert bool((run.clock.flatten()[at] > -1).all()) and bool((run.clock <= 0).all())
        assert not run.clock.flatten()[run.spikes.flatten() == 0].any()
        times.append(dt * (at + run.clock.flatten()[at]))
    assert len(times[0]) == len(times[1]) == 6
    torch.testing.assert_close(*times, rtol=1e-10, atol=1e-10)


def recurrent_net(weight: Tensor, delay: Tensor, inner: Tensor, lag: Tensor, clock: Tensor) -> Tensor:
    spikes = (torch.rand(30, 1, 3, generator=torch.Generator().manual_seed(4)) < 0.1).double()
    jumps = exact_arrivals(spikes, clock, weight, delay, 2.0)
    run = exact_rollout(*jumps, LIF, inner, lag, self_connections=False)
    assert run.spikes.sum() == 15
    return torch.cat([run.membrane[-1].flatten(), first_spike_times(run.spikes, run.clock, 30.0).flatten()])


@pytest.mark.parametrize("name", SLOW_BUT_ONE)
def test_gradients_are_the_derivatives_of_the_steps_themselves(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    rand = lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    leaves = [0.2 + 0.3 * rand(4, 3), 5 * rand(4, 3), 0.3 * rand(4, 4) - 0.1, 5 * rand(4, 4), -0.9 * rand(30, 1, 3)]
    with backend(name):
        torch.autograd.gradcheck(recurrent_net, [x.requires_grad_() for x in leaves], eps=1e-7, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_recurrent_spike_takes_one_step_more(name: str) -> None:
    weight = torch.tensor([[0.0, 0.0], [5.0, 0.0]], dtype=torch.float64)
    drive = torch.zeros(20, 1, 2, dtype=torch.float64)
    drive[0, 0, 0] = 1.5  # neuron 0 fires in step 1, neuron 1 in the step after it hears of it
    with backend(name):
        for lag, expected in ((0.0, 3), (4.0, 7)):
            run = exact_rollout(drive, None, LIF, weight, torch.full((1, 1), lag, dtype=torch.float64), once=True)
            assert run.spikes[:, 0, 0].nonzero().flatten().tolist() == [1]
            assert run.spikes[:, 0, 1].nonzero().flatten().tolist() == [expected]


@pytest.mark.parametrize("name", BACKENDS)
def test_the_membrane_below_threshold_is_the_closed_form_at_any_step(name: str) -> None:
    fine, coarse = (ExactLIF(10.0, 2.0, threshold=math.inf, dt=dt) for dt in (0.1, 0.5))
    with backend(name):
        one = exact_rollout(spikes_at(0, time=101), None, fine).membrane[::5]
        two = exact_rollout(spikes_at(0, time=21), None, coarse).membrane
    t = 0.5 * torch.arange(21, dtype=torch.float64)
    closed = (torch.exp(-t / 2) - torch.exp(-t / 10)) / (1 / 10 - 1 / 2)
    for membrane in (one, two):
        torch.testing.assert_close(membrane.flatten(), closed, rtol=1e-12, atol=1e-13)


def test_adex_fires_in_long_steps_as_in_short_ones_but_for_a_few_of_them() -> None:
    times = []
    for dt in (0.002, 0.1, 0.5):
        drive = torch.zeros(round(20 / dt), 1, 1, dtype=torch.float64)
        drive[0], drive[round(5 / dt)], drive[round(6 / dt)] = 0.5, 0.6, 0.8
        run = exact_rollout(drive, None, ExactAdEx(10.0, 2.0, dt=dt))
        times.append(dt * run.spikes.flatten().nonzero().flatten())
    assert len(times[0]) == len(times[1]) == len(times[2]) == 3
    assert (times[1] - times[0]).abs().max() <= 2.5 * 0.1 and (times[2] - times[0]).abs().max() <= 2.5 * 0.5


def test_a_membrane_far_below_rest_does_no_harm_to_adex() -> None:
    run = exact_rollout(-torch.ones(30, 1, 1) * 9, None, ExactAdEx(10.0, 2.0))
    assert bool(run.membrane.isfinite().all()) and run.membrane.min() < -50


@pytest.mark.parametrize("name", BACKENDS)
def test_the_first_spike_moves_with_its_input_step_for_step(name: str) -> None:
    clock = torch.zeros(20, 1, 1, dtype=torch.float64, requires_grad=True)
    weight, delay = double([1.5]), double([2.0])
    with backend(name):
        run = exact_rollout(*exact_arrivals(spikes_at(3), clock, weight, delay, 2.0), LIF, once=True)
        time = first_spike_times(run.spikes, run.clock, 20.0)
        time.sum().backward()
    assert delay.grad.item() == pytest.approx(1.0, rel=0.3)  # as far as a step lets the slope be known
    assert clock.grad[3].item() == delay.grad.item()
    assert weight.grad.item() < 0  # more weight, an earlier spike


def test_a_spike_time_shifts_by_exactly_the_delay_as_steps_become_short() -> None:
    errors = []
    for dt in (0.1, 0.01, 0.001):
        delay = torch.tensor([[1.0 / dt]], dtype=torch.float64, requires_grad=True)
        neuron = ExactLIF(10.0, 2.0, dt=dt)
        jumps = exact_arrivals(spikes_at(0, time=round(6 / dt)), None, double([1.0]), delay, neuron.tau_syn, dt)
        run = exact_rollout(*jumps, neuron, once=True)
        first_spike_times(run.spikes, run.clock, 0.0).sum().backward()
        errors.append(abs(delay.grad.item() - 1))
    assert errors[0] < 0.1 and errors[1] < 0.01 and errors[2] < 0.001


def test_first_spikes_are_the_first_and_the_silent_have_no_gradient() -> None:
    spikes = torch.zeros(9, 1, 3)
    spikes[[4, 7], 0, 0], spikes[0, 0, 1] = 1.0, 1.0
    clock = torch.zeros_like(spikes, requires_grad=True)
    times = first_spike_times(spikes, clock, silent=10.5)
    assert times.tolist() == [[4.0, 0.0, 10.5]]
    times.sum().backward()
    assert clock.grad.nonzero().tolist() == [[0, 0, 1], [4, 0, 0]]
    assert first_spike_times(spikes, None, silent=10.5).tolist() == times.tolist()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_grazing_spike_is_guarded(name: str) -> None:
    def slope_of_time(min_slope: float) -> float:
        drive = double(*[[0.0]] * 20).detach().reshape(20, 1, 1)
        drive[0] = 0.18697675  # just reaches the threshold of 0.25 at its summit
        drive.requires_grad_()
        with backend(name):
            run = exact_rollout(drive, None, ExactLIF(10.0, 2.0, threshold=0.25), min_slope=min_slope)
            first_spike_times(run.spikes, run.clock, 0.0).sum().backward()
        assert run.spikes.sum() == 1
        return abs(drive.grad[0].item())

    assert slope_of_time(1e-3) <= 10 * slope_of_time(1e-2) * 1.001
    assert slope_of_time(1e-1) < slope_of_time(1e-2) < slope_of_time(1e-3) < 2e3


@pytest.mark.parametrize("name", BACKENDS)
def test_a_surrogate_reads_the_membrane_before_the_reset(name: str) -> None:
    drive = torch.full((4, 1, 1), 0.4, dtype=torch.float64, requires_grad=True)
    with backend(name):
        run = exact_rollout(drive, None, LIF, surrogate=SuperSpike(2.0))
        assert run.spikes[:2].sum() == 0
        (gradient,) = torch.autograd.grad(run.spikes[1].sum(), drive)
    keep_v, keep_i, gain = LIF.constants()[:3]
    membrane = gain * 0.4
    assert gradient[0].item() == pytest.approx(gain / (1 + 2 * abs(membrane - 1)) ** 2)
    assert not gradient[1:].any()


def test_spikes_without_a_surrogate_have_no_gradient_of_their_own() -> None:
    drive = torch.ones(5, 1, 1, requires_grad=True)
    for name in BACKENDS:
        with backend(name):
            assert not exact_rollout(drive, None, LIF).spikes.requires_grad


def test_rescaling_bounds_the_gradient_of_a_long_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(600, 2, 20, generator=generator) < 0.05).double()
    weight = (0.2 * torch.rand(20, 20, generator=generator).double()).requires_grad_()
    inner = torch.randn(20, 20, generator=generator).double() * 0.1
    norms = []
    for every in (0, 10):
        jumps = exact_arrivals(spikes, None, weight, weight.new_full((1, 1), 3.0), 2.0)
        run = exact_rollout(*jumps, LIF, inner, rescale_every=every)
        (gradient,) = torch.autograd.grad((run.membrane[-1] ** 2).sum(), weight)
        norms.append(gradient.norm().item())
    assert norms[1] < 1e4 < 1e6 < norms[0]


def test_gradients_that_overflow_say_so() -> None:
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(600, 2, 20, generator=generator) < 0.05).float()
    weight = (0.5 * torch.rand(20, 20, generator=generator)).requires_grad_()
    inner = 0.4 * torch.randn(20, 20, generator=generator)
    run = exact_rollout(*exact_arrivals(spikes, None, weight, torch.full((1, 1), 3.0), 2.0), LIF, inner)
    with pytest.warns(UserWarning, match="exact_rollout: found exact gradients that are infinite.*rescale_every=10"):
        run.membrane[-1].sum().backward()
    assert not bool(weight.grad.isfinite().all())


@pytest.mark.parametrize("name", BACKENDS)
def test_without_an_estimator_weights_learn_and_times_do_not(name: str) -> None:
    clock = torch.zeros(20, 1, 1, dtype=torch.float64, requires_grad=True)
    weight, delay = double([1.5]), double([2.0])
    with backend(name):
        jumps = exact_arrivals(spikes_at(3), clock, weight, delay, 2.0, estimator="none")
        run = exact_rollout(*jumps, LIF, estimator="none")
        run.membrane[-1].sum().backward()
    assert weight.grad.any() and delay.grad is None and clock.grad is None


def test_float32_is_computed_in_float32_and_half_precision_too() -> None:
    spikes = spikes_at(1, 3).float()
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.full((2, 1), 0.5, dtype=dtype, requires_grad=True)
        jumps = exact_arrivals(spikes.to(dtype), None, weight, torch.ones(1, 1), 2.0)
        run = exact_rollout(*jumps, LIF)
        assert {x.dtype for x in (*jumps, *run)} == {torch.float32}
        run.membrane.sum().backward()
        assert weight.grad.dtype == dtype


def test_threads_share_the_batch() -> None:
    spikes = (torch.rand(60, 8, 30, generator=torch.Generator().manual_seed(0)) < 0.1).double()
    weight = torch.full((90, 30), 0.15, dtype=torch.float64, requires_grad=True)
    inner, lag = torch.full((90, 90), 0.001, dtype=torch.float64, requires_grad=True), double([3.0])
    results, threads = [], torch.get_num_threads()
    for number in (1, 3):
        torch.set_num_threads(number)
        try:
            run = exact_rollout(*exact_arrivals(spikes, None, weight, lag, 2.0), LIF, inner, lag)
            results.append([run.membrane, *torch.autograd.grad((run.membrane**2).sum(), [weight, inner, lag])])
        finally:
            torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-11, atol=1e-11 * (1 + one.abs().max().item()))


def test_a_compiler_keeps_the_operators_whole() -> None:
    def net(weight: Tensor, delay: Tensor) -> Tensor:
        run = exact_rollout(*exact_arrivals(spikes, None, weight, delay, 2.0), LIF, surrogate=SuperSpike())
        return run.spikes.sum() + first_spike_times(run.spikes, run.clock, 20.0).sum()

    spikes, leaves = spikes_at(1, 3, 8), (double([1.5], [1.0]), double([2.0], [1.0]))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for mine, judge in zip(*(torch.autograd.grad(f(*leaves), leaves) for f in (compiled, net)), strict=True):
        assert torch.equal(mine, judge) and judge.any()


def test_arrivals_after_end_count_recurrent_ones_too() -> None:
    assert arrivals_after_end(spikes_at(0, 19), torch.zeros(1, 1) + 1, post=3) == (3, 6)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_impossible_delays_are_refused(value: float) -> None:
    with pytest.raises(DelayRangeError, match="exact_arrivals"):
        exact_arrivals(spikes_at(0), None, double([1.0]), double([value]), 2.0)
    with pytest.raises(DelayRangeError, match="recurrent_delay"):
        exact_rollout(spikes_at(0), None, LIF, double([1.0]), double([value]))


@pytest.mark.parametrize("value", [-1.0, 0.1, math.nan])
def test_impossible_clocks_are_refused(value: float) -> None:
    with pytest.raises(DelayRangeError, match="clock"):
        exact_arrivals(spikes_at(0), spikes_at(0) * value, double([1.0]), double([1.0]), 2.0)


def test_bad_shapes_are_refused() -> None:
    spikes, weight = spikes_at(0), double([1.0])
    for arguments in (
        (spikes[0], None, weight, weight),
        (spikes, None, double([1.0, 2.0]), weight),
        (spikes, spikes[1:], weight, weight),
        (spikes, None, weight, double([1.0, 2.0])),
        (spikes, None, weight, torch.tensor(1.0)),
    ):
        with pytest.raises(ShapeError):
            exact_arrivals(*arguments, 2.0)
    for arguments in (
        (spikes[0], None, LIF),
        (spikes[:0], None, LIF),
        (spikes.long(), None, LIF),
        (spikes, spikes[1:], LIF),
        (spikes, None, LIF, double([1.0, 2.0])),
    ):
        with pytest.raises(ShapeError):
            exact_rollout(*arguments)
    with pytest.raises(ShapeError):
        first_spike_times(spikes, spikes[1:], 0.0)


def test_bad_numbers_are_refused() -> None:
    for make in (
        lambda: ExactLIF(0.0, 1.0),
        lambda: ExactLIF(1.0, math.inf),
        lambda: ExactLIF(1.0, 1.0, dt=math.nan),
        lambda: ExactAdEx(1.0, 1.0, threshold=math.inf),
        lambda: ExactAdEx(1.0, 1.0, sharpness=-0.1),
        lambda: exact_rollout(spikes_at(0), None, LIF, min_slope=0.0),
        lambda: exact_rollout(spikes_at(0), None, LIF, rescale_every=-1),
        lambda: exact_rollout(spikes_at(0), None, LIF, estimator="interp"),
        lambda: exact_arrivals(spikes_at(0), None, double([1.0]), double([1.0]), 2.0, estimator="all"),
    ):
        with pytest.raises(ConfigError):
            make()


def test_the_core_still_answers_to_the_former_name() -> None:
    from delaykit.functional import exact

    assert exact.ExactLIF is ExactLIF and exact.exact_rollout is exact_rollout
    with pytest.raises(AttributeError, match="ExactQIF"):
        exact.ExactQIF  # noqa: B018

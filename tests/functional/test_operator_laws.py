"""What any delayed or lingering connection obeys, whatever its sizes, delays, kernel and backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from delaykit.arrivals import Gaussian, Hard, Kernel, Linear, Triangle
from delaykit.functional import reference
from delaykit.functional.delay_line import delay_line
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.dispatch import backend
from delaykit.functional.filtered_linear import filtered_linear

GRANULARITIES = ("layer", "axonal", "dendritic", "synaptic")
DELAY_KERNELS: list[Kernel] = [
    Linear(),
    Linear(normalize=True),
    Triangle(1.3),
    Triangle(5.0),
    Gaussian(0.5, window=9),
    Hard(),
]


class Case(NamedTuple):
    """One drawn connection: sizes, parameters, and the operator as a function of spikes."""

    run: Callable[[Tensor], Tensor]
    judge: Callable[[Tensor], Tensor]
    spikes: Tensor
    weight: Tensor
    parameter: Tensor


@st.composite
def connections(draw: st.DrawFn, operators: tuple[str, ...] = ("delay", "decay")) -> Case:
    time, batch, pre, post = (draw(st.integers(1, most)) for most in (12, 3, 5, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = dict(zip(GRANULARITIES, [(1, 1), (1, pre), (post, 1), (post, pre)], strict=True))[
        draw(st.sampled_from(GRANULARITIES))
    ]
    density = draw(st.sampled_from([0.0, 0.1, 1.0]))
    spikes = torch.randn(time, batch, pre, generator=generator, dtype=torch.float64)
    spikes = spikes * (torch.rand(spikes.shape, generator=generator) < density)
    weight = torch.randn(post, pre, generator=generator, dtype=torch.float64)
    parameter = torch.rand(shape, generator=generator, dtype=torch.float64)
    name = draw(st.sampled_from(["torch", "cpu"]))

    if draw(st.sampled_from(operators)) == "delay":
        kernel = draw(st.sampled_from(DELAY_KERNELS))
        parameter = parameter * draw(st.sampled_from([0.9, 4.0, 15.0]))
        if draw(st.booleans()):
            parameter = parameter.round()
        taps = kernel.taps(parameter)
        response = weight.unsqueeze(-1) * kernel.response(parameter, time)

        def operator(x: Tensor) -> Tensor:
            return delayed_linear(x, weight, taps)
    else:
        response = weight.unsqueeze(-1) * torch.stack([parameter**tau for tau in range(time)], -1)

        def operator(x: Tensor) -> Tensor:
            return filtered_linear(x, weight, parameter)

    def run(x: Tensor) -> Tensor:
        with backend(name):
            return operator(x)

    def judge(x: Tensor) -> Tensor:
        return reference.causal_convolution(x, response)

    return Case(run, judge, spikes, weight, parameter)


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@settings(deadline=None)
@given(connections())
def test_the_reference_is_the_judge(c: Case) -> None:
    assert_equal(c.run(c.spikes), c.judge(c.spikes))


@settings(deadline=None)
@given(connections(), st.integers(0, 11))
def test_causality(c: Case, step: int) -> None:
    """What comes at ``step`` changes nothing before it."""
    step = step % len(c.spikes)
    changed = c.spikes.clone()
    changed[step:] += 1
    assert_equal(c.run(changed)[:step], c.run(c.spikes)[:step])


@settings(deadline=None)
@given(connections(), st.floats(-3, 3))
def test_linearity(c: Case, factor: float) -> None:
    other = torch.cos(torch.arange(c.spikes.numel(), dtype=c.spikes.dtype)).reshape(c.spikes.shape)
    assert_equal(c.run(c.spikes + factor * other), c.run(c.spikes) + factor * c.run(other))


@settings(deadline=None)
@given(connections())
def test_rows_of_a_batch_are_independent(c: Case) -> None:
    alone = torch.cat([c.run(c.spikes[:, b : b + 1]) for b in range(c.spikes.shape[1])], 1)
    assert_equal(c.run(c.spikes), alone)


@settings(deadline=None)
@given(connections(), st.integers(0, 12))
def test_time_invariance_and_time_split(c: Case, split: int) -> None:
    """A sequence is the sum of its first part and of its second part, which is the same run later."""
    split = split % (len(c.spikes) + 1)
    first, second = c.spikes.clone(), c.spikes[split:]
    first[split:] = 0
    late = torch.cat([torch.zeros_like(c.run(c.spikes)[:split]), c.run(second)])
    assert_equal(c.run(first) + late, c.run(c.spikes))


@settings(deadline=None)
@given(
    connections(operators=("delay",)),
    st.integers(0, 14),
    st.sampled_from([Linear(), Triangle(0.0), Hard()]),
    st.booleans(),
)
def test_an_integer_delay_is_a_shift(c: Case, steps: int, kernel: Kernel, numba: bool) -> None:
    taps = kernel.taps(torch.full_like(c.parameter, steps))
    with backend("cpu" if numba else "torch"):
        found = delayed_linear(c.spikes, c.weight, taps)
    shifted = torch.cat([torch.zeros_like(c.spikes[:steps]), c.spikes])[: len(c.spikes)]
    assert_equal(found, shifted @ c.weight.T)


@settings(deadline=None)
@given(connections(operators=("delay",)), st.integers(0, 5))
def test_delays_add_up(c: Case, steps: int) -> None:
    """A line of d, then a line of whole steps, is a line of both."""
    delays = c.parameter.reshape(-1)[:1].reshape(1, 1)
    once = delay_line(c.spikes, Linear().taps(delays + steps))
    twice = delay_line(delay_line(c.spikes, Linear().taps(delays)), Linear().taps(torch.full_like(delays, steps)))
    assert_equal(once, twice)


@settings(deadline=None)
@given(connections())
def test_input_gradient_is_the_anti_causal_twin(c: Case) -> None:
    """<K x, y> = <x, K* y>, and K* run backwards in time is causal."""
    spikes = c.spikes.clone().requires_grad_()
    out = c.run(spikes)
    cotangent = torch.sin(1 + torch.arange(out.numel(), dtype=out.dtype)).reshape(out.shape)
    (pulled,) = torch.autograd.grad(out, spikes, cotangent)
    assert_equal((out * cotangent).sum(), (spikes * pulled).sum())
    judged = c.spikes.clone().requires_grad_()
    assert_equal(pulled, torch.autograd.grad(c.judge(judged), judged, cotangent)[0])

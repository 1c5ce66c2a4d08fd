"""What arrivals and rollouts with exact gradients obey, whatever their sizes, delays, options and backend."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

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

NEURONS = [ExactLIF(6.0, 2.0), ExactLIF(10.0, 2.0, dt=0.5), ExactAdEx(10.0, 3.0, tau_adapt=30.0, jump=0.1)]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One drawn recurrent layer."""

    spikes: Tensor
    weight: Tensor
    delay: Tensor
    inner: Tensor
    lag: Tensor
    neuron: ExactLIF | ExactAdEx
    options: dict
    name: str

    def run(self, spikes: Tensor, clock: Tensor | None = None):
        with backend(self.name):
            jumps = exact_arrivals(spikes, clock, self.weight, self.delay, self.neuron.tau_syn, self.neuron.dt)
            return exact_rollout(*jumps, self.neuron, self.inner, self.lag, **self.options)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    time, batch, pre, post = (draw(st.integers(low, most)) for low, most in ((1, 16), (2, 4), (1, 4), (1, 5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rand = lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    shape = draw(st.sampled_from([(1, 1), (1, pre), (post, 1), (post, pre)]))
    options = {
        "once": draw(st.booleans()),
        "rescale_every": draw(st.sampled_from([0, 3])),
        "surrogate": draw(st.sampled_from([None, SuperSpike()])),
        "self_connections": draw(st.booleans()),
    }
    spikes = (rand(time, batch, pre) < draw(st.sampled_from([0.0, 0.1, 0.5]))).double()
    delay, lag = rand(*shape) * draw(st.sampled_from([1.0, 9.0, 40.0])), rand(1, post) * 4
    weight, inner = 1.5 * rand(post, pre), rand(post, post) - 0.3
    neuron, name = draw(st.sampled_from(NEURONS)), draw(st.sampled_from(["cpu", "torch"]))
    leaves = [x.requires_grad_() for x in (weight, delay, inner, lag)]
    return Layer(spikes, *leaves, neuron, options, name)


def gradients(layer: Layer, spikes: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a sum over the batch: parameters', and by every input spike's time."""
    clock = torch.zeros_like(spikes, requires_grad=True)
    run = layer.run(spikes, clock)
    loss = (run.membrane**2).sum() + (first_spike_times(run.spikes, run.clock, 99.0) ** 2).sum()
    if run.spikes.requires_grad:
        loss = loss + (run.spikes * torch.arange(1.0, 1 + run.spikes.shape[2])).sum()
    leaves = [layer.weight, layer.delay, layer.inner, layer.lag, clock]
    loss = loss + 0 * sum(leaf.sum() for leaf in leaves)  # where nothing arrives, there is no way back
    return torch.autograd.grad(loss, leaves)


@given(layers(), st.data())
@settings(max_examples=25, deadline=None)
def test_the_past_does_not_depend_on_the_future(layer: Layer, data: st.DataObject) -> None:
    now = data.draw(st.integers(0, len(layer.spikes) - 1))
    other = layer.spikes.clone()
    other[now:] = 1 - other[now:]
    one, two = layer.run(layer.spikes), layer.run(other)
    assert torch.equal(one.spikes[:now], two.spikes[:now]) and torch.equal(one.membrane[:now], two.membrane[:now])


@given(layers())
@settings(max_examples=25, deadline=None)
def test_rows_of_the_batch_do_not_meet(layer: Layer) -> None:
    together = layer.run(layer.spikes)
    rows = [layer.spikes[:, b : b + 1] for b in range(layer.spikes.shape[1])]
    alone = [layer.run(row) for row in rows]
    torch.testing.assert_close(together.membrane, torch.cat([x.membrane for x in alone], 1), rtol=1e-12, atol=1e-12)
    assert torch.equal(together.spikes, torch.cat([x.spikes for x in alone], 1))
    parts = [gradients(layer, row) for row in rows]
    whole = gradients(layer, layer.spikes)
    for mine, shares in zip(whole[:4], zip(*parts, strict=True), strict=False):
        total = torch.stack(shares[: len(parts)]).sum(0)
        torch.testing.assert_close(mine, total, rtol=1e-9, atol=1e-9 * (1 + total.abs().max().item()))
    clocks = torch.cat([part[4] for part in parts], 1)
    torch.testing.assert_close(whole[4], clocks, rtol=1e-9, atol=1e-9 * (1 + clocks.abs().max().item()))


@given(layers())
@settings(max_examples=25, deadline=None)
def test_silence_stays_silent_and_has_no_gradient(layer: Layer) -> None:
    nothing = torch.zeros_like(layer.spikes)
    run = layer.run(nothing)
    assert not run.spikes.any()
    if isinstance(layer.neuron, ExactLIF):
        assert not run.membrane.any()
    assert bool((first_spike_times(run.spikes, run.clock, 99.0) == 99.0).all())
    for gradient in gradients(layer, nothing):
        assert not gradient.any()


@given(layers())
@settings(max_examples=25, deadline=None)
def test_the_gradient_of_a_time_is_that_of_a_delay_of_all_arrivals(layer: Layer) -> None:
    """Moving all input spikes is the same as lengthening all delays."""
    by_delay, by_time = (gradients(layer, layer.spikes)[n] for n in (1, 4))
    scale = 1 + by_time.abs().max().item()
    torch.testing.assert_close(by_delay.sum(), by_time.sum(), rtol=1e-9, atol=1e-9 * scale)


@given(layers())
@settings(max_examples=25, deadline=None)
def test_once_is_once(layer: Layer) -> None:
    layer = dataclasses.replace(layer, options={**layer.options, "once": True})
    run = layer.run(layer.spikes)
    assert run.spikes.sum(0).max() <= 1
    assert not run.membrane[run.spikes.cumsum(0) > 0].any()


@given(layers())
@settings(max_examples=25, deadline=None)
def test_arrivals_after_end_are_what_the_jumps_miss(layer: Layer) -> None:
    post, pre = layer.weight.shape
    ones = torch.ones(post, pre, dtype=torch.float64)
    current, membrane = exact_arrivals(layer.spikes, None, ones, layer.delay, 2.0)
    arrived = current + membrane / 2.0  # what has gone from the current is in the membrane
    late, everything = arrivals_after_end(layer.spikes, layer.delay, post)
    assert everything == int(layer.spikes.sum()) * post
    assert round(float(arrived.detach().sum()), 9) == everything - late


def test_kept_for_backward_are_sequences_of_neurons_never_of_synapses() -> None:
    time, batch, pre, post = 50, 4, 60, 70
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    spikes = (torch.rand(time, batch, pre) < 0.1).float()
    weight, delay = torch.rand(post, pre).requires_grad_(), (5 * torch.rand(post, pre)).requires_grad_()
    inner, lag = torch.zeros(post, post, requires_grad=True), (5 * torch.rand(post, post)).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        jumps = exact_arrivals(spikes, None, weight, delay, 2.0)
        exact_rollout(*jumps, ExactLIF(10.0, 2.0), inner, lag, SuperSpike())
    synapses = 8 * 4 * (weight.numel() + inner.numel())  # weights, delays and slots of 8 bytes, a few times
    assert sum(kept.values()) < 4 * time * batch * (2 * pre + 8 * post) + synapses < 4 * time * batch * pre * post / 4

"""Synapses on a grid: interpolation between nodes against the dense triangle, and its gradient on the nodes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from delaykit.arrivals import Gaussian, Hard, Linear, Triangle
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout
from delaykit.functional.recurrence.connection import grid as rollout_grid
from delaykit.functional.recurrence.connection.grid import SLACK, grid_for
from delaykit.functional.recurrence.connection.reading_ahead import SLACK as SLACK_AHEAD
from delaykit.functional.recurrence.connection.reading_ahead import Ahead
from delaykit.functional.recurrence.connection.torch import synapse_correlation
from delaykit.functional.recurrence.connection.two_step_gradients import between
from delaykit.functional.tents import Grid, Tents

pytest.importorskip("numba", reason="the windows need numba")
rollout_windows = pytest.importorskip("delaykit.functional.llvm.recurrence", reason="tests this file")
STEPS, BATCH, NEURONS = 17, 3, 6
WIDTHS = [1.0, 1.3, 1.5, 2.0, 3.5, 4.0, 4.7]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_nodes(width: float) -> Tensor:
    """Delays of which most lie where a triangle of this width bends."""
    part = width - math.floor(width)
    places = torch.tensor([0.0, part, 1.0 - part, 0.41], dtype=torch.float64)
    kinds, steps = (torch.arange(NEURONS**2).view(NEURONS, NEURONS) * k for k in (1, 7))
    return places[kinds % 4] + steps % 5


def run(form, kernel, delays: Tensor, rate: float, dtype=torch.float64, steps=STEPS, batch=BATCH, graded=True):
    """Spikes at a chosen rate, almost all of them made by the drive."""
    sizes = 0.5 + draw(2, steps, batch, NEURONS) if graded else 1.0
    given_spikes = ((draw(1, steps, batch, NEURONS) < rate) * sizes).to(dtype)
    weight = (draw(3, NEURONS, NEURONS) - 0.4).to(dtype).requires_grad_()
    delays = delays.to(dtype).detach().clone().requires_grad_()
    drive = (50 * given_spikes).requires_grad_()  # the surrogate reads the spike's size off the membrane
    fire = lambda v: torch.where(v > 20, v / 50 if graded else torch.ones_like(v), torch.zeros_like(v))  # noqa: E731
    neuron = LIFDynamics(decay=0.3, surrogate=fire, threshold=0.0, reset="none")
    spikes, membrane, _ = rollout(drive, weight, None, form(kernel, delays), neuron)
    cotangents = [draw(seed, steps, batch, NEURONS).to(dtype) - 0.5 for seed in (4, 5)]
    loss = sum((a * b).sum() for a, b in zip((spikes, membrane), cotangents, strict=True))
    return spikes, membrane, torch.autograd.grad(loss, (drive, weight, delays), allow_unused=True)


def by_windows(kernel, delays):
    tents = kernel.tents(delays)
    assert grid_for(tents, torch.zeros(STEPS, BATCH, NEURONS, dtype=delays.dtype)) is not None
    return tents


def by_taps(kernel, delays):
    return kernel.taps(delays)


def assert_alike(kernel, delays, rate, tolerance=1e-10, dtype=torch.float64, **given):
    found, wanted = (run(form, kernel, delays, rate, dtype, **given) for form in (by_windows, by_taps))
    assert 0.6 * rate <= (found[0] != 0).double().mean() <= 1.5 * rate
    for got, want in zip((*found[:2], *found[2]), (*wanted[:2], *wanted[2]), strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            assert want.abs().max() > 1e-3
            torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * want.detach().abs().max().item())


@pytest.mark.parametrize("normalize", [False, True])
def test_synapses_with_factors_are_those_of_masked_taps_and_a_cut_one_gets_no_gradient(normalize):
    factor = 1.0 - torch.eye(NEURONS, dtype=torch.float64)
    factor[0, 1] = 0.5

    def masked_taps(kernel, delays):
        taps = kernel.taps(delays)
        return taps._replace(value=taps.value * factor)

    def factored(kernel, delays):
        return kernel.tents(delays)._replace(factor=factor)

    kernel = Triangle(0.5, normalize=normalize)
    found, wanted = (run(form, kernel, on_nodes(1.5), 0.2) for form in (factored, masked_taps))
    for got, want in zip((*found[:2], *found[2]), (*wanted[:2], *wanted[2]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert all(not bool(grad.diagonal().any()) and bool(grad.any()) for grad in found[2][1:])


@pytest.mark.parametrize("width", WIDTHS)
def test_a_normalized_triangle_is_divided_by_its_sum(width):
    """On its bends, and where causality cuts it, too."""
    assert_alike(Triangle(width - 1, normalize=True), on_nodes(width), 0.1)
    assert_alike(Triangle(width - 1, normalize=True), 9 * draw(14, NEURONS, NEURONS), 0.1)


@pytest.mark.parametrize("rate", [0.03, 0.12, 1.0], ids=["few spikes", "more", "dense"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nodes_carry_the_gradient_of_the_closed_triangle(width, rate):
    assert_alike(Triangle(width - 1), on_nodes(width), rate)


@pytest.mark.parametrize("width", WIDTHS)
def test_delays_beyond_the_sequence_and_none_at_all(width):
    delays = draw(6, NEURONS, NEURONS) * 2 * STEPS
    delays[0], delays[1, 0] = 0.0, STEPS + width - 0.5
    assert_alike(Triangle(width - 1), delays, 0.1)


@pytest.mark.parametrize("width", [1.0, 4.0, 4.7])
def test_windows_go_on_for_as_long_as_a_sequence(width):
    assert SLACK < 150 / 3, "the windows of a forward pass are to be moved several times"
    assert_alike(Triangle(width - 1), 12 * draw(10, NEURONS, NEURONS), 0.1, steps=150)


def test_whole_delays_without_a_gradient():
    assert_alike(Hard(), draw(7, NEURONS, NEURONS) * 6, 0.1)
    assert_alike(Linear(), (draw(7, NEURONS, NEURONS) * 6).round(), 0.1)
    assert_alike(Linear(normalize=True), draw(7, NEURONS, NEURONS) * 6, 0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch", [7, 32, 40])
@pytest.mark.parametrize("width", [1.0, 4.0, 4.7])
def test_many_spikes_of_size_one(width, batch, dtype, monkeypatch):
    """Triangles add them under masks, and two cells a synapse are read from the past, some steps ahead."""
    read, function = [], Ahead.read
    monkeypatch.setattr(Ahead, "read", lambda self, x: read.append(x) or function(self, x))
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    delays = draw(8, NEURONS, NEURONS) * 5
    delays[0] = delays[0].round()
    assert_alike(Triangle(width - 1), delays, 0.3, tolerance, dtype, batch=batch, graded=False)
    assert len(read) > 1.5 * STEPS if width == 1 else not read


@pytest.mark.parametrize("turned, dtype", [(False, torch.float64), (True, torch.float64), (True, torch.float32)])
@pytest.mark.parametrize("batch", [1, 16, 45])
@pytest.mark.parametrize("longest", [0.0, 2.5, 9.0, 200.0])
@pytest.mark.parametrize("whole", [False, True])
def test_reading_ahead_equals_the_dense_sum(turned, whole, longest, batch, dtype):
    """At each depth, and for as long as the history is moved several times; some weights are 0."""
    steps, pre, post = 2 * SLACK_AHEAD + 5, 19, 21
    delays = (draw(20, post, pre) * longest).clamp(min=longest / 3)
    delays[0, 0], delays[1] = 0.0, delays[1].round()
    delays = delays.round() if whole else delays
    weight = draw(21, post, pre) - 0.4
    weight[2, 3] = 0.0
    x = (draw(22, steps, batch, pre) - 0.5) * (draw(23, steps, batch, pre) < 0.4)
    cell, part = Grid.of(1.0).place(delays)
    high = part * weight
    given = cell, weight - high, high
    if turned:
        given = [t.t().contiguous().t() for t in given]
    ahead = Ahead(rollout_windows, given[0], [t.to(dtype) for t in given[1:]], steps, batch)
    assert ahead.whole == (whole or longest == 0)
    early = 33
    ahead.follow([*x[:early].to(dtype)])
    response = weight.unsqueeze(-1) * Linear().response(delays, steps)
    dense = torch.stack([sum(x[t - k] @ response[..., k].T for k in range(t + 1)) for t in range(early, steps)])
    found = torch.stack([ahead.read(x[t].to(dtype)).clone() for t in range(early, steps)])
    tolerance = 1e-12 if dtype == torch.float64 else 3e-6
    torch.testing.assert_close(found.double(), dense, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch", [1, 35])
@pytest.mark.parametrize("steps, rate", [(1, 0.9), (7, 0.5), (40, 0.3)])
@pytest.mark.parametrize("pre", [1, 19])
def test_what_synapses_between_two_steps_have_come_to(pre, steps, rate, batch, dtype):
    """For any number of inputs, rows and steps, delays beyond the end included."""
    post = 18
    cell = (draw(30, post, pre) * 1.5 * min(steps, 20)).to(torch.int32)
    cell[0] = 0
    x, y = (draw(31, steps, batch, pre) < rate) * draw(32, steps, batch, pre), draw(33, steps, batch, post) - 0.5
    found = between(rollout_windows, x.to(dtype), y.to(dtype), cell)
    late = [F.pad(x, (0, 0, 0, 0, k, 0))[: len(x)] for k in range(2 + int(cell.max()))]
    dense = torch.stack([torch.einsum("tbi,tbj->ij", y, past) for past in late])
    wanted = dense.gather(0, torch.stack([cell, cell + 1]).long())
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("loud", [0, 2, 12, 30])
def test_synapses_are_read_from_the_past_once_spikes_are_many(loud):
    """Until then they are delivered; what is on its way arrives."""
    batch, steps = 9, 30
    weight, delays = (draw(seed, NEURONS, NEURONS) for seed in (3, 11))
    weight[2, 4], delays = 0.0, delays * 6
    x = (draw(12, steps, batch, NEURONS) < 0.4) * (0.5 + draw(13, steps, batch, NEURONS))
    x[:loud] *= draw(14, loud, batch, NEURONS) < 0.1
    connection = rollout_grid.GridSynaptic(weight, delays, Grid.of(1.0), steps, synapse_correlation, rollout_windows)
    connection.begin(steps, batch)
    response = weight.unsqueeze(-1) * Linear().response(delays, 8)
    for t in range(steps):
        wanted = sum(x[t - tau] @ response[..., tau].T for tau in range(min(8, t + 1)))
        torch.testing.assert_close(connection.current(t, x[t]), wanted, rtol=0, atol=1e-12)
        assert connection.forward.ahead is None or t >= loud
    assert (connection.forward.ahead is None) == (loud == steps)


@pytest.mark.parametrize("single", [0, 64])
@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_the_slope_at_whole_delays_whether_they_are_few_or_many(single, rate, monkeypatch):
    """It is the mean of those to both sides, and at 0, where there is but one, half of it."""
    monkeypatch.setattr(rollout_grid, "SINGLE", single)
    delays = 9 * draw(15, NEURONS, NEURONS)
    delays[0, :3], delays[4] = torch.tensor([0.0, 3.0, 2.0 * STEPS]), delays[4].round()
    assert_alike(Linear(), delays, rate)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.floats(0, 7), st.sampled_from([0.05, 0.4]))
def test_any_spread_and_delays_equal_the_taps(seed, spread, rate):
    kernel, delays = Triangle(spread), 9 * draw(seed, NEURONS, NEURONS)
    if Grid.of(1 + spread).is_wide_enough(torch.float64):
        assert_alike(kernel, delays, rate, 1e-8)


@pytest.mark.parametrize("spread", [0.0, 2.6])
def test_single_precision_is_as_exact_as_it_can_be(spread):
    assert_alike(Triangle(spread), 9 * draw(8, NEURONS, NEURONS), 0.1, 2e-5, torch.float32)


@pytest.mark.parametrize("width", WIDTHS)
def test_interpolation_between_nodes_is_the_triangle(width):
    grid, delays, tau = Grid.of(width), 30 * draw(9, 200), torch.arange(60, dtype=torch.float64)
    cell, part = grid.place(delays)
    nodes = torch.tensor(grid.nodes[:-1], dtype=torch.float64)

    def height(cell):
        place = cell // grid.phases + nodes[cell % grid.phases]
        return (width - (tau - place.unsqueeze(1)).abs()).clamp(min=0) / width**2

    between = torch.lerp(height(cell), height(cell + 1), part.unsqueeze(1))
    torch.testing.assert_close(between, Triangle(width - 1).response(delays, 60), rtol=0, atol=1e-14)


def test_what_a_grid_cannot_do_is_left_to_taps():
    like = torch.zeros(STEPS, BATCH, NEURONS)
    delays = torch.rand(NEURONS, NEURONS)
    assert grid_for(Tents(delays, 2.5, Triangle(1.5)), like) is not None
    assert grid_for(Tents(delays[:1], 2.5, Triangle(1.5)), like) is None, "axonal delays have a better way"
    assert grid_for(Tents(delays, 2.5 + 1e-5, Triangle(1.5 + 1e-5)), like) is None, "float32 slopes over 1e-5 steps"
    assert grid_for(Tents(delays, 200.0, Triangle(199.0)), like) is None, "a line longer than the synapses are many"
    assert Gaussian(1.0).tents(delays) is None
    assert Triangle(torch.tensor(1.0, requires_grad=True)).tents(delays) is None


def test_memory_is_what_the_taps_remember():
    for kernel, delay in ((Linear(), 0.0), (Linear(), 2.5), (Triangle(2.0), 3.0), (Triangle(1.5), 3.2), (Hard(), 2.4)):
        delays = torch.full((2, 2), delay)
        assert kernel.tents(delays).memory() == kernel.taps(delays).depth()


def test_rows_are_padded_to_whole_vectors():
    assert [rollout_windows.padded(n) for n in (1, 8, 9, 32)] == [8, 8, 16, 32]
